"""The distance of an image to its source, which is looked at beside everything else."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from variations import errors
from variations.appearance import Appearance, appearance_of
from variations.engine.limits import MOST_IN_FLIGHT
from variations.engine.source_looks import AT_ONCE, PATIENCE_SECONDS, SourceLooks
from variations.gate import Gate

from .simulation import simulate, variation

PHOTO = (Path(__file__).parents[2] / "photos" / "01_rocket_rgb.jpg").read_bytes()
SOURCE = variation(1).source
LOOK = appearance_of(Image.open(io.BytesIO(PHOTO)))
SIZE = (512, 512)


def distances(
    fetch: Callable[[str], Awaitable[bytes]], *, times: int = 1, look: Appearance = LOOK
) -> tuple[list[int | None], float]:
    """Return the distance of an image to its source, asked for so many times, and how long that took."""

    async def main() -> tuple[list[int | None], float]:
        looks = SourceLooks(fetch)
        began = asyncio.get_running_loop().time()
        looks.expect(SOURCE)
        await looks.wait(SOURCE)
        found = [(await looks.nearest(SOURCE, look, SIZE)).distance for _ in range(times)]
        took = asyncio.get_running_loop().time() - began
        await looks.aclose()
        return found, took

    return simulate(main())


async def photo(_: str) -> bytes:
    """Return a photo at once."""
    return PHOTO


def test_a_source_is_fetched_once() -> None:
    """By its URI, for all of its images."""
    asked: list[str] = []

    async def fetch(uri: str) -> bytes:
        asked.append(uri)
        return PHOTO

    found, _ = distances(fetch, times=3)
    assert found == [0, 0, 0]
    assert asked == [SOURCE.uri]


def test_a_mirrored_and_cropped_one_is_near_as_well() -> None:
    """In the shape of the image."""
    image = ImageOps.mirror(ImageOps.fit(Image.open(io.BytesIO(PHOTO)), SIZE))
    (found,), _ = distances(photo, look=appearance_of(image))
    assert found is not None
    assert found <= Gate().copy_bits


@pytest.mark.parametrize(
    "trouble",
    [errors.SourceUnavailable("403"), errors.ServiceUnavailable("503"), RuntimeError("a bug"), b"", b"no image"],
    ids=str,
)
def test_a_source_that_cannot_be_had_is_no_reason_to_fail(trouble: Exception | bytes) -> None:
    """The distance is not known, and that is all."""

    async def fetch(_: str) -> bytes:
        if isinstance(trouble, Exception):
            raise trouble
        return trouble

    assert distances(fetch)[0] == [None]


def test_an_image_does_not_wait_long_for_its_source() -> None:
    """It is paid for, and goes without."""

    async def fetch(_: str) -> bytes:
        await asyncio.sleep(3600)
        return PHOTO

    found, took = distances(fetch)
    assert found == [None]
    assert took == pytest.approx(PATIENCE_SECONDS)


def test_what_is_blank_has_no_distance() -> None:
    """All that is blank hashes alike: be it the source, or the image."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "navy").save(buffer, "PNG")

    async def fetch(_: str) -> bytes:
        return buffer.getvalue()

    assert distances(fetch)[0] == [None]
    assert distances(photo, look=appearance_of(Image.new("RGB", (64, 64))))[0] == [None]


def test_so_many_are_looked_at_at_once() -> None:
    """A manifest of a million must not be fetched in one go."""
    under_way, most = 0, 0

    async def fetch(_: str) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1)
        under_way -= 1
        return PHOTO

    async def main() -> None:
        looks = SourceLooks(fetch)
        await asyncio.gather(*(looks.wait(variation(number).source) for number in range(3 * AT_ONCE)))
        await looks.aclose()

    simulate(main())
    assert most == AT_ONCE


def test_a_source_is_fetched_once_however_many_are_in_flight() -> None:
    """Each of another image, as in a large manifest: as many are submitted while an image is made, and as many done."""
    asked: list[str] = []

    async def fetch(uri: str) -> bytes:
        asked.append(uri)
        raise errors.SourceUnavailable("there is none")

    async def main() -> None:
        looks = SourceLooks(fetch)
        sources = [variation(number).source for number in range(3 * MOST_IN_FLIGHT)]
        for number, source in enumerate(sources):
            looks.expect(source)
            if number >= MOST_IN_FLIGHT:
                await looks.wait(sources[number - MOST_IN_FLIGHT])
        await looks.aclose()

    simulate(main())
    assert len(asked) == len(set(asked)) == 3 * MOST_IN_FLIGHT
