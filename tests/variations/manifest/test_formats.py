"""What each format says the same way, and what each says in its own."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variations.manifest import fetch_manifest

TABLES = [".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".json"]
ROWS = [
    {
        "id": f"img-{at}",
        "url": f"https://h/{at}.jpg?w={at}&X-Amz-Credential=AKIA&X-Amz-Signature=5ec3e7",
        "label": f"cat, {at}",
        "width": at * 10,
        "score": at / 4,
        "checked": at % 2 == 0,
        "guidance": 3.5,
        "Seed": at + 1,
    }
    for at in range(10)
]


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("extension", TABLES)
async def test_every_table_format_gives_the_same_sources(read_text: Any, encode: Any, extension: str, gz: str) -> None:
    """Ids, URIs, typed labels and overrides do not depend on the format or on compression."""
    found = await read_text(f"m{extension}{gz}", encode(ROWS, extension + gz))
    assert found.labels == {"label": "string", "width": "int64", "score": "double", "checked": "bool"}
    assert [source.row for source in found.rows] == list(range(1, 11))
    for at, source in enumerate(found.sources):
        assert (source.source_id, source.has_id, source.version) == (f"img-{at}", True, None)
        assert source.uri == ROWS[at]["url"]
        assert source.public_uri == f"https://h/{at}.jpg?w={at}"
        assert source.labels == {"label": f"cat, {at}", "width": at * 10, "score": at / 4, "checked": at % 2 == 0}
        assert source.overrides == {"guidance": 3.5, "seed": at + 1}
        assert "5ec3e7" not in repr(source)


@pytest.mark.parametrize("extension", [".txt", ".lst", ".txt.gz"])
async def test_text_is_one_uri_a_line(read_text: Any, encode: Any, extension: str) -> None:
    """A text file gives URIs without ids, labels or overrides; the URI without its signature is the identity."""
    found = await read_text(f"m{extension}", encode(ROWS, extension))
    assert found.labels == {}
    assert [source.uri for source in found.sources] == [row["url"] for row in ROWS]
    assert [source.source_id for source in found.sources] == [f"https://h/{at}.jpg?w={at}" for at in range(10)]
    assert not any(source.has_id for source in found.sources)


async def test_text_passes_over_comments_and_counts_lines(read_text: Any) -> None:
    """A BOM, CRLF, blank lines and comments are no rows, and a row's number is that of its line."""
    found = await read_text("m.txt", "\ufeffhttps://h/1.jpg\r\n\r\n  # a comment\r\n  https://h/2.jpg  \r\nnone")
    assert [(row.row, getattr(row, "uri", None)) for row in found.rows] == [
        (1, "https://h/1.jpg"),
        (4, "https://h/2.jpg"),
        (5, None),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_csv_delimiter_is_found(read_text: Any, delimiter: str) -> None:
    """Commas, semicolons and tabs are told apart by the header, even if a name holds one of the others."""
    found = await read_text("m.csv", f'url{delimiter}"a, b; c"\nhttps://h/1.jpg{delimiter}x\n')
    assert found.sources[0].labels == {"a, b; c": "x"}


async def test_csv_of_a_spreadsheet(read_text: Any) -> None:
    """A BOM, CRLF, blank lines, padded names, quoted line breaks and empty cells are read as they are meant."""
    text = (
        '\ufeff Id , URL ,note,empty\r\n007, https://h/1.jpg ,"two\nlines, ""quoted""",\r\n\r\n8,https://h/2.jpg,,\r\n'
    )
    found = await read_text("m.csv", text)
    assert [(s.row, s.source_id, s.uri) for s in found.sources] == [
        (1, "007", "https://h/1.jpg"),
        (2, "8", "https://h/2.jpg"),
    ]
    assert [s.labels for s in found.sources] == [
        {"note": 'two\nlines, "quoted"', "empty": None},
        {"note": None, "empty": None},
    ]


async def test_csv_column_without_a_name(read_text: Any) -> None:
    """A written index gets a name; the empty column that a trailing separator makes is none."""
    found = await read_text("m.csv", ",url,\n0,https://h/1.jpg,\n1,https://h/2.jpg,\n")
    assert found.labels == {"column_1": "int64"}
    assert [s.labels for s in found.sources] == [{"column_1": 0}, {"column_1": 1}]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", ""], "int64", [1, -2, None]),
        (["1", "2.5", "1e-05"], "double", [1.0, 2.5, 1e-05]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["007", "8"], "string", ["007", "8"]),
        (["+49", "8"], "string", ["+49", "8"]),
        (["1e5", "2"], "string", ["1e5", "2"]),
        (["1_000", "2"], "string", ["1_000", "2"]),
        (["-0", "2"], "string", ["-0", "2"]),
        (["٣", "2"], "string", ["٣", "2"]),
        (["nan", "2.5"], "string", ["nan", "2.5"]),
        (["true", "1"], "string", ["true", "1"]),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["1e+999", "1"], "string", ["1e+999", "1"]),
        (["2", "2", "2", "2", "x"], "string", ["2", "2", "2", "2", "x"]),
    ],
)
async def test_csv_labels_are_typed_by_all_their_cells(
    read_text: Any, cells: list[str], kind: str, values: list[Any]
) -> None:
    """A column is a number or a boolean only if every cell is written like one; else it is the text it was."""
    found = await read_text("m.csv", "url,x\n" + "".join(f"https://h/1.jpg,{cell}\n" for cell in cells))
    assert found.labels == {"x": kind}
    assert [source.labels["x"] for source in found.sources] == values


