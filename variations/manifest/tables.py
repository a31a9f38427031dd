"""The files of a manifest as tables: read once for their columns and types, and again in chunks of rows.

Every reader holds one chunk in memory, whatever the file's size. What is wrong with a single row stays with that row;
what is wrong with the file raises `ManifestError` with its name.
"""

import csv
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, AnyStr, ClassVar, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.errors import ManifestError
from variations.manifest.columns import Column, is_uri_column, shown_names
from variations.manifest.formats import Format
from variations.manifest.labels import (
    NULL,
    STRING,
    common_type,
    from_texts,
    from_values,
    holds_texts,
    type_of_column,
    type_of_json,
    type_of_texts,
)

_SCAN_ROWS: Final = 10_000
_MAX_COLUMNS: Final = 2_000
_PARQUET_BATCH_BYTES: Final = 32 * 2**20
# A line, and a text in a parquet file; a cell of a CSV file is bounded by `csv.field_size_limit()`.
_LONGEST_LINE: Final = 16 * 2**20
_LONGEST_TEXT_BYTES: Final = 2**20
_FEW_BYTES: Final = 16 * 2**10
_BOMS_OF_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_DECODER: Final = json.JSONDecoder()
_NO_UTF8: Final = "it is not UTF-8 text"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table, column by column.

    Attributes:
        numbers: the row's number, one for each readable row.
        columns: the values in the order of the table's columns, each as long as `numbers`.
        unreadable: number and reason of the rows in between that cannot be taken apart.
    """

    numbers: Sequence[int]
    columns: Sequence[Sequence[Any]]
    unreadable: Sequence[tuple[int, str]] = ()


class Table(ABC):
    """One file of a manifest.

    Args:
        path: the file on this machine, not compressed.
        where: its URI, for messages.

    Raises:
        ManifestError: on construction and while reading, the file is not what its name says.
    """

    columns: Sequence[Column]
    rows_found: bool

    def __init__(self, path: Path, *, where: str) -> None:
        self.path = path
        self.where = where

    @abstractmethod
    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the table in chunks of at most `rows` rows."""

    def labels(self, values: Sequence[Any], own: Any, wanted: Any) -> list[Any]:
        """Return a column's values, which are of type `own`, as values of type `wanted`; texts lose signatures."""
        return list(values) if own.equals(wanted) and not holds_texts(own) else from_values(values, wanted)

    def lines(self, file: IO[AnyStr]) -> Iterator[AnyStr]:
        """Yield the lines of an open file, which may have no line breaks, and need not fit in memory then.

        Raises:
            ManifestError: a line is longer than any row is.
        """
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise self.error(f"line {number}: it is longer than {_LONGEST_LINE // 2**20} MiB, which is no row")
            yield line

    def error(self, reason: str) -> ManifestError:
        """Return the error that this file cannot be read, as one line."""
        return ManifestError(f"{self.where}: {' '.join(reason.split())}")


def open_table(path: Path, form: Format, *, where: str, uri_column: str | None = None) -> Table:
    """Read a file's columns and types: the whole of it, but for parquet, which says so itself.

    Raises:
        ManifestError: it is not what its name says.
    """
    if form is Format.PARQUET:
        return ParquetTable(path, where=where)
    if form is Format.JSON_LINES:
        return JsonLinesTable(path, where=where)
    if form is Format.TEXT:
        return TextTable(path, where=where)
    return CsvTable(path, where=where, delimiter="\t" if form is Format.TSV else None, uri_column=uri_column)


class ParquetTable(Table):
    """A parquet file. Labels keep their Arrow types."""

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__(path, where=where)
        with self._reading() as file:
            schema, metadata = file.schema_arrow, file.metadata
            size = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
            self._rows = metadata.num_rows
        self._bytes_per_row = size // max(1, self._rows)
        self._stored_as = [field.type for field in schema]
        self.columns = [Column(field.name, type_of_column(field.type)) for field in schema]
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
                columns = [_plain(column).to_pylist() for column in batch.columns]
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


