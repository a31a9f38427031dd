"""The same against an object store, and what is particular to a manifest that lies in one."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import boto3
import pytest

from variations.errors import ManifestError
from variations.manifest import fetch_manifest
from variations.sandbox.s3_server import running_s3
from variations.storage import S3Options, Storage, close_clients, open_storage

ROWS = [{"id": f"img-{at}", "url": f"https://h/{at}.jpg", "label": f"cat {at}"} for at in range(7)]


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's AWS configuration reaches a test."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MADEUPACCESSKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret-of-the-tests")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Serve an object store."""
    with running_s3() as url:
        yield url
        close_clients()


@pytest.fixture
def put(endpoint: str) -> Iterator[Callable[[str, bytes], object]]:
    """Put an object into the bucket `manifests`."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="manifests")
    yield lambda key, data: client.put_object(Bucket="manifests", Key=key, Body=data)
    client.close()


@pytest.fixture
def open_s3(endpoint: str) -> Callable[[str], Storage]:
    """Open storages of that store."""
    return partial(open_storage, s3=S3Options(endpoint_url=endpoint, attempts=1))


@pytest.mark.parametrize("extension", [".parquet", ".csv.gz", ".jsonl"])
async def test_manifest_in_s3(read: Any, encode: Any, put: Any, open_s3: Any, extension: str) -> None:
    """An object gives the same sources as the same file on this machine."""
    put(f"one/m{extension}", encode(ROWS, extension))
    found = await read(f"s3://manifests/one/m{extension}", open_storage=open_s3)
    assert found.files == (f"s3://manifests/one/m{extension}",)
    assert [{"id": s.source_id, "url": s.uri, **s.labels} for s in found.sources] == ROWS


@pytest.mark.parametrize("slash", ["", "/"])
async def test_prefix_in_s3(read: Any, encode: Any, put: Any, open_s3: Any, slash: str) -> None:
    """A prefix is found with and without its slash, and does not reach into one whose name only begins alike."""
    put("parts/b.csv", encode(ROWS[4:], ".csv"))
    put("parts/a.jsonl", encode(ROWS[:4], ".jsonl"))
    put("parts/_SUCCESS", b"")
    put("parts-2/c.csv", encode(ROWS, ".csv"))
    found = await read(f"s3://manifests/parts{slash}", open_storage=open_s3)
    assert [source.source_id for source in found.sources] == [row["id"] for row in ROWS]


async def test_images_in_s3(read: Any, put: Any, open_s3: Any) -> None:
    """A prefix of images gives one source an object, by literal S3 URIs."""
    for name in ("a b.jpg", "x/é.png", "what?sig=1.webp"):
        put(f"photos/{name}", b"x")
    found = await read("s3://manifests/photos/", open_storage=open_s3)
    assert found.files == ("s3://manifests/photos",)
    assert {source.uri for source in found.sources} == {
        "s3://manifests/photos/a b.jpg",
        "s3://manifests/photos/x/é.png",
        "s3://manifests/photos/what?sig=1.webp",
    }


async def test_paths_of_a_manifest_in_s3(read: Any, put: Any, open_s3: Any) -> None:
    """Paths lie beside the manifest; files of this machine are out of its reach."""
    put("sets/m.txt", b"images/a.jpg\n../up.jpg\n/etc/passwd\nfile:///etc/passwd\n../../other-bucket/a.jpg\n")
    found = await read("s3://manifests/sets/m.txt", open_storage=open_s3)
    assert [source.uri for source in found.sources] == ["s3://manifests/sets/images/a.jpg", "s3://manifests/up.jpg"]
    assert [row.reason for row in found.rejected] == [
        "'/etc/passwd' is a local file, which only a local manifest may name",
        "'file:///etc/passwd' is a local file, which only a local manifest may name",
        "'../../other-bucket/a.jpg' leaves the bucket of the manifest",
    ]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://manifests/daily/m-2.csv", "nothing is there; s3://manifests/daily holds m-1.csv"),
        ("s3://manifests/nothing/m.csv", "nothing is there, and s3://manifests/nothing is empty too"),
        ("s3://no-such-bucket/m.csv", "no such bucket"),
        ("s3://no-such-bucket/", "no such bucket"),
        ("s3://no-such-bucket", "no such bucket"),
    ],
)
async def test_missing_manifest_in_s3(put: Any, open_s3: Any, uri: str, said: str) -> None:
    """A missing object, prefix or bucket is one line with what is there instead."""
    put("daily/m-1.csv", b"url\n")
    with pytest.raises(ManifestError) as caught:
        async with fetch_manifest(uri, open_storage=open_s3):
            pass
    message = str(caught.value)
    assert message.count(uri.rstrip("/")) == 1
    assert said in message
    assert len(message.splitlines()) == 1
