"""Rebuild `metadata.parquet` from what runs have written; it is derived, and never the truth.

The parts of the runs that have something new to say are merged into it; without a metadata file, the parts of all. The
file is replaced only if it is still the one that was read, so that an older view cannot overwrite a newer one.
"""

import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import METADATA_KEY, ROW_GROUP_ROWS, SCHEMA, conformed, metadata_writer, unified
from variations.errors import ObjectNotFound, PreconditionFailed, StorageError
from variations.known import Before, Known
from variations.layout import RUNS_PREFIX, parts_prefix
from variations.storage import Storage

ATTEMPTS: Final = 10
_PARQUET: Final = "application/vnd.apache.parquet"
_MERGED: Final = "merged.parquet"


async def part_keys(storage: Storage, run_id: str) -> list[str]:
    """Return the keys of a run's rows: of each shard the newest, and of the sources that it refused."""
    newest: dict[str, str] = {}
    async for entry in storage.list(f"{parts_prefix(run_id)}part-"):
        shard = entry.key.removeprefix(f"{parts_prefix(run_id)}part-").partition("-")[0]
        # In key order, and the number of a part is of a fixed width: the last one is the newest.
        newest[shard] = entry.key
    return sorted(newest.values())


async def _parts_of(storage: Storage, runs: Iterable[str] | None) -> list[str]:
    """Return the keys of the rows of runs, older runs first; of all if None."""
    if runs is None:
        runs = [name async for name in storage.folders(RUNS_PREFIX)]
    return [key for run_id in sorted(runs) for key in await part_keys(storage, run_id)]


@dataclass(frozen=True, slots=True)
class _File:
    """The metadata, or a part of a run's, fetched. Parts are numbered in their order; the metadata is before them."""

    uri: str
    path: Path
    number: int = -1

    @property
    def is_metadata(self) -> bool:
        """Return whether it is no part."""
        return self.number < 0

    def schema(self) -> pa.Schema:
        """Return its columns, once it has those that every row must have."""
        with self.readable():
            schema = pq.read_schema(self.path)
            missing = [name for name in _REQUIRED if name not in schema.names]
            if missing:
                raise ValueError(f"it has no column {missing[0]!r}")
        return schema

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield its rows."""
        return pq.ParquetFile(self.path).iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns)  # type: ignore[no-any-return]

    def rows(self, columns: list[str], *, status: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Yield some columns, `status` one of them, of the rows that are few."""
        wanted = pa.array(status)
        for batch in self.batches(columns):
            yield from batch.filter(pc.is_in(batch.column("status"), wanted)).to_pylist()

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn what reading a damaged or foreign file raises into one error, which says what to do about it."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
            reason = " ".join(str(error).replace(str(self.path), "it").split())
            advice = "its images, if no other file knows them, are then made and paid for again"
            if self.is_metadata:
                advice = "it is rebuilt from the parts that the runs have written"
            raise StorageError(
                f"{self.uri} is damaged, or another program's: {reason}. Move it away and run again; {advice}"
            ) from error


async def read_known(storage: Storage, *, runs: Iterable[str] = ()) -> Known:
    """Read what the dataset has: from its metadata, and from the rows of `runs` that are not in it yet.

    Raises:
        StorageError: the store says no, or a file there is damaged or another program's.
    """
    known = Known()
    has_metadata = await storage.exists(METADATA_KEY)
    keys = await _parts_of(storage, runs if has_metadata else None)
    with tempfile.TemporaryDirectory() as folder:
        for key in [METADATA_KEY, *keys] if has_metadata else keys:
            file = _File(storage.uri_of(key), Path(folder, "known.parquet"), -1 if key == METADATA_KEY else 0)
            await storage.get_to_file(key, file.path)
            await asyncio.to_thread(_add_known, file, known)
    return known


def _add_known(file: _File, known: Known) -> None:
    file.schema()
    with file.readable():
        _note_known(file, known)
        if file.is_metadata:
            known.rows = pq.read_metadata(file.path).num_rows


