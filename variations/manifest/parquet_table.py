"""Parquet files as tables; texts in them are bounded, and so is the memory that a chunk takes."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.manifest.columns import Column, shown_names
from variations.manifest.labels import MAX_INT64, STRING, from_values, holds_texts, type_of_column
from variations.manifest.tables import Chunk, Table

_PARQUET_BATCH_BYTES: Final = 32 * 2**20
_LONGEST_TEXT_BYTES: Final = 2**20
_FEW_BYTES: Final = 16 * 2**10


class ParquetTable(Table):
    """A parquet file. Labels keep their Arrow types."""

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__(path, where=where)
        with self._reading() as file:
            schema, metadata = file.schema_arrow, file.metadata
            size = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
            self._rows = metadata.num_rows
            # `datasets` loads no column with such a number, and so no image beside it.
            is_unsigned = [field.name for field in schema if pa.types.is_uint64(field.type)]
            self._as_text = {name for name in is_unsigned if _is_large(file, name)}
        self._bytes_per_row = size // max(1, self._rows)
        self.columns = [
            Column(field.name, STRING if field.name in self._as_text else type_of_column(field.type))
            for field in schema
        ]
        self.rows_found = self._rows > 0

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the table in chunks of at most `rows` rows, fewer where rows are large (images held as bytes)."""
        bytes_per_row = max(self._bytes_per_row, self._longest_repeated(rows))
        rows = max(1, min(rows, _PARQUET_BATCH_BYTES // max(1, bytes_per_row)))
        done = 0
        with self._reading() as file:
            batches = file.iter_batches(batch_size=rows)
            while (batch := next(batches, None)) is not None:
                for field, column in zip(batch.schema, batch.columns, strict=True):
                    self._check_texts(field.name, column, first=done + 1, last=done + batch.num_rows)
                columns = [
                    from_values(values, STRING) if name in self._as_text else values
                    for name, values in zip(
                        batch.schema.names, (_plain(column).to_pylist() for column in batch.columns), strict=True
                    )
                ]
                yield Chunk(numbers=range(done + 1, done + 1 + batch.num_rows), columns=columns)
                done += batch.num_rows

    def _longest_repeated(self, rows: int) -> int:
        """Return the bytes of the longest value that a dictionary holds, where so many rows of it could fill memory.

        A value stands in a dictionary once, whatever the number of its rows, so the file's size says nothing of it. To
        read a single row is to read the dictionary of its row group, and nothing else of it is unpacked.
        """
        with self._reading() as file:
            metadata = file.metadata
            suspects = [
                (group, at)
                for group in range(metadata.num_row_groups)
                for at in range(metadata.num_columns)
                if _may_repeat(metadata.row_group(group).column(at), more_than=_PARQUET_BATCH_BYTES // rows)
            ]
            starts = [
                0,
                *itertools.accumulate(metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)),
            ]
            paths = [file.schema.column(at).path for at in range(metadata.num_columns)]
        longest = 0
        for group, at in suspects:
            with self._reading(read_dictionary=[paths[at]]) as file:
                batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=[paths[at]]), None)
            for field, column in zip(batch.schema, batch.columns, strict=True) if batch else ():
                longest = max(
                    longest, self._check_texts(field.name, column, first=starts[group] + 1, last=starts[group + 1])
                )
        return longest

    def _check_texts(self, name: str, column: Any, *, first: int, last: int) -> int:
        """Return the bytes of the longest text or bytes of a column, in lists and structs too; a few KB count as 0.

        Raises:
            ManifestError: a text is longer than a label may be.
        """
        longest = 0
        for values in _leaves(column):
            is_text = holds_texts(values.type)
            # Reading the lengths is only worth it where there is room for a long one.
            if values.nbytes > _FEW_BYTES and (is_text or _is_bytes(values.type)):
                found = int(pc.max(pc.binary_length(values)).as_py() or 0)
                if is_text and found > _LONGEST_TEXT_BYTES:
                    raise self.error(
                        f"rows {first:,} to {last:,}: a text in the column {shown_names([name])} has {found:,} bytes, "
                        f"and may have {_LONGEST_TEXT_BYTES:,}"
                    )
                longest = max(longest, found)
        return longest

    @contextmanager
    def _reading(self, *, read_dictionary: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path, read_dictionary=list(read_dictionary)) as file:
                yield file
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            # Arrow's messages can run over several lines and name the temporary file.
            reason = str(error).replace(str(self.path), "").partition("\n")[0]
            raise self.error(f"it cannot be read as parquet: {reason}") from error


def _is_large(file: pq.ParquetFile, name: str) -> bool:
    """Return whether a number of a column takes all 64 bits, as a hash may; it is then kept as text."""
    columns = (column for batch in file.iter_batches(columns=[name]) for column in batch.columns)
    return any(most > MAX_INT64 for column in columns if (most := pc.max(column).as_py()) is not None)


def _may_repeat(chunk: Any, *, more_than: int) -> bool:
    """Return whether a column chunk has a dictionary, and one value of it may have more bytes than that."""
    return bool(
        chunk.physical_type == "BYTE_ARRAY"
        and any("DICTIONARY" in encoding for encoding in chunk.encodings)
        and chunk.total_uncompressed_size > more_than
    )


def _is_bytes(arrow_type: Any) -> bool:
    return bool(pa.types.is_binary(arrow_type) or pa.types.is_large_binary(arrow_type))


def _leaves(column: Any) -> Iterator[Any]:
    """Yield the arrays of plain values that a column is made of, of a dictionary its values."""
    types = pa.types
    if isinstance(column.type, pa.BaseExtensionType):
        yield from _leaves(column.storage)
    elif types.is_dictionary(column.type):
        yield from _leaves(column.dictionary)
    elif types.is_struct(column.type):
        for at in range(column.type.num_fields):
            yield from _leaves(column.field(at))
    elif types.is_map(column.type):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    elif types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
        yield from _leaves(column.values)
    elif types.is_string_view(column.type):
        yield column.cast(pa.large_string())
    elif types.is_binary_view(column.type):
        yield column.cast(pa.large_binary())
    else:
        yield column


def _plain(column: Any) -> Any:
    if isinstance(column.type, pa.BaseExtensionType):
        return _plain(column.storage)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
