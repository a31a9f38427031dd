"""The metadata: its schema is a promise to everybody who reads it."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.dataset import (
    ROW_GROUP_ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    check_labels,
    conformed,
    label_names,
    metadata_writer,
    new_run_id,
    outcomes_table,
    parquet_bytes,
    rejected_table,
    unified,
)
from variations.errors import ManifestError
from variations.models import Measures, Metrics, Outcome, RejectedSource
from variations.parameters import PARAMETER_NAMES, Parameters

from .examples import NO_LABELS, SIGNATURE, SIGNED, nameless, outcome, source, variation

GOLDEN = """
variation_id: string not null
source_id: string
source_uri: string
split: string
group_id: string
output_index: int32 not null
file_name: string
status: string not null
error_code: string
error: string
can_retry: bool
notes: string
verdict: string
attempt: int32 not null
roll: int32
redux_image: string
aspect_ratio: string
disable_safety_checker: bool
guidance: double
megapixels: string
num_inference_steps: int32
num_outputs: int32
output_format: string
output_quality: int32
seed: int64
width: int32
height: int32
bytes: int64
format: string
sha256: string
contrast: double
phash: string
source_distance: int32
sibling_distance: int32
request_id: string
output_url: string
run_id: string not null
shard: int32
submitted_at: timestamp[us, tz=UTC]
completed_at: timestamp[us, tz=UTC]
queue_seconds: double
inference_seconds: double
total_seconds: double
polls: int32 not null
cost_usd: double not null
model: string not null
schema_version: int32 not null
"""
NOW = dt.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=dt.UTC)


def table_of(*outcomes: Outcome, labels: pa.Schema = NO_LABELS) -> pa.Table:
    """Return the rows of outcomes."""
    return outcomes_table(outcomes, labels=labels, run_id="run-1", shard=3, model="flux-redux-dev")


def refused_table(*rejected: RejectedSource, labels: pa.Schema = NO_LABELS) -> pa.Table:
    """Return the rows of refused rows."""
    return rejected_table(rejected, labels=labels, manifest="m.csv", run_id="run-1", model="flux-redux-dev")


def labelled(**kinds: pa.DataType) -> pa.Schema:
    """Return the schema of labels."""
    return pa.schema(list(kinds.items()))


def merged(*tables: pa.Table) -> pa.Table:
    """Merge tables as a publish does."""
    schema = unified(table.schema for table in tables)
    return pa.concat_tables([conformed(table, schema) for table in tables])


def test_the_schema_is_this_one() -> None:
    """Names, types and order; who changes them raises `SCHEMA_VERSION`."""
    assert str(SCHEMA) == GOLDEN.strip()
    assert SCHEMA_VERSION == 4


def test_the_apis_parameters_are_columns_by_their_own_names() -> None:
    """All ten of them, the source as it was handed over included."""
    assert {*PARAMETER_NAMES, "redux_image"} < set(SCHEMA.names)


def test_the_row_of_a_kept_image() -> None:
    """Everything that is known of it."""
    of = source("cat", split="train", group="p-1")
    wanted = variation(source=of, parameters=Parameters(seed=7, guidance=4))
    made = outcome(
        of=wanted,
        output_index=2,
        redux_image="https://h/a.jpg",
        request_id="r-1",
        output_url="https://images.segmind.com/1.jpg",
        submitted_at=NOW,
        completed_at=NOW + dt.timedelta(seconds=16),
        metrics=Metrics(cost_usd=9, queue_seconds=1.5, inference_seconds=14.25, total_seconds=15.75),
        polls=3,
        cost_usd=0.031,
        measures=Measures(
            contrast=87.5, phash=f"{255:016x}", source_distance=22, sibling_distance=2, verdict="flagged: twin"
        ),
    )
    (row,) = table_of(made).to_pylist()
    assert row == {
        "variation_id": wanted.variation_id,
        "source_id": "cat",
        "source_uri": "https://images.example.com/cat.jpg",
        "split": "train",
        "group_id": "p-1",
        "output_index": 2,
        "file_name": f"images/{wanted.variation_id[:2]}/{wanted.variation_id}.jpg",
        "status": "kept",
        "error_code": None,
        "error": None,
        "can_retry": None,
        "notes": None,
        "verdict": "flagged: twin",
        "attempt": 1,
        "roll": 0,
        "redux_image": "https://h/a.jpg",
        "aspect_ratio": "1:1",
        "disable_safety_checker": False,
        "guidance": 4.0,
        "megapixels": "1",
        "num_inference_steps": 28,
        "num_outputs": 1,
        "output_format": "jpg",
        "output_quality": 80,
        "seed": 7,
        "width": 1024,
        "height": 1024,
        "bytes": 5,
        "format": "jpg",
        "sha256": "0" * 64,
        "contrast": 87.5,
        "phash": "00000000000000ff",
        "source_distance": 22,
        "sibling_distance": 2,
        "request_id": "r-1",
        "output_url": "https://images.segmind.com/1.jpg",
        "run_id": "run-1",
        "shard": 3,
        "submitted_at": NOW,
        "completed_at": NOW + dt.timedelta(seconds=16),
        "queue_seconds": 1.5,
        "inference_seconds": 14.25,
        "total_seconds": 15.75,
        "polls": 3,
        "cost_usd": 0.031,
        "model": "flux-redux-dev",
        "schema_version": 4,
    }


@pytest.mark.parametrize("status", ["failed", "unknown"])
def test_the_row_of_an_image_that_is_not_there(status: str) -> None:
    """Its reason, its price, no file."""
    made = outcome(status, error_code="timeout", error="not done after 600 s", cost_usd=0.031, request_id="r-1")
    (row,) = table_of(made).to_pylist()
    wanted = {"status": status, "error_code": "timeout", "error": "not done after 600 s", "request_id": "r-1"}
    assert row.items() >= {**wanted, "cost_usd": 0.031}.items()
    assert {row[name] for name in ("file_name", "width", "height", "bytes", "format", "sha256", "notes")} == {None}


def test_the_row_of_an_image_that_was_dropped() -> None:
    """It has its measures, its price and the address of its file, and lies nowhere in the dataset."""
    measures = Measures(contrast=0.0, phash="0" * 16, verdict="flagged: blank")
    made = outcome("rejected", measures=measures, error_code="flagged", cost_usd=0.031, output_url="https://h/1.jpg")
    (row,) = table_of(made).to_pylist()
    expected = {"status": "rejected", "verdict": "flagged: blank", "contrast": 0.0, "cost_usd": 0.031, "attempt": 1}
    assert row.items() >= {**expected, "error_code": "flagged", "output_url": "https://h/1.jpg"}.items()
    assert row["file_name"] is None


def test_the_row_of_a_refused_row() -> None:
    """Nothing was asked for, so nothing was tried."""
    refused = RejectedSource(7, "guidance is 99", "cat", "https://h/a.jpg", {"class": "cat"})
    (row,) = refused_table(refused, labels=labelled(**{"class": pa.string()})).to_pylist()
    wanted = {"source_id": "cat", "source_uri": "https://h/a.jpg", "status": "rejected", "error_code": "bad_row"}
    assert row.items() >= {**wanted, "error": "row 7: guidance is 99", "attempt": 0, "class": "cat"}.items()
    assert row.items() >= {"cost_usd": 0.0, "polls": 0, "schema_version": 4, "output_index": 0}.items()
    assert {row[name] for name in (*PARAMETER_NAMES, "redux_image", "file_name", "request_id")} == {None}
    assert len(bytes.fromhex(row["variation_id"])) == 16


def test_the_quality_of_a_png_is_null() -> None:
    """The columns are what was sent."""
    (row,) = table_of(outcome(of=variation(parameters=Parameters(output_format="png")))).to_pylist()
    assert row["output_quality"] is None


def test_a_signature_is_in_no_row() -> None:
    """A source is named by its public URI."""
    made = outcome(of=variation(source=nameless(SIGNED)))
    assert SIGNATURE not in str(table_of(made).to_pylist())


def test_what_is_odd_about_an_image_is_in_its_notes() -> None:
    """All of it, in one text."""
    made = outcome()
    assert made.image is not None
    image = type(made.image)("a.jpg", 1, 1, 1, "jpg", "0", notes=("blank image", "unexpected size"))
    (row,) = table_of(outcome(image=image)).to_pylist()
    assert row["notes"] == "blank image; unexpected size"


def test_labels_stand_behind_the_schema_by_their_own_names() -> None:
    """In the order of the manifest."""
    made = outcome(of=variation(source=source(labels={"class": "cat", "score": 0.5})))
    table = table_of(made, labels=labelled(score=pa.float64(), **{"class": pa.string()}))
    assert table.schema.names == [*SCHEMA.names, "score", "class"]
    assert table.select(["score", "class"]).to_pylist() == [{"score": 0.5, "class": "cat"}]


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (["class"], ["class"]),
        (["seed", "class"], ["label_seed", "class"]),
        (["status", "label_status"], ["label_label_status", "label_status"]),
        (["label_status", "status"], ["label_status", "label_label_status"]),
        (["image_uri"], ["label_image_uri"]),
        (["Seed", ""], ["Seed", ""]),
        (["image", "file_name", "mask_file_name"], ["label_image", "label_filename", "label_mask_filename"]),
    ],
)
def test_a_label_that_collides_gets_a_prefix(labels: list[str], columns: list[str]) -> None:
    """With a column of the dataset, with one that imagefolder reads as an image, or with another label's new name."""
    assert list(label_names(labels).values()) == columns
    assert list(label_names(iter(labels)).values()) == columns


