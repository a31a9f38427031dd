"""The whole story of one variation, attempt by attempt, from the journals."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from variations.errors import BadInput
from variations.gate import reasons_of
from variations.identity import rerolled
from variations.ledger.journal import Journal, read_groups
from variations.ledger.lock import look
from variations.ledger.records import Accepted, Ended, Intended, Record, Settled, Withdrawn
from variations.ledger.story import Story
from variations.metadata import fetched_metadata
from variations.models import Attempt, ImageOutcome
from variations.parameters import PARAMETER_NAMES
from variations.recovery import shards_begun
from variations.storage import Storage
from variations.texts import json_value

_ID_DIGITS: Final = 32
# More are not asked for by hand.
_MOST_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was written down of a variation, at a moment of the store's clock."""

    at: datetime
    run_id: str
    shard: int
    what: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A variation's rows in the metadata, its events, the oldest first, and what took its place if it was flagged."""

    variation_id: str
    rows: tuple[dict[str, Any], ...]
    events: tuple[Event, ...]
    made_again_as: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        events = [{**asdict(one), "at": one.at.isoformat()} for one in self.events]
        rows = [{name: json_value(value) for name, value in row.items()} for row in self.rows]
        return {"variation_id": self.variation_id, "rows": rows, "events": events, "made_again_as": self.made_again_as}

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values for people."""
        lines = [("variation", self.variation_id)]
        for row in self.rows:
            name = f"image {row['output_index']}"
            told = [row["status"], row["file_name"] or "", row["error"] or "", f"{row['cost_usd']:.3f} USD"]
            lines.append((name, ", ".join(part for part in told if part)))
        if self.rows:
            first = self.rows[0]
            source = [first["source_id"], first["source_uri"]]
            lines.append(("source", ", ".join(dict.fromkeys(part for part in source if part))))
            given = [f"{name} {first[name]}" for name in PARAMETER_NAMES if first.get(name) is not None]
            lines += [("parameters", ", ".join(given))] if given else []
            lines += [("request", row["request_id"]) for row in self.rows[:1] if row["request_id"]]
        run_id = ""
        for event in self.events:
            if event.run_id != run_id:
                run_id = event.run_id
                lines.append(("run", f"{run_id}, shard {event.shard}"))
            lines.append((f"{event.at:%Y-%m-%d %H:%M:%S}", event.what))
        lines += [("made again", f"as {self.made_again_as}")] if self.made_again_as else []
        return lines


async def explain(storage: Storage, name: str) -> Explanation:
    """Tell what is known of a variation.

    Args:
        storage: the dataset.
        name: its id, the beginning of it, or the name of its image.

    Raises:
        BadInput: there is none of that name, or there are several.
        StorageError: the store says no.
    """
    beginning = Path(name).stem.partition("-")[0].lower()
    rows = await _rows(storage, beginning)
    # Rows of refused sources have no shard, nor have those of datasets that were made before there were journals.
    places = {(row["variation_id"], row["run_id"], row.get("shard")) for row in rows}
    places |= await _places_in_open_run(storage, beginning)
    ids = {variation_id for variation_id, _, _ in places}
    if not ids:
        raise BadInput(f"{storage.uri} has no variation {name!r}: its ids stand in the column variation_id")
    if len(ids) > 1:
        raise BadInput(f"{len(ids)} variations begin with {beginning!r}, such as {', '.join(sorted(ids)[:3])}")
    variation_id = ids.pop()
    events: list[Event] = []
    told: set[tuple[str, int]] = set()
    waiting = sorted({(run_id, shard) for _, run_id, shard in places if shard is not None})
    while waiting and len(told) < _MOST_ATTEMPTS:
        run_id, shard = waiting.pop()
        if (run_id, shard) in told:
            continue
        told.add((run_id, shard))
        found, before = await _events(storage, variation_id, run_id, shard)
        # From the newest run back: what was written within one second of the store's clock stays in its order.
        events = found + events
        waiting += [(attempt.run_id, attempt.shard) for attempt in before]
    events.sort(key=lambda event: event.at)
    return Explanation(variation_id, tuple(rows), tuple(events), await _made_again_as(storage, variation_id, rows))


async def _made_again_as(storage: Storage, variation_id: str, rows: list[dict[str, Any]]) -> str | None:
    """Return the id of what was made in the place of a variation that was flagged and dropped."""
    if not any(row["status"] == "rejected" for row in rows):
        return None
    following, _ = rerolled(variation_id)
    return following if await _rows(storage, following) else None


async def _rows(storage: Storage, beginning: str) -> list[dict[str, Any]]:
    if not beginning:
        return []
    wanted = ("variation_id", ">=", beginning), ("variation_id", "<=", beginning.ljust(_ID_DIGITS, "f"))
    async with fetched_metadata(storage) as path:
        rows: list[dict[str, Any]] = pq.read_table(path, filters=[*wanted]).to_pylist() if path else []
    return sorted(rows, key=lambda row: (row["variation_id"], row["output_index"]))


async def _places_in_open_run(storage: Storage, beginning: str) -> set[tuple[str, str, int]]:
    seen = await look(storage)
    if seen is None or seen.run.state == "closed" or not beginning:
        return set()
    run_id = seen.run.run_id
    places = set()
    for shard in await shards_begun(storage, run_id):
        journal = Journal(storage, run_id=run_id, shard=shard, writer="")
        await journal.replay()
        places |= {(item, run_id, journal.shard) for item in journal.story.items if item.startswith(beginning)}
    return places


async def _events(storage: Storage, variation_id: str, run_id: str, shard: int) -> tuple[list[Event], list[Attempt]]:
    events: list[Event] = []
    before: list[Attempt] = []
    story = Story()
    token = ""
    async for group, at in read_groups(storage, run_id, shard):
        # One process may write as several writers, one after the other.
        last, token = token, group.header.writer.partition(".")[0]
        item = story.items.get(variation_id)
        if last not in {"", token} and item is not None and item.is_open:
            events.append(Event(at, run_id, shard, "another process took the journal over"))
        for record in group.records:
            if isinstance(record, Ended) or record.variation_id != variation_id:
                continue
            story.add(record, at)
            if isinstance(record, Intended) and record.before is not None:
                before.append(record.before)
            events.append(Event(at, run_id, shard, _told(record)))
    return events, before


def _told(record: Record) -> str:
    match record:
        case Intended():
            how = f"attempt {record.attempt}"
            if record.rolled_from is not None:
                how = f"in the place of {record.rolled_from}, which was flagged"
            return f"about to be submitted, {how}"
        case Withdrawn():
            return f"not submitted: {record.reason}"
        case Accepted(found_in="answer"):
            return f"accepted as request {record.request_id}"
        case Accepted():
            where = "the request history" if record.found_in == "history" else "the note of a process that was replaced"
            return f"accepted as request {record.request_id}, found in {where}"
        case Settled():
            return "; ".join(
                " ".join(
                    filter(None, [image.status, _flagged(image), image.error_code, image.error and f"({image.error})"])
                )
                + (f", {image.cost_usd:.3f} USD" if image.cost_usd else "")
                for image in record.images
            )
        case Ended():
            return "the shard was done with"


def _flagged(image: ImageOutcome) -> str:
    """Return why an image that is kept was flagged; nothing if it was not."""
    is_kept = image.status == "kept" and image.measures is not None
    return (
        f"({image.measures.verdict})" if is_kept and image.measures and any(reasons_of(image.measures.verdict)) else ""
    )
