"""What a dataset holds, counted in one pass over its metadata in bounded memory."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import ROW_GROUP_ROWS, SCHEMA
from variations.image_folder import SPLIT, kept_rows, rows_by_split
from variations.parameters import PARAMETER_NAMES

# Of a column with more values than this, only the range is told.
MOST_VALUES: Final = 20
_LONGEST_TOLD: Final = 80
VERDICT: Final = "verdict"
_OF_RUNS: Final = ("status", "model", "cost_usd", "completed_at", "bytes", "file_name", "format")


@dataclass(slots=True)
class Values:
    """The values of a column: each with its count while they are few, and their range."""

    counts: Counter[Any] = field(default_factory=Counter)
    is_many: bool = False
    least: Any = None
    most: Any = None

    def add(self, column: pa.Array) -> None:
        """Count the values of a batch; nulls are left out."""
        found = column.drop_null()
        if not len(found):
            return
        if not self.is_many:
            for one in pc.value_counts(found).to_pylist():
                self.counts[one["values"]] += one["counts"]
            if len(self.counts) > MOST_VALUES:
                self.is_many = True
                self.counts.clear()
        least, most = pc.min_max(found).as_py().values()
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)

    def __str__(self) -> str:
        if self.is_many and isinstance(self.least, str):
            return f"more than {MOST_VALUES} values"
        if self.is_many:
            return f"{_told(self.least)} to {_told(self.most)}"
        return ", ".join(f"{_told(value)} ({count:,})" for value, count in sorted(self.counts.items(), key=_by_count))


def _by_custom(item: tuple[str, int]) -> tuple[bool, bool, bool, str]:
    """Order splits as people do: train, validation, test, and the others by name."""
    split = item[0]
    return split != "train", split != "validation", split != "test", split


def _by_count(item: tuple[Any, int]) -> tuple[int, str]:
    return -item[1], str(item[0])


def _told(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    # A caption or a text of a million bytes may be a label; they are told from each other by how they begin.
    return text if len(text) <= _LONGEST_TOLD else f"{text[: _LONGEST_TOLD - 1]}…"


@dataclass(slots=True)
class Summary:
    """What a dataset holds.

    Attributes:
        rows: one for every image wanted.
        statuses: how many rows are `kept`, `failed`, …
        images: by split, how many images lie in its folder.
        without_split: images that have none.
        elsewhere: images that have a split, and do not lie in its folder.
        bytes: of all images.
        cost_usd: what the rows cost.
        models: which made them.
        formats: of the images.
        parameters: the API's, as sent, of the images that are there.
        labels: the manifest's other columns, by name, with their type and values.
        verdicts: of the quality gate, where there was one.
        first, last: when the first and the last image was done.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    images: dict[str, int] = field(default_factory=dict)
    without_split: int = 0
    elsewhere: int = 0
    bytes: int = 0
    cost_usd: float = 0.0
    models: Values = field(default_factory=Values)
    formats: Values = field(default_factory=Values)
    parameters: dict[str, Values] = field(default_factory=dict)
    labels: dict[str, tuple[str, Values]] = field(default_factory=dict)
    verdicts: Values = field(default_factory=Values)
    first: datetime | None = None
    last: datetime | None = None

    @property
    def kept(self) -> int:
        """How many images are there."""
        return self.statuses["kept"]

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of rows."""
        self.rows += batch.num_rows
        for one in pc.value_counts(batch.column("status")).to_pylist():
            self.statuses[one["values"]] += one["counts"]
        self.cost_usd += pc.sum(batch.column("cost_usd")).as_py() or 0.0
        kept = kept_rows(batch)
        self.bytes += pc.sum(kept.column("bytes")).as_py() or 0
        self.models.add(kept.column("model"))
        self.formats.add(kept.column("format"))
        times = Values(is_many=True)
        times.add(kept.column("completed_at"))
        self.first = min((at for at in (self.first, times.least) if at is not None), default=None)
        self.last = max((at for at in (self.last, times.most) if at is not None), default=None)
        for name, values in self.parameters.items():
            values.add(kept.column(name))
        for name, (_, values) in self.labels.items():
            if name in kept.schema.names:
                values.add(kept.column(name))
        if VERDICT in kept.schema.names:
            self.verdicts.add(kept.column(VERDICT))
        self._add_splits(kept)

    def _add_splits(self, kept: pa.RecordBatch) -> None:
        without = kept.num_rows
        if SPLIT in kept.schema.names:
            without = kept.column(SPLIT).null_count
        placed = 0
        for split, rows in rows_by_split(kept):
            self.images[split] = self.images.get(split, 0) + rows.num_rows
            placed += rows.num_rows
        self.without_split += without
        self.elsewhere += kept.num_rows - without - placed


def summarise(metadata: Path) -> Summary:
    """Read the metadata once, a batch of rows in memory, and only the columns that are counted."""
    with pq.ParquetFile(metadata) as file:
        schema = file.schema_arrow
        labels = [one for one in schema if one.name not in (*SCHEMA.names, SPLIT, VERDICT)]
        summary = Summary(
            # Hardly a seed is there twice.
            parameters={name: Values(is_many=name == "seed") for name in PARAMETER_NAMES},
            labels={one.name: (str(one.type), Values()) for one in labels},
        )
        optional = [name for name in (SPLIT, VERDICT) if name in schema.names]
        columns = [*_OF_RUNS, *PARAMETER_NAMES, *optional, *(one.name for one in labels if _is_plain(one.type))]
        for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
            summary.add(batch)
    summary.images = dict(sorted(summary.images.items(), key=_by_custom))
    return summary


def _is_plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_integer)
    return any(test(kind) for test in (*tests, pa.types.is_floating, pa.types.is_date, pa.types.is_timestamp))