@given(st.lists(st.sampled_from([*SCHEMA.names, "image_uri", "label_seed", "label_label_seed", "class"]), unique=True))
def test_no_two_labels_share_a_column(labels: list[str]) -> None:
    """Nor does one with the dataset's own."""
    columns = list(label_names(labels).values())
    assert len({*columns, *SCHEMA.names, "image_uri"}) == len(columns) + len(SCHEMA.names) + 1


def test_a_colliding_label_keeps_its_value_and_its_type() -> None:
    """The seed of somebody else's data set is no seed of ours."""
    made = outcome(of=variation(source=source(labels={"seed": "forty-two"})))
    (row,) = table_of(made, labels=labelled(seed=pa.string())).to_pylist()
    assert (row["seed"], row["label_seed"]) == (made.variation.parameters.seed, "forty-two")


KINDS = {
    "integer": (pa.int64(), [1, 2**62]),
    "unsigned": (pa.uint64(), [1, 2**63]),
    "small": (pa.int8(), [-128, 127]),
    "number": (pa.float64(), [0.5, float("inf")]),
    "half": (pa.float16(), [0.5]),
    "truth": (pa.bool_(), [True, False]),
    "text": (pa.string(), ["é", ""]),
    "bytes": (pa.binary(), [b"\xff", b"a"]),
    "fixed": (pa.binary(1), [b"\xff"]),
    "date": (pa.date32(), [dt.date(2024, 1, 1)]),
    "moment": (pa.timestamp("us"), [NOW.replace(tzinfo=None)]),
    "far": (pa.timestamp("s"), [dt.datetime(9999, 1, 1)]),  # noqa: DTZ001 - a label without a zone
    "nanoseconds": (pa.timestamp("ns"), [NOW.replace(tzinfo=None)]),
    "zoned": (pa.timestamp("us", "UTC"), [NOW]),
    "span": (pa.duration("s"), [dt.timedelta(seconds=5)]),
    "time": (pa.time64("us"), [dt.time(1, 2)]),
    "decimal": (pa.decimal128(38, 10), [Decimal("1.5")]),
    "coarse": (pa.decimal128(5, 0), [Decimal(7)]),
    "list": (pa.list_(pa.int64()), [[1, None], []]),
    "texts": (pa.list_(pa.string()), [["a"]]),
    "object": (pa.struct([("a", pa.int64())]), [{"a": 1}]),
    "other": (pa.struct([("b", pa.string())]), [{"b": "x"}]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)]]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["a"]),
    "large": (pa.large_string(), ["a"]),
}