async def test_json_lines_keys_may_differ(read_text: Any) -> None:
    """Labels are the union over all lines; integers widen, what is mixed or nested becomes JSON text."""
    lines: list[dict[str, Any]] = [
        {"url": "https://h/1.jpg", "n": 1, "mixed": 1, "nested": {"a": ["é"]}, "none": None},
        {"url": "https://h/2.jpg", "n": 1.5, "mixed": "x", "late": True},
        {"url": "https://h/3.jpg", "mixed": False, "big": 2**70},
    ]
    text = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines)
    found = await read_text("m.jsonl", text)
    assert found.labels == {
        "n": "double",
        "mixed": "string",
        "nested": "string",
        "none": "string",
        "late": "bool",
        "big": "string",
    }
    assert [source.row for source in found.sources] == [1, 3, 5]
    empty = dict.fromkeys(found.labels)
    assert [source.labels for source in found.sources] == [
        empty | {"n": 1.0, "mixed": "1", "nested": '{"a": ["é"]}'},
        empty | {"n": 1.5, "mixed": "x", "late": True},
        empty | {"mixed": "false", "big": str(2**70)},
    ]


async def test_parquet_labels_keep_their_types(read: Any, tmp_path: Path) -> None:
    """Arrow types are carried, dictionaries decoded, texts of any width made one."""
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"x", "path": None}] * 2),
            "uri": pa.array(["https://h/1.jpg", "https://h/2.jpg"]).dictionary_encode(),
            "id": pa.array([7, 8], pa.int32()),
            "tags": pa.array([["a", "b"], None]),
            "taken": pa.array([0, None], pa.timestamp("ms", "UTC")),
            "class": pa.array(["cat", None]).dictionary_encode(),
            "small": pa.array([1, 2], pa.int8()),
            "wide": pa.array(["x", "y"], pa.large_string()),
            "nothing": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    found = await read(tmp_path / "m.parquet")
    assert found.labels == {
        "image": "struct<bytes: binary, path: null>",
        "tags": "list<element: string>",
        "taken": "timestamp[ms, tz=UTC]",
        "class": "string",
        "small": "int8",
        "wide": "string",
        "nothing": "string",
    }
    assert [source.source_id for source in found.sources] == ["7", "8"]
    assert [source.labels["class"] for source in found.sources] == ["cat", None]
    assert found.sources[0].labels["tags"] == ["a", "b"]


async def test_parquet_of_pandas(read: Any, tmp_path: Path) -> None:
    """Integers that pandas made floats because of a gap are integers again as ids, seeds and versions."""
    frame = pd.DataFrame(
        {"id": [1.0, None], "version": [2.0, None], "seed": [5.0, None], "url": ["https://h/1.jpg", "https://h/2.jpg"]}
    )
    frame.to_parquet(tmp_path / "m.parquet")
    first, second = (await read(tmp_path / "m.parquet")).sources
    assert (first.source_id, first.version, first.overrides) == ("1", "2", {"seed": 5})
    assert (second.source_id, second.has_id, second.version, second.overrides) == ("https://h/2.jpg", False, None, {})


