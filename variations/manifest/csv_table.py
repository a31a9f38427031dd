"""CSV files as tables, separated by commas, semicolons or tabs."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from variations.errors import ManifestError
from variations.manifest.columns import Column, is_uri_column, shown_names
from variations.manifest.labels import NULL, STRING, from_texts, type_of_texts
from variations.manifest.tables import MAX_COLUMNS, NO_UTF8, Chunk, Table, is_unicode, refuse_other_encodings

_SCAN_ROWS: Final = 10_000


class CsvTable(Table):
    """A CSV file with a header line, separated by commas, semicolons or tabs, quoted with `"`."""

    _DELIMITERS: ClassVar = (",", ";", "\t")

    def __init__(self, path: Path, *, where: str, delimiter: str | None, uri_column: str | None = None) -> None:
        super().__init__(path, where=where)
        refuse_other_encodings(self)
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
        if len(names) > MAX_COLUMNS:
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
                        yield NO_UTF8
                    elif cells:
                        yield cells

    def _decoded(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if not is_unicode(line):
                self._undecodable = True
            yield line
