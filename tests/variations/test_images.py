"""Decoding and describing an image, on real photographs and on broken files."""

import hashlib
import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from variations.appearance import Appearance
from variations.errors import OutputInvalid
from variations.images import BLANK_SPREAD, MAX_PIXELS, ImageFacts, inspect_image, size_notes

PHOTOS = Path(__file__).parents[1] / "photos"
# One is large and one has 16 bits, which RGB cuts off: it is tried by itself below.
WHOLE = sorted(path.name for path in PHOTOS.glob("[01]*.*") if not path.name.startswith(("13", "14")))
BROKEN = ["90_truncated.jpg", "92_html_not_image.jpg", "93_empty.jpg"]
FORMATS = {"jpg": "JPEG", "webp": "WEBP", "png": "PNG"}


def encoded(image: Image.Image, extension: str, **options: object) -> bytes:
    """Return an image as a file's content."""
    sink = io.BytesIO()
    image.save(sink, FORMATS[extension], **options)
    return sink.getvalue()


def opened(name: str) -> Image.Image:
    """Return a photograph as it is."""
    return Image.open(io.BytesIO((PHOTOS / name).read_bytes()))


def photo(name: str, *, size: tuple[int, int] | None = None) -> Image.Image:
    """Return a photograph in RGB."""
    image = opened(name).convert("RGB")
    return image.resize(size) if size else image


def is_blank(facts: ImageFacts) -> bool:
    """Return whether an image shows nothing."""
    return facts.appearance.contrast < BLANK_SPREAD


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("name", WHOLE)
def test_every_photo_in_every_format_is_described(name: str, extension: str) -> None:
    """Size, format, bytes and hash are those of the file, and no photograph is blank."""
    image = photo(name)
    content = encoded(image, extension)
    facts = inspect_image(content)
    assert (facts.width, facts.height, facts.format, facts.bytes) == (*image.size, extension, len(content))
    assert facts.sha256 == hashlib.sha256(content).hexdigest()
    assert not is_blank(facts)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99])
def test_a_file_that_breaks_off_is_caught(extension: str, share: float) -> None:
    """It is decoded to its last pixel, not only to its header."""
    content = encoded(photo("01_rocket_rgb.jpg"), extension)
    with pytest.raises(OutputInvalid):
        inspect_image(content[: int(share * len(content))])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(name: str) -> None:
    """Cut off, another thing by its name, or empty."""
    with pytest.raises(OutputInvalid):
        inspect_image((PHOTOS / name).read_bytes())


@pytest.mark.parametrize("name", ["14_camera_gray16.tif", "15_anim.gif", "18_chelsea.avif"])
def test_an_image_of_another_format_is_refused(name: str) -> None:
    """The API makes jpg, webp and png."""
    with pytest.raises(OutputInvalid, match="not a jpg, webp or png"):
        inspect_image((PHOTOS / name).read_bytes())


@pytest.mark.parametrize(
    "name",
    [path.name for path in sorted(PHOTOS.glob("*.*")) if path.suffix in {".jpg", ".png", ".webp"} and path.name < "9"],
)
def test_files_as_others_wrote_them_are_described(name: str) -> None:
    """CMYK, gray, palette, alpha, progressive, rotated by EXIF: all are images."""
    facts = inspect_image((PHOTOS / name).read_bytes())
    with Image.open(PHOTOS / name) as image:
        assert (facts.width, facts.height) == image.size
    assert not is_blank(facts)


def bilevel() -> Image.Image:
    """Return a photograph in black and white, without dots."""
    return photo("07_astronaut_rgba.png").convert("L").point(lambda value: 255 * (value > 128)).convert("1")


MODES: dict[str, Callable[[], Image.Image]] = {
    "1": bilevel,
    "P": lambda: photo("05_coffee_rgb.png").quantize(16),
    "L": lambda: photo("05_coffee_rgb.png").convert("L"),
    "LA": lambda: photo("05_coffee_rgb.png").convert("LA"),
    "RGBA": lambda: photo("05_coffee_rgb.png").convert("RGBA"),
    "I;16": lambda: opened("14_camera_gray16.tif"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_png_of_any_mode_is_an_image(mode: str) -> None:
    """Not blank, where it shows something."""
    image = MODES[mode]()
    content = encoded(image, "png")
    with Image.open(io.BytesIO(content)) as written:
        assert written.mode == mode
    facts = inspect_image(content)
    assert (facts.width, facts.height, facts.format, is_blank(facts)) == (*image.size, "png", False)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("1", (300, 200), 1),
        Image.new("P", (300, 200), 9),
        Image.new("LA", (300, 200), (9, 99)),
        Image.new("I;16", (300, 200), 40_000),
    ],
    ids=lambda image: image.mode,
)
def test_a_flat_png_of_any_mode_is_blank(image: Image.Image) -> None:
    """Whatever its numbers mean."""
    assert is_blank(inspect_image(encoded(image, "png")))