@pytest.mark.parametrize("one", KINDS)
def test_any_two_types_of_a_label_are_published_together(one: str) -> None:
    """A label that changes its type from run to run must never stop a dataset that is paid for."""
    for other, (other_kind, other_values) in KINDS.items():
        kind, values = KINDS[one]
        tables = [pa.table({"x": pa.array([*values, None], kind)})]
        tables.append(pa.table({"x": pa.array([*other_values, None], other_kind)}))
        found = merged(*tables).column("x")
        assert parquet_bytes(pa.table({"x": found}))
        before = [value for table in tables for value in table.column("x").to_pylist()]
        assert [value is None for value in found.to_pylist()] == [value is None for value in before], other
        if not pa.types.is_string(found.type):
            assert found.to_pylist() == before, other


@pytest.mark.parametrize(
    ("kinds", "wider"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.int64(), pa.float64()], pa.float64()),
        ([pa.int64(), pa.uint64()], pa.string()),
        ([pa.timestamp("ns"), pa.timestamp("us")], pa.timestamp("us")),
        ([pa.timestamp("us"), pa.timestamp("us", "UTC")], pa.string()),
        ([pa.string(), pa.binary()], pa.string()),
        ([pa.bool_(), pa.int64()], pa.string()),
        ([pa.int64(), pa.string(), pa.float64()], pa.string()),
        ([pa.null(), pa.date32()], pa.date32()),
    ],
    ids=lambda kinds: " ".join(map(str, kinds)) if isinstance(kinds, list) else None,
)
def test_a_label_widens_to_what_holds_all_its_types(kinds: list[pa.DataType], wider: pa.DataType) -> None:
    """Down to text where nothing else does."""
    assert unified(pa.schema([("x", kind)]) for kind in kinds).field("x").type == wider


