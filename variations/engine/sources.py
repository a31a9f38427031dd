"""Hand a source to the API: as it is, presigned, or uploaded."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from variations import errors
from variations.models import Source
from variations.storage import Storage, open_storage, split_uri
from variations.uris import public_uri

# Sent as base64 in JSON, a third larger; what is beyond this no gateway is known to take.
MAX_UPLOAD_BYTES: Final = 30_000_000
REMEMBERED_UPLOADS: Final = 10_000
# Files that are in memory, or wait for their turn there; more would only wait longer.
UPLOADS_AT_ONCE: Final = 16
# Not the system's table, which a small machine does not have: Python 3.11's own lacks webp and avif.
IMAGE_CONTENT_TYPES: Final = {
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}

Upload = Callable[[bytes, str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A URL that the API can fetch. `url` may carry a signature and shows in no `repr`; `public_url` carries none."""

    url: str = field(repr=False)
    public_url: str


class SourceUrls:
    """Make the URL of each source; a local file is uploaded once for all its variations.

    Args:
        upload: hands over a file's content with its content type and returns its URL.
        presign_seconds: how long a presigned URL lives; it has to outlive the API's queue.
        open_storage: opens the bucket or folder in which a source lies.
    """

    def __init__(
        self, upload: Upload, *, presign_seconds: int, open_storage: Callable[[str], Storage] = open_storage
    ) -> None:
        self._upload = upload
        self._presign_seconds = presign_seconds
        self._open_storage = open_storage
        self._uploading = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._uploads: OrderedDict[str, asyncio.Future[str]] = OrderedDict()

    async def url_of(self, source: Source) -> HandedOver:
        """Return the source's URL.

        Raises:
            SourceUnavailable: it cannot be read, is no image by its name, or is too large to upload.
            Repeatable, RunError, RunPaused: what the upload raised.
        """
        if source.uri.startswith(("http://", "https://")):
            return HandedOver(source.uri, source.public_uri)
        if source.uri.startswith("s3://"):
            try:
                root, key = split_uri(source.uri)
                url = await self._open_storage(root).presigned_url(key, expires_seconds=self._presign_seconds)
            except errors.CredentialsRefused:
                # Every other source would fail the same way.
                raise
            except errors.RunError as error:
                raise errors.SourceUnavailable(f"the source cannot be signed: {error.message}") from error
            return HandedOver(url, public_uri(url))
        url = await self._uploaded(source.uri)
        return HandedOver(url, public_uri(url))

    async def _uploaded(self, uri: str) -> str:
        known = self._uploads.get(uri)
        if known is None:
            known = self._uploads[uri] = asyncio.ensure_future(self._upload_in_turn(uri))
            while len(self._uploads) > REMEMBERED_UPLOADS:
                self._uploads.popitem(last=False)
        try:
            # Several variations may wait for one upload: none of them may cancel it for the others.
            return await asyncio.shield(known)
        except BaseException:
            if known.done() and self._uploads.get(uri) is known:
                del self._uploads[uri]
            raise

    async def _upload_in_turn(self, uri: str) -> str:
        async with self._uploading:
            return await self._upload_file(uri)

    async def _upload_file(self, uri: str) -> str:
        content_type = IMAGE_CONTENT_TYPES.get(PurePosixPath(uri).suffix.lower())
        try:
            root, key = split_uri(uri)
            content = await self._open_storage(root).get(key)
        except errors.VariationsError as error:
            raise errors.SourceUnavailable(f"the source cannot be read: {error.message}") from error
        if not content:
            raise errors.SourceUnavailable(f"the source is empty: {uri}")
        if len(content) > MAX_UPLOAD_BYTES:
            raise errors.SourceUnavailable(f"the source is larger than {MAX_UPLOAD_BYTES:,} bytes: {uri}")
        if content_type is None:
            raise errors.SourceUnavailable(f"the source is no image by its name: {uri}")
        return await self._upload(content, content_type)
