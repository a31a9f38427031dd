"""Small pictures, of whatever a manifest may point at."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from variations.errors import OutputInvalid
from variations.images import MAX_PIXELS
from variations.layout import THUMBNAILS_KEY
from variations.report.thumbnails import Thumbnails, thumbnail
from variations.storage import Storage

from .scene import PHOTOS, gradient

WHOLE = sorted(path for path in PHOTOS.iterdir() if path.suffix != ".md" and path.name[:2] not in {"90", "92", "93"})


def opened(content: bytes) -> Image.Image:
    """Open a small picture."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return an image's file."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("photo", WHOLE, ids=lambda path: path.name)
def test_every_mode_and_container_has_one(photo: Path) -> None:
    """No larger than asked for, never enlarged, in the shape of the photo, and of a few kB."""
    small = thumbnail(photo.read_bytes(), side=160)
    with Image.open(photo) as image:
        size = image.size
    shape = opened(small).size
    assert max(shape) == min(160, max(size))
    assert max(shape) / min(shape) == pytest.approx(max(size) / min(size), rel=0.02)
    assert len(small) < 16_000
    assert opened(small).convert("L").getextrema() != (0, 0)


def test_one_that_exif_turns_stands_upright() -> None:
    """A phone's photo lies on its side in its file."""
    upright = thumbnail((PHOTOS / "10_chelsea.webp").read_bytes(), side=64)
    turned = thumbnail((PHOTOS / "09_chelsea_exif_rot6.jpg").read_bytes(), side=64)
    one, other = (np.asarray(opened(small).convert("L").resize((60, 40)), float) for small in (upright, turned))
    assert abs(one - other).mean() < 10
    assert abs(one - other[::-1, ::-1]).mean() > 20


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "F"])
def test_the_light_stays_light_and_the_dark_dark(mode: str) -> None:
    """16 bits a pixel are scaled, not cut off."""
    levels = np.asarray(gradient(mode="L"), dtype=float)
    deep = {"L": levels.astype(np.uint8), "F": (levels / 255).astype(np.float32)}
    pixels = deep.get(mode, (levels * 257).astype(np.uint16 if mode == "I;16" else np.int32))
    small = opened(thumbnail(encoded(Image.fromarray(pixels), "TIFF"), side=64)).convert("L")
    lowest, highest = small.getextrema()
    assert lowest < 20  # type: ignore[operator]
    assert highest > 235  # type: ignore[operator]
    assert 110 < np.asarray(small).mean() < 145


def test_transparency_is_kept() -> None:
    """What stands behind a cut-out is the page's matter."""
    cut = gradient(mode="RGBA")
    cut.putalpha(0)
    assert opened(thumbnail(encoded(cut, "PNG"), side=64)).getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("90_truncated.jpg", "does not decode"), ("92_html_not_image.jpg", "no image"), ("93_empty.jpg", "no image")],
)
def test_what_does_not_decode_says_so(name: str, reason: str) -> None:
    """Its reason stands in its place."""
    with pytest.raises(OutputInvalid, match=reason):
        thumbnail((PHOTOS / name).read_bytes(), side=160)


def test_a_bomb_is_not_decoded() -> None:
    """A file of a few kB may claim any size."""
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(OutputInvalid, match="pixels, more than"):
        thumbnail(encoded(Image.new("1", (side, side)), "PNG"), side=160)


async def test_they_are_kept_for_the_next_report(any_dataset: Storage) -> None:
    """With the side that they were made for; what is shown no more is forgotten."""
    first = Thumbnails(any_dataset)
    await first.load()
    for name in ("a", "b"):
        first.add(name, 320, name.encode())
    first.keep_only(["b", "c"])
    await first.save()
    again = Thumbnails(any_dataset)
    await again.load()
    known = again.get("b")
    assert known is not None
    assert (known.side, again.content("b"), again.get("a")) == (320, b"b", None)


async def test_damaged_ones_are_made_anew(any_dataset: Storage) -> None:
    """They are worth nothing but the time."""
    await any_dataset.put(THUMBNAILS_KEY, b"PAR1 but not really")
    thumbnails = Thumbnails(any_dataset)
    await thumbnails.load()
    assert thumbnails.get("a") is None
