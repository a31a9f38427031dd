"""Perceptual hashes of real photographs."""

import io
from pathlib import Path

import pytest
from PIL import Image

from variations.perceptual_hash import BITS, distance, perceptual_hash

PHOTOS = Path(__file__).parents[1] / "photos"


def photo(name: str) -> Image.Image:
    """Return a photograph, decoded."""
    with Image.open(PHOTOS / name) as image:
        image.load()
        return image.copy()


def test_a_copy_that_was_scaled_and_compressed_is_close() -> None:
    """It is the same picture to whoever looks at it."""
    original = photo("05_coffee_rgb.png")
    sink = io.BytesIO()
    original.convert("RGB").resize((original.width // 2, original.height // 2)).save(sink, "JPEG", quality=40)
    assert distance(perceptual_hash(original), perceptual_hash(Image.open(sink))) <= 4


@pytest.mark.parametrize("other", ["01_rocket_rgb.jpg", "02_retina_1411_square.jpg", "06_camera_gray.png"])
def test_other_photographs_are_far(other: str) -> None:
    """About half of the bits differ where nothing is alike."""
    found = distance(perceptual_hash(photo("05_coffee_rgb.png")), perceptual_hash(photo(other)))
    assert BITS / 4 < found < BITS * 3 / 4


@pytest.mark.parametrize(
    "name", ["07_astronaut_rgba.png", "08_coffee_cmyk.jpg", "14_camera_gray16.tif", "15_anim.gif", "16_palette.png"]
)
def test_every_mode_has_a_hash(name: str) -> None:
    """What a manifest may point at may have any."""
    assert 0 <= perceptual_hash(photo(name)) < 2**BITS


def test_sixteen_bits_a_pixel_are_seen_whole() -> None:
    """They are not clipped to the lowest eight."""
    found = distance(perceptual_hash(photo("14_camera_gray16.tif")), perceptual_hash(photo("06_camera_gray.png")))
    assert found <= 4


def test_what_is_transparent_is_seen_on_white() -> None:
    """What lies unseen behind an alpha of nothing is no part of the picture."""
    coffee = photo("05_coffee_rgb.png").convert("RGB")
    hidden = coffee.convert("RGBA")
    hidden.putalpha(0)
    white = Image.new("RGB", coffee.size, "white")
    assert perceptual_hash(hidden) == perceptual_hash(white)
