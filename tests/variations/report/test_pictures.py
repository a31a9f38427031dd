"""Where small pictures come from: the dataset, and sources that can be had safely."""

import io
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from variations.report.pictures import Pictures
from variations.report.thumbnails import Thumbnails
from variations.storage import Storage, open_storage

from .scene import gradient

PUBLIC = "http://93.184.216.34"


def jpeg() -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    gradient().save(file, "JPEG")
    return file.getvalue()


def answering(handle: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    """Return a client to which one function is the web."""
    return httpx.AsyncClient(transport=httpx.MockTransport(handle))


def no_web(request: httpx.Request) -> httpx.Response:
    """Answer nothing."""
    raise httpx.ConnectError("refused", request=request)


def quiet(done: int, wanted: int) -> None:
    """Do not watch."""


async def made(
    storage: Storage, images: dict[str, str], sources: dict[str, str], *, side: int = 64, **changes: object
) -> tuple[Pictures, Thumbnails]:
    """Make pictures, and return what came of it."""
    thumbnails = Thumbnails(storage)
    await thumbnails.load()
    web = changes.pop("web", no_web)
    async with answering(web) as http:  # type: ignore[arg-type]
        local = None if changes.pop("local_sources", True) else ()
        pictures = Pictures(storage, thumbnails, side=side, local_sources=local, http=http)
        await pictures.make(images, sources, on_progress=changes.pop("on_progress", quiet))  # type: ignore[arg-type]
    assert not changes
    return pictures, thumbnails


async def test_images_are_fetched_once(any_dataset: Storage) -> None:
    """And progress is told for each; the next report has them, though they are gone."""
    told: list[tuple[int, int]] = []
    keys = {f"image {name}": f"images/{name}.jpg" for name in "abc"}
    for key in keys.values():
        await any_dataset.put(key, jpeg())
    pictures, thumbnails = await made(any_dataset, keys, {}, on_progress=lambda *at: told.append(at))
    assert (pictures.fetched, pictures.missing) == (3, {})
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert thumbnails.content("image a")[8:12] == b"WEBP"
    for key in keys.values():
        await any_dataset.delete(key)
    again, thumbnails = await made(any_dataset, keys, {})
    assert (again.fetched, again.missing) == (0, {})
    smaller, thumbnails = await made(any_dataset, keys, {}, side=32)
    assert (smaller.fetched, smaller.missing) == (3, {})
    assert thumbnails.get("image c").side == 32  # type: ignore[union-attr]


async def test_an_image_that_is_gone_is_missing(any_dataset: Storage) -> None:
    """So is one that does not decode, and one whose name leads elsewhere; the others are there."""
    await any_dataset.put("images/a.jpg", jpeg())
    await any_dataset.put("images/b.jpg", b"<html>")
    keys = {"a": "images/a.jpg", "b": "images/b.jpg", "c": "images/c.jpg", "d": "../../etc/d.jpg"}
    pictures, _ = await made(any_dataset, keys, {})
    assert pictures.fetched == 1
    assert set(pictures.missing) == {"b", "c", "d"}


async def test_sources_are_read_wherever_storage_reaches(any_dataset: Storage, place: str, tmp_path: Path) -> None:
    """S3 and files; what is no file, no image or too large says so."""
    elsewhere = open_storage(f"{place}/photos")
    await elsewhere.put("cat.jpg", jpeg())
    await elsewhere.put("page.jpg", b"<html>")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(50_000_001)
    sources = {
        "good": elsewhere.uri_of("cat.jpg"),
        "page": elsewhere.uri_of("page.jpg"),
        "gone": elsewhere.uri_of("gone.jpg"),
        "large": (tmp_path / "large.jpg").as_uri(),
        "ftp": "ftp://host/cat.jpg",
        "folder": tmp_path.as_uri() + "/",
    }
    pictures, thumbnails = await made(any_dataset, {}, sources)
    assert thumbnails.get("good") is not None
    assert set(pictures.missing) == set(sources) - {"good"}
    assert "larger than 50,000,000 bytes" in pictures.missing["large"]


async def test_files_of_this_machine_are_not_read_unasked(any_dataset: Storage, tmp_path: Path) -> None:
    """Whoever may write the metadata names them."""
    (tmp_path / "private.jpg").write_bytes(jpeg())
    sources = {"private": (tmp_path / "private.jpg").as_uri()}
    pictures, _ = await made(any_dataset, {}, sources, local_sources=False)
    assert pictures.missing["private"].startswith("a file of the machine that made the dataset")


async def test_sources_come_from_the_web(dataset: Storage) -> None:
    """From a public address."""
    pictures, thumbnails = await made(
        dataset, {}, {"cat": f"{PUBLIC}/cat.jpg"}, web=lambda _: httpx.Response(200, content=jpeg())
    )
    assert (pictures.missing, thumbnails.get("cat") is not None) == ({}, True)


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Serve at a private address, and note what is asked for, behind the address itself."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    paths.append(f"http://127.0.0.1:{server.server_port}")
    yield paths
    server.shutdown()
    thread.join()
    server.server_close()


async def test_private_addresses_are_not_asked(dataset: Storage, asked: list[str]) -> None:
    """Neither at once nor by a redirect."""
    private = asked.pop()
    async with httpx.AsyncClient() as http:
        pictures = Pictures(dataset, Thumbnails(dataset), side=64, local_sources=(), http=http)
        await pictures.make({}, {"a": f"{private}/latest/meta-data"}, on_progress=quiet)
    redirected, _ = await made(
        dataset, {}, {"b": f"{PUBLIC}/b"}, web=lambda _: httpx.Response(302, headers={"location": private})
    )
    assert set(pictures.missing) == {"a"}
    assert set(redirected.missing) == {"b"}
    assert asked == []


async def test_a_redirect_to_another_public_host_is_followed(dataset: Storage) -> None:
    """As those who keep images elsewhere answer; what leads nowhere is told in a few words."""

    def web(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/gone.jpg":
            return httpx.Response(404)
        if request.url.host == "93.184.216.34":
            return httpx.Response(302, headers={"location": "http://151.101.1.69/cat.jpg"})
        return httpx.Response(200, content=jpeg())

    sources = {"cat": f"{PUBLIC}/cat.jpg", "gone": f"{PUBLIC}/gone.jpg"}
    pictures, thumbnails = await made(dataset, {}, sources, web=web)
    assert thumbnails.get("cat") is not None
    assert pictures.missing == {"gone": "the source's host answered 404"}


async def test_a_host_that_does_not_answer_is_given_up(dataset: Storage) -> None:
    """Ten thousand of its sources do not take ten thousand timeouts."""
    calls: list[str] = []

    def dead(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        raise httpx.ConnectError("refused", request=request)

    sources = {f"{at}": f"{PUBLIC}/{at}.jpg" for at in range(200)}
    pictures, _ = await made(dataset, {}, sources, web=dead)
    assert len(pictures.missing) == 200
    assert len(calls) < 25