class TextTable(Table):
    """A text file with one URI a line; blank lines and those that begin with `#` are passed over."""

    columns = (Column("url", STRING),)

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__(path, where=where)
        _refuse_other_encodings(self)
        self.rows_found = next(self._lines(), None) is not None

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the URIs with the numbers of their lines."""
        lines = self._lines()
        while taken := list(itertools.islice(lines, rows)):
            good = [(number, text) for number, text in taken if text is not None]
            yield Chunk(
                numbers=[number for number, _ in good],
                columns=[[text for _, text in good]],
                unreadable=[(number, _NO_UTF8) for number, text in taken if text is None],
            )

    def _lines(self) -> Iterator[tuple[int, str | None]]:
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(self.lines(file), 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield number, text if is_unicode(text) else None


class JsonLinesTable(Table):
    """A file with one JSON object a line. Its columns are the keys of all lines; a key that a line lacks is null."""

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__(path, where=where)
        types: dict[str, Any] = {}
        reason: tuple[int, str] | None = None
        for number, record in self._records():
            if isinstance(record, str):
                reason = reason or (number, record)
                continue
            for name, value in record.items():
                kind = type_of_json(value)
                found = types.get(name)
                if found is not kind:
                    types[name] = kind if found is None else common_type(found, kind)
            if len(types) > _MAX_COLUMNS:
                raise self.error(f"line {number}: more than {_MAX_COLUMNS:,} different keys, which are no columns")
        if not types and reason:
            hint = ""
            with path.open("rb") as file:
                if file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
                    hint = "; a JSON array is not JSON lines, write one object a line"
            raise self.error(f"no line of it is a JSON object (line {reason[0]}: {reason[1]}){hint}")
        self._names = list(types)
        self.columns = [Column(name, kind) for name, kind in types.items()]
        self.rows_found = bool(types)

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the objects' values with the numbers of their lines."""
        records = self._records()
        while taken := list(itertools.islice(records, rows)):
            good = [(number, record) for number, record in taken if not isinstance(record, str)]
            objects = [record for _, record in good]
            yield Chunk(
                numbers=[number for number, _ in good],
                columns=[[record.get(name) for record in objects] for name in self._names],
                unreadable=[(number, record) for number, record in taken if isinstance(record, str)],
            )

    def _records(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield the number of each line that is not blank, with its object or the reason why there is none."""
        with self.path.open("rb") as file:
            for number, line in enumerate(self.lines(file), 1):
                data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not data or data.isspace():
                    continue
                record: dict[str, Any] | str
                try:
                    record = _json_object(data)
                except ValueError as error:
                    record = str(error)
                yield number, record


class CsvTable(Table):
    """A CSV file with a header line, separated by commas, semicolons or tabs, quoted with `"`."""

    _DELIMITERS: ClassVar = (",", ";", "\t")

    def __init__(self, path: Path, *, where: str, delimiter: str | None, uri_column: str | None = None) -> None:
        super().__init__(path, where=where)
        _refuse_other_encodings(self)
        self._undecodable = False
        self._delimiter, header = self._read_header((delimiter,) if delimiter else self._DELIMITERS, uri_column)
        self._width = len(header)
        types = [NULL] * self._width
        self.rows_found = False
        for chunk in self.chunks(_SCAN_ROWS):
            self.rows_found = True
            if chunk.numbers:
                types = [
                    found if found is STRING else type_of_texts(values, found)
                    for found, values in zip(types, chunk.columns, strict=True)
                ]
        # A name for what has values and no name, such as a written index; a separator too many stays nameless.
        self.columns = [
            Column(name or ("" if kind is NULL else f"column_{at}"), kind)
            for at, (name, kind) in enumerate(zip(header, types, strict=True), 1)
        ]

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the cells as text, with the numbers of their rows."""
        records = self._records()
        next(records)
        number = 0
        while taken := list(itertools.islice(records, rows)):
            good: list[list[str]] = []
            numbers: list[int] = []
            unreadable: list[tuple[int, str]] = []
            for cells in taken:
                number += 1
                if isinstance(cells, str):
                    unreadable.append((number, cells))
                elif len(cells) != self._width:
                    unreadable.append((number, f"{len(cells)} cells where the header has {self._width}"))
                else:
                    good.append(cells)
                    numbers.append(number)
            columns: list[Sequence[str]] = list(zip(*good, strict=True)) if good else [() for _ in range(self._width)]
            yield Chunk(numbers=numbers, columns=columns, unreadable=unreadable)

    def labels(self, values: Sequence[Any], own: Any, wanted: Any) -> list[Any]:  # noqa: ARG002
        """Return the cells as values of a type; an empty cell is null."""
        return from_texts(values, wanted)

    def _read_header(self, delimiters: Sequence[str], uri_column: str | None) -> tuple[str, list[str]]:
        """Return the delimiter that makes the most of the first line, and the names there."""
        best: tuple[tuple[bool, int], str, list[str]] | None = None
        failure = ""
        for delimiter in delimiters:
            self._delimiter = delimiter
            try:
                first = next(self._records(), None)
            except ManifestError as error:
                failure = error.message
                continue
            if isinstance(first, str):
                failure = failure or f"{self.where}: line 1: {first}"
            elif first is not None:
                names = [name.strip() for name in first]
                rank = (any(name == uri_column or is_uri_column(name) for name in names), len(names))
                if best is None or rank > best[0]:
                    best = rank, delimiter, names
        if best is None:
            raise ManifestError(failure) if failure else self.error("it has no header line, only blank ones")
        (has_uri, _), delimiter, names = best
        if not has_uri and any("://" in name for name in names):
            raise self.error(f"it has no header line: the first line is already a row ({shown_names(names)})")
        if not any(names):
            raise self.error("the first line names no column: it must be the header")
        if len(names) > _MAX_COLUMNS:
            raise self.error(f"its first line has {len(names):,} cells, beginning with {shown_names(names[:3])}")
        return delimiter, names

    def _records(self) -> Iterator[list[str] | str]:
        """Yield the cells of each record, the header's too, or the reason why it cannot be taken apart."""
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(self._decoded(self.lines(file)), delimiter=self._delimiter, strict=True)
            while True:
                self._undecodable = False
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end" in str(error) or "field limit" in str(error):
                        # It swallowed rows, nobody knows how many: going on would lose them in silence.
                        raise self.error(
                            f"line {line}: a quoted cell that begins here does not end, or is longer than "
                            f"{csv.field_size_limit():,} characters"
                        ) from None
                    lines = f"line {line}" if reader.line_num <= line else f"lines {line} to {reader.line_num}"
                    yield f"the quotes of {lines} do not match ({error})"
                else:
                    if self._undecodable:
                        yield _NO_UTF8
                    elif cells:
                        yield cells

    def _decoded(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if not is_unicode(line):
                self._undecodable = True
            yield line


class ImagesTable(Table):
    """A prefix of images: a file with the URI of each, one JSON text a line, because a key may hold a line break."""

    columns = (Column("url", STRING),)
    rows_found = True

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the URIs, numbered in the order of the listing."""
        done = 0
        with self.path.open(encoding="utf-8") as file:
            while lines := list(itertools.islice(file, rows)):
                yield Chunk(
                    numbers=range(done + 1, done + 1 + len(lines)), columns=[[json.loads(line) for line in lines]]
                )
                done += len(lines)


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: bytes that were no UTF-8, and halves of JSON escapes, cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _json_object(data: bytes) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        ValueError: there is none; the message is the row's reason.
    """
    try:
        text = data.decode().strip()
        record, end = _DECODER.raw_decode(text)
    except UnicodeDecodeError:
        raise ValueError(_NO_UTF8) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {getattr(error, 'msg', 'a number is too long')}") from None
    if end < len(text):
        raise ValueError("it is not JSON: something follows the value")
    if not isinstance(record, dict):
        raise ValueError(f"it is {_JSON_NAMES[type(record)]} and not a JSON object")  # noqa: TRY004
    # Only an escape can bring in half a surrogate pair.
    if "\\u" in text and not is_unicode(json.dumps(record, ensure_ascii=False)):
        raise ValueError("it has half a surrogate pair in it, which is no text")
    return record


_JSON_NAMES: Final = {
    list: "an array",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _refuse_other_encodings(table: Table) -> None:
    with table.path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(_BOMS_OF_UTF16):
        raise table.error("it is UTF-16 text, save it as UTF-8")
    if b"\0" in start:
        raise table.error("it is not text: it has NUL bytes in it")
