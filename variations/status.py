"""How a dataset stands: its runs, what is open, and how long the API still knows of it. Asks the API nothing."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import METADATA_KEY
from variations.errors import BadInput, ObjectNotFound, StorageError
from variations.layout import RUNS_PREFIX, receipt_key
from variations.ledger.journal import Journal
from variations.ledger.lock import Seen, look
from variations.receipt import duration
from variations.recovery import LOOK_SECONDS, at_once, shards_begun
from variations.storage import Storage
from variations.workers.roster import Roster, Sign

RESULT_LIFETIME_SECONDS: Final = 3600.0
OUTPUT_LIFETIME_SECONDS: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A variation that is or may be paid for, and is not settled; `age_seconds` since it was submitted."""

    variation_id: str
    run_id: str
    request_id: str | None
    age_seconds: float | None

    def told(self) -> str:
        """Say how long it can still be had."""
        age = self.age_seconds
        if self.request_id is None:
            if age is not None and age > LOOK_SECONDS:
                return "it is not known whether it was accepted; the request history does not reach back so far"
            return "it is not known whether it was accepted; the next run looks for it in the request history"
        if age is None:
            return f"accepted as {self.request_id}"
        if age < RESULT_LIFETIME_SECONDS:
            return f"accepted as {self.request_id}; the API forgets it in {duration(RESULT_LIFETIME_SECONDS - age)}"
        if age < OUTPUT_LIFETIME_SECONDS:
            left = duration(OUTPUT_LIFETIME_SECONDS - age)
            return f"accepted as {self.request_id}; forgotten by the API; its image can be had for about {left} yet"
        return f"accepted as {self.request_id}; its image is not to be had any more"


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """How a dataset stands.

    Attributes:
        rows: images by their status, as the metadata has them.
        seen: who works on it, or did last; None if that is not known.
        runs: receipts of its last runs, newest first; of one that has none the `run_id` and whether it `is_open`.
        open_requests: of a run that is open, and of those before.
        workers: that give signs of life, each with what it has done; none where a run does its work itself.
    """

    destination: str
    rows: dict[str, int]
    seen: Seen | None
    runs: tuple[dict[str, Any], ...]
    open_requests: tuple[OpenRequest, ...]
    workers: tuple[Sign, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        run = self.seen.run if self.seen else None
        return {
            "destination": self.destination,
            "rows": self.rows,
            "open_run": run.run_id if run and run.state == "open" else None,
            "at_work": self._at_work(),
            "works_on_it": str(run.writer) if run and run.writer and not run.writer.is_certainly_dead() else None,
            "sign_of_life_seconds": self.seen.age_seconds if self.seen and run and run.writer else None,
            "workers": [{"works": str(one.writer), "kept": one.kept, "failed": one.failed} for one in self.workers],
            "runs": list(self.runs),
            "open_requests": [
                {"variation_id": one.variation_id, "run_id": one.run_id, "request_id": one.request_id}
                | {"age_seconds": one.age_seconds, "told": one.told()}
                for one in self.open_requests
            ],
        }

    def lines(self, *, most: int) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them; at most so many open requests."""
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(self.rows.items()))
        lines = [("dataset", self.destination), ("images", counts or "none yet"), ("at work", self._at_work())]
        lines += [("worker", f"{one.writer}: {one.kept:,} kept, {one.in_flight} in flight") for one in self.workers]
        lines += [(f"run {receipt['run_id']}", _told(receipt)) for receipt in self.runs]
        lines.append(("open requests", f"{len(self.open_requests):,}"))
        lines += [(one.variation_id, one.told()) for one in self.open_requests[:most]]
        if len(self.open_requests) > most:
            lines.append(("", f"… and {len(self.open_requests) - most:,} more"))
        return lines

    def _at_work(self) -> str:
        if self.seen is None or self.seen.run.state == "closed":
            return "nobody; every run is closed"
        run = self.seen.run
        if run.writer is None:
            return f"nobody; the run {run.run_id} is open, and the next one takes it in hand"
        if run.writer.is_certainly_dead():
            return f"nobody; the run {run.run_id} died ({run.writer}), and the next one takes it in hand"
        told = f"{run.writer}, at the run {run.run_id}; its last sign of life was {self._silence()} ago"
        if not self.seen.is_at_work:
            return f"{told}: it is most likely gone, and the next run takes it in hand"
        return told

    def _silence(self) -> str:
        # Clocks of stores tell whole seconds.
        return duration(round(self.seen.age_seconds)).replace(".0 s", " s") if self.seen else ""


def _told(receipt: dict[str, Any]) -> str:
    if "kept" not in receipt:
        return "it is open, and has no receipt yet" if receipt["is_open"] else "it ended before it paid for anything"
    if not receipt.get("source"):
        found = receipt.get("recovery", {})
        return f"looked after what was open: {found.get('kept', 0):,} kept, {found.get('still_unknown', 0):,} unknown"
    parts = [f"{receipt['kept']:,} of {receipt['wanted']:,} kept"]
    parts += [f"{receipt[name]:,} {name}" for name in ("failed", "unknown", "dropped", "left") if receipt.get(name)]
    parts.append(f"{receipt['cost_usd']:.3f} USD")
    parts += [f"{receipt['cost_at_risk_usd']:.3f} at risk"] if receipt["cost_at_risk_usd"] else []
    return ", ".join(parts) + (f"; stopped: {receipt['stopped_by']}" if receipt["stopped_by"] else "")


async def read_status(storage: Storage, *, runs: int) -> DatasetStatus:
    """Look at a dataset, and at its last `runs` runs; writes nothing.

    Raises:
        BadInput: nothing of ours lies there.
        StorageError: the store says no, or what lies there is damaged.
    """
    seen = await look(storage)
    now = await storage.now()
    open_run = seen.run.run_id if seen is not None and seen.run.state == "open" else None
    names = [name async for name in storage.folders(RUNS_PREFIX)]
    receipts = [await _receipt(storage, name, is_open=name == open_run) for name in sorted(names, reverse=True)[:runs]]
    rows, requests = await _of_metadata(storage, now)
    if not (seen or names or rows):
        raise BadInput(f"no dataset at {storage.uri}: no run has ever written there")
    workers: tuple[Sign, ...] = ()
    if seen is not None and open_run is not None:
        roster = Roster(storage, open_run, lease_seconds=seen.run.lease_seconds)
        living = set(await roster.living())
        workers = tuple(sign for sign in await roster.signs() if sign.writer.token in living)
        # What its journals tell of a variation is newer than its row.
        told = await _of_journals(storage, open_run, now)
        requests |= told
    return DatasetStatus(
        storage.uri, rows, seen, tuple(receipts), tuple(one for one in requests.values() if one), workers
    )


async def _receipt(storage: Storage, run_id: str, *, is_open: bool) -> dict[str, Any]:
    try:
        found = json.loads(await storage.get(receipt_key(run_id)))
    except (ObjectNotFound, ValueError):
        found = {}
    return {**found, "run_id": run_id} if found and isinstance(found, dict) else {"run_id": run_id, "is_open": is_open}


@asynccontextmanager
async def fetched_metadata(storage: Storage) -> AsyncIterator[Path | None]:
    """Fetch the metadata into a temporary file; None if there is none.

    Raises:
        StorageError: the store says no, or what lies there cannot be read as metadata.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metadata.parquet")
        has_metadata = await storage.exists(METADATA_KEY)
        if has_metadata:
            await storage.get_to_file(METADATA_KEY, path)
        try:
            yield path if has_metadata else None
        except (pa.ArrowException, KeyError, OSError) as error:
            reason = " ".join(str(error).replace(str(path), "it").split())
            raise StorageError(
                f"{storage.uri_of(METADATA_KEY)} is damaged, or another program's: {reason}. Move it away and run "
                "again; it is rebuilt from the parts that the runs have written"
            ) from error


async def _of_metadata(storage: Storage, now: datetime) -> tuple[dict[str, int], dict[str, OpenRequest | None]]:
    async with fetched_metadata(storage) as path:
        if path is None:
            return {}, {}
        counts = pq.read_table(path, columns=["status"]).column("status").value_counts().to_pylist()
        columns = ["variation_id", "run_id", "request_id", "submitted_at"]
        unknown = pq.read_table(path, columns=columns, filters=[("status", "=", "unknown")]).to_pylist()
    requests: dict[str, OpenRequest | None] = {
        row["variation_id"]: OpenRequest(
            variation_id=row["variation_id"],
            run_id=row["run_id"],
            request_id=row["request_id"],
            age_seconds=_age(row["submitted_at"], now),
        )
        for row in unknown
    }
    return {one["values"]: one["counts"] for one in counts}, requests


async def _of_journals(storage: Storage, run_id: str, now: datetime) -> dict[str, OpenRequest | None]:
    """Return the variations of a run; None stands for one that is settled."""
    requests: dict[str, OpenRequest | None] = {}

    async def add(shard: int) -> None:
        journal = Journal(storage, run_id=run_id, shard=shard, writer="")
        await journal.replay()
        for name, item in journal.story.items.items():
            age = _age(item.intended_at, now)
            asked = OpenRequest(variation_id=name, run_id=run_id, request_id=item.request_id, age_seconds=age)
            requests[name] = asked if item.is_open else None

    await at_once(add, await shards_begun(storage, run_id))
    return requests


def _age(moment: datetime | None, now: datetime) -> float | None:
    return max(0.0, (now - moment).total_seconds()) if moment else None
