"""Source images themselves: fetched from where it is safe to, whoever named the place, and their perceptual hashes."""

import asyncio
import io
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
from PIL import Image, ImageOps, UnidentifiedImageError

from variations import errors
from variations.api.download import MAX_OUTPUT_BYTES, OUTPUT_HOST, OutputPolicy, Resolver, fetch_output, resolve
from variations.images import MAX_PIXELS, is_blank
from variations.perceptual_hash import perceptual_hash
from variations.storage import Storage, open_storage, split_uri

# A decoded image may take 200 MB, most take 4.
DECODED_AT_ONCE: Final = 4
SOURCE_SECONDS: Final = 20.0
# A host, or a bucket, that answers nothing is not waited for ten thousand times.
HOST_FAILURES: Final = 5
# A JPEG is decoded at a half, a quarter or an eighth of its size, down to so many pixels a side at the least.
_HASHED_SIDE: Final = 256


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like: its perceptual hash, and whether it shows nothing, as all that do hash alike."""

    hash: int
    is_blank: bool


class SourceImages:
    """Fetches source images, so many decoded at a time.

    Args:
        local_files: the URIs of files of this machine that are read where they are named as sources; None: of all.
        http: fetches from the web.
        open_storage: opens the folder in which a source lies.
    """

    def __init__(
        self,
        *,
        local_files: Container[str] | None,
        http: httpx.AsyncClient,
        open_storage: Callable[[str], Storage] = open_storage,
    ) -> None:
        self._local_files = local_files
        self._http = http
        self._open_storage = open_storage
        self._failed_hosts: Counter[str] = Counter()
        self._decoders = asyncio.Semaphore(DECODED_AT_ONCE)

    async def fetch(self, uri: str) -> bytes:
        """Fetch a source.

        Raises:
            SourceUnavailable: it cannot be had, or not safely; the reason is short, its URI stands beside it.
        """
        scheme = uri.partition(":")[0].lower()
        try:
            if scheme in {"http", "https"}:
                return await self._from_web(uri)
            if scheme == "file" and self._local_files is not None and uri not in self._local_files:
                raise errors.SourceUnavailable(
                    "a file of the machine that made the dataset: `variations report --local-sources` shows it there"
                )
            if scheme in {"s3", "file"}:
                return await self._from_store(uri)
        except (errors.ItemError, errors.Repeatable, errors.StorageError, errors.BadInput, TimeoutError) as error:
            # What fetches it fetches outputs, too, and speaks of these.
            reason = str(error).replace("the output", "the source")
            raise errors.SourceUnavailable(reason or "it took too long to answer") from error
        raise errors.SourceUnavailable("it is not kept where it can be fetched from")

    async def look(self, uri: str) -> Look:
        """Fetch a source, and say what it looks like.

        Raises:
            SourceUnavailable: it cannot be had, or not safely, or is no image that decodes.
        """
        content = await self.fetch(uri)
        async with self._decoders:
            return await asyncio.to_thread(look_at, content)

    async def _from_web(self, url: str) -> bytes:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            raise errors.SourceUnavailable("its address is not a URL") from None
        if self._failed_hosts[host] >= HOST_FAILURES:
            raise errors.SourceUnavailable(f"{host} did not answer for others")
        try:
            async with asyncio.timeout(SOURCE_SECONDS):
                content = await fetch_output(self._http, url, policy=_AnyPublicHost(api_host=OUTPUT_HOST))
        except (errors.ServiceUnavailable, TimeoutError):
            self._failed_hosts[host] += 1
            raise
        self._failed_hosts[host] = 0
        return content

    async def _from_store(self, uri: str) -> bytes:
        root, key = split_uri(uri)
        bucket = "/".join(root.split("/", 3)[:3])
        if self._failed_hosts[bucket] >= HOST_FAILURES:
            raise errors.SourceUnavailable(f"{bucket} did not answer for others")
        storage = self._open_storage(root)
        try:
            entry = await storage.head(key)
            if entry is not None and entry.size > MAX_OUTPUT_BYTES:
                raise errors.SourceUnavailable(f"it is larger than {MAX_OUTPUT_BYTES:,} bytes")
            content = await storage.get(key)
        except errors.StorageUnavailable:
            self._failed_hosts[bucket] += 1
            raise
        finally:
            await storage.aclose()
        self._failed_hosts[bucket] = 0
        return content


class _AnyPublicHost(OutputPolicy):
    """Sources come from anywhere, and may be led on to anywhere else, but to no private address."""

    async def check(self, url: str, *, resolve: Resolver = resolve) -> None:
        """Refuse an address that is private, or none.

        Raises:
            OutputRefused: it is not http(s), or in a private range.
            ServiceUnavailable: the host's address cannot be found out.
        """
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        # The API's own host may be at a private address, and no other: here it stands for one that is public.
        await OutputPolicy(api_host=self.api_host, allowed_hosts=[host]).check(url, resolve=resolve)


def look_at(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Look:
    """Say what the image in a file looks like, upright. Takes milliseconds: call it in a thread.

    Raises:
        SourceUnavailable: it does not decode, or has more than `max_pixels`.
    """
    with opened_upright(content, max_pixels=max_pixels) as upright:
        return Look(perceptual_hash(upright), is_blank(upright))


@contextmanager
def opened_upright(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Yield the image in a file, upright; a JPEG no larger than needed to look at it.

    Raises:
        SourceUnavailable: it does not decode, or has more than `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise errors.SourceUnavailable(f"it has {width}×{height} pixels, more than {max_pixels:,}")
            image.draft("RGB", (_HASHED_SIDE, _HASHED_SIDE))
            yield ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise errors.SourceUnavailable(f"it has more than {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        raise errors.SourceUnavailable("it is no image") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise errors.SourceUnavailable(f"it does not decode: {error}") from error