async def test_parquet_of_large_rows_is_read_in_small_batches(tmp_path: Path) -> None:
    """Images held as bytes in a label do not make a batch of gigabytes."""
    table = pa.table({"url": ["https://h/a.jpg"] * 3, "raw": [bytes(12 * 2**20)] * 3})
    pq.write_table(table, tmp_path / "m.parquet", compression="snappy", use_dictionary=False, write_statistics=False)
    async with fetch_manifest(str(tmp_path / "m.parquet")) as manifest:
        assert [len(batch) for batch in manifest.batches(batch_rows=100)] == [2, 1]


async def test_uri_stored_as_bytes(read: Any, tmp_path: Path) -> None:
    """Writers that store texts as plain bytes are understood."""
    table = pa.table({"url": pa.array([b"https://h/1.jpg", b"\xff", None], pa.binary())})
    pq.write_table(table, tmp_path / "m.parquet")
    found = await read(tmp_path / "m.parquet")
    assert [source.uri for source in found.sources] == ["https://h/1.jpg"]
    assert [row.reason for row in found.rejected] == ["not a URI: the cell holds bytes that are no text", "no URI"]


async def test_gzip_without_its_extension(read_text: Any) -> None:
    """A store that hands out compressed objects under their plain names is understood."""
    assert (await read_text("m.csv", gzip.compress(b"url\nhttps://h/1.jpg\n"))).sources[0].uri == "https://h/1.jpg"


@pytest.mark.parametrize(
    ("header", "uri", "labels"),
    [
        ("image,url", "b", ["image"]),
        ("image_url,uri", "a", ["uri"]),
        ("redux_image,image", "b", ["redux_image"]),
        ("other,IMAGE ", "b", ["other"]),
    ],
)
async def test_first_of_the_documented_names_is_the_uri(
    read_text: Any, header: str, uri: str, labels: list[str]
) -> None:
    """Where several columns could be the URI, the order of the documentation decides and the others are labels."""
    found = await read_text("m.csv", f"{header}\nhttps://h/a.jpg,https://h/b.jpg\n")
    assert found.sources[0].uri == f"https://h/{uri}.jpg"
    assert list(found.labels) == labels


async def test_named_columns(read_text: Any) -> None:
    """URI and id may be in any column that is named, whatever its case."""
    found = await read_text("m.csv", "Photo,key,url\nhttps://h/1.jpg,k,x\n", uri_column="photo", id_column="key")
    [source] = found.sources
    assert (source.uri, source.source_id, source.has_id) == ("https://h/1.jpg", "k", True)
    assert source.labels == {"url": "x"}


async def test_version_belongs_to_an_id(read_text: Any) -> None:
    """`version` is carried beside an id, and is a label where there is no id column."""
    with_id = await read_text("a.csv", "id,version,url\nx,2,https://h/1.jpg\n")
    assert (with_id.sources[0].version, with_id.labels) == ("2", {})
    without = await read_text("b.csv", "version,url\n2,https://h/1.jpg\n")
    assert (without.sources[0].version, without.sources[0].labels) == (None, {"version": 2})


async def test_source_id_column(read_text: Any) -> None:
    """`source_id` is the id, unless there is an `id`, beside which it is a label."""
    assert (await read_text("a.csv", "source_id,url\nx,https://h/1.jpg\n")).sources[0].source_id == "x"
    both = await read_text("b.csv", "source_id,id,url\nx,y,https://h/1.jpg\n")
    assert (both.sources[0].source_id, both.sources[0].labels) == ("y", {"source_id": "x"})


@pytest.mark.parametrize("extension", [".csv", ".jsonl", ".parquet"])
async def test_signature_is_in_no_label_and_no_id(read_text: Any, encode: Any, extension: str) -> None:
    """Ids and labels are written to tables, so a presigned URL among them loses its signature."""
    signed = "https://h/a.jpg?x=1&X-Amz-Signature=5ec3e7"
    rows = [{"id": signed, "url": "https://h/b.jpg", "image_url": signed}]
    [source] = (await read_text(f"m{extension}", encode(rows, extension))).sources
    assert source.source_id == source.labels["image_url"] == "https://h/a.jpg?x=1"


async def test_temporary_files_are_removed(
    read_text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Callable[..., bytes]
) -> None:
    """Nothing of a manifest stays behind on this machine."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    await read_text("m.csv.gz", encode(ROWS, ".csv.gz"))
    assert list(scratch.iterdir()) == []
