"""The metadata: one row for every image wanted, failures too, in one explicit schema."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from variations.errors import ManifestError
from variations.identity import rejected_id
from variations.manifest.labels import STRING, common_type, from_values, type_of_column
from variations.models import Outcome, RejectedSource, Variation

SCHEMA_VERSION: Final = 4
METADATA_KEY: Final = "metadata.parquet"
ROW_GROUP_ROWS: Final = 10_000

# Since version 4.
_OF_THE_GATE: Final = ("verdict", "roll", "contrast", "phash", "source_distance", "sibling_distance")
# Not a column of the metadata: `read_dataset` makes it.
IMAGE_URI: Final = "image_uri"

_TIME: Final = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [
        pa.field("variation_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string()),
        pa.field("source_uri", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group_id", pa.string()),
        pa.field("output_index", pa.int32(), nullable=False),
        pa.field("file_name", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error", pa.string()),
        pa.field("can_retry", pa.bool_()),
        pa.field("notes", pa.string()),
        pa.field("verdict", pa.string()),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("roll", pa.int32()),
        pa.field("redux_image", pa.string()),
        pa.field("aspect_ratio", pa.string()),
        pa.field("disable_safety_checker", pa.bool_()),
        pa.field("guidance", pa.float64()),
        pa.field("megapixels", pa.string()),
        pa.field("num_inference_steps", pa.int32()),
        pa.field("num_outputs", pa.int32()),
        pa.field("output_format", pa.string()),
        pa.field("output_quality", pa.int32()),
        pa.field("seed", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("format", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("contrast", pa.float64()),
        pa.field("phash", pa.string()),
        pa.field("source_distance", pa.int32()),
        pa.field("sibling_distance", pa.int32()),
        pa.field("request_id", pa.string()),
        pa.field("output_url", pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32()),
        pa.field("submitted_at", _TIME),
        pa.field("completed_at", _TIME),
        pa.field("queue_seconds", pa.float64()),
        pa.field("inference_seconds", pa.float64()),
        pa.field("total_seconds", pa.float64()),
        pa.field("polls", pa.int32(), nullable=False),
        pa.field("cost_usd", pa.float64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
    ]
)
# A dictionary pays where a column repeats itself; on ids, hashes and file names it costs time and space.
DICTIONARY_COLUMNS: Final = (
    "status",
    "error_code",
    "notes",
    "verdict",
    "aspect_ratio",
    "megapixels",
    "output_format",
    "format",
    "run_id",
    "model",
    "source_id",
    "source_uri",
    "split",
    "group_id",
    "redux_image",
)


def label_names(labels: Iterable[str]) -> dict[str, str]:
    """Return the column of each label: its own name, or `label_…` where that means something else in the dataset.

    Hugging Face's `imagefolder` reads a column `image`, and every one that ends in `file_name`, as images.
    """
    labels = list(labels)
    ours = {*SCHEMA.names, IMAGE_URI, "image"}
    taken = ours | set(labels)
    names: dict[str, str] = {}
    for label in labels:
        name = label
        if label in ours or label.endswith(("file_name", "file_names")):
            name = f"label_{label.replace('file_name', 'filename')}"
            while name in taken:
                name = f"label_{name}"
            taken.add(name)
        names[label] = name
    return names


def outcomes_table(
    outcomes: Sequence[Outcome], *, labels: pa.Schema, run_id: str, shard: int = 0, model: str
) -> pa.Table:
    """Return the metadata rows of a shard's outcomes, labels behind the schema's columns.

    A row takes the place of that of the attempt before, and so has the cost of both: rows add up to what was paid.
    """
    rows = [
        {
            **outcome.variation.parameters.as_sent(),
            "variation_id": outcome.variation.variation_id,
            "source_id": outcome.variation.source.source_id,
            "source_uri": outcome.variation.source.public_uri,
            "split": outcome.variation.source.split,
            "group_id": outcome.variation.source.group,
            "output_index": outcome.output_index,
            "status": outcome.status,
            "error_code": outcome.error_code,
            "error": outcome.error,
            "can_retry": outcome.can_retry,
            "attempt": outcome.variation.attempt,
            "roll": outcome.variation.roll,
            "redux_image": outcome.redux_image,
            "request_id": outcome.request_id,
            "output_url": outcome.output_url,
            "submitted_at": outcome.submitted_at,
            "completed_at": outcome.completed_at,
            "queue_seconds": outcome.metrics.queue_seconds,
            "inference_seconds": outcome.metrics.inference_seconds,
            "total_seconds": outcome.metrics.total_seconds,
            "polls": outcome.polls,
            "cost_usd": outcome.cost_usd + _share_of_before(outcome.variation),
            "run_id": run_id,
            "shard": shard,
            "model": model,
            **_image_columns(outcome),
        }
        for outcome in outcomes
    ]
    return _table(rows, [outcome.variation.source.labels for outcome in outcomes], labels)


def _share_of_before(variation: Variation) -> float:
    return variation.paid_before_usd / variation.parameters.num_outputs


def _image_columns(outcome: Outcome) -> dict[str, Any]:
    image, measures = outcome.image, outcome.measures
    measured = {} if measures is None else {one.name: getattr(measures, one.name) for one in fields(measures)}
    if image is None:
        return measured
    return {
        **measured,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
        "format": image.format,
        "sha256": image.sha256,
        "notes": "; ".join(image.notes) or None,
    }


def rejected_table(
    rejected: Sequence[RejectedSource], *, labels: pa.Schema, manifest: str, run_id: str, model: str
) -> pa.Table:
    """Return the metadata rows of a manifest's unusable rows, one each."""
    rows = [
        {
            "variation_id": rejected_id(row, manifest=manifest),
            "source_id": row.source_id,
            "source_uri": row.public_uri,
            "output_index": 0,
            "status": "rejected",
            "error_code": "bad_row",
            "error": f"row {row.row}: {row.reason}",
            "attempt": 0,
            "run_id": run_id,
            "polls": 0,
            "cost_usd": 0.0,
            "model": model,
        }
        for row in rejected
    ]
    return _table(rows, [row.labels for row in rejected], labels)


