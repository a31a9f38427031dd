"""What each column of a manifest file is for, by its name."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from variations.errors import ManifestError
from variations.manifest.labels import is_text
from variations.parameters import PARAMETER_NAMES
from variations.uris import shown_uri

URI_COLUMNS: Final = ("url", "image_url", "uri", "image", "redux_image")
ID_COLUMNS: Final = ("id", "source_id")
VERSION_COLUMN: Final = "version"

_NAMES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column of one file: its name as written and the Arrow type of its values."""

    name: str
    type: Any


@dataclass(frozen=True, slots=True)
class Roles:
    """Positions of a file's columns by what they are for.

    Attributes:
        uri: the source's URI.
        id: the source's id, if there is one.
        version: the version of that id, if there is one.
        overrides: for each API parameter that rows may set, its position.
        labels: all others.
    """

    uri: int
    id: int | None
    version: int | None
    overrides: dict[str, int]
    labels: tuple[int, ...]


def assign_roles(
    columns: Sequence[Column], *, where: str, uri_column: str | None = None, id_column: str | None = None
) -> Roles:
    """Return what each column is for.

    Names are compared without regard to case and surrounding space. If several could be the URI (or the id), the first
    of the documented order is taken, the others are labels. `version` belongs to an id: without one it is a label.

    Raises:
        ManifestError: no column can be the URI, a named one is not there, or two columns mean the same.
    """
    _refuse_twins(columns, where=where)
    if uri_column is None:
        uri = _find_uri(columns, where=where)
    else:
        uri = _find_named(columns, uri_column, where=where, option="--uri-column")
        if not is_text(columns[uri].type) and not pa.types.is_null(columns[uri].type):
            raise ManifestError(f"{where}: the column '{uri_column}' holds {_shown_type(columns[uri].type)}, not URIs")
    if id_column is None:
        id_ = next((at for name in ID_COLUMNS for at in _called(columns, name) if _is_scalar(columns[at])), None)
    else:
        id_ = _find_named(columns, id_column, where=where, option="--id-column")
        if not _is_scalar(columns[id_]):
            raise ManifestError(f"{where}: the column '{id_column}' holds {_shown_type(columns[id_].type)}, not ids")
    if id_ == uri:
        if id_column is not None:
            raise ManifestError(f"{where}: the column '{id_column}' cannot be both URI and id: leave the id column out")
        id_ = None
    taken = {uri, id_}
    version = (
        next((at for at in _called(columns, VERSION_COLUMN) if at not in taken), None) if id_ is not None else None
    )
    taken.add(version)
    overrides = {name: at for name in PARAMETER_NAMES for at in _called(columns, name) if at not in taken}
    taken.update(overrides.values())
    return Roles(
        uri=uri,
        id=id_,
        version=version,
        overrides=overrides,
        labels=tuple(at for at in range(len(columns)) if at not in taken),
    )


def is_uri_column(name: str) -> bool:
    """Return whether a column of this name holds URIs unless another one is named."""
    return _folded(name) in URI_COLUMNS


def shown_names(names: Sequence[str]) -> str:
    """Return column names for a message; a file without a header line has data for names, signatures included."""
    shown = ", ".join(shown_uri(name) for name in names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown


def _folded(name: str) -> str:
    return name.strip().casefold()


def _called(columns: Sequence[Column], name: str) -> list[int]:
    return [at for at, column in enumerate(columns) if _folded(column.name) == name]


def _refuse_twins(columns: Sequence[Column], *, where: str) -> None:
    twins = [name for name, times in Counter(column.name for column in columns).items() if name and times > 1]
    if twins:
        raise ManifestError(f"{where}: more than one column is called {shown_names(twins)}: rename all but one")
    for name in (*URI_COLUMNS, *ID_COLUMNS, VERSION_COLUMN, *PARAMETER_NAMES):
        same = [columns[at].name for at in _called(columns, name)]
        if len(same) > 1:
            raise ManifestError(f"{where}: the columns {shown_names(same)} both mean '{name}': rename one")


def _find_uri(columns: Sequence[Column], *, where: str) -> int:
    candidates = [at for name in URI_COLUMNS for at in _called(columns, name)]
    for at in candidates:
        if is_text(columns[at].type):
            return at
    # A column without a single value may still be the one; every row is then reported.
    for at in candidates:
        if pa.types.is_null(columns[at].type):
            return at
    names = [column.name for column in columns]
    if candidates:
        column = columns[candidates[0]]
        raise ManifestError(
            f"{where}: the column '{column.name}' holds {_shown_type(column.type)}, not URIs; name the column of the "
            f"URIs with --uri-column (found: {shown_names(names)})"
        )
    raise ManifestError(
        f"{where}: no column is called {', '.join(URI_COLUMNS[:-1])} or {URI_COLUMNS[-1]}; name the column of the URIs "
        f"with --uri-column (found: {shown_names(names)})"
    )


def _find_named(columns: Sequence[Column], name: str, *, where: str, option: str) -> int:
    names = [column.name for column in columns]
    if name in names:
        return names.index(name)
    same = _called(columns, _folded(name))
    if len(same) == 1:
        return same[0]
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean '{shown_uri(nearest[0])}'?" if nearest else ""
    raise ManifestError(
        f"{where}: {option} names '{shown_uri(name)}', which is not there{hint} (found: {shown_names(names)})"
    )


def _is_scalar(column: Column) -> bool:
    return not pa.types.is_nested(column.type)


def _shown_type(arrow_type: Any) -> str:
    return " ".join(str(arrow_type).split())[:80]
