"""What an image looks like, in a few bytes: how much contrast it has, its perceptual hash, and its colours.

All of it is told by one small copy of the image, for averaging the large one is what costs: a megapixel takes one
millisecond.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from variations.perceptual_hash import distance, perceptual_hash

# Pixels of the shorter side of the small copy, at the least; and cells a side, of which the contrast is that.
_SMALL_SIDE: Final = 128
_CELLS: Final = 32
COLOUR_CELLS: Final = 8


# The hash knows no colours, and some variations differ in these alone: by so much, in levels of 255, the colours of two
# images that are nearly the same differ on average at the most.
ALIKE_COLOURS: Final = 4.0


class Nearest(NamedTuple):
    """Bits to the nearest of some images, and to the nearest of those that have the same colours; None without one."""

    distance: int | None = None
    alike: int | None = None


@dataclass(frozen=True, slots=True)
class Appearance:
    """What an image looks like.

    Attributes:
        contrast: between the darkest and the lightest of 32 × 32 averaged cells, in levels of 255.
        hash: perceptual, of 64 bits.
        colours: of 8 × 8 averaged cells, three bytes each.
    """

    contrast: float
    hash: int
    colours: bytes

    def nearest(self, others: Iterable["Appearance"]) -> "Nearest":
        """Return how near the nearest of other images is."""
        nearest: int | None = None
        alike: int | None = None
        for other in others:
            bits = distance(self.hash, other.hash)
            nearest = bits if nearest is None else min(nearest, bits)
            if (alike is None or bits < alike) and self.colour_difference(other) <= ALIKE_COLOURS:
                alike = bits
        return Nearest(nearest, alike)

    def colour_difference(self, other: "Appearance") -> float:
        """Return by how much the colours differ from another image's on average, in levels of 255."""
        one, two = (np.frombuffer(colours, np.uint8).astype(np.int16) for colours in (self.colours, other.colours))
        return float(np.abs(one - two).mean())


def appearance_of(image: Image.Image) -> Appearance:
    """Say what a decoded image looks like; what is transparent is seen on white."""
    small = small_copy(image)
    gray = small.convert("L")
    lowest, highest = gray.reduce(max(1, min(gray.size) // _CELLS)).getextrema()
    colours = small.convert("RGB").resize((COLOUR_CELLS, COLOUR_CELLS), Image.Resampling.BOX)
    return Appearance(float(highest) - float(lowest), perceptual_hash(gray), colours.tobytes())  # type: ignore[arg-type]


def small_copy(image: Image.Image) -> Image.Image:
    """Return a small copy of an image, gray or RGB, that looks the same."""
    if image.mode.startswith("I"):
        # 16 bits a pixel, which convert("L") would clip.
        image = Image.fromarray((np.clip(np.asarray(image), 0, 65_535) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    elif image.mode not in {"L", "RGB"}:
        image = image.convert("RGB")
    return image.reduce(max(1, min(image.size) // _SMALL_SIDE))


def copies_of(small: Image.Image, size: tuple[int, int]) -> tuple[Appearance, ...]:
    """Return what a copy of an image in another size may look like: squeezed or cropped, mirrored or not."""
    cropped = ImageOps.fit(small, _of_shape(small.size, size))
    return tuple(appearance_of(one) for each in (small, cropped) for one in (each, ImageOps.mirror(each)))


def _of_shape(within: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    scale = min(within[0] / size[0], within[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
