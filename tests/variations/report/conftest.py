"""One dataset and its gallery for all tests of this folder that only look, and a browser to look with."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from variations.report import write_report
from variations.storage import Storage, open_storage

from .browser import Gallery, programs, running_browser
from .scene import furnish


@pytest.fixture(scope="session")
def dataset_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Publish a dataset in a folder, and write its gallery."""
    folder = tmp_path_factory.mktemp("gallery") / "dataset"

    async def build() -> None:
        storage = open_storage(str(folder), missing_ok=True)
        await furnish(storage)
        await write_report(storage)

    asyncio.run(build())
    return folder.as_uri()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Give a browser."""
    paths = programs()
    if paths is None:
        # Where nobody may install it; CI does, before the tests. The page is built and read without one all the same.
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    pictures = os.environ.get("E2E_PICTURES")
    with running_browser(paths, tmp_path_factory.mktemp("browser"), Path(pictures) if pictures else None) as gallery:
        yield gallery


@pytest.fixture
def gallery(browser: Gallery, dataset_uri: str) -> Gallery:
    """Open the gallery from disk, in a wide and light window."""
    browser.open(f"{dataset_uri}/report.html")
    return browser


@pytest.fixture
def s3_dataset(s3_uri: str) -> Storage:
    """Give an empty destination in a bucket."""
    return open_storage(f"{s3_uri}/dataset")
