"""The rows that a gallery shows, as JSON values: whole columns, what repeats itself written once."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import SCHEMA
from variations.parameters import PARAMETER_NAMES

# What a browser opens at once; of a larger dataset some sources are shown, with all of their variations.
MOST_ROWS: Final = 20_000
LONGEST_TEXT: Final = 1_000
BATCH_ROWS: Final = 10_000
# What is drawn by a hash is now a little more than was asked for, and now a little less.
_ROOM: Final = 0.95
# JavaScript's numbers are exact up to here.
_MOST_EXACT: Final = 2**53

# Where a column stands beside an image. What is in no group is a label.
GROUPS: Final = {
    "Outcome": ("status", "verdict", "error_code", "error", "can_retry", "notes", "attempt", "roll"),
    "Source": ("source_id", "source_uri", "redux_image", "split", "group_id"),
    "Labels": (),
    "Parameters": PARAMETER_NAMES,
    "Image": (
        *("file_name", "width", "height", "bytes", "format", "sha256"),
        *("contrast", "phash", "source_distance", "sibling_distance", "output_index"),
    ),
    "Request": (
        *("run_id", "shard", "request_id", "submitted_at", "completed_at", "queue_seconds", "inference_seconds"),
        *("total_seconds", "polls", "cost_usd", "output_url", "model", "variation_id", "schema_version"),
    ),
}
_GROUP_OF: Final = {name: group for group, names in GROUPS.items() for name in names}
_SOURCE_COLUMNS: Final = ("source_id", "source_uri", "variation_id")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a gallery shows of a dataset.

    Attributes:
        table: its rows, those of a source one after the other.
        source_of_row: the number of the source of each.
        sources: the first row of each source.
        total: rows of the dataset.
    """

    table: pa.Table
    source_of_row: list[int]
    sources: list[int]
    total: int


def read_shown(path: Path, *, most: int = MOST_ROWS) -> Shown:
    """Read the rows that are shown: all, or of a larger dataset those of some sources, the same ones each time.

    No more than `most` are ever in memory, but for a batch.
    """
    with pq.ParquetFile(path) as file:
        total = file.metadata.num_rows
        if total <= most:
            table = file.read()
        else:
            table = _cut(file, most, lambda batch: _drawn(batch, share=_ROOM * most / total))
            if not table.num_rows:
                # Few sources, and none was drawn.
                table = _cut(file, most, lambda batch: [True] * batch.num_rows)
    # By a source's first row; within a source, as they lie in the dataset.
    numbers: dict[str, int] = {}
    source_of_row = [numbers.setdefault(name, len(numbers)) for name in _source_names(table)]
    order = sorted(range(len(source_of_row)), key=source_of_row.__getitem__)
    source_of_row.sort()
    sources = [row for row, number in enumerate(source_of_row) if not row or number != source_of_row[row - 1]]
    return Shown(table.take(pa.array(order, pa.int64())), source_of_row, sources, total)


def _cut(file: pq.ParquetFile, most: int, is_in: Callable[[pa.RecordBatch], list[bool]]) -> pa.Table:
    """Return so many of the rows that are in; a source has as many as come before that."""
    batches = []
    left = most
    for batch in file.iter_batches(BATCH_ROWS):
        batches.append(batch.filter(pa.array(is_in(batch), pa.bool_())).slice(0, left))
        left -= batches[-1].num_rows
        if not left:
            break
    return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _source_names(rows: pa.Table | pa.RecordBatch) -> list[str]:
    names: list[str] = pc.coalesce(*(rows.column(name).cast(pa.string()) for name in _SOURCE_COLUMNS)).to_pylist()
    return names


def _drawn(rows: pa.RecordBatch, *, share: float) -> list[bool]:
    """Return for each row whether its source is among those that are shown, by the hash of its name."""
    limit = int(share * 2**64)
    names = _source_names(rows)
    is_in = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) < limit for name in set(names)}
    return [is_in[name] for name in names]


def sources_of(rows: pa.Table, run_id: str) -> set[str]:
    """Return the URIs of the sources that a run submitted; what its manifest may not name is not among them."""
    is_of_run = pc.and_(pc.equal(rows.column("run_id"), run_id), pc.greater(rows.column("attempt"), 0))
    return set(rows.filter(is_of_run).column("source_uri").drop_null().to_pylist())


def columns_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the columns, in the order in which they stand beside an image."""
    groups = list(GROUPS)
    places = {name: place for place, name in enumerate(_GROUP_OF)}
    names = sorted(
        table.column_names,
        key=lambda name: (groups.index(_GROUP_OF.get(name, "Labels")), places.get(name, 0)),
    )
    return [
        {"name": name, "group": _GROUP_OF.get(name, "Labels"), **_values(table.column(name), is_label=_is_label(name))}
        for name in names
    ]


def _is_label(name: str) -> bool:
    return name not in _GROUP_OF and name not in SCHEMA.names


def _values(column: pa.ChunkedArray, *, is_label: bool) -> dict[str, Any]:
    kind, values = _as_json(column, is_label=is_label)
    numbers: dict[Any, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    if len(numbers) > len(values) // 2:
        return {"kind": kind, "values": values}
    return {"kind": kind, "values": list(numbers), "codes": codes}


def _as_json(column: pa.ChunkedArray, *, is_label: bool) -> tuple[str, Sequence[Any]]:
    values = column.to_pylist()
    kind = column.type
    if pa.types.is_boolean(kind):
        # True and 1 are one key of a dictionary.
        return "text", [None if value is None else str(value).lower() for value in values]
    if pa.types.is_floating(kind):
        return "number", [_number(value) for value in values]
    if pa.types.is_integer(kind):
        if is_label and any(abs(value) > _MOST_EXACT for value in values if value is not None):
            return "text", [_text(value) for value in values]
        return "number", values
    if pa.types.is_timestamp(kind):
        return "time", [_text(value) for value in values]
    return "text", [_text(value) for value in values]


def _number(value: float | None) -> float | None:
    return round(value, 6) if value is not None and math.isfinite(value) else None


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat(" ", "seconds").removesuffix("+00:00")
    if isinstance(value, bytes):
        text = f"{len(value):,} bytes"
    elif isinstance(value, list | tuple | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
