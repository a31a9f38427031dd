"""Every kind of bad row, one by one, and what a row may set for itself."""

import io
import json
import time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features

from variations.manifest.labels import without_signatures

GOOD = "https://h/ok.jpg"


@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"url": ""}, "no URI"),
        ({"url": None}, "no URI"),
        ({"url": "n/a"}, "not a URI: 'n/a' has no scheme and, as a path, no image's extension"),
        ({"url": "gs://b/a.jpg"}, "gs: is not supported, use http(s)://, s3:// or a file"),
        ({"url": GOOD, "guidance": 12}, "guidance is 12, allowed are 0 to 10"),
        (
            {"url": GOOD, "num_outputs": 5, "output_format": "bmp"},
            "num_outputs is 5, allowed are whole numbers 1 to 4; output_format is bmp, allowed are webp, jpg, png",
        ),
    ],
)
async def test_bad_row_is_reported_and_the_others_go_on(
    read_text: Any, encode: Any, extension: str, row: dict[str, Any], reason: str
) -> None:
    """A bad row has its number, its id, its labels and one reason; the rows around it are sources."""
    names = dict.fromkeys(["id", "url", "label", "guidance", "num_outputs", "output_format"])
    good = names | {"id": "a", "url": GOOD, "label": "x"}
    rows = [good, names | {"id": "b", "label": "y"} | row, good | {"id": "c"}]
    found = await read_text(f"m{extension}", encode(rows, extension))
    assert [source.row for source in found.sources] == [1, 3]
    [bad] = found.rejected
    assert (bad.row, bad.reason, bad.source_id, bad.labels) == (2, reason, "b", {"label": "y"})
    assert [row.row for row in found.rows] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("guidance", "2.5", 2.5),
        ("guidance", 3, 3.0),
        ("num_inference_steps", "28", 28),
        ("num_inference_steps", 28.0, 28),
        ("num_inference_steps", "28.0", 28),
        ("seed", 2**31 - 1, 2**31 - 1),
        ("disable_safety_checker", "true", True),
        ("disable_safety_checker", "0", False),
        ("disable_safety_checker", 1, True),
        ("disable_safety_checker", False, False),
        ("megapixels", 1, "1"),
        ("megapixels", "1.0", "1"),
        ("megapixels", 0.25, "0.25"),
        ("megapixels", "match_input", "match_input"),
        ("aspect_ratio", " 16:9 ", "16:9"),
        ("output_format", "webp", "webp"),
        ("output_quality", 0, 0),
    ],
)
async def test_override_is_validated_into_the_apis_type(
    read_text: Any, name: str, value: object, valid: object
) -> None:
    """Values are accepted as CSV, JSON and pandas write them, and carried as the API takes them."""
    found = await read_text("m.jsonl", json.dumps({"url": GOOD, name: value}))
    [source] = found.sources
    assert source.overrides == {name: valid}
    assert type(source.overrides[name]) is type(valid)
    assert found.labels == {}


