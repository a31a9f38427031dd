"""A row of a table becomes a source, or a rejected one with its reason."""

from collections.abc import Callable, Mapping
from typing import Any

from variations.manifest.columns import Roles
from variations.manifest.overrides import is_unset, validate_override
from variations.manifest.tables import Chunk, Table
from variations.models import RejectedSource, Source
from variations.uris import public_uri, shown_uri


class RowReader:
    """Makes sources of a table's rows.

    Args:
        table: where the rows come from.
        roles: what its columns are for.
        label_types: the Arrow type of each label in the whole manifest, by name; other labels are left out.
        resolve: makes the absolute URI of a source out of a cell, or raises ValueError with the reason.
        prefix: what every reason begins with, the file's name where there are several.
    """

    def __init__(
        self,
        table: Table,
        roles: Roles,
        *,
        label_types: Mapping[str, Any],
        resolve: Callable[[str], str],
        prefix: str = "",
    ) -> None:
        self._table = table
        self._roles = roles
        self._resolve = resolve
        self._prefix = prefix
        # Position, name, the type in this file, the type in the whole manifest.
        self._labels = [
            (at, name, own, label_types[name])
            for at in roles.labels
            for name, own in [(table.columns[at].name, table.columns[at].type)]
            if name in label_types
        ]

    def read(self, chunk: Chunk) -> list[Source | RejectedSource]:
        """Return one entry for each row of the chunk, in the rows' order."""
        roles, columns = self._roles, chunk.columns
        nothing = [None] * len(chunk.numbers)
        ids = nothing if roles.id is None else [_identity(value) for value in columns[roles.id]]
        versions = nothing if roles.version is None else [_identity(value) for value in columns[roles.version]]
        overrides = self._overrides(chunk)
        labels = self._label_rows(chunk)
        read: list[Source | RejectedSource] = []
        rows = zip(chunk.numbers, columns[roles.uri], ids, versions, overrides, labels, strict=True)
        # The one loop that every row of a million passes: positional arguments and no calls that can be spared.
        for number, cell, source_id, version, given, own in rows:
            try:
                uri = self._resolve(cell if type(cell) is str else _uri_text(cell))
                public = public_uri(uri)
                valid = _validated(given) if given else given
            except ValueError as error:
                read.append(self._rejected(number, cell, str(error), source_id=source_id, labels=own))
            else:
                has_id = source_id is not None
                read.append(Source(number, source_id or public, uri, public, version, has_id, valid, own))
        if chunk.unreadable:
            read += [RejectedSource(row=number, reason=self._prefix + reason) for number, reason in chunk.unreadable]
            read.sort(key=lambda entry: entry.row)
        return read

    def _label_rows(self, chunk: Chunk) -> list[dict[str, Any]]:
        if not self._labels:
            return [{} for _ in chunk.numbers]
        names = [name for _, name, _, _ in self._labels]
        columns = [self._table.labels(chunk.columns[at], own, wanted) for at, _, own, wanted in self._labels]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def _overrides(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return for each row what it sets, not yet validated."""
        if not self._roles.overrides:
            return [{} for _ in chunk.numbers]
        names = list(self._roles.overrides)
        columns = [chunk.columns[at] for at in self._roles.overrides.values()]
        return [
            {name: value for name, value in zip(names, values, strict=True) if not is_unset(value)}
            for values in zip(*columns, strict=True)
        ]

    def _rejected(
        self, number: int, cell: object, reason: str, *, source_id: str | None, labels: dict[str, Any]
    ) -> RejectedSource:
        shown = None
        if isinstance(cell, str) and cell.strip():
            try:
                shown = public_uri(self._resolve(cell))
            except ValueError:
                shown = shown_uri(cell)
        return RejectedSource(
            row=number, reason=self._prefix + reason, source_id=source_id or shown, public_uri=shown, labels=labels
        )


def _validated(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values as the API takes them.

    Raises:
        ValueError: with the reasons of all that are out of range.
    """
    values: dict[str, Any] = {}
    reasons: list[str] = []
    for name, value in given.items():
        try:
            values[name] = validate_override(name, value)
        except ValueError as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError("; ".join(reasons))
    return values


def _identity(value: object) -> str | None:
    """Return an id or a version as text, None if there is none.

    7.0 is 7: a column of integers becomes one of floats in pandas as soon as a row lacks it.
    """
    if isinstance(value, str):
        # An id may be a presigned URL too, and an id is written to tables and logs.
        return public_uri(value.strip()) or None
    if is_unset(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _uri_text(cell: object) -> str:
    """Return the text of a cell that should hold a URI and is no text.

    Raises:
        ValueError: it holds something else.
    """
    if is_unset(cell):
        raise ValueError("no URI")
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise ValueError("not a URI: the cell holds bytes that are no text") from None
    raise ValueError(f"not a URI: the cell holds {_KINDS.get(type(cell), 'no text')}")


_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