def _table(rows: list[dict[str, Any]], labels_of_rows: list[dict[str, Any]], labels: pa.Schema) -> pa.Table:
    names = label_names(labels.names)
    columns = [*SCHEMA, *(pa.field(names[label.name], label.type) for label in labels)]
    for row in rows:
        row["schema_version"] = SCHEMA_VERSION
    arrays = [_array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    # A row that was refused may hold a label that is not of its column's type: it is kept as null, its reason stays.
    arrays += [_label_array([row.get(label.name) for row in labels_of_rows], label.type) for label in labels]
    return pa.Table.from_arrays(arrays, schema=pa.schema(columns))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return an array; half a surrogate pair, which JSON can spell and UTF-8 cannot, is written as its escape."""
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([_encodable(value) for value in values], kind)


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _label_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_nested(kind):
        values = [None if _ends_the_process(value, kind) else value for value in values]
    try:
        return _array(values, kind)
    except _NOT_OF_THE_TYPE:
        return pa.concat_arrays([_one_label(value, kind) for value in values])


def _ends_the_process(value: Any, kind: pa.DataType) -> bool:
    """Return whether Arrow aborts at a value: there, a map's entry is no pair, or its key is null."""
    if isinstance(value, Mapping):
        pairs: list[Any] = list(value.items())
    else:
        pairs = list(value) if isinstance(value, list | tuple) else []
    if pa.types.is_map(kind):
        return any(
            not isinstance(pair, list | tuple)
            or len(pair) != _PAIR
            or pair[0] is None
            or _ends_the_process(pair[0], kind.key_type)
            or _ends_the_process(pair[1], kind.item_type)
            for pair in pairs
        )
    if pa.types.is_struct(kind):
        inner = dict(pairs) if isinstance(value, Mapping) else {}
        return any(_ends_the_process(inner.get(field.name), field.type) for field in kind)
    return hasattr(kind, "value_type") and any(_ends_the_process(one, kind.value_type) for one in pairs)


_PAIR: Final = 2


def _one_label(value: Any, kind: pa.DataType) -> pa.Array:
    try:
        return _array([value], kind)
    except _NOT_OF_THE_TYPE:
        return pa.nulls(1, kind)


_NOT_OF_THE_TYPE: Final = (pa.ArrowException, ValueError, TypeError, OverflowError)


def check_labels(labels: pa.Schema) -> None:
    """Send a row without values the way that a label goes, into metadata and back, for each label.

    Some of Arrow's types cannot be made of Python's values, filtered, or written as parquet. That has to be known
    before anything is paid, for it is of no use without its metadata.

    Raises:
        ManifestError: a label's type does not come through; it names the column.
    """
    for label in labels:
        try:
            pa.array([{label.name: None}], pa.struct([label]))
            row = RejectedSource(1, reason="")
            table = rejected_table([row], labels=pa.schema([label]), manifest="", run_id="", model="")
            table = conformed(table, unified([table.schema])).filter(pa.array([True]))
            pq.read_table(pa.BufferReader(parquet_bytes(table)))
        except pa.ArrowException as error:
            raise ManifestError(
                f"the column {label.name!r} is of Arrow's type {label.type}, which metadata cannot hold: "
                "store it as another type, or leave the column out"
            ) from error


def _with_old_labels(names: Sequence[str]) -> list[str]:
    """Return the columns of a file; in one of before there was a gate, what is called like its columns is a label."""
    if all(name in names for name in _OF_THE_GATE):
        return list(names)
    return [f"label_{name}" if name in _OF_THE_GATE else name for name in names]


def unified(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return one schema for several: the dataset's columns first, then every label; its types widened where they
    differ, down to text where nothing else holds both.
    """
    columns = {field.name: field for field in SCHEMA}
    for schema in schemas:
        for name, one in zip(_with_old_labels(schema.names), schema, strict=True):
            field = one.with_name(name)
            known = columns.get(name)
            if known is None:
                columns[field.name] = field.with_nullable(True)
            elif field.name not in SCHEMA.names and known.type != field.type:
                columns[field.name] = pa.field(field.name, _wider(known.type, field.type))
    return pa.schema(list(columns.values()))


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    # Two releases of pandas write one column in two units; microseconds hold every date and what clocks tell.
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other) and one.tz == other.tz:
        return pa.timestamp("us", one.tz) if one != other else one
    # Runs of before wrote labels in types that `datasets` does not know.
    return common_type(type_of_column(one), type_of_column(other))


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table in another schema: columns in its order, missing ones null, others cast."""
    table = table.rename_columns(_with_old_labels(table.schema.names))
    columns = []
    for field in schema:
        column = table.column(field.name) if field.name in table.schema.names else None
        # Not every type can be cast from null.
        if column is None or pa.types.is_null(column.type):
            columns.append(pa.nulls(table.num_rows, field.type))
        elif column.type == field.type:
            columns.append(column)
        elif field.type == STRING and not pa.types.is_large_string(column.type):
            columns.append(_array(from_values(column.to_pylist(), STRING), STRING))
        else:
            columns.append(column.cast(field.type, safe=False))
    return pa.Table.from_arrays(columns, schema=schema)


def metadata_writer(target: Path | pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a writer for metadata; call `write_table(…, row_group_size=ROW_GROUP_ROWS)` on it."""
    labels = [field.name for field in schema if field.name not in SCHEMA.names and pa.types.is_string(field.type)]
    return pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=[*DICTIONARY_COLUMNS, *labels])


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a parquet file."""
    sink = pa.BufferOutputStream()
    with metadata_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return bytes(sink.getvalue())


def new_run_id(now: datetime, *, random: str) -> str:
    """Return an id that sorts by time, `YYYYMMDDTHHMMSSZ-<random>`."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{random}"