@pytest.mark.parametrize("value", ["", "  ", None, float("nan")])
async def test_empty_override_is_none(read_text: Any, value: object) -> None:
    """An empty cell, null and pandas' NaN leave the parameter as the run has it."""
    found = await read_text("m.jsonl", json.dumps({"url": GOOD, "seed": value}))
    assert found.sources[0].overrides == {}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("num_outputs", 3.5, "num_outputs is 3.5, allowed are whole numbers 1 to 4"),
        ("num_outputs", True, "num_outputs is True, allowed are whole numbers 1 to 4"),
        ("guidance", "inf", "guidance is inf, allowed are 0 to 10"),
        ("guidance", "nan", "guidance is nan, allowed are 0 to 10"),
        ("guidance", [1], "guidance is [1], allowed are 0 to 10"),
        ("seed", 0, "seed is 0, allowed are whole numbers 1 to 2147483647"),
        ("seed", -1, "seed is -1, allowed are whole numbers 1 to 2147483647"),
        ("disable_safety_checker", "maybe", "disable_safety_checker is maybe, allowed are true and false"),
        ("megapixels", 2, "megapixels is 2, allowed are 1, 0.25, match_input"),
        ("megapixels", True, "megapixels is True, allowed are 1, 0.25, match_input"),
        ("output_format", "https://h/a.jpg?sig=5ec3e7", "output_format is https://h/a.jpg, allowed are webp, jpg, png"),
    ],
)
async def test_parameter_out_of_range(reason_of: Any, name: str, value: object, reason: str) -> None:
    """The reason names the parameter, the value and what is allowed."""
    assert await reason_of("m.jsonl", json.dumps({"url": GOOD, name: value})) == reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{nonsense", "it is not JSON: Expecting property name enclosed in double quotes"),
        ('["https://h/a.jpg"]', "it is an array and not a JSON object"),
        ('{"url": "https://h/a.jpg"} {}', "it is not JSON: something follows the value"),
        ("null", "it is null and not a JSON object"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"url": "https://h/a.jpg", "x": "\\ud800"}', "it has half a surrogate pair in it, which is no text"),
        ('{"url": "https://h/a.jpg", "x": ' + "1" * 5000 + "}", "it is not JSON: a number is too long"),
        (b'{"url": "https://h/\xff.jpg"}', "it is not UTF-8 text"),
        ('{"url": 5}', "not a URI: the cell holds a number"),
        ('{"url": ["https://h/a.jpg"]}', "not a URI: the cell holds a list"),
    ],
)
async def test_bad_line_of_json(read_text: Any, line: str | bytes, reason: str) -> None:
    """A line that is no JSON object, or no text, is a rejected row; the lines around it are read."""
    data = line if isinstance(line, bytes) else line.encode()
    good = json.dumps({"url": GOOD}).encode()
    found = await read_text("m.jsonl", b"\n".join([good, data, good]))
    assert [source.row for source in found.sources] == [1, 3]
    assert [(row.row, row.reason) for row in found.rejected] == [(2, reason)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("https://h/a.jpg", "1 cells where the header has 2"),
        ("https://h/a.jpg,x,y", "3 cells where the header has 2"),
        (b"https://h/a.jpg,\xe9t\xe9", "it is not UTF-8 text"),
        ('https://h/a.jpg,"x"y', "the quotes of line 3 do not match (',' expected after '\"')"),
        ('https://h/a.jpg,"x\n"y', "the quotes of lines 3 to 4 do not match (',' expected after '\"')"),
    ],
)
async def test_bad_line_of_csv(read_text: Any, line: str | bytes, reason: str) -> None:
    """A row with too few or too many cells, bad quotes or bad bytes is rejected; the rows around it are read."""
    data = line if isinstance(line, bytes) else line.encode()
    good = f"{GOOD},1".encode()
    found = await read_text("m.csv", b"\n".join([b"url,n", good, data, good, b""]))
    assert found.labels == {"n": "int64"}
    assert [source.row for source in found.sources] == [1, 3]
    assert [(row.row, row.reason) for row in found.rejected] == [(2, reason)]


async def test_bad_line_of_text(read_text: Any) -> None:
    """Bytes that are no text are a rejected row in a text file, too."""
    found = await read_text("m.txt", b"https://h/a.jpg\nhttps://h/\xff.jpg\nhttps://h/b.jpg\n")
    assert [source.row for source in found.sources] == [1, 3]
    assert [(row.row, row.reason) for row in found.rejected] == [(2, "it is not UTF-8 text")]


async def test_rejected_row_shows_no_secret(read_text: Any) -> None:
    """Neither a password nor a signature is repeated by a rejected row."""
    found = await read_text(
        "m.csv",
        "url,seed\nhttps://me:5ec3e7@h/a.jpg,1\nhttps://h/a b.jpg?X-Amz-Signature=5ec3e7,1\n"
        "https://h/a.jpg?X-Amz-Signature=5ec3e7,0\n",
    )
    assert len(found.rejected) == 3
    assert "5ec3e7" not in repr(found.rejected)
    assert found.rejected[2].public_uri == found.rejected[2].source_id == "https://h/a.jpg"


