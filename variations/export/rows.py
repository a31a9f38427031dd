"""What is to be exported: the rows that have an image, by split, in the order of their ids.

The metadata is in no order, and may have more rows than memory holds. Ids are hashes: rows are spread over files on
disk by the beginning of theirs, and each file is sorted when its turn comes.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import ROW_GROUP_ROWS
from variations.image_folder import SPLIT, kept_rows
from variations.splits import check_split
from variations.texts import json_value

# The name of the shards of images that have no split.
WITHOUT_SPLIT: Final = "data"
# Both are where something once lay, and mean nothing to who trains on it.
LEFT_OUT: Final = ("output_url", "redux_image")
ROWS_IN_MEMORY: Final = 20_000
_MOST_FILES: Final = 256
_ROWS_AT_ONCE: Final = 500
_DIGEST_BYTES: Final = 16
KEY_BYTES: Final = 36
KEY: Final = pa.binary(KEY_BYTES)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A row that has an image.

    Attributes:
        name: `<variation_id>[-k].<ext>`, its file's own name.
        file_name: its key in the dataset.
        sha256: what its content must have.
        record: its columns, as JSON values.
        columns: the same, as a table of one row.
        key: tells the image and the record from every other one.
    """

    name: str
    file_name: str
    sha256: str
    record: dict[str, Any] = field(repr=False)
    columns: pa.Table = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a dataset that have an image, in some of its splits.

    Args:
        metadata: the file.
        only: the splits; all if empty.
    """

    metadata: Path
    only: Collection[str] = ()

    def schema(self) -> pa.Schema:
        """Return the columns that are exported."""
        schema = pq.read_schema(self.metadata).remove_metadata()
        return pa.schema([one for one in schema if one.name not in LEFT_OUT])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, in the metadata's order."""
        columns = self.schema().names
        with pq.ParquetFile(self.metadata) as file:
            for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
                kept = kept_rows(batch)
                if self.only:
                    kept = kept.filter(pc.is_in(splits_of(kept), value_set=pa.array(list(self.only), pa.string())))
                if kept.num_rows:
                    yield kept.replace_schema_metadata(None)


def splits_of(batch: pa.RecordBatch) -> pa.Array:
    """Return the split of each row, `data` where it has none."""
    if SPLIT not in batch.schema.names:
        return pa.array([WITHOUT_SPLIT] * batch.num_rows, pa.string())
    return pc.fill_null(batch.column(SPLIT), WITHOUT_SPLIT)


def keys_of(batch: pa.RecordBatch) -> pa.Array:
    """Return what tells each image and its record from every other one: 20 bytes of its id, 16 of the record's hash."""
    return pa.array([_key(record) for record in _records(batch)], KEY)


def _key(record: dict[str, Any]) -> bytes:
    image = bytes.fromhex(record["variation_id"]) + int(record["output_index"]).to_bytes(4, "big")
    return image + hashlib.blake2b(json_line(record), digest_size=_DIGEST_BYTES).digest()


def json_line(record: dict[str, Any]) -> bytes:
    """Return a record as JSON, always the same for the same values."""
    return _ENCODER.encode(record).encode("utf-8", "backslashreplace")


def _records(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows as JSON values, their columns by name: the metadata's order may change, what is in it did not."""
    names = sorted(batch.schema.names)
    columns = [_json_values(batch.column(name)) for name in names]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _json_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values
    return [json_value(value) for value in values]


class SortedRows:
    """Rows, spread over files in a folder, and read again in the order of their ids.

    Args:
        folder: an empty folder.
        rows: about how many will come.
        schema: their columns.
    """

    def __init__(self, folder: Path, *, rows: int, schema: pa.Schema) -> None:
        self._schema = schema
        self._paths = [folder / f"{number:03d}.arrow" for number in range(_files_for(rows))]
        self.counts: dict[str, int] = {}

    def write(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Take all rows, a batch of them in memory."""
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with ExitStack() as stack:
            files = [stack.enter_context(pa.OSFile(str(path), "wb")) for path in self._paths]
            writers = [stack.enter_context(pa.ipc.new_stream(file, self._schema, options=options)) for file in files]
            for batch in batches:
                self._count(batch)
                numbers = self._file_numbers(batch)
                for number in np.unique(numbers):
                    writers[number].write_batch(batch.filter(pa.array(numbers == number)))

    def read(self, split: str) -> Iterator[Row]:
        """Yield the rows of a split in the order of their ids."""
        for path in self._paths:
            with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
                parts = [batch.filter(pc.equal(splits_of(batch), split)) for batch in reader]
            table = pa.Table.from_batches(parts, self._schema)
            table = table.sort_by([("variation_id", "ascending"), ("output_index", "ascending")]).combine_chunks()
            for start in range(0, table.num_rows, _ROWS_AT_ONCE):
                part = table.slice(start, _ROWS_AT_ONCE)
                for number, record in enumerate(_records(part)):
                    yield _row(record, part.slice(number, 1))

    def _count(self, batch: pa.RecordBatch) -> None:
        for one in pc.value_counts(splits_of(batch)).to_pylist():
            if one["values"] not in self.counts:
                check_split(one["values"])
            self.counts[one["values"]] = self.counts.get(one["values"], 0) + one["counts"]

    def _file_numbers(self, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
        beginnings = [int(text[:4], 16) for text in batch.column("variation_id").to_pylist()]
        return np.array(beginnings, np.int64) * len(self._paths) >> 16


def _files_for(rows: int) -> int:
    return min(_MOST_FILES, max(1, math.ceil(rows / ROWS_IN_MEMORY)))


def _row(record: dict[str, Any], columns: pa.Table) -> Row:
    return Row(
        name=record["file_name"].rpartition("/")[2],
        file_name=record["file_name"],
        sha256=record["sha256"],
        record=record,
        columns=columns,
        key=_key(record),
    )