def test_a_dark_16_bit_image_is_not_blank() -> None:
    """Sixteen bits are looked at as sixteen, not cut to eight."""
    dark = opened("14_camera_gray16.tif").convert("I").point(lambda value: value * 0.2)
    content = encoded(dark.convert("I;16"), "png")
    assert not is_blank(inspect_image(content))
    bright = opened("14_camera_gray16.tif").convert("I").point(lambda value: value * 0.5 + 30_000)
    assert not is_blank(inspect_image(encoded(bright.convert("I;16"), "png")))


def test_a_jpeg_with_further_pictures_is_a_jpg() -> None:
    """Pillow gives it a name of its own."""
    sink = io.BytesIO()
    image = photo("01_rocket_rgb.jpg", size=(300, 200))
    image.save(sink, "MPO", save_all=True, append_images=[image])
    assert inspect_image(sink.getvalue()).format == "jpg"


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (30, 90, 200)])
def test_a_flat_colour_is_blank(colour: tuple[int, int, int], extension: str) -> None:
    """Black above all: that is what a safety checker leaves."""
    assert is_blank(inspect_image(encoded(Image.new("RGB", (512, 512), colour), extension)))


@pytest.mark.parametrize("extension", FORMATS)
def test_a_flat_colour_with_noise_is_blank(extension: str) -> None:
    """Noise of a few steps shows nothing."""
    chances = random.Random(1)  # noqa: S311 - no secret
    noise = Image.frombytes("L", (512, 512), bytes(chances.randint(0, 12) for _ in range(512 * 512)))
    assert is_blank(inspect_image(encoded(noise.convert("RGB"), extension)))


@pytest.mark.parametrize("brightness", [1.0, 0.5, 0.2])
def test_a_dark_photo_is_not_blank(brightness: float) -> None:
    """The sky between galaxies is almost black, and full of them."""
    dark = photo("03_hubble_exif.jpg").point(lambda value: int(value * brightness))
    assert not is_blank(inspect_image(encoded(dark, "jpg")))


def test_a_flat_16_bit_image_with_noise_is_blank() -> None:
    """Noise is measured in the steps that an eye sees, not in the 65,536 that are there."""
    chances = random.Random(1)  # noqa: S311 - no secret
    noise = b"".join(struct.pack("<H", chances.randint(30_000, 33_000)) for _ in range(512 * 512))
    assert is_blank(inspect_image(encoded(Image.frombytes("I;16", (512, 512), noise), "png")))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims to be so large, and has hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


@pytest.mark.parametrize(
    "size",
    [(7072, 7071), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)],
    ids=["ours", "warns", "bomb", "max"],
)
def test_a_forged_size_is_refused_by_its_header(size: tuple[int, int]) -> None:
    """Nothing of it is decoded, and no warning leaves."""
    with pytest.raises(OutputInvalid, match="pixels"):
        inspect_image(png_header(*size))


def test_the_bound_of_pixels_is_the_callers() -> None:
    """An image of exactly so many is let through."""
    content = encoded(photo("17_thumb_24.jpg"), "png")
    assert inspect_image(content, max_pixels=24 * 16).width == 24
    with pytest.raises(OutputInvalid, match="24×16"):
        inspect_image(content, max_pixels=24 * 16 - 1)
    assert MAX_PIXELS > 4 * 1440 * 1440


SMALL = {extension: encoded(photo("01_rocket_rgb.jpg", size=(90, 60)), extension) for extension in FORMATS}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    extension=st.sampled_from(sorted(FORMATS)),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    end=st.floats(0.2, 1),
)
def test_damage_is_an_image_or_invalid_and_nothing_else(
    extension: str, edits: list[tuple[float, int]], end: float
) -> None:
    """Whatever bytes come, the decoder's own errors stay inside."""
    content = bytearray(SMALL[extension])
    for place, value in edits:
        content[int(place * len(content))] = value
    content = content[: int(end * len(content))]
    try:
        facts = inspect_image(bytes(content))
    except OutputInvalid:
        return
    assert facts.format == extension


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200), magic=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"]))
def test_noise_is_invalid(content: bytes, magic: bytes) -> None:
    """With an image's first bytes too."""
    with pytest.raises(OutputInvalid):
        inspect_image(magic + content)


LOOKS = Appearance(contrast=200.0, hash=0, colours=b"")


def facts(**changes: object) -> ImageFacts:
    """Return a good image's facts, with changes."""
    return ImageFacts(
        **{"width": 8, "height": 6, "format": "jpg", "bytes": 1, "sha256": "", "appearance": LOOKS} | changes
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "expected_size", "notes"),
    [
        (facts(), (8, 6), ()),
        (facts(), None, ()),
        (facts(), (6, 8), ("unexpected size: 8×6 instead of 6×8",)),
        (facts(format="png"), (8, 6), ("unexpected format: png instead of jpg",)),
    ],
)
def test_what_is_odd_is_noted(found: ImageFacts, expected_size: tuple[int, int] | None, notes: tuple[str, ...]) -> None:
    """Such an image is kept: it was paid for."""
    assert size_notes(found, expected_size, wanted_format="jpg") == notes