SIGNED = "https://h/a.jpg?w=1&X-Amz-Signature=5ec3e7"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (SIGNED, "https://h/a.jpg?w=1"),
        (f" {SIGNED}", " https://h/a.jpg?w=1"),
        (f"see {SIGNED}, it is a cat", "see https://h/a.jpg?w=1, it is a cat"),
        (f"({SIGNED}).", "(https://h/a.jpg?w=1)."),
        (f"{SIGNED} {SIGNED}&v=2", "https://h/a.jpg?w=1 https://h/a.jpg?w=1&v=2"),
        (f"{SIGNED},{SIGNED}", "https://h/a.jpg?w=1,https://h/a.jpg?w=1"),
        (f"https://h/?x=1,{SIGNED}", "https://h/?x=1,https://h/a.jpg?w=1"),
        (f"{SIGNED} taken in May", "https://h/a.jpg?w=1 taken in May"),
        ("https://h/a.jpg?n=a b&X-Amz-Signature=5ec3e7", "https://h/a.jpg?n=a b"),
        ("by https://h/it's.jpg?n='a'&sig=5ec3e7", "by https://h/it's.jpg?n='a'"),
        (json.dumps([SIGNED, {"u": SIGNED}]), '["https://h/a.jpg?w=1", {"u": "https://h/a.jpg?w=1"}]'),
        (str([SIGNED, SIGNED]), "['https://h/a.jpg?w=1', 'https://h/a.jpg?w=1']"),
        (json.dumps(json.dumps([SIGNED])), r'"[\"https://h/a.jpg?w=1\"]"'),
        (r'["https:\/\/h\/a.jpg?w=1\u0026X-Amz-Signature=5ec3e7"]', r'["https:\/\/h\/a.jpg?w=1"]'),
        ('<a href="HTTPS://h/a.jpg?w=1&amp;sig=5ec3e7">', '<a href="HTTPS://h/a.jpg?w=1">'),
        ("https://h/a.jpg?w=1&amp;sig=5ec3e7", "https://h/a.jpg?w=1"),
        ("see https://h/?a=1&amp;b=2 and why? no", "see https://h/?a=1&amp;b=2 and why? no"),
        ("what?sig=1", "what?sig=1"),
    ],
)
@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
async def test_label_keeps_all_but_signatures(
    *, read_text: Any, encode: Any, extension: str, text: str, kept: str
) -> None:
    """A presigned URL loses its signature wherever in a text it stands."""
    found = await read_text(f"m{extension}", encode([{"url": GOOD, "note": text}], extension))
    [source] = found.sources
    assert source.labels == {"note": kept}


