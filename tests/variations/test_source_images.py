"""What source images look like. How they are fetched is in `report/test_pictures.py`, which fetches the same way."""

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from variations.errors import SourceUnavailable, StorageUnavailable
from variations.perceptual_hash import distance, perceptual_hash
from variations.source_images import HOST_FAILURES, SourceImages, look_at

PHOTOS = Path(__file__).parents[1] / "photos"
GOOD = sorted(path.name for path in PHOTOS.glob("[01]*_*"))


@pytest.mark.parametrize("name", GOOD)
def test_every_photograph_has_a_look(name: str) -> None:
    """It is that of the whole image, though a JPEG is decoded at a fraction of its size."""
    look = look_at((PHOTOS / name).read_bytes())
    assert not look.is_blank
    with Image.open(PHOTOS / name) as image:
        image.load()
        if image.getexif().get(0x0112, 1) == 1:
            assert distance(look.hash, perceptual_hash(image)) <= 2


def test_a_photograph_is_seen_upright() -> None:
    """The same photograph, turned by its EXIF alone, looks the same."""
    turned, plain = (look_at((PHOTOS / name).read_bytes()) for name in ("09_chelsea_exif_rot6.jpg", "10_chelsea.webp"))
    assert distance(turned.hash, plain.hash) <= 2


def test_an_image_of_one_colour_is_blank() -> None:
    """Its hash says nothing."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(file, "JPEG")
    assert look_at(file.getvalue()).is_blank


@pytest.mark.parametrize("name", ["90_truncated.jpg", "92_html_not_image.jpg", "93_empty.jpg"])
def test_what_is_no_whole_image_says_so(name: str) -> None:
    """In a few words."""
    with pytest.raises(SourceUnavailable, match=r"it is no image|it does not decode"):
        look_at((PHOTOS / name).read_bytes())


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    """A few bytes may claim to be a picture of gigabytes."""
    with pytest.raises(SourceUnavailable, match="4000×2669 pixels, more than 10,000,000"):
        look_at((PHOTOS / "13_big_4000x2669.jpg").read_bytes(), max_pixels=10_000_000)


async def test_a_bucket_that_does_not_answer_is_given_up() -> None:
    """Ten thousand of its sources do not take ten thousand times as long as one; others are asked all the same."""
    asked: list[str] = []

    class Dead:
        """A bucket whose store is away."""

        def __init__(self, root: str) -> None:
            self._root = root

        async def head(self, key: str) -> None:
            """Fail as a store does that is away."""
            asked.append(f"{self._root}/{key}")
            raise StorageUnavailable("no answer")

        async def aclose(self) -> None:
            """Nothing is open."""

    async with httpx.AsyncClient() as http:
        images = SourceImages(local_files=(), http=http, open_storage=Dead)  # type: ignore[arg-type]
        for number in range(20):
            with pytest.raises(SourceUnavailable, match=r"no answer|s3://dead did not answer for others"):
                await images.fetch(f"s3://dead/photos/{number % 3}/{number}.jpg")
        with pytest.raises(SourceUnavailable, match="no answer"):
            await images.fetch("s3://other/photos/a.jpg")
    assert len(asked) == HOST_FAILURES + 1


async def test_a_source_is_looked_at_where_it_lies() -> None:
    """A local file only where that is allowed."""
    uri = (PHOTOS / "05_coffee_rgb.png").as_uri()
    async with httpx.AsyncClient() as http:
        look = await SourceImages(local_files={uri}, http=http).look(uri)
        assert look == look_at((PHOTOS / "05_coffee_rgb.png").read_bytes())
        with pytest.raises(SourceUnavailable, match="a file of the machine"):
            await SourceImages(local_files=(), http=http).look(uri)
