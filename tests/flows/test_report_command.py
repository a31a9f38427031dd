"""`variations report`, as its users meet it: a process, its output, its exit code and the browser that it opens."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.flows.conftest import Ended, one_line
from tests.variations.examples import outcome, write_part
from variations.publish import publish
from variations.sandbox.s3_server import running_s3
from variations.storage import close_clients, open_storage

Report = Callable[..., Ended]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Run the command; a browser notes what it is given."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)

    def run(*arguments: str) -> Ended:
        command = [sys.executable, "-m", "flows", "report", *arguments]
        env = {**os.environ, "BROWSER": f"{browser} %s"}
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def published(uri: str, folder: Path) -> str:
    """Publish a dataset of an image, and return its URI."""

    async def build() -> None:
        storage = open_storage(uri, missing_ok=True)
        one = outcome()
        await write_part(storage, "run-1", [one])
        await publish(storage, ["run-1"])
        Image.linear_gradient("L").save(folder / "image.jpg")
        assert one.image is not None
        await storage.put(one.image.file_name, folder / "image.jpg")
        await storage.aclose()

    asyncio.run(build())
    return uri


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve S3, with a bucket."""
    close_clients()
    with running_s3() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MADEUPACCESSKEY")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        httpx.put(f"{url}/{name}").raise_for_status()
        yield f"s3://{name}"
        close_clients()


def test_it_writes_the_gallery_and_opens_it(report: Report, tmp_path: Path) -> None:
    """From disk, by the address of its file."""
    published(str(tmp_path / "dataset"), tmp_path)
    ended = report("dataset", "--open")
    assert ended.code == 0, ended.err
    uri = (tmp_path / "dataset" / "report.html").as_uri()
    assert uri in ended.out.replace("\n", "").replace(" ", "")
    assert (tmp_path / "opened").read_text() == uri
    assert (tmp_path / "dataset" / "report.html").read_text().startswith("<!doctype html>")


def test_json_is_the_last_line(report: Report, tmp_path: Path) -> None:
    """A second time nothing is fetched; without `--open` no browser is."""
    published(str(tmp_path / "dataset"), tmp_path)
    first, second = (json.loads(report("dataset", "--json").out) for _ in range(2))
    assert (first["rows"], first["fetched"], second["fetched"]) == (1, 1, 0)
    assert not (tmp_path / "opened").exists()


def test_from_s3_it_opens_by_a_link_that_nobody_else_sees(report: Report, tmp_path: Path, bucket: str) -> None:
    """The link works, and its signature is told to the browser alone."""
    published(f"{bucket}/dataset", tmp_path)
    ended = report(f"{bucket}/dataset", "--open", "--json")
    assert ended.code == 0, ended.err
    link = (tmp_path / "opened").read_text()
    answer = httpx.get(link)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    assert "Signature" in link
    assert "Signature" not in ended.out + ended.err + answer.text.partition("<script>")[0]


def test_without_a_dataset_it_says_so(report: Report) -> None:
    """In one line, with exit code 4."""
    ended = report("nothing")
    assert ended.code == 4
    assert "no metadata.parquet, which a run publishes" in one_line(ended)
