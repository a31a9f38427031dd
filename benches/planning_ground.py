"""A manifest of many rows, and a dataset in which all of it was made.

`python -m benches.planning_ground manifest ROWS FILE`, and then `… dataset FOLDER PLANNED SEED`, where PLANNED is the
folder in which a run over the manifest was planned.
"""

import contextlib
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import METADATA_KEY, ROW_GROUP_ROWS, SCHEMA, SCHEMA_VERSION, metadata_writer, unified
from variations.engine.limits import LATENCY_SECONDS
from variations.layout import RUNS_PREFIX
from variations.parameters import MODEL, Parameters
from variations.planning.plan_shards import label_schema_of

RUN_ID: Final = "20260101T000000Z-000000"
SUBJECTS: Final = ("chair", "lamp", "shoe", "sofa", "table", "watch")
BATCH_ROWS: Final = 100_000


def write_manifest(path: Path, rows: int) -> None:
    """Write a manifest with an id, a URL and two labels."""
    schema = pa.schema([("id", pa.string()), ("url", pa.string()), ("subject", pa.string()), ("weight", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, BATCH_ROWS):
            numbers = range(first, min(first + BATCH_ROWS, rows))
            columns = [
                [f"photo-{number:07}" for number in numbers],
                [f"https://photos.example.com/2026/{number % 1000:03}/{number:07}.jpg" for number in numbers],
                [SUBJECTS[number % len(SUBJECTS)] for number in numbers],
                [number / 7 for number in numbers],
            ]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))


def write_dataset(folder: Path, planned: Path, *, seed: int) -> None:
    """Write the metadata of a dataset in which all was made that a run has planned in another folder.

    Args:
        folder: of the dataset.
        planned: the folder in which a run was planned.
        seed: of hashes, sizes and times.
    """
    folder.mkdir()
    rng = np.random.default_rng(seed)
    with contextlib.ExitStack() as stack:
        writer = None
        for number, shard in enumerate(sorted(planned.glob(f"{RUNS_PREFIX}*/plan/shard-*.parquet"))):
            table = _kept(pq.read_table(shard), shard=number, rng=rng)
            if writer is None:
                writer = stack.enter_context(metadata_writer(folder / METADATA_KEY, table.schema))
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


def _kept(planned: pa.Table, *, shard: int, rng: np.random.Generator) -> pa.Table:
    """Return the rows of variations that were planned, as if all were kept.

    A row of Python at a time, as a run writes them, a million would take a minute.
    """
    rows = planned.num_rows
    ids = planned.column("variation_id").to_pylist()
    hashes, requests = _hex(rng, rows, digits=64), _hex(rng, rows, digits=32)
    seconds = rng.normal(LATENCY_SECONDS, 1.0, rows)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    same = {**Parameters().as_sent(), "output_index": 0, "status": "kept", "attempt": 1, "width": 1024, "height": 1024}
    same |= {"format": "jpg", "run_id": RUN_ID, "shard": shard, "submitted_at": at, "completed_at": at, "polls": 4}
    same |= {"cost_usd": 0.031, "model": MODEL, "schema_version": SCHEMA_VERSION}
    each = {
        "variation_id": ids,
        "source_id": planned.column("source_id"),
        "source_uri": planned.column("source_uri"),
        "redux_image": planned.column("source_uri"),
        "file_name": [f"images/{name[:2]}/{name}.jpg" for name in ids],
        "seed": planned.column("seed"),
        "bytes": rng.integers(60_000, 140_000, rows),
        "sha256": hashes,
        "request_id": [str(uuid.UUID(request)) for request in requests],
        "output_url": [f"https://images.segmind.com/outputs/{request}.jpg" for request in requests],
        "queue_seconds": np.zeros(rows),
        "inference_seconds": seconds,
        "total_seconds": seconds,
    }
    labels = label_schema_of(planned)
    each |= {label.name: pc.struct_field(planned.column("labels").combine_chunks(), label.name) for label in labels}
    schema = unified([SCHEMA, labels])
    columns = [_column(field, each.get(field.name), same.get(field.name), rows) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(field: pa.Field, values: Any, value: Any, rows: int) -> pa.ChunkedArray | pa.Array:
    if values is None:
        return pa.repeat(pa.scalar(value, field.type), rows)
    return values if isinstance(values, pa.ChunkedArray | pa.Array) else pa.array(values, field.type)


def _hex(rng: np.random.Generator, rows: int, *, digits: int) -> list[str]:
    text = rng.bytes(rows * digits // 2).hex()
    return [text[first : first + digits] for first in range(0, len(text), digits)]


def main(what: str, *arguments: str) -> None:
    """Write a manifest (ROWS, FILE), or a dataset (FOLDER, PLANNED, SEED)."""
    if what == "manifest":
        rows, file = arguments
        write_manifest(Path(file), int(rows))
    else:
        folder, planned, seed = arguments
        write_dataset(Path(folder), Path(planned), seed=int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
