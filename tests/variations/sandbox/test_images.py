"""The images: right size, real variations, and honest about what they are."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from variations.parameters import SIZES_AT_1_MEGAPIXEL
from variations.sandbox import sample_photos
from variations.sandbox.images import (
    DISCLAIMER,
    DecodedSource,
    UndecodableSource,
    decode_source,
    make_variation,
)
from variations.sandbox.validation import InferenceRequest

PHOTOS = Path(__file__).parents[2] / "photos"
GOOD = sorted(path.name for path in PHOTOS.iterdir() if path.name[:2].isdigit() and path.name[:2] < "90")


def decoded(name: str) -> DecodedSource:
    """Decode a test photograph."""
    return decode_source((PHOTOS / name).read_bytes())


def made(source: DecodedSource, *, key: str = "", size: tuple[int, int] = (256, 256), kind: str = "jpg") -> bytes:
    """Make a variation of 256 × 256 pixels."""
    return make_variation(source, size=size, key=key, output_format=kind, output_quality=80)


@pytest.mark.parametrize("name", [*GOOD, "91_bitrot.jpg"])
def test_every_mode_and_container_of_the_photographs_is_varied(name: str) -> None:
    """Each decodes to RGB and makes an image with some content."""
    assert len(GOOD) == 17
    image = Image.open(io.BytesIO(made(decoded(name))))
    assert image.size == (256, 256)
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10


@pytest.mark.parametrize(
    ("name", "reason"),
    [("90_truncated.jpg", "truncated"), ("92_html_not_image.jpg", "format"), ("93_empty.jpg", "format")],
)
def test_what_does_not_decode_is_named(name: str, reason: str) -> None:
    """The reason is one line."""
    with pytest.raises(UndecodableSource, match=reason):
        decoded(name)


def test_the_exif_orientation_is_honoured() -> None:
    """The cat lies on its side in the file and is upright in the image, as in the file it was made from."""
    turned, upright = decoded("09_chelsea_exif_rot6.jpg"), decoded("10_chelsea.webp")
    assert turned.size == turned.image.size == upright.size == (451, 300)
    levels = [np.asarray(source.image.convert("L"), dtype=float) for source in (turned, upright)]
    assert np.abs(levels[0] - levels[1]).mean() < 10


def test_a_large_photograph_is_reduced_and_its_size_remembered() -> None:
    """`match_input` needs the original's size."""
    source = decoded("13_big_4000x2669.jpg")
    assert source.size == (4000, 2669)
    assert max(source.image.size) == 1536


def test_16_bits_keep_their_tones() -> None:
    """A deep TIFF looks like its 8-bit twin, not white or black."""
    deep, plain = (np.asarray(decoded(name).image) for name in ("14_camera_gray16.tif", "06_camera_gray.png"))
    assert np.abs(deep.astype(float) - plain).mean() < 3


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_every_file_says_that_it_is_not_flux(kind: str) -> None:
    """In its EXIF data, and where the format has a comment there too."""
    image = Image.open(io.BytesIO(made(decoded("01_rocket_rgb.jpg"), kind=kind)))
    assert image.getexif()[0x010E] == DISCLAIMER
    assert "not FLUX" in DISCLAIMER
    if kind == "png":
        assert image.text["Comment"] == DISCLAIMER
    if kind == "jpg":
        assert image.info["comment"].decode() == DISCLAIMER


def test_a_variation_is_neither_its_source_nor_another_variation() -> None:
    """Each differs from the others, and all still look like the source: their coarse tones go together."""
    source = decoded("01_rocket_rgb.jpg")
    files = {made(source, key=str(number), size=(640, 427)) for number in range(8)}
    assert len(files) == 8
    coarse = np.asarray(source.image.convert("L").resize((8, 4)), dtype=float).mean(axis=1)
    for file in files:
        tones = np.asarray(Image.open(io.BytesIO(file)).convert("L").resize((8, 4)), dtype=float).mean(axis=1)
        assert np.corrcoef(coarse, tones)[0, 1] > 0.5


def test_the_same_bytes_come_from_the_same_source_and_key() -> None:
    """Decoded anew, or with a canvas that was made for another variation first."""
    first, second = decoded("01_rocket_rgb.jpg"), decoded("01_rocket_rgb.jpg")
    made(second, key="other")
    assert made(first, key="a") == made(second, key="a")


@pytest.mark.parametrize("ratio", SIZES_AT_1_MEGAPIXEL)
def test_every_ratio_has_its_size(ratio: str) -> None:
    """At a quarter of a megapixel each side is half as long."""
    whole = InferenceRequest("", {"aspect_ratio": ratio}).size((10, 10))
    half = InferenceRequest("", {"aspect_ratio": ratio, "megapixels": "0.25"}).size((10, 10))
    assert whole == SIZES_AT_1_MEGAPIXEL[ratio] == (2 * half[0], 2 * half[1])
    for source in ("13_big_4000x2669.jpg", "17_thumb_24.jpg"):
        file = made(decoded(source), size=half)
        assert Image.open(io.BytesIO(file)).size == half


@pytest.mark.parametrize(
    ("source", "size"),
    [((600, 400), (600, 400)), ((4000, 2669), (1440, 961)), ((1000, 3000), (480, 1440)), ((24, 16), (24, 16))],
)
def test_match_input_is_the_size_of_the_source_within_1440(source: tuple[int, int], size: tuple[int, int]) -> None:
    """A larger one keeps its ratio."""
    assert InferenceRequest("", {"megapixels": "match_input", "aspect_ratio": "1:1"}).size(source) == size


@pytest.mark.parametrize("quality", [0, 100])
@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_quality_reaches_from_end_to_end(kind: str, quality: int) -> None:
    """0 is the smallest file, not the default."""
    source = decoded("10_chelsea.webp")
    file = make_variation(source, size=(256, 256), key="", output_format=kind, output_quality=quality)
    middle = make_variation(source, size=(256, 256), key="", output_format=kind, output_quality=50)
    assert (len(file) < len(middle)) == (quality == 0)


def test_ten_sample_photographs_come_with_the_package() -> None:
    """They decode, stay below 2 MB together, and their origin is told."""
    photos = sample_photos()
    assert len(photos) == 10
    assert sum(photo.stat().st_size for photo in photos) < 2_000_000
    credits_text = (photos[0].parent / "CREDITS.md").read_text()
    for photo in photos:
        decode_source(photo.read_bytes())
        assert f"`{photo.name}`" in credits_text
