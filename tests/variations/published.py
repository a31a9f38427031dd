"""A dataset that is published, by several at once: its rows, and refused ones."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import METADATA_KEY, parquet_bytes, rejected_table
from variations.layout import part_key
from variations.models import RejectedSource
from variations.storage import Storage

RUNS = [f"2024010{day}T000000Z-{day}" for day in range(1, 10)]


async def rows_of(storage: Storage) -> list[dict[str, Any]]:
    """Read the dataset, and check what holds of each."""
    rows = pq.read_table(io.BytesIO(await storage.get(METADATA_KEY))).to_pylist()
    keys = [(row["variation_id"], row["output_index"]) for row in rows]
    assert len(set(keys)) == len(keys), "an image has two rows"
    return rows


async def statuses(storage: Storage) -> dict[str, str]:
    """Return each source's status."""
    return {row["source_id"]: row["status"] for row in await rows_of(storage)}


async def refuse(storage: Storage, run_id: str, *rows: RejectedSource) -> None:
    """Write the part of a run's refused rows."""
    table = rejected_table(rows, labels=pa.schema([]), manifest="m.csv", run_id=run_id, model="flux-redux-dev")
    await storage.put(part_key(run_id, "rejected"), parquet_bytes(table))


class Interleaved:
    """A storage on which something else happens once, just before a call of a method."""

    def __init__(self, storage: Storage, **before: Callable[[], Awaitable[Any]]) -> None:
        self._storage = storage
        self._before = before
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Hand out the method, with what happens before it."""
        method = getattr(self._storage, name)
        if name not in {"head", "get_to_file", "replace", "put_if_absent"}:
            return method

        async def called(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            happens = self._before.pop(name, None)
            if happens is not None:
                await happens()
            return await method(*arguments, **named)

        return called


def refused(name: str, row: int = 1) -> RejectedSource:
    """Return a row that is refused, of a source with a name."""
    return RejectedSource(row, "guidance is 99", name, f"https://images.example.com/{name}.jpg")
