"""Make a variation of a photograph, cheaply and reproducibly. **This is not FLUX**, and every file says so.

No model is at work: a variation is a seeded crop of the source, perhaps mirrored, blended with a low-frequency
field of colour and put through a colour curve. The same source bytes, parameters, seed and output number make the
same file. The dear step, scaling, is done once for a source and a size; after that a megapixel takes a few
milliseconds.
"""

import functools
import hashlib
import io
import random
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Made = Literal["variation", "blank", "copy"]

DISCLAIMER: Final = "Made by the sandbox of 'variations' from the source image; this is not FLUX."
CONTENT_TYPES: Final = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}

# The largest side of any output is 1536 pixels.
WORKING_SIDE_PIXELS: Final = 1536
# A source is scaled to cover the output this many times over, so that there is something to crop.
CROP_ROOM: Final = 1.18
FIELD_SIDE_PIXELS: Final = 1920
FIELD_CELLS: Final = 7
MAX_CANVASES_PER_SOURCE: Final = 2

_ORIENTATION_TAG: Final = 0x0112
_IMAGE_DESCRIPTION_TAG: Final = 0x010E
_SOFTWARE_TAG: Final = 0x0131
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndecodableSource(Exception):
    """The bytes are not an image that fully decodes."""


@dataclass(slots=True)
class DecodedSource:
    """A source as it is worked with.

    Attributes:
        image: RGB, upright, its longer side at most `WORKING_SIDE_PIXELS`.
        size: (width, height) of the upright original in pixels.
        digest: of the bytes it was decoded from.
        canvases: the image scaled to cover an output size; scaled once, cropped many times.
    """

    image: Image.Image
    size: tuple[int, int]
    digest: bytes
    canvases: dict[tuple[int, int], Image.Image] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Return what it may occupy, its canvases included (Pillow keeps 4 bytes a pixel)."""
        canvas_pixels = MAX_CANVASES_PER_SOURCE * 1024 * 1024 * CROP_ROOM**2
        return int(4 * (self.image.width * self.image.height + canvas_pixels))


def decode_source(content: bytes) -> DecodedSource:
    """Decode an image of any mode, turn it upright and reduce it to a working size.

    Raises:
        UndecodableSource: with the reason in one line.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            orientation = opened.getexif().get(_ORIENTATION_TAG, 1)
            width, height = opened.size
            # A JPEG is decoded at a half or a quarter of its size for a fraction of the time.
            opened.draft("RGB", _working_size(opened.size))
            opened.load()
            image = _to_rgb(opened)
    except UnidentifiedImageError:
        raise UndecodableSource("it is not an image of a known format") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise UndecodableSource(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if max(image.size) > WORKING_SIDE_PIXELS:
        image = image.resize(_working_size(image.size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return DecodedSource(image, (width, height), hashlib.sha256(content).digest())


def make_variation(
    source: DecodedSource,
    *,
    size: tuple[int, int],
    key: str,
    output_format: str,
    output_quality: int,
    made: Made = "variation",
) -> bytes:
    """Return the file of one variation.

    Args:
        source: what it is a variation of.
        size: (width, height) in pixels.
        key: everything else that it depends on: parameters, seed, output number.
        output_format: `jpg`, `png` or `webp`.
        output_quality: 0 to 100; not used for png.
        made: a variation, or what goes wrong: a black image, or a copy of the source.
    """
    if made == "blank":
        return _encode(Image.new("RGB", size), output_format, output_quality)
    if made == "copy":
        return _encode(ImageOps.fit(source.image, size), output_format, output_quality)
    chances = random.Random(hashlib.sha256(source.digest + key.encode()).digest())  # noqa: S311 - it is a picture
    image = _crop(_canvas(source, size), size, chances)
    if chances.random() < 0.5:  # noqa: PLR2004 - a coin
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = Image.blend(image, _crop(_colour_field(), size, chances), chances.uniform(0.12, 0.30))
    return _encode(image.point(_colour_curves(chances)), output_format, output_quality)


def _working_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return `size` reduced so that its longer side is `WORKING_SIDE_PIXELS`."""
    scale = min(1.0, WORKING_SIDE_PIXELS / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I;16", "I", "F")):
        levels = np.asarray(image, dtype=np.float32)
        # 16 bits where the values need them; a float image is stretched over its own range.
        top = float(levels.max(initial=0.0))
        span = (top or 1.0) if image.mode == "F" else (65535.0 if top > 255 else 255.0)  # noqa: PLR2004 - 8 bits
        levels = np.clip(levels * (255.0 / span), 0, 255)
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        background = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, opaque).convert("RGB")
    # A copy where it is RGB already: the file behind the opened image is closed.
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _canvas(source: DecodedSource, size: tuple[int, int]) -> Image.Image:
    """Return the source scaled to cover `size` with room to crop."""
    canvas = source.canvases.get(size)
    if canvas is not None:
        return canvas
    width, height = (round(side * CROP_ROOM) for side in size)
    scale = max(width / source.image.width, height / source.image.height)
    # Only the middle that covers the canvas is scaled: a panorama of a portrait would need much more.
    box_width, box_height = min(source.image.width, width / scale), min(source.image.height, height / scale)
    left, top = (source.image.width - box_width) / 2, (source.image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    canvas = source.image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    # Two threads may make the same one; both are equal.
    if len(source.canvases) >= MAX_CANVASES_PER_SOURCE:
        source.canvases = {}
    source.canvases[size] = canvas
    return canvas


def _crop(image: Image.Image, size: tuple[int, int], chances: random.Random) -> Image.Image:
    left, top = chances.randint(0, image.width - size[0]), chances.randint(0, image.height - size[1])
    return image.crop((left, top, left + size[0], top + size[1]))


@functools.cache
def _colour_field() -> Image.Image:
    """Return soft blobs of colour, larger than any output; each variation cuts its own window."""
    chances = random.Random("field")  # noqa: S311 - it is a picture
    cells = bytes(chances.randint(30, 225) for _ in range(3 * FIELD_CELLS**2))
    coarse = Image.frombytes("RGB", (FIELD_CELLS, FIELD_CELLS), cells)
    return coarse.resize((FIELD_SIDE_PIXELS, FIELD_SIDE_PIXELS), Image.Resampling.BICUBIC)


def _colour_curves(chances: random.Random) -> list[int]:
    """Return a curve for each channel: a gamma of its own, and the contrast that the blend took away."""
    contrast = chances.uniform(1.12, 1.32)
    brightness = chances.uniform(-6.0, 10.0)
    curves: list[int] = []
    for _ in range(3):
        gamma = chances.uniform(0.84, 1.16)
        curves += [
            min(255, max(0, round((255 * (level / 255) ** gamma - 128) * contrast + 128 + brightness)))
            for level in range(256)
        ]
    return curves


@functools.cache
def _exif() -> bytes:
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION_TAG] = DISCLAIMER
    exif[_SOFTWARE_TAG] = "variations sandbox"
    return exif.tobytes()


def _encode(image: Image.Image, output_format: str, output_quality: int) -> bytes:
    options: dict[str, Any]
    if output_format == "png":
        from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415 - most outputs are not PNGs

        text = PngInfo()
        text.add_text("Comment", DISCLAIMER)
        options = {"format": "PNG", "compress_level": 1, "pnginfo": text, "exif": _exif()}
    elif output_format == "webp":
        options = {"format": "WEBP", "quality": output_quality, "method": 0, "exif": _exif()}
    else:
        # Pillow reads a quality of 0 as its default.
        options = {"format": "JPEG", "quality": max(1, output_quality), "comment": DISCLAIMER, "exif": _exif()}
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()