def _note_known(file: _File, known: Known) -> None:
    for batch in file.batches(["variation_id", "status", "output_index", "num_outputs"]):
        data = batch.to_pydict()
        rows = zip(data["variation_id"], data["status"], data["output_index"], data["num_outputs"], strict=True)
        for variation_id, status, index, of in rows:
            key = bytes.fromhex(variation_id)
            if of is not None and of > 1:
                outputs = known.outputs.setdefault(key, {})
                outputs[index] = outputs.get(index, False) or status in {"kept", "rejected"}
            if status == "kept":
                known.done.add(key)
                if of == 1:
                    known.held.pop(key, None)
    _note_splits(file, known)
    columns = ["variation_id", "status", "attempt", "run_id", "shard", "request_id", "cost_usd"]
    columns = [name for name in columns if name in pq.read_schema(file.path).names]
    for row in file.rows(columns, status=("unknown", "rejected", "failed")):
        if _is_refusal(row["status"], row["attempt"]):
            continue
        before = Before(row["attempt"], row["run_id"], row.get("shard"), row["request_id"])
        key = bytes.fromhex(row["variation_id"])
        known.note(row["status"], key, before)
        if row["cost_usd"]:
            known.note_paid(key, attempt=row["attempt"], cost_usd=row["cost_usd"])


def _note_splits(file: _File, known: Known) -> None:
    names = pq.read_schema(file.path).names
    if not {"split", "group_id"} <= set(names) or not any(
        batch.num_rows > batch.column(0).null_count for batch in file.batches(["split"])
    ):
        return
    for batch in file.batches(["split", "group_id", "source_id", "status"]):
        is_there = pc.and_(pc.is_valid(batch.column("split")), pc.is_in(batch.column("status"), _PERHAPS_THERE))
        table = pa.Table.from_batches([batch.filter(is_there)])
        # A source has a row for each of its images.
        rows = table.group_by(["split", "group_id", "source_id"], use_threads=False).aggregate([]).to_pydict()
        for split, group, source_id in zip(rows["split"], rows["group_id"], rows["source_id"], strict=True):
            if source_id is not None:
                known.groups.note(split, group, source_id)


_PERHAPS_THERE: Final = pa.array(["kept", "unknown"])
_SOURCE: Final = ("source_id", "source_uri")
_KEY: Final = ("variation_id", "output_index")
_LOOKED_AT: Final = (*_KEY, "status", "attempt", "run_id", *_SOURCE)
_REQUIRED: Final = (*(field.name for field in SCHEMA if not field.nullable), *_SOURCE)
# Whether it is kept, the attempt, whether it is known what became of it, the run: the greatest is the row that stands.
# An image that is there and paid for is never given up for a failure, nor what is known for what once was not; and a
# run whose rows are merged late must not undo what later ones said.
_Standing = tuple[bool, int, bool, str]


