"""Rebuild `metadata.parquet` from what runs have written; it is derived, and never the truth.

A run is published once its receipt is there. The parts of those that are not yet, this run's and any that was
killed, are merged into the metadata; without a metadata file, the parts of all. The file is replaced only if it is
still the one that was read, so that an older view cannot overwrite a newer one.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import METADATA_KEY, ROW_GROUP_ROWS, conformed, metadata_writer, unified
from variations.errors import PreconditionFailed
from variations.plan import Known
from variations.storage import Storage

RUNS_PREFIX: Final = "_runs/"
RECEIPT_NAME: Final = "receipt.json"
ATTEMPTS: Final = 10
_PARQUET: Final = "application/vnd.apache.parquet"


def part_key(run_id: str, part: str) -> str:
    """Return the key of a part of a run's metadata."""
    return f"{RUNS_PREFIX}{run_id}/metadata/part-{part}.parquet"


async def part_keys(storage: Storage, *, all_runs: bool) -> list[str]:
    """Return the keys of the parts that are not in the metadata yet, or of all, older runs first."""
    parts: list[str] = []
    published: set[str] = set()
    async for entry in storage.list(RUNS_PREFIX):
        run_id, _, rest = entry.key.removeprefix(RUNS_PREFIX).partition("/")
        if rest == RECEIPT_NAME:
            published.add(run_id)
        elif rest.startswith("metadata/part-"):
            parts.append(entry.key)
    return [key for key in parts if all_runs or key.split("/")[1] not in published]


async def read_known(storage: Storage) -> Known:
    """Read what the dataset has: from its metadata, and from the parts that are not in it yet."""
    known = Known()
    has_metadata = await storage.exists(METADATA_KEY)
    keys = await part_keys(storage, all_runs=not has_metadata)
    with tempfile.TemporaryDirectory() as folder:
        for key in [METADATA_KEY, *keys] if has_metadata else keys:
            path = Path(folder, "known.parquet")
            await storage.get_to_file(key, path)
            await asyncio.to_thread(_add_known, path, known)
    return known


def _add_known(path: Path, known: Known) -> None:
    columns = ["variation_id", "status", "attempt"]
    for batch in pq.ParquetFile(path).iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
        data = batch.to_pydict()
        for variation_id, status, attempt in zip(*(data[name] for name in columns), strict=True):
            key = bytes.fromhex(variation_id)
            if status in {"kept", "unknown"}:
                known.done.add(key)
                known.failed.pop(key, None)
            elif status == "failed" and key not in known.done:
                known.failed[key] = max(attempt, known.failed.get(key, 0))


@dataclass(slots=True)
class _Newest:
    """Which part has the newest row of each image, and which sources have a newer word than an old refusal."""

    part_of: dict[tuple[str, int], int] = field(default_factory=dict)
    sources: set[str | None] = field(default_factory=set)

    def add(self, path: Path, part: int) -> None:
        for batch in pq.ParquetFile(path).iter_batches(columns=["variation_id", "output_index", *_SOURCE]):
            data = batch.to_pydict()
            for variation_id, index in zip(data["variation_id"], data["output_index"], strict=True):
                self.part_of[variation_id, index] = part
            self.sources.update(_source_names(data))

    def of_metadata(self, table: pa.Table) -> pa.Table:
        """Return the rows that no part replaces."""
        data = table.select(["variation_id", "output_index", "status", *_SOURCE]).to_pydict()
        keys = zip(data["variation_id"], data["output_index"], strict=True)
        refused = (status == "rejected" for status in data["status"])
        keep = [
            key not in self.part_of and not (is_refused and name in self.sources)
            for key, is_refused, name in zip(keys, refused, _source_names(data), strict=True)
        ]
        return table.filter(pa.array(keep, pa.bool_()))

    def of_part(self, table: pa.Table, part: int) -> pa.Table:
        """Return the rows for which this part is the newest."""
        data = table.select(["variation_id", "output_index"]).to_pydict()
        keys = zip(data["variation_id"], data["output_index"], strict=True)
        return table.filter(pa.array([self.part_of[key] == part for key in keys], pa.bool_()))


_SOURCE: Final = ("source_id", "source_uri")


def _source_names(data: dict[str, list[str | None]]) -> Iterator[str | None]:
    return (source_id or uri for source_id, uri in zip(data["source_id"], data["source_uri"], strict=True))


async def publish(storage: Storage) -> int:
    """Merge what is not in the metadata yet, and return how many rows it has then.

    Raises:
        PreconditionFailed: others replaced it every time, `ATTEMPTS` times.
        StorageError: the store says no.
    """
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ATTEMPTS):
            before = await storage.head(METADATA_KEY)
            paths = []
            if before is not None:
                paths.append(Path(folder, "before.parquet"))
                await storage.get_to_file(METADATA_KEY, paths[0])
            for number, key in enumerate(await part_keys(storage, all_runs=before is None)):
                paths.append(Path(folder, f"part-{number}.parquet"))
                await storage.get_to_file(key, paths[-1])
            merged = Path(folder, "merged.parquet")
            rows = await asyncio.to_thread(_merge, paths, merged, has_metadata=before is not None)
            try:
                if before is not None:
                    await storage.replace(METADATA_KEY, merged, etag=before.etag, content_type=_PARQUET)
                    return rows
                if await storage.put_if_absent(METADATA_KEY, await asyncio.to_thread(merged.read_bytes)):
                    return rows
            except PreconditionFailed:
                continue
    raise PreconditionFailed(f"{storage.uri_of(METADATA_KEY)} was replaced by others {ATTEMPTS} times; run it again")


def _merge(paths: list[Path], merged: Path, *, has_metadata: bool) -> int:
    """Write one file of several, each image once: row groups pass through, only keys are held."""
    newest = _Newest()
    parts = paths[1:] if has_metadata else paths
    for number, path in enumerate(parts):
        newest.add(path, number)
    schema = unified(pq.read_schema(path) for path in paths)
    rows = 0
    with metadata_writer(merged, schema) as writer:

        def write(table: pa.Table) -> None:
            nonlocal rows
            rows += table.num_rows
            if table.num_rows:
                writer.write_table(conformed(table, schema), row_group_size=ROW_GROUP_ROWS)

        if has_metadata:
            for batch in pq.ParquetFile(paths[0]).iter_batches(batch_size=ROW_GROUP_ROWS):
                write(newest.of_metadata(pa.Table.from_batches([batch])))
        for number, path in enumerate(parts):
            write(newest.of_part(pq.read_table(path), number))
    return rows
