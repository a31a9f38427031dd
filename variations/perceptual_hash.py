"""Perceptual hashes: 64 bits that stay nearly the same when an image is scaled, compressed or slightly recoloured.

The hash is `imagehash.phash`: the signs of an image's 8 × 8 lowest frequencies. Images that have nothing in common
differ in about 32 of the 64 bits; a copy that was scaled or compressed, in a handful.
"""

from typing import Final

import imagehash
import numpy as np
from PIL import Image

BITS: Final = 64
# The hash averages all the way down to 32 × 32: so many pixels a side tell it all it wants to know.
_ENOUGH: Final = 128


def perceptual_hash(image: Image.Image) -> int:
    """Return the hash of an image, as an unsigned number of 64 bits; what is transparent is seen on white."""
    small = image.reduce(max(1, min(image.size) // _ENOUGH)) if image.mode in {"L", "RGB"} else image
    return int(str(imagehash.phash(_opaque(small))), 16)


def distance(one: int, other: int) -> int:
    """Return in how many of the 64 bits two hashes differ."""
    return (one ^ other).bit_count()


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel, which convert("L") would clip.
        return Image.fromarray((np.clip(np.asarray(image), 0, 65_535) // 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
