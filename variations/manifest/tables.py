"""The files of a manifest as tables: read once for their columns and types, and again in chunks of rows.

Every reader holds one chunk in memory, whatever the file's size. What is wrong with a single row stays with that row;
what is wrong with the file raises `ManifestError` with its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, AnyStr, Final

from variations.errors import ManifestError
from variations.manifest.columns import Column
from variations.manifest.labels import from_values, holds_texts

MAX_COLUMNS: Final = 2_000
NO_UTF8: Final = "it is not UTF-8 text"
# A cell of a CSV file is bounded by `csv.field_size_limit()`.
_LONGEST_LINE: Final = 16 * 2**20
_BOMS_OF_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


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


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: bytes that were no UTF-8, and halves of JSON escapes, cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_other_encodings(table: Table) -> None:
    """Check how a text file begins.

    Raises:
        ManifestError: it is UTF-16, or no text at all.
    """
    with table.path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(_BOMS_OF_UTF16):
        raise table.error("it is UTF-16 text, save it as UTF-8")
    if b"\0" in start:
        raise table.error("it is not text: it has NUL bytes in it")
