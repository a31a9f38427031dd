"""How a source is handed to the API."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from variations import errors
from variations.engine.sources import MAX_UPLOAD_BYTES, UPLOADS_AT_ONCE, SourceUrls
from variations.models import Source
from variations.storage import open_storage

from .simulation import FakeApi, picture, run, variation

SIGNED = "https://b.s3.amazonaws.com/folder/a.jpg?X-Amz-Signature=secret"


def source(uri: str) -> Source:
    """Return a source at a URI."""
    return Source(row=1, source_id="1", uri=uri, public_uri=uri.partition("?")[0])


class Bucket:
    """Signs, and says what it was asked."""

    def __init__(self, root: str, asked: list[tuple[str, str, int]]) -> None:
        self._root = root
        self._asked = asked

    async def presigned_url(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL with a signature."""
        self._asked.append((self._root, key, expires_seconds))
        return SIGNED


async def no_upload(content: bytes, content_type: str) -> str:
    """Fail: nothing is to be uploaded."""
    raise AssertionError((content, content_type))


async def test_an_address_is_handed_over_as_it_is() -> None:
    """Its public form has no signature, and no repr shows the other."""
    handed = await SourceUrls(no_upload, presign_seconds=60).url_of(source("https://x.example/a.jpg?sig=secret"))
    assert (handed.url, handed.public_url) == ("https://x.example/a.jpg?sig=secret", "https://x.example/a.jpg")
    assert "secret" not in repr(handed)


async def test_an_s3_source_is_presigned() -> None:
    """For as long as a setting says; the bucket is asked by key."""
    asked: list[tuple[str, str, int]] = []
    urls = SourceUrls(no_upload, presign_seconds=77, open_storage=lambda root: Bucket(root, asked))  # type: ignore[arg-type,return-value]
    handed = await urls.url_of(source("s3://b/folder/a.jpg"))
    assert (handed.url, handed.public_url) == (SIGNED, "https://b.s3.amazonaws.com/folder/a.jpg")
    assert [(key.rpartition("/")[2], seconds) for _, key, seconds in asked] == [("a.jpg", 77)]


@pytest.mark.parametrize("uri", ["s3://bucket/a/../b.jpg", "s3://bucket/./b.jpg"])
async def test_a_key_that_the_storage_refuses_is_that_sources_alone(uri: str) -> None:
    """It does not stop the run."""
    with pytest.raises(errors.SourceUnavailable):
        await SourceUrls(no_upload, presign_seconds=60).url_of(source(uri))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A local image."""
    path = tmp_path / "a photo.jpg"
    path.write_bytes(picture())
    return path


async def test_a_file_is_uploaded_once_for_all_who_ask(photo: Path) -> None:
    """At the same time and later; one that gives up waiting does not cancel it for the others."""
    uploads: list[tuple[bytes, str]] = []
    begun = asyncio.Event()
    may_end = asyncio.Event()

    async def upload(content: bytes, content_type: str) -> str:
        uploads.append((content, content_type))
        begun.set()
        await may_end.wait()
        return "https://files.example/1.jpg"

    urls = SourceUrls(upload, presign_seconds=60)
    waiting = [asyncio.create_task(urls.url_of(source(photo.as_uri()))) for _ in range(3)]
    await begun.wait()
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    may_end.set()
    handed = [await task for task in waiting[1:]] + [await urls.url_of(source(photo.as_uri()))]
    assert {found.url for found in handed} == {"https://files.example/1.jpg"}
    assert uploads == [(picture(), "image/jpeg")]


async def test_an_upload_that_failed_is_tried_again_by_the_next_who_asks(photo: Path) -> None:
    """A failure is not remembered, and who hears of it late does not drop a newer upload."""
    answers: list[Callable[[], str]] = []

    async def upload(*_: object) -> str:
        answers.append(lambda: "")
        if len(answers) == 1:
            raise errors.ServiceUnavailable("500")
        return f"https://files.example/{len(answers)}.jpg"

    urls = SourceUrls(upload, presign_seconds=60)
    first = await asyncio.gather(*(urls.url_of(source(photo.as_uri())) for _ in range(3)), return_exceptions=True)
    assert {type(found) for found in first} == {errors.ServiceUnavailable}
    for _ in range(2):
        assert (await urls.url_of(source(photo.as_uri()))).url == "https://files.example/2.jpg"


@pytest.mark.parametrize("problem", ["missing", "empty", "no image", "too large"])
async def test_a_file_that_cannot_be_uploaded_is_that_sources_error(tmp_path: Path, problem: str) -> None:
    """Nothing of it is sent."""
    path = tmp_path / ("a.txt" if problem == "no image" else "a.jpg")
    if problem == "too large":
        with path.open("wb") as file:
            file.truncate(MAX_UPLOAD_BYTES + 1)
    elif problem != "missing":
        path.write_bytes(b"" if problem == "empty" else b"text")
    with pytest.raises(errors.SourceUnavailable):
        await SourceUrls(no_upload, presign_seconds=60, open_storage=open_storage).url_of(source(path.as_uri()))


def test_the_variations_of_a_local_source_share_its_upload(photo: Path) -> None:
    """One upload, four submits with its address."""
    api = FakeApi()
    outcomes, _ = run(api, [variation(number, uri=photo.as_uri()) for number in range(4)])
    assert [outcome.status for outcome in outcomes] == ["kept"] * 4
    assert len(api.targets("upload")) == 1
    assert {inputs["redux_image"] for inputs in api.submitted} == {"http://127.0.0.1:9/assets/1.jpg"}


def test_a_source_that_cannot_be_read_is_a_failed_row(tmp_path: Path) -> None:
    """The others are made."""
    missing = (tmp_path / "missing.jpg").as_uri()
    outcomes, stage = run(FakeApi(), [variation(1, uri=missing), variation(2)])
    assert {outcome.status: outcome.error_code for outcome in outcomes} == {
        "failed": "source_unavailable",
        "kept": None,
    }
    assert stage.engine.stopped_by is None


async def test_only_a_few_files_are_in_memory_however_many_are_in_flight(tmp_path: Path) -> None:
    """An upload waits for its turn under the request limit; the others wait on the disk."""
    most = uploading = 0

    async def upload(content: bytes, content_type: str) -> str:
        nonlocal most, uploading
        del content, content_type
        uploading += 1
        most = max(most, uploading)
        for _ in range(20):
            await asyncio.sleep(0)
        uploading -= 1
        return "https://x.example/uploaded"

    urls = SourceUrls(upload, presign_seconds=60)
    paths = [tmp_path / f"{number}.jpg" for number in range(4 * UPLOADS_AT_ONCE)]
    for path in paths:
        path.write_bytes(picture())
    handed = await asyncio.gather(*(urls.url_of(source(path.as_uri())) for path in paths))
    assert len(handed) == len(paths)
    assert 1 < most <= UPLOADS_AT_ONCE
