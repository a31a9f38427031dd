"""Every manifest that cannot be used, one by one: one line with its URI, what was found and what to do."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variations.errors import BucketNotFound, ManifestError
from variations.manifest import fetch_manifest
from variations.storage import Storage


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.csv", b"", "the file is empty (0 bytes)"),
        ("m.csv.gz", b"", "the file is empty (0 bytes)"),
        ("m.csv.gz", gzip.compress(b"", mtime=0), "the file is empty (0 bytes)"),
        ("m.csv", b"url,label\n", "the file has columns (url, label) and no rows"),
        ("m.csv", b"\n\n", "only blank ones"),
        ("m.csv", b",,\n1,2,3\n", "the first line names no column"),
        ("m.txt", b"# nothing\n\n", "the file has comments or blank lines and no rows"),
        ("m.jsonl", b"\n\n", "the file has blank lines and no rows"),
        ("m.csv", b"photo,label\na,b\n", "no column is called url, image_url, uri, image or redux_image"),
        ("m.csv", b"photo,label\na,b\n", "with --uri-column (found: photo, label)"),
        ("m.csv", b"https://h/a.jpg?X-Amz-Signature=5,cat\n", "no header line: the first line is already a row"),
        ("m.csv", b"url,x,x\na,b,c\n", "more than one column is called x"),
        ("m.csv", b"url,URL\na,b\n", "the columns url, URL both mean 'url'"),
        ("m.csv", b"url,seed,Seed\na,b,c\n", "the columns seed, Seed both mean 'seed'"),
        ("m.csv", b'url,x\nhttps://h/a.jpg,"open\nhttps://h/b.jpg,y\n', "line 2: a quoted cell that begins here"),
        ("m.csv", b"url,\xe9\na,b\n", "line 1: it is not UTF-8 text"),
        ("m.csv", "url,x\na,b\n".encode("utf-16"), "it is UTF-16 text, save it as UTF-8"),
        ("m.csv", b"url\n\0\0", "NUL bytes"),
        ("m.jsonl", b'[\n{"url": "https://h/a.jpg"},\n]\n', "a JSON array is not JSON lines"),
        ("m.jsonl", b'[{"url": "https://h/a.jpg"}]', "a JSON array is not JSON lines"),
        ("m.jsonl", b"hello\n", "no line of it is a JSON object (line 1: it is not JSON: Expecting value)"),
        ("m.jsonl", b'{"photo": "https://h/a.jpg"}\n', "with --uri-column (found: photo)"),
        ("m.jsonl", b'{"url": 5}\n', "the column 'url' holds int64, not URIs"),
        ("m.parquet", b"PAR1 not really PAR1", "it cannot be read as parquet"),
        ("m.parquet", b"url\nhttps://h/a.jpg\n", "it cannot be read as parquet"),
        ("m.csv.gz", b"url\nhttps://h/a.jpg\n", "the name ends in .gz, and the file is not gzip"),
        ("m.csv.gz", gzip.compress(b"url\nhttps://h/a.jpg\n" * 1000, mtime=0)[:-30], "damaged or cut off"),
        ("m.xlsx", b"PK", "not named like a manifest (known are .parquet, .pq, .csv"),
        ("cat.jpg", b"\xff\xd8", "the object is an image: give the folder it is in"),
    ],
)
async def test_unusable_manifest_is_one_line(
    refusal_of: Any, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """What is wrong with the file is said with its URI, in one line, and without a signature."""
    (tmp_path / name).write_bytes(content)
    message = await refusal_of(name)
    assert said in message
    assert name in message
    assert "Signature" not in message


async def test_missing_manifest_names_its_neighbours(refusal_of: Any, tmp_path: Path) -> None:
    """Where nothing is, the nearest names say what was probably meant."""
    (tmp_path / "manifest-2025.csv").write_text("url\n")
    (tmp_path / "other.bin").write_text("x")
    message = await refusal_of("manifest-2026.csv")
    assert "nothing is there" in message
    assert "holds manifest-2025.csv" in message
    assert "other.bin" in await refusal_of("zzz")


async def test_missing_manifest_in_an_empty_folder(refusal_of: Any) -> None:
    """Where there is nothing at all, that is said."""
    assert "is empty too" in await refusal_of("m.csv")


async def test_missing_folder(refusal_of: Any) -> None:
    """Where even the folder is missing, the message names the folder."""
    assert "there is no such folder" in await refusal_of("nowhere/m.csv")


@pytest.mark.parametrize("uri", ["ftp://h/m.csv", "https://h/m.csv?sig=5ec3e7", "s3:///m.csv", ""])
async def test_manifest_must_be_in_s3_or_local(uri: str) -> None:
    """A manifest that is neither in S3 nor a file is refused before anything is asked."""
    with pytest.raises(ManifestError) as caught:
        async with fetch_manifest(uri):
            pass
    assert "5ec3e7" not in str(caught.value)
    assert uri.partition("?")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uri_column": "image_ur"}, "--uri-column names 'image_ur', which is not there, did you mean 'image_url'?"),
        ({"uri_column": "zzz"}, "--uri-column names 'zzz', which is not there (found: image_url, key)"),
        ({"id_column": "kex"}, "--id-column names 'kex', which is not there, did you mean 'key'?"),
        ({"id_column": "image_url"}, "cannot be both URI and id"),
    ],
)
async def test_named_column_that_is_not_there(
    refusal_of: Any, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    """A misspelt column is answered with the nearest one and all there are."""
    (tmp_path / "m.csv").write_text("image_url,key\nhttps://h/a.jpg,k\n")
    assert said in await refusal_of("m.csv", **options)


async def test_uri_column_of_another_type(refusal_of: Any, tmp_path: Path) -> None:
    """Images held in the table itself are no URIs."""
    table = pa.table({"image": [{"bytes": b"x"}], "n": [1], "name": ["a"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert "the column 'image' holds struct<bytes: binary>, not URIs" in await refusal_of("m.parquet")
    assert "the column 'n' holds int64, not URIs" in await refusal_of("m.parquet", uri_column="n")
    assert "not ids" in await refusal_of("m.parquet", uri_column="name", id_column="image")


async def test_parquet_damaged_further_on(tmp_path: Path) -> None:
    """Damage that only reading finds is still one line with the file's URI."""
    path = tmp_path / "m.parquet"
    rows = [f"https://h/{at}.jpg" for at in range(1000)]
    pq.write_table(pa.table({"url": rows}), path, use_dictionary=False, compression="gzip")
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(bytes(data))
    async with fetch_manifest(str(path)) as manifest:
        with pytest.raises(ManifestError) as caught:
            list(manifest.batches())
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