def test_a_label_that_becomes_text_is_json() -> None:
    """So that a program can read it back."""
    tables = [pa.table({"x": pa.array([value])}) for value in ({"a": [1, 2], "b": "ä"}, True, 5, "text")]
    texts = merged(*tables).column("x").to_pylist()
    assert [json.loads(text) for text in texts[:3]] == [{"a": [1, 2], "b": "ä"}, True, 5]
    assert texts[3] == "text"


def test_the_columns_of_the_schema_do_not_widen() -> None:
    """A part of an older version is brought to today's types."""
    old = pa.table({"seed": pa.array([5], pa.int32()), "new_label": ["x"]})
    found = merged(old)
    assert found.schema.names == [*SCHEMA.names, "new_label"]
    assert found.schema.field("seed").type == pa.int64()
    assert found.column("seed").to_pylist() == [5]


def test_a_label_that_was_null_everywhere_takes_any_type() -> None:
    """Not every type can be cast from null."""
    before = table_of(outcome(), labels=pa.schema([("l", pa.null())]))
    schema = unified([before.schema, pa.schema([("l", pa.list_view(pa.int8()))])])
    assert conformed(before, schema).column("l").to_pylist() == [None]


def test_a_map_of_an_earlier_run_becomes_the_list_that_it_is_now() -> None:
    """And no text, for what it holds did not change."""
    kind = pa.map_(pa.string(), pa.int8())
    pairs = pa.list_(pa.struct([("key", pa.string()), ("value", pa.int8())]))
    labels = pa.schema([("l", kind)])
    before = table_of(outcome(of=variation(source=source(labels={"l": [("a", 1)]}))), labels=labels)
    for schemas in ([before.schema, pa.schema([("l", pairs)])], [pa.schema([("l", pairs)]), before.schema]):
        schema = unified(schemas)
        assert schema.field("l").type == pairs
        assert conformed(before, schema).column("l").to_pylist() == [[{"key": "a", "value": 1}]]


NAMELESS = pa.field("item", pa.int8())
HELD: list[tuple[pa.DataType, Any]] = [
    (pa.large_list(pa.string()), ["a"]),
    (pa.list_view(pa.int8()), [1]),
    (pa.list_(pa.float32(), 2), [0.5, 1.0]),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), ["a"]),
    (pa.list_(pa.map_(pa.string(), pa.int8())), [[("a", 1)]]),
    (pa.map_(pa.string(), pa.int32()), [("a", 1)]),
    (pa.struct([("a", pa.struct([("b", pa.int8())]))]), {"a": {"b": 1}}),
    (pa.dictionary(pa.int8(), pa.string()), "a"),
    (pa.decimal32(5, 1), Decimal("1.5")),
    (pa.decimal256(70, 3), Decimal("1.500")),
    (pa.duration("us"), dt.timedelta(seconds=1)),
    (pa.time32("s"), dt.time(1, 2, 3)),
    (pa.date64(), dt.date(2024, 1, 1)),
    (pa.float16(), 1.5),
    (pa.binary(2), b"ab"),
    (pa.null(), None),
]
NOT_HELD = [
    pa.list_(pa.string_view()),
    pa.large_list(pa.string_view()),
    pa.struct([("a", pa.binary_view())]),
    pa.map_(pa.string_view(), pa.int8()),
    pa.binary_view(),
    pa.month_day_nano_interval(),
    pa.run_end_encoded(pa.int32(), pa.string()),
    pa.sparse_union([NAMELESS]),
    pa.dense_union([NAMELESS]),
    pa.list_(pa.uuid()),
    pa.list_(pa.json_()),
    pa.struct([]),
]


