"""JSON lines as tables."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from variations.manifest.columns import Column
from variations.manifest.labels import common_type, type_of_json
from variations.manifest.tables import MAX_COLUMNS, NO_UTF8, Chunk, Table, is_unicode

_DECODER: Final = json.JSONDecoder()
_JSON_NAMES: Final = {
    list: "an array",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


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
            if len(types) > MAX_COLUMNS:
                raise self.error(f"line {number}: more than {MAX_COLUMNS:,} different keys, which are no columns")
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


def _json_object(data: bytes) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        ValueError: there is none; the message is the row's reason.
    """
    try:
        text = data.decode().strip()
        record, end = _DECODER.raw_decode(text)
    except UnicodeDecodeError:
        raise ValueError(NO_UTF8) from None
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
