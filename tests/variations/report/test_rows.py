"""The rows of a gallery: which ones, in what order, as what JSON."""

import datetime as dt
import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from tests.variations.examples import outcome, source, variation
from variations.dataset import outcomes_table, parquet_bytes
from variations.report.rows import LONGEST_TEXT, columns_of, read_shown


def written(
    folder: Path, sources: list[str], labels: pa.Schema | None = None, values: list[object] | None = None
) -> Path:
    """Write the metadata of a row for each source."""
    outcomes = [
        outcome(of=variation(source=source(name, labels={"label": value}), variation_id=f"{at:032x}"))
        for at, (name, value) in enumerate(zip(sources, values or [None] * len(sources), strict=True))
    ]
    table = outcomes_table(outcomes, labels=labels or pa.schema([]), run_id="run", model="none")
    path = folder / "metadata.parquet"
    path.write_bytes(parquet_bytes(table))
    return path


def test_a_source_and_its_variations_lie_together(tmp_path: Path) -> None:
    """Sources in the order of their first rows, rows in that of the dataset."""
    shown = read_shown(written(tmp_path, ["b", "a", "b", "c", "a", "b"]))
    assert shown.table.column("source_id").to_pylist() == ["b", "b", "b", "a", "a", "c"]
    assert [int(name, 16) for name in shown.table.column("variation_id").to_pylist()] == [0, 2, 5, 1, 4, 3]
    assert shown.source_of_row == [0, 0, 0, 1, 1, 2]
    assert shown.sources == [0, 3, 5]
    assert shown.total == 6


def test_of_a_large_dataset_whole_sources_are_shown(tmp_path: Path) -> None:
    """About as many rows as asked for, and the same ones each time, though others are added."""
    names = [f"s{at % 1000}" for at in range(4000)]
    shown = read_shown(written(tmp_path, names), most=1000)
    assert shown.total == 4000
    assert 700 < shown.table.num_rows < 1300
    assert shown.table.num_rows == 4 * len(shown.sources)
    more = read_shown(written(tmp_path, [*names, *(f"new{at}" for at in range(1000))]), most=1000)
    before, after = (set(one.table.column("source_id").to_pylist()) for one in (shown, more))
    assert {name for name in after if name.startswith("s")} <= before


@pytest.mark.parametrize("sources", [1, 3])
def test_a_source_of_many_rows_does_not_make_it_larger(tmp_path: Path, sources: int) -> None:
    """Where a few sources have all the rows, some rows of them are shown, and never more than asked for."""
    shown = read_shown(written(tmp_path, [f"s{at % sources}" for at in range(3000)]), most=100)
    assert (shown.total, shown.table.num_rows) == (3000, 100)


def test_an_empty_dataset_is_shown(tmp_path: Path) -> None:
    """It has no rows."""
    shown = read_shown(written(tmp_path, []))
    assert (shown.total, shown.sources) == (0, [])
    assert columns_of(shown.table)[0]["values"] == []


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pa.string(), "cat", ("text", "cat")),
        (pa.bool_(), True, ("text", "true")),
        (pa.int64(), 7, ("number", 7)),
        (pa.int64(), 2**60 + 1, ("text", str(2**60 + 1))),
        (pa.float64(), 0.1 + 0.2, ("number", 0.3)),
        (pa.float64(), math.nan, ("number", None)),
        (pa.float64(), math.inf, ("number", None)),
        (pa.binary(), b"\x00\xff", ("text", "2 bytes")),
        (pa.list_(pa.int64()), [1, 2], ("text", "[1, 2]")),
        (pa.date32(), dt.date(2026, 1, 2), ("text", "2026-01-02")),
        (
            pa.timestamp("us", "UTC"),
            dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
            ("time", "2026-01-02 00:00:00"),
        ),
        (pa.string(), "x" * 5000, ("text", "x" * (LONGEST_TEXT - 1) + "…")),
    ],
)
def test_labels_of_any_type_become_json(
    tmp_path: Path, kind: pa.DataType, value: object, expected: tuple[str, object]
) -> None:
    """What JavaScript has no number for is a text."""
    labels = pa.schema([pa.field("label", kind)])
    shown = read_shown(written(tmp_path, ["a", "b"], labels, [value, None]))
    (column,) = [column for column in columns_of(shown.table) if column["name"] == "label"]
    json.dumps(column, allow_nan=False)
    values = column["values"]
    first = values[column["codes"][0]] if "codes" in column else values[0]
    assert (column["kind"], first, column["group"]) == (*expected, "Labels")


def test_what_repeats_itself_is_written_once(tmp_path: Path) -> None:
    """Ids are not."""
    shown = read_shown(written(tmp_path, ["a"] * 50))
    columns = {column["name"]: column for column in columns_of(shown.table)}
    assert columns["status"]["values"] == ["kept"]
    assert columns["status"]["codes"] == [0] * 50
    assert "codes" not in columns["variation_id"]
    names = [column["name"] for column in columns_of(shown.table)]
    assert sorted(names) == sorted(shown.table.column_names)
    assert names[0] == "status"
