"""What an image looks like, in a few bytes; of real photos."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from variations.appearance import ALIKE_COLOURS, Appearance, appearance_of, copies_of, small_copy
from variations.gate import Gate
from variations.perceptual_hash import distance
from variations.source_images import opened_upright

PHOTOS = Path(__file__).parents[1] / "photos"
NAMES = sorted(path.name for path in PHOTOS.iterdir() if path.name[:2] < "17" and path.suffix != ".md")

# Each of another subject.
SUBJECTS = [name for name in NAMES if name[:2] in {"01", "02", "03", "05", "06", "07", "10"}]


def upright(name: str) -> Image.Image:
    """Return a photo as it is meant to be seen."""
    with opened_upright((PHOTOS / name).read_bytes()) as image:
        return image.convert("RGB")


def sent(image: Image.Image, *, quality: int = 60) -> Image.Image:
    """Return an image as it is after it was compressed."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(512, 512), (672, 384), (384, 672)], ids=str)
def test_a_copy_is_told_from_its_source(name: str, size: tuple[int, int]) -> None:
    """Squeezed or cropped into another shape, mirrored, and compressed."""
    photo = upright(name)
    looks = copies_of(small_copy(photo), size)
    for copy in (photo.resize(size), ImageOps.fit(photo, size), ImageOps.mirror(ImageOps.fit(photo, size))):
        alike = appearance_of(sent(copy)).nearest(looks).alike
        assert alike is not None
        assert alike <= Gate().copy_bits


@pytest.mark.parametrize("name", SUBJECTS)
def test_another_photo_is_no_copy(name: str) -> None:
    """Half of the bits differ, give or take; of four hashes the nearest by a little less."""
    found = appearance_of(upright(name))
    for other in SUBJECTS:
        bits = found.nearest(copies_of(small_copy(upright(other)), (512, 512))).distance
        assert bits is not None
        assert other == name or bits >= 12


@pytest.mark.parametrize("name", NAMES)
def test_what_was_compressed_again_has_the_same_looks(name: str) -> None:
    """Bits and colours are nearly those of before, in another size, too."""
    photo = upright(name)
    one, two = appearance_of(photo), appearance_of(sent(photo.resize((400, 300))))
    assert distance(one.hash, two.hash) <= Gate().twin_bits
    assert one.colour_difference(two) <= ALIKE_COLOURS


@pytest.mark.parametrize("name", NAMES)
def test_another_tint_shows_in_the_colours_alone(name: str) -> None:
    """The hash knows no colours, which is why there are some beside it."""
    photo = upright(name)
    red, green, blue = photo.split()
    tinted = Image.merge("RGB", (red.point(lambda v: v * 0.8), green, blue.point(lambda v: 255 - 0.8 * (255 - v))))
    one, two = appearance_of(photo), appearance_of(tinted)
    assert distance(one.hash, two.hash) <= 12
    assert one.colour_difference(two) > ALIKE_COLOURS


def test_contrast_is_in_levels_of_255_whatever_the_depth() -> None:
    """A white half beside a black one has all of it, and a gray image none."""
    halves = Image.new("L", (256, 256))
    halves.paste(255, (0, 0, 128, 256))
    assert appearance_of(halves).contrast == 255
    deep = Image.new("I;16", (256, 256))
    deep.paste(65_535, (0, 0, 128, 256))
    assert appearance_of(deep).contrast == 255
    assert appearance_of(Image.new("RGB", (64, 64), "gray")).contrast == 0


def test_what_is_transparent_is_seen_on_white() -> None:
    """Where a black that nobody sees lies below it, too."""
    clear = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    assert appearance_of(clear) == appearance_of(Image.new("RGB", (256, 256), "white"))


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (129, 127)], ids=str)
def test_an_image_of_any_shape_has_looks(size: tuple[int, int]) -> None:
    """None is too small, or too thin."""
    image = Image.new("RGB", size, "red")
    assert isinstance(appearance_of(image), Appearance)
    assert copies_of(small_copy(image), (1536, 640))