@pytest.mark.parametrize(("kind", "value"), HELD, ids=str)
def test_a_label_whose_type_passes_goes_the_whole_way(kind: pa.DataType, value: Any) -> None:
    """Its value comes back from the metadata as it was."""
    labels = pa.schema([("l", kind)])
    check_labels(labels)
    table = table_of(outcome(of=variation(source=source(labels={"l": value}))), labels=labels)
    table = conformed(table, unified([table.schema])).filter(pa.array([True]))
    assert pq.read_table(pa.BufferReader(parquet_bytes(table))).column("l").to_pylist() == [value]


@pytest.mark.parametrize("kind", NOT_HELD, ids=str)
def test_a_label_whose_type_metadata_cannot_hold_is_refused(kind: pa.DataType) -> None:
    """By its name, before anything is paid: the rows of what was paid could never be published."""
    with pytest.raises(
        ManifestError, match=r"the column 'odd' is of Arrow's type .*, which metadata cannot hold"
    ) as no:
        check_labels(pa.schema([("fine", pa.int8()), ("odd", kind)]))
    assert str(kind) in str(no.value)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), unique=True), max_size=4))
def test_columns_come_in_one_order(labels: list[list[str]]) -> None:
    """The schema's own first, then each label where it first appears; nothing is left out or twice."""
    schemas = [pa.schema([*SCHEMA, *((name, pa.string()) for name in names)]) for names in labels]
    names = unified(schemas).names
    assert names[: len(SCHEMA)] == SCHEMA.names
    assert names[len(SCHEMA) :] == list(dict.fromkeys(name for some in labels for name in some))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("many", pa.int64()),
        (2**70, pa.int64()),
        (-1, pa.uint8()),
        ({}, pa.float64()),
        ("yesterday", pa.date32()),
        ("x", pa.decimal128(5, 2)),
        ([1, "a"], pa.list_(pa.int64())),
        (5, pa.string()),
        (b"\xff", pa.string()),
        ([None], pa.map_(pa.string(), pa.int64())),
        ([[None, 1]], pa.map_(pa.string(), pa.int64())),
        ([{"m": [(None, 1)]}], pa.list_(pa.struct([("m", pa.map_(pa.string(), pa.int64()))]))),
    ],
)
def test_a_refused_row_with_a_label_of_a_wrong_type_keeps_its_reason(value: Any, kind: pa.DataType) -> None:
    """The label is null, those of the other rows are there."""
    wrong, right = RejectedSource(1, "no URI", labels={"x": value}), RejectedSource(2, "no URI", labels={"x": None})
    table = refused_table(wrong, right, labels=labelled(x=kind))
    assert table.column("x").to_pylist() == [None, None]
    assert table.column("error").to_pylist() == ["row 1: no URI", "row 2: no URI"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@given(values=st.lists(ANYTHING, max_size=4), kind=st.sampled_from([kind for kind, _ in KINDS.values()]))
@settings(deadline=None)
def test_no_label_of_a_refused_row_stops_a_run(values: list[Any], kind: pa.DataType) -> None:
    """Whatever it holds, and whatever its column is."""
    rows = [RejectedSource(at, "refused", labels={"x": value}) for at, value in enumerate(values)]
    assert refused_table(*rows, labels=labelled(x=kind)).num_rows == len(values)


@given(text=st.text(st.characters(codec=None), max_size=20))
def test_any_text_of_the_api_can_be_written(text: str) -> None:
    """JSON can spell half a surrogate pair, UTF-8 cannot: what is paid for is written all the same."""
    content = parquet_bytes(table_of(outcome("failed", error=text)))
    (error,) = pq.read_table(pa.BufferReader(content)).column("error").to_pylist()
    assert error == text.encode("utf-8", "backslashreplace").decode()


def test_hugging_faces_imagefolder_finds_its_images() -> None:
    """`file_name` is relative to the metadata, with forward slashes, and null where there is no image."""
    names = table_of(outcome(), outcome("failed"), outcome("unknown")).column("file_name").to_pylist()
    assert names[1:] == [None, None]
    assert not PurePosixPath(names[0]).is_absolute()
    assert ".." not in names[0]
    assert "\\" not in names[0]
    assert ":" not in names[0]


def test_a_file_has_row_groups_of_ten_thousand_in_zstd(tmp_path: Path) -> None:
    """A reader that wants a part need not fetch the whole."""
    table = table_of(outcome())
    rows = pa.concat_tables([table] * (2 * ROW_GROUP_ROWS + 1)).combine_chunks()
    path = tmp_path / "metadata.parquet"
    path.write_bytes(parquet_bytes(rows))
    found = pq.ParquetFile(path).metadata
    assert [found.row_group(at).num_rows for at in range(found.num_row_groups)] == [10_000, 10_000, 1]
    columns = [found.row_group(0).column(at) for at in range(found.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    encoded = {column.path_in_schema: "RLE_DICTIONARY" in column.encodings for column in columns}
    assert encoded["status"]
    assert not encoded["variation_id"]
    assert not encoded["sha256"]


def test_a_label_of_text_is_encoded_by_a_dictionary(tmp_path: Path) -> None:
    """Classes repeat themselves."""
    path = tmp_path / "metadata.parquet"
    table = table_of(
        outcome(of=variation(source=source(labels={"class": "cat"}))), labels=labelled(**{"class": pa.string()})
    )
    with metadata_writer(path, table.schema) as writer:
        writer.write_table(table)
    group = pq.ParquetFile(path).metadata.row_group(0)
    (column,) = [group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == "class"]
    assert "RLE_DICTIONARY" in column.encodings


def test_what_is_written_is_read_back_by_pandas(tmp_path: Path) -> None:
    """With its types: times in UTC, whole numbers whole, texts as texts."""
    made = outcome(submitted_at=NOW, of=variation(source=source(labels={"tags": ["a", "b"], "score": 1})))
    path = tmp_path / "metadata.parquet"
    path.write_bytes(parquet_bytes(table_of(made, labels=labelled(tags=pa.list_(pa.string()), score=pa.int64()))))
    frame = pd.read_parquet(path)
    assert frame.loc[0, "submitted_at"] == pd.Timestamp(NOW)
    assert str(frame["submitted_at"].dtype) == "datetime64[us, UTC]"
    assert str(frame["status"].dtype) == "str"
    assert frame["seed"].dtype == "int64"
    assert list(frame.loc[0, "tags"]) == ["a", "b"]
    assert frame.loc[0, "score"] == 1


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """The schema comes back as it was, what may not be null included."""
    path = tmp_path / "metadata.parquet"
    path.write_bytes(parquet_bytes(table_of(outcome(), outcome("failed"))))
    assert pq.read_schema(path).remove_metadata() == SCHEMA


def test_a_run_id_sorts_by_time() -> None:
    """In UTC, whatever zone the clock is in."""
    zone = dt.timezone(dt.timedelta(hours=5))
    assert new_run_id(NOW.astimezone(zone), random="abc") == "20240229T123015Z-abc"
    assert new_run_id(NOW, random="f") < new_run_id(NOW + dt.timedelta(seconds=1), random="0")


def test_a_label_of_before_there_was_a_gate_stays_a_label() -> None:
    """Though a column is called like it now, and is of another type."""
    labels = labelled(contrast=pa.string(), roll=pa.string())
    new = table_of(outcome(of=variation(source=source(labels={"contrast": "high", "roll": "b"}))), labels=labels)
    assert new.column("label_contrast").to_pylist() == ["high"]
    of_the_gate = ("verdict", "roll", "contrast", "phash", "source_distance", "sibling_distance")
    names = [name.removeprefix("label_") for name in new.schema.names if name not in of_the_gate]
    old = new.select([name for name in new.schema.names if name not in of_the_gate]).rename_columns(names)
    assert "label_contrast" not in old.schema.names
    both = merged(old, new)
    assert both.column("label_contrast").to_pylist() == ["high", "high"]
    assert both.column("label_roll").to_pylist() == ["b", "b"]
    assert both.column("contrast").to_pylist() == [None, None]