@pytest.mark.parametrize(
    ("value", "kept", "kind"),
    [
        ([SIGNED, None], ["https://h/a.jpg?w=1", None], None),
        ({"a": {"b": [f"see {SIGNED}"]}, "n": 1}, {"a": {"b": ["see https://h/a.jpg?w=1"]}, "n": 1}, None),
        ([("k", SIGNED)], [("k", "https://h/a.jpg?w=1")], pa.map_(pa.string(), pa.string())),
        ([1.5], [1.5], None),
    ],
)
async def test_nested_label_keeps_all_but_signatures(read_text: Any, value: Any, kept: Any, kind: Any) -> None:
    """Lists, structs and maps of texts, too; in a table of JSON lines they are JSON text."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"url": [GOOD], "note": pa.array([value], kind)}), sink)
    [source] = (await read_text("m.parquet", sink.getvalue())).sources
    assert source.labels == {"note": kept}
    [source] = (await read_text("m.jsonl", json.dumps({"url": GOOD, "note": value}))).sources
    assert "5ec3e7" not in source.labels["note"]


PAIRS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.int8())]))


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (pa.map_(pa.string(), pa.int8()), [("a", 1)], PAIRS),
        (pa.map_(pa.large_string(), pa.int8()), [("a", 1)], PAIRS),
        (pa.struct([("m", pa.map_(pa.string(), pa.int8()))]), {"m": [("a", 1)]}, pa.struct([("m", PAIRS)])),
        (pa.list_(pa.map_(pa.string(), pa.int8())), [[("a", 1)]], pa.list_(PAIRS)),
        (pa.large_list(pa.map_(pa.string(), pa.int8())), [[("a", 1)]], pa.large_list(PAIRS)),
        (pa.list_(pa.map_(pa.string(), pa.int8()), 1), [[("a", 1)]], pa.list_(PAIRS, 1)),
        (pa.list_view(pa.int8()), [1, 2], pa.list_(pa.int8())),
        (pa.large_list_view(pa.int8()), [1, 2], pa.large_list(pa.int8())),
        (pa.decimal32(5, 1), Decimal("1.5"), pa.decimal128(5, 1)),
        (pa.list_(pa.decimal64(5, 1)), [Decimal("1.5")], pa.list_(pa.decimal128(5, 1))),
    ],
    ids=str,
)
async def test_label_has_a_type_that_datasets_can_load(read_text: Any, kind: Any, value: Any, wanted: Any) -> None:
    """For one that it does not know it loads no image at all: a map is written as the list of its pairs."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"url": [GOOD, GOOD + "2"], "note": pa.array([value, None], kind)}), sink)
    found = await read_text("m.parquet", sink.getvalue())
    assert found.labels == {"note": str(wanted)}
    Features.from_arrow_schema(pa.schema([("note", wanted)]))
    labels = [one.labels["note"] for one in found.sources]
    assert pa.array(labels, wanted).is_null().to_pylist() == [False, True]


@pytest.mark.parametrize(("large", "kind"), [(2**63, "string"), (2**63 - 1, "uint64")])
async def test_a_number_of_64_bits_is_text_where_it_is_too_large(read_text: Any, large: int, kind: str) -> None:
    """Such as a hash: `datasets` takes none above 63 bits, and would load no image. A smaller one stays a number."""
    sink = io.BytesIO()
    hashes = pa.array([None, 7, large], pa.uint64())
    pq.write_table(pa.table({"url": [GOOD, GOOD + "2", GOOD + "3"], "hash": hashes}), sink)
    found = await read_text("m.parquet", sink.getvalue())
    assert found.labels == {"hash": kind}
    wanted = [None, "7", str(large)] if kind == "string" else [None, 7, large]
    assert [one.labels.get("hash") for one in found.sources] == wanted


def test_unsigning_takes_time_that_grows_with_the_text_alone() -> None:
    """However a text looks like the beginning of many URLs."""
    start = time.process_time()
    for part in ("https://", "https://a?", "h", '"', "\\", "&h"):
        without_signatures([f"https://a?{part * 50_000}"])
        without_signatures([f"https://{part * 50_000} ?"])
    assert time.process_time() - start < 2


async def test_row_without_an_id_is_known_by_its_uri(read_text: Any) -> None:
    """An empty cell in the id column leaves the URI as the identity of this row."""
    found = await read_text("m.csv", "id,url\n ,https://h/a.jpg?sig=x\nb,https://h/b.jpg\n")
    assert [(s.source_id, s.has_id) for s in found.sources] == [("https://h/a.jpg", False), ("b", True)]


async def test_paths_of_a_local_manifest(read_text: Any, tmp_path: Any) -> None:
    """A path in a local manifest is relative to the manifest's folder."""
    found = await read_text("in/m.txt", f"images/a b.jpg\n../up.png\n{tmp_path}/c.gif\n")
    assert [s.uri for s in found.sources] == [
        f"file://{tmp_path}/in/images/a%20b.jpg",
        f"file://{tmp_path}/up.png",
        f"file://{tmp_path}/c.gif",
    ]


async def test_url_is_repeated_exactly(read_text: Any) -> None:
    """Duplicates stay: counting them is the plan's part."""
    assert len((await read_text("m.txt", f"{GOOD}\n" * 5)).sources) == 5
