"""How a dataset stands: its runs, what is open, and how long the API still knows of it. Asks the API nothing."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow.parquet as pq

from variations.errors import BadInput, ObjectNotFound
from variations.layout import RUNS_PREFIX, receipt_key
from variations.ledger.lock import Seen, look
from variations.ledger.story import Item
from variations.metadata import fetched_metadata
from variations.recovery import LOOK_SECONDS
from variations.storage import Storage
from variations.texts import duration
from variations.under_way import SeenWorker, UnderWay, ago_text, read_under_way

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
        under_way: how far the run is that is open, if there is one.
    """

    destination: str
    rows: dict[str, int]
    seen: Seen | None
    runs: tuple[dict[str, Any], ...]
    open_requests: tuple[OpenRequest, ...]
    under_way: UnderWay | None = None

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
            "workers": [one.as_dict() for one in self._workers],
            "runs": [self._with_counts(receipt) for receipt in self.runs],
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
        lines += [("worker", one.told()) for one in self._workers]
        lines += [(f"run {receipt['run_id']}", self._told(receipt)) for receipt in self.runs]
        lines.append(("open requests", f"{len(self.open_requests):,}"))
        lines += [(one.variation_id, one.told()) for one in self.open_requests[:most]]
        if len(self.open_requests) > most:
            lines.append(("", f"… and {len(self.open_requests) - most:,} more"))
        return lines

    @property
    def _workers(self) -> list[SeenWorker]:
        return self.under_way.workers if self.under_way is not None else []

    def _with_counts(self, receipt: dict[str, Any]) -> dict[str, Any]:
        return {**receipt, **self.under_way.as_dict()} if self.under_way and receipt.get("is_open") else receipt

    def _told(self, receipt: dict[str, Any]) -> str:
        return self.under_way.told() if self.under_way and receipt.get("is_open") else _told(receipt)

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
        return ago_text(self.seen.age_seconds) if self.seen else ""


def _told(receipt: dict[str, Any]) -> str:
    if "kept" not in receipt:
        return "it ended before it paid for anything"
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
    names = {name async for name in storage.folders(RUNS_PREFIX)}
    if open_run is not None:
        # It has no folder before it is planned.
        names.add(open_run)
    receipts = [await _receipt(storage, name, is_open=name == open_run) for name in sorted(names, reverse=True)[:runs]]
    rows, requests = await _of_metadata(storage, now)
    if not (seen or names or rows):
        raise BadInput(
            f"no dataset at {storage.uri}: no run has written there yet; one that was just started on a Prefect server "
            "does so once its process has begun, some 15 s later"
        )
    under_way = None
    if seen is not None and open_run is not None:
        under_way = await read_under_way(storage, seen.run)
        # What its journals tell of a variation is newer than its row.
        requests |= {name: _open_request(item, open_run, now) for name, item in under_way.items.items()}
    return DatasetStatus(
        storage.uri, rows, seen, tuple(receipts), tuple(one for one in requests.values() if one), under_way
    )


def _open_request(item: Item, run_id: str, now: datetime) -> OpenRequest | None:
    """Return a variation of the run that is open; None if it is settled."""
    if not item.is_open:
        return None
    age = _age(item.intended_at, now)
    return OpenRequest(variation_id=item.variation_id, run_id=run_id, request_id=item.request_id, age_seconds=age)


async def _receipt(storage: Storage, run_id: str, *, is_open: bool) -> dict[str, Any]:
    try:
        found = json.loads(await storage.get(receipt_key(run_id)))
    except (ObjectNotFound, ValueError):
        found = {}
    return {**found, "run_id": run_id} if found and isinstance(found, dict) else {"run_id": run_id, "is_open": is_open}


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


def _age(moment: datetime | None, now: datetime) -> float | None:
    return max(0.0, (now - moment).total_seconds()) if moment else None
