"""`variations export` as its users meet it: a process, its output and its exit code."""

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest

from tests.flows.conftest import Ended, one_line
from tests.variations.export.made import publish_images, wanted
from variations.storage import close_clients, open_storage


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket; the environment leads to it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{s3_url}/exports").raise_for_status()
    close_clients()
    return "s3://exports"


def export(*arguments: str) -> Ended:
    """Run the command; it needs neither Prefect nor a key."""
    command = [sys.executable, "-m", "flows", "export", *arguments]
    env = {**os.environ, "SEGMIND_API_KEY": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    return Ended(done.returncode, done.stdout, done.stderr)


def published(uri: str, *, lose: str | None = None) -> None:
    """Make a dataset; the image of one source is not there."""

    async def publish() -> None:
        storage = open_storage(uri, missing_ok=True)
        keys = await publish_images(storage, wanted(train=4, test=2))
        if lose is not None:
            await storage.delete(keys[lose])
        await storage.aclose()

    asyncio.run(publish())
    close_clients()


def test_an_export_ends_with_what_it_wrote(tmp_path: Path) -> None:
    """With 0, and a line for each shard; by default it lies where `datasets` does not look."""
    published(str(tmp_path / "set"))
    ended = export("set", "--format", "webdataset")
    assert ended.code == 0, ended.err
    assert "4 in train" in ended.out
    assert "train-000000.tar: 6 of 6 images" in ended.err
    with tarfile.open(tmp_path / "set/__export/webdataset/train-000000.tar") as tar:
        assert len(tar.getnames()) == 8
    again = export("set", "--format", "webdataset")
    assert "nothing: all that can be exported is there" in again.out


def test_from_a_bucket_into_a_folder(tmp_path: Path, s3: str) -> None:
    """Both ends are any place; one split alone; JSON is the last line."""
    published(f"{s3}/set")
    ended = export(f"{s3}/set", "out", "--format", "parquet", "--split", "test", "--json")
    assert ended.code == 0, ended.err
    done = json.loads(ended.out)
    assert (done["splits"], done["written"]) == ({"test": 2}, ["test-000000.parquet"])
    assert "1 shard, 2 images, " in " ".join(ended.err.split())
    assert (tmp_path / "out/test-000000.parquet").exists()


def test_a_missing_image_is_named_and_exits_3(tmp_path: Path) -> None:
    """It is never left out in silence."""
    published(str(tmp_path / "set"), lose="train2")
    ended = export("set", "out", "--format", "webdataset", "--json")
    assert ended.code == 3
    done = json.loads(ended.out)
    assert (done["images"], done["missing"]) == (5, 1)
    assert done["missing_images"][0] in ended.err
    assert "is not there" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("set", "--format", "zip"), 2, "zip"),
        (("set",), 2, "format"),
        (("nothing", "--format", "parquet"), 4, "nothing"),
        (("set", "set/export", "--format", "parquet"), 2, "two underscores"),
        (("set", "--format", "parquet", "--shard-mb", "0"), 2, "--shard-mb"),
        (("set", "--format", "parquet", "--split", "tset"), 2, "'tset'"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, named: str) -> None:
    """With what to do about it."""
    published(str(tmp_path / "set"))
    ended = export(*arguments)
    assert ended.code == code
    assert named in one_line(ended)
