"""Lists of URIs as tables of one column: text files, and the images found at a prefix."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from variations.manifest.columns import Column
from variations.manifest.labels import STRING
from variations.manifest.tables import NO_UTF8, Chunk, Table, is_unicode, refuse_other_encodings


class TextTable(Table):
    """A text file with one URI a line; blank lines and those that begin with `#` are passed over."""

    columns = (Column("url", STRING),)

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__(path, where=where)
        refuse_other_encodings(self)
        self.rows_found = next(self._lines(), None) is not None

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield the URIs with the numbers of their lines."""
        lines = self._lines()
        while taken := list(itertools.islice(lines, rows)):
            good = [(number, text) for number, text in taken if text is not None]
            yield Chunk(
                numbers=[number for number, _ in good],
                columns=[[text for _, text in good]],
                unreadable=[(number, NO_UTF8) for number, text in taken if text is None],
            )

    def _lines(self) -> Iterator[tuple[int, str | None]]:
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(self.lines(file), 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield number, text if is_unicode(text) else None


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
