"""Decode an image and say what it is. Pure functions of the bytes; run them in a thread."""

import hashlib
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image, UnidentifiedImageError

from variations.appearance import Appearance, appearance_of
from variations.errors import OutputInvalid

MAX_PIXELS: Final = 50_000_000
# MPO is what Pillow calls a JPEG with further pictures behind the first.
FORMATS: Final = {"JPEG": "jpg", "MPO": "jpg", "WEBP": "webp", "PNG": "png"}
_READERS: Final = ("JPEG", "WEBP", "PNG")
CONTENT_TYPES: Final = {"jpg": "image/jpeg", "webp": "image/webp", "png": "image/png"}
# The spread between the darkest and the lightest of 32 x 32 averaged cells, of 255, under which an image shows nothing.
BLANK_SPREAD: Final = 4
BLANK_PIXELS: Final = 512


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a fully decoded image is: pixels, one of the formats `jpg`, `webp`, `png`, and what it looks like."""

    width: int
    height: int
    format: str
    bytes: int
    sha256: str
    appearance: Appearance


def inspect_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode an image to its last pixel and describe it.

    Raises:
        OutputInvalid: it is not a jpg, webp or png, breaks off, or has more than `max_pixels`.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=_READERS)
        width, height = image.size
        if width * height > max_pixels:
            raise OutputInvalid(f"the image has {width}×{height} pixels, more than {max_pixels:,}")
        image.load()
        facts = ImageFacts(
            width=width,
            height=height,
            format=FORMATS[image.format or ""],
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            appearance=appearance_of(image),
        )
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise OutputInvalid(f"the image has more than {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        head = content[:12]
        raise OutputInvalid(f"{len(content)} bytes beginning {head!r} are not a jpg, webp or png") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise OutputInvalid(f"the image does not decode: {error}") from error
    return facts


def is_blank(image: Image.Image) -> bool:
    """Return whether a decoded image shows nothing: it is of one colour, or nearly so."""
    # Some pixels of a large image tell as much as all of them, at a fraction of the work.
    few = image.resize((min(image.width, BLANK_PIXELS), min(image.height, BLANK_PIXELS)), Image.Resampling.NEAREST)
    # 16 bits a pixel are averaged as they are, for convert("L") would clip them; a palette's numbers mean nothing.
    is_deep = few.mode.startswith("I")
    gray = few.convert("I" if is_deep else "L")
    # reduce() averages boxes of pixels in C; 1 megapixel takes well under a millisecond.
    lowest, highest = gray.reduce(max(1, min(gray.size) // 32)).getextrema()
    spread = highest - lowest  # type: ignore[operator] # a single band gives two numbers
    return bool(spread < BLANK_SPREAD * (257 if is_deep else 1))


def size_notes(facts: ImageFacts, expected: tuple[int, int] | None, *, wanted_format: str) -> tuple[str, ...]:
    """Say what is odd about an image that is kept all the same: it was paid for."""
    notes = []
    if expected is not None and (facts.width, facts.height) != expected:
        notes.append(f"unexpected size: {facts.width}×{facts.height} instead of {expected[0]}×{expected[1]}")
    if facts.format != wanted_format:
        notes.append(f"unexpected format: {facts.format} instead of {wanted_format}")
    return tuple(notes)