@dataclass(slots=True)
class _Newest:
    """Which part has the row that stands of each image, and which run has the last word on a refused source.

    Attributes:
        best: of each image in the parts, the standing of its best row and the number of its part.
        runs: of each source that was ever refused, the last run with a row of it.
    """

    best: dict[bytes, tuple[_Standing, int]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def expect(self, file: _File) -> None:
        """Note whom a file refuses: only of these it matters who has the last word."""
        for row in file.rows(["status", "attempt", *_SOURCE], status=("rejected",)):
            if not _is_refusal(row["status"], row["attempt"]):
                continue
            name = row["source_id"] or row["source_uri"]
            if name is not None:
                self.runs[name] = ""

    def add(self, part: _File) -> None:
        """Note the rows of a part; parts come in the order of their numbers."""
        # Few standings for many rows: each is made once.
        standings: dict[_Standing, tuple[_Standing, int]] = {}
        for batch in part.batches(list(_LOOKED_AT)):
            data = batch.to_pydict()
            for key, standing in zip(_keys(data), _standings(data), strict=True):
                known = self.best.get(key)
                if known is None or known[0] <= standing:
                    self.best[key] = standings.setdefault(standing, (standing, part.number))
            self._note_runs(data)

    def of_metadata(self, table: pa.Table) -> pa.Table:
        """Return the rows of the metadata that stand; the parts come after all of them."""
        data = table.select(list(_LOOKED_AT)).to_pydict()
        self._note_runs(data)
        keep = []
        for key, standing in zip(_keys(data), _standings(data), strict=True):
            known = self.best.get(key)
            if known is not None and known[0] < standing:
                self.best[key] = (standing, -1)
                known = None
            keep.append(known is None)
        return self._without_old_refusals(table, data, keep)

    def of_part(self, table: pa.Table, part: _File) -> pa.Table:
        """Return the rows of a part that stand."""
        data = table.select(list(_LOOKED_AT)).to_pydict()
        return self._without_old_refusals(table, data, [self.best[key][1] == part.number for key in _keys(data)])

    def _note_runs(self, data: dict[str, list[Any]]) -> None:
        for name, run_id in zip(_source_names(data), data["run_id"], strict=True):
            if name in self.runs and self.runs[name] < run_id:
                self.runs[name] = run_id

    def _without_old_refusals(self, table: pa.Table, data: dict[str, list[Any]], keep: list[bool]) -> pa.Table:
        rows = zip(keep, data["status"], data["attempt"], _source_names(data), data["run_id"], strict=True)
        stands = [
            kept
            and not (
                status == "rejected" and _is_refusal(status, attempt) and name is not None and self.runs[name] > run_id
            )
            for kept, status, attempt, name, run_id in rows
        ]
        return table.filter(pa.array(stands, pa.bool_()))


def _is_refusal(status: str, attempt: int) -> bool:
    """Return whether a row is one of the manifest that could not be used: nothing was ever attempted for it."""
    return status == "rejected" and not attempt


def _keys(data: dict[str, list[Any]]) -> Iterator[bytes]:
    pairs = zip(data["variation_id"], data["output_index"], strict=True)
    return (bytes.fromhex(variation_id) + index.to_bytes(4, "big") for variation_id, index in pairs)


def _standings(data: dict[str, list[Any]]) -> Iterator[_Standing]:
    rows = zip(data["status"], data["attempt"], data["run_id"], strict=True)
    return ((status == "kept", attempt, status != "unknown", run_id) for status, attempt, run_id in rows)


def _source_names(data: dict[str, list[Any]]) -> Iterator[str | None]:
    return (source_id or uri for source_id, uri in zip(data["source_id"], data["source_uri"], strict=True))


async def publish(storage: Storage, runs: Iterable[str], *, known: Known | None = None) -> int:
    """Merge the rows of runs into the metadata, and return how many rows it has then.

    Args:
        storage: the dataset.
        runs: those that have something new to say.
        known: is told what the dataset has then, as `read_known` would read it.

    Raises:
        PreconditionFailed: others replaced it every time, `ATTEMPTS` times.
        StorageError: the store says no, or a file there is damaged or another program's; nothing is replaced then.
    """
    runs = list(runs)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ATTEMPTS):
            try:
                rows = await _publish_once(storage, Path(folder), runs)
            except PreconditionFailed:
                continue
            if rows is not None:
                if known is not None:
                    merged = _File(storage.uri_of(METADATA_KEY), Path(folder, _MERGED))
                    await asyncio.to_thread(_add_known, merged, known)
                return rows
    raise PreconditionFailed(f"{storage.uri_of(METADATA_KEY)} was replaced by others {ATTEMPTS} times; run it again")


async def _publish_once(storage: Storage, folder: Path, runs: list[str]) -> int | None:
    """Merge and replace; None or PreconditionFailed say that somebody else was first."""
    before = await storage.head(METADATA_KEY)
    metadata = None
    if before is not None:
        metadata = _File(storage.uri_of(METADATA_KEY), folder / "before.parquet")
        try:
            await storage.get_to_file(METADATA_KEY, metadata.path)
        except ObjectNotFound:
            return None
    parts = []
    for number, key in enumerate(await _parts_of(storage, runs if before is not None else None)):
        parts.append(_File(storage.uri_of(key), folder / f"part-{number}.parquet", number))
        await storage.get_to_file(key, parts[-1].path)
    merged = folder / _MERGED
    rows = await asyncio.to_thread(_merge, metadata, parts, merged)
    if before is not None:
        await storage.replace(METADATA_KEY, merged, etag=before.etag, content_type=_PARQUET)
        return rows
    content = await asyncio.to_thread(merged.read_bytes)
    return rows if await storage.put_if_absent(METADATA_KEY, content, content_type=_PARQUET) else None


def _merge(metadata: _File | None, parts: list[_File], merged: Path) -> int:
    """Write one file of several, each image once: row groups pass through, only keys are held."""
    files = [*([metadata] if metadata else []), *parts]
    schema = unified([file.schema() for file in files])
    newest = _Newest()
    for file in files:
        with file.readable():
            newest.expect(file)
    for part in parts:
        with part.readable():
            newest.add(part)
    rows = 0
    with metadata_writer(merged, schema) as writer:
        for file in files:
            for table in _standing(file, newest, schema):
                rows += table.num_rows
                if table.num_rows:
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return rows


def _standing(file: _File, newest: _Newest, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a file that stand, in the schema of all."""
    with file.readable():
        if file.is_metadata:
            for batch in file.batches():
                yield conformed(newest.of_metadata(pa.Table.from_batches([batch])), schema)
        else:
            yield conformed(newest.of_part(pq.read_table(file.path), file), schema)
