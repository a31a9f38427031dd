"""Files that are fetched without a key: the outputs, and what was uploaded."""

import asyncio
import hashlib
import json
from concurrent.futures import Executor
from typing import Any, Final

from variations.sandbox.cache import ByteCache
from variations.sandbox.images import make_variation
from variations.sandbox.records import Record
from variations.sandbox.refusals import Refused
from variations.sandbox.sources import Sources, data_url_bytes
from variations.sandbox.validation import InferenceRequest

_EXTENSIONS: Final = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/tiff": "tif",
    "image/avif": "avif",
    "image/bmp": "bmp",
}


class Outputs:
    """Make output files and hold the latest; an older one is made again from its source when it is fetched.

    An output of a long data: URL, or of a source that is gone, cannot be made again once it was dropped.
    """

    def __init__(self, executor: Executor, sources: Sources, cache: ByteCache[bytes]) -> None:
        self._executor = executor
        self._sources = sources
        self._cache = cache

    async def make(self, record: Record, request: InferenceRequest, *, images: int) -> tuple[int, ...]:
        """Make the images of a request and return their sizes in bytes.

        Raises:
            SourceUnusable: the source cannot be fetched or decoded.
        """
        sizes = []
        for index in range(images):
            content = await self._make(record, request, index)
            sizes.append(len(content))
        return tuple(sizes)

    async def get(self, record: Record, index: int) -> bytes:
        """Return one file.

        Raises:
            SourceUnusable: it is no longer held and cannot be made again.
        """
        held = self._cache.get(f"{record.request_id}/{index}")
        return held if held is not None else await self._make(record, record.request(), index, at_any_age=True)

    def clear(self) -> None:
        """Drop every file."""
        self._cache.clear()

    async def _make(self, record: Record, request: InferenceRequest, index: int, *, at_any_age: bool = False) -> bytes:
        source = await self._sources.get(request.source, at_any_age=at_any_age)
        # The same request makes the same bytes: of a random seed, the one that was drawn counts.
        key = json.dumps([{**request.sent, "seed": record.seed}, index], sort_keys=True)
        content = await asyncio.get_running_loop().run_in_executor(
            self._executor,
            lambda: make_variation(
                source,
                size=request.size(source.size),
                key=key,
                output_format=request.value("output_format"),
                output_quality=request.value("output_quality"),
                made=record.made,
            ),
        )
        self._cache.put(f"{record.request_id}/{index}", content, size_bytes=len(content))
        return content


class Assets:
    """Hold uploaded files, the oldest dropped when the budget is used up."""

    def __init__(self, budget_bytes: int) -> None:
        self._files: ByteCache[tuple[bytes, str]] = ByteCache(budget_bytes)

    def store(self, fields: dict[str, Any]) -> list[str]:
        """Store the files of an upload and return their names.

        Equal files have equal names, so that the bill shows it when one is paid for twice.

        Raises:
            Refused: 400, it is not a list of data: URLs of images.
        """
        data_urls = fields.get("data_urls")
        if not isinstance(data_urls, list) or not data_urls:
            raise Refused(400, "data_urls must be a list of data: URLs.")
        files = [self._read(data_url) for data_url in data_urls]
        names = []
        for content, media_type in files:
            extension = _EXTENSIONS.get(media_type, "bin")
            names.append(f"{hashlib.sha256(content).hexdigest()[:32]}.{extension}")
            self._files.put(names[-1], (content, media_type), size_bytes=len(content))
        return names

    def get(self, name: str) -> tuple[bytes, str]:
        """Return a file and its media type.

        Raises:
            Refused: 404.
        """
        found = self._files.get(name)
        if found is None:
            raise Refused(404, "File not found.")
        return found

    def clear(self) -> None:
        """Drop every file."""
        self._files.clear()

    @staticmethod
    def _read(data_url: Any) -> tuple[bytes, str]:
        if not isinstance(data_url, str):
            raise Refused(400, "data_urls must be a list of data: URLs.")
        try:
            content = data_url_bytes(data_url)
        except ValueError as error:
            raise Refused(400, f"A data: URL could not be read: {error}.") from None
        media_type = data_url[5:].partition(",")[0].partition(";")[0].lower()
        if not content:
            raise Refused(400, "A data: URL could not be read: it is empty.")
        return content, media_type or "application/octet-stream"
