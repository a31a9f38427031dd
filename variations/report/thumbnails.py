"""Small pictures: made of images of any format, and kept from one report to the next."""

import io
import tempfile
from asyncio import to_thread
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps, UnidentifiedImageError

from variations.errors import ObjectNotFound, OutputInvalid
from variations.images import MAX_PIXELS
from variations.layout import THUMBNAILS_KEY
from variations.storage import Storage

QUALITY: Final = 74
MIME_TYPE: Final = "image/webp"
BATCH: Final = 1_000

_SCHEMA: Final = pa.schema([("name", pa.string()), ("side", pa.int32()), ("content", pa.binary())])
_DEEP: Final = 65535.0
_PLAIN: Final = 255.0


def thumbnail(content: bytes, *, side: int) -> bytes:
    """Return a WebP of an image, upright, its longer side at most so many pixels. Takes milliseconds: call it in a
    thread.

    Raises:
        OutputInvalid: it does not decode, or has more than `MAX_PIXELS`.
    """
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise OutputInvalid(f"the image has {width}×{height} pixels, more than {MAX_PIXELS:,}")
            # A JPEG is decoded at a half, a quarter or an eighth of its size, for a fraction of the time.
            image.draft("RGB", (2 * side, 2 * side))
            small = ImageOps.exif_transpose(_shown(image))
            small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
            small.save(file, "WEBP", quality=QUALITY, method=4)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise OutputInvalid(f"the image has more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise OutputInvalid("it is no image") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise OutputInvalid(f"the image does not decode: {error}") from error
    return file.getvalue()


def _shown(image: Image.Image) -> Image.Image:
    """Return an image in a mode that WebP knows, its transparency kept, its orientation too."""
    if image.mode.startswith(("I", "F")):
        deep = image if image.mode == "F" else image.convert("F")
        highest = float(deep.getextrema()[1])  # type: ignore[arg-type] # a single band gives two numbers
        # 16 bits where the values need them, else 8; a float image may have any range.
        top = highest if image.mode == "F" else (_DEEP if highest > _PLAIN else _PLAIN)
        scale = _PLAIN / (top or 1.0)
        return deep.point(lambda level: level * scale + 0.0).convert("RGB")
    has_alpha = image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


@dataclass(slots=True)
class Thumbnail:
    """A small picture, and the side that it was made for, in pixels."""

    side: int
    content: bytes


class Thumbnails:
    """Those that a report shows, in memory: some 3 kB each of many, or 10 of a few.

    They are kept in one object beside the data, so that the next report fetches only images that it has not seen.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[str, Thumbnail] = {}

    async def load(self) -> None:
        """Take up those of earlier reports; what cannot be read is made anew."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "thumbnails.parquet")
            try:
                await self._storage.get_to_file(THUMBNAILS_KEY, path)
                await to_thread(self._read, path)
            except (ObjectNotFound, pa.ArrowException, KeyError):
                self._known.clear()

    async def save(self) -> None:
        """Keep them for the next report."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "thumbnails.parquet")
            await to_thread(self._write, path, list(self._known.items()))
            await self._storage.put(THUMBNAILS_KEY, path)

    def _read(self, path: Path) -> None:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=_SCHEMA.names):
                for name, side, content in zip(*(batch.column(one).to_pylist() for one in _SCHEMA.names), strict=True):
                    self._known[name] = Thumbnail(side, content)

    def _write(self, path: Path, known: Sequence[tuple[str, Thumbnail]]) -> None:
        # Neither gains by it: hashes and compressed pictures.
        with pq.ParquetWriter(path, _SCHEMA, compression="none", use_dictionary=False) as writer:
            for at in range(0, len(known), BATCH):
                rows = [
                    {"name": name, "side": one.side, "content": one.content} for name, one in known[at : at + BATCH]
                ]
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))

    def add(self, name: str, side: int, content: bytes) -> None:
        """Keep one."""
        self._known[name] = Thumbnail(side, content)

    def get(self, name: str) -> Thumbnail | None:
        """Return one, if it is there."""
        return self._known.get(name)

    def content(self, name: str) -> bytes:
        """Return the WebP of one that is there."""
        return self._known[name].content

    def keep_only(self, names: Collection[str]) -> None:
        """Forget what no report shows any more."""
        for name in self._known.keys() - set(names):
            del self._known[name]