async def test_parquet_with_twins(refusal_of: Any, tmp_path: Path) -> None:
    """Parquet, too, may hold two columns of one name."""
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["url", "x", "x"])
    pq.write_table(table, tmp_path / "m.parquet")
    assert "more than one column is called x" in await refusal_of("m.parquet")


async def test_too_many_keys(refusal_of: Any, tmp_path: Path) -> None:
    """A file whose keys are data has no columns."""
    lines = "".join(f'{{"url": "https://h/a.jpg", "k{at}": 1}}\n' for at in range(2_100))
    (tmp_path / "m.jsonl").write_text(lines)
    assert "more than 2,000 different keys" in await refusal_of("m.jsonl")


async def test_missing_bucket_is_named_once(tmp_path: Path) -> None:
    """The storage's message names the URI that stands before it already."""

    def refuse(uri: str) -> Storage:
        raise BucketNotFound(f"{uri}: there is no such bucket")

    with pytest.raises(ManifestError) as caught:
        async with fetch_manifest("s3://b/m/", open_storage=refuse):
            pass
    assert str(caught.value) == "manifest s3://b/m/: there is no such bucket"
    with pytest.raises(ManifestError) as caught:
        async with fetch_manifest(f"{tmp_path}/none/m.csv"):
            pass
    assert str(caught.value).count(f"{tmp_path}/none/m.csv") == 1


async def test_gzip_that_unpacks_without_end(refusal_of: Any, tmp_path: Path) -> None:
    """A file that is a thousandth of its content is refused before it fills the disk."""
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(bytes(2**20)) * 160)
    assert "unpack to more than" in await refusal_of("m.csv.gz")


@pytest.mark.parametrize("name", ["m.txt", "m.jsonl", "m.csv", "m.tsv"])
async def test_line_without_end(refusal_of: Any, tmp_path: Path, name: str) -> None:
    """A line that is no row is refused, not read into memory."""
    (tmp_path / name).write_bytes(b"url\n" + b"x" * (17 * 2**20))
    assert "line 2: it is longer than 16 MiB" in await refusal_of(name)


LONG = "x" * 2_000_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([LONG] * 3),
        pa.array([LONG] * 3, pa.large_string()),
        pa.array(["a", LONG, "b"]).dictionary_encode(),
        pa.array([["a", LONG]] * 3),
        pa.array([{"a": LONG}] * 3),
        pa.array([[("a", LONG)]] * 3, pa.map_(pa.string(), pa.string())),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("use_dictionary", [True, False])
async def test_parquet_text_that_is_no_label(
    *, refusal_of: Any, tmp_path: Path, column: pa.Array, use_dictionary: bool
) -> None:
    """A dictionary stores a long text once, and each of its rows would unpack it."""
    table = pa.table({"url": [f"https://h/{at}.jpg" for at in range(3)], "label": column})
    pq.write_table(table, tmp_path / "m.parquet", use_dictionary=use_dictionary)
    message = await refusal_of("m.parquet")
    assert "rows 1 to 3: a text in the column label has 2,000,000 bytes" in message
