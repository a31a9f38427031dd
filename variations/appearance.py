"""What an image looks like, in a few bytes: how much contrast it has, its perceptual hash, and its colours.

All of it is told by one small copy of the image, for averaging the large one is what costs: a megapixel takes one
millisecond.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from variations.perceptual_hash import perceptual_hash

# Pixels of the shorter side of the small copy, at the least; and cells a side, of which the contrast is that.
_SMALL_SIDE: Final = 128
_CELLS: Final = 32
COLOUR_CELLS: Final = 8


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


def copies_of(small: Image.Image, size: tuple[int, int]) -> frozenset[int]:
    """Return the hashes of an image as a copy of it in another size may hash: squeezed or cropped, mirrored or not."""
    gray = small.convert("L")
    cropped = ImageOps.fit(gray, _of_shape(gray.size, size))
    return frozenset(perceptual_hash(one) for each in (gray, cropped) for one in (each, ImageOps.mirror(each)))


def _of_shape(within: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    scale = min(within[0] / size[0], within[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
