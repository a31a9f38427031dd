"""The variations that are to be made, as they are spooled, cut into shards, and read from a shard again.

A plan is written to the destination before anything is paid, so that any machine can take a shard of it. It holds no
signature: a source whose URL came signed is remembered beside the plan, in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import metadata_writer, rejected_table
from variations.known import Before
from variations.models import Attempt, RejectedSource, Source, Variation
from variations.parameters import Parameters

SPOOL_ROWS: Final = 10_000


class PlannedRow(NamedTuple):
    """A variation that is to be made, as it is spooled: a `Variation` of each would be most of the time."""

    variation_id: str
    number: int
    seed: int
    parameters: str
    source: Source
    before: Before | None
    roll: int = 0
    paid_before_usd: float = 0.0

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1."""
        return self.before.attempt + 1 if self.before else 1


class Spool:
    """Local files for what a manifest comes to: the variations that are to be made, and the rows of refused sources.

    Args:
        folder: where they are written.
        source: the manifest, by its URI.
        run_id, model: of the run, for the refused rows.
    """

    def __init__(self, folder: Path, *, source: str, run_id: str, model: str) -> None:
        self.variations = folder / "variations.parquet"
        self.rejected = folder / "rejected.parquet"
        self._of_run = {"manifest": source, "run_id": run_id, "model": model}
        self._writers: dict[Path, pq.ParquetWriter] = {}

    def add_variations(self, rows: "list[PlannedRow]", labels: pa.Schema) -> None:
        """Write variations that are to be made."""
        batch = _batch(rows, labels)
        if self.variations not in self._writers:
            self._writers[self.variations] = pq.ParquetWriter(self.variations, batch.schema)
        self._writers[self.variations].write_batch(batch)

    def add_rejected(self, rows: list[RejectedSource], labels: pa.Schema) -> None:
        """Write rows of refused sources."""
        table = rejected_table(rows, labels=labels, **self._of_run)
        if self.rejected not in self._writers:
            self._writers[self.rejected] = metadata_writer(self.rejected, table.schema)
        self._writers[self.rejected].write_table(table)

    def __enter__(self) -> None:
        """Begin; the end finishes the files."""

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()


def plan_schema(labels: pa.Schema) -> pa.Schema:
    """Return the schema of a plan's shard; the labels are one struct, so that no name of theirs can collide."""
    fields = [
        pa.field("variation_id", pa.string(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("parameters", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("has_id", pa.bool_(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("group_id", pa.string()),
        pa.field("before_run", pa.string()),
        pa.field("before_shard", pa.int32()),
        pa.field("before_request", pa.string()),
        pa.field("roll", pa.int32()),
        pa.field("paid_before_usd", pa.float64()),
    ]
    if len(labels):
        fields.append(pa.field("labels", pa.struct(list(labels))))
    return pa.schema(fields)


def _batch(rows: list[PlannedRow], labels: pa.Schema) -> pa.RecordBatch:
    schema = plan_schema(labels)
    columns: dict[str, list[Any]] = {
        "variation_id": [row.variation_id for row in rows],
        "number": [row.number for row in rows],
        "attempt": [row.attempt for row in rows],
        "seed": [row.seed for row in rows],
        "parameters": [row.parameters for row in rows],
        "row": [row.source.row for row in rows],
        "source_id": [row.source.source_id for row in rows],
        "source_uri": [row.source.public_uri for row in rows],
        "version": [row.source.version for row in rows],
        "has_id": [row.source.has_id for row in rows],
        "split": [row.source.split for row in rows],
        "group_id": [row.source.group for row in rows],
        "before_run": [row.before.run_id if row.before else None for row in rows],
        "before_shard": [row.before.shard if row.before else None for row in rows],
        "before_request": [row.before.request_id if row.before else None for row in rows],
        "roll": [row.roll for row in rows],
        "paid_before_usd": [row.paid_before_usd for row in rows],
    }
    if len(labels):
        columns["labels"] = [row.source.labels for row in rows]
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def cut(spool: Path, shard_size: int, *, first: Sequence[int] = ()) -> Iterator[pa.Table]:
    """Yield the spooled variations shard by shard, in bounded memory; synchronous, for a thread.

    Args:
        spool: the variations that are to be made.
        shard_size: how many a shard holds.
        first: numbers of those that make shards of their own, before all others; in their order.
    """
    if not spool.exists():
        return
    if first:
        yield from _shards(_batches(spool, shard_size, first=first, are_first=True), shard_size)
    yield from _shards(_batches(spool, shard_size, first=first, are_first=False), shard_size)


def _batches(spool: Path, shard_size: int, *, first: Sequence[int], are_first: bool) -> Iterator[pa.RecordBatch]:
    """Yield the first ones, or all others."""
    numbers = np.asarray(first, np.int64)
    at = 0
    for batch in pq.ParquetFile(spool).iter_batches(batch_size=min(shard_size, SPOOL_ROWS)):
        here = numbers[np.searchsorted(numbers, at) : np.searchsorted(numbers, at + batch.num_rows)] - at
        at += batch.num_rows
        if not len(here) and not are_first:
            yield batch
            continue
        is_in = np.full(batch.num_rows, not are_first)
        is_in[here] = are_first
        yield batch.filter(pa.array(is_in))


def _shards(batches: Iterable[pa.RecordBatch], shard_size: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= shard_size:
            table = pa.Table.from_batches(held)
            yield table.slice(0, shard_size)
            rest = table.slice(shard_size)
            held, rows = rest.to_batches(), rest.num_rows
    if rows:
        yield pa.Table.from_batches(held)


@lru_cache(maxsize=4096)
def _parameters_of_json(text: str) -> Parameters:
    return Parameters.model_validate_json(text)


def variations_of(shard: pa.Table, *, signed: dict[str, str]) -> Iterator[Variation]:
    """Yield the variations of a shard as they were planned; what a row overrode is in its parameters alone.

    Args:
        shard: a table in the `plan_schema`.
        signed: from the planner; sources that are not in it are used under their public URI.
    """
    for row in shard.to_pylist():
        uri = row["source_uri"]
        yield Variation(
            variation_id=row["variation_id"],
            source=Source(
                row=row["row"],
                source_id=row["source_id"],
                uri=signed.get(uri, uri),
                public_uri=uri,
                version=row["version"],
                has_id=row["has_id"],
                labels=row.get("labels") or {},
                # A plan that an older version wrote has none.
                split=row.get("split"),
                group=row.get("group_id"),
            ),
            number=row["number"],
            parameters=_parameters_of_json(row["parameters"]).model_copy(update={"seed": row["seed"]}),
            attempt=row["attempt"],
            before=(
                Attempt(row["before_run"], row["before_shard"], row["before_request"])
                if row["before_shard"] is not None
                else None
            ),
            roll=row.get("roll") or 0,
            paid_before_usd=row.get("paid_before_usd") or 0.0,
        )


def label_schema_of(shard: pa.Table) -> pa.Schema:
    """Return names and types of the labels of a shard."""
    if "labels" not in shard.schema.names:
        return pa.schema([])
    return pa.schema(list(shard.schema.field("labels").type))
