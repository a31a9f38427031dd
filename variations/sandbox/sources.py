"""Fetch and decode what `redux_image` points at: http(s) URLs and data: URLs.

The query string of a URL may be a signature: it is in no message and no log.
"""

import asyncio
import base64
import binascii
import hashlib
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

import httpx

from variations.sandbox.cache import ByteCache
from variations.sandbox.images import DecodedSource, UndecodableSource, decode_source
from variations.sandbox.settings import SandboxSettings

MAX_SOURCE_BYTES: Final = 64 << 20
FETCH_TIMEOUT_SECONDS: Final = 15.0
MAX_FETCHES_AT_ONCE: Final = 32
MAX_REDIRECTS: Final = 5
# A data: URL up to this many characters is kept as it was sent; of a longer one its beginning and its hash.
MAX_INLINE_CHARACTERS: Final = 2048


class SourceUnusable(Exception):
    """The source cannot be fetched or decoded; the request ends as FAILED with this text."""


def without_signature(source: str) -> str:
    """Return a source as it may be shown: no query string, no user name, of a data: URL its beginning only."""
    if source[:5].lower() == "data:":
        return source if "(sha256 " in source[:160] else abridged(source, limit=80)
    parts = urllib.parse.urlsplit(source)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def abridged(source: str, *, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """Return a source as a record keeps it: a long data: URL by its beginning, its hash and its length."""
    if source[:5].lower() != "data:" or len(source) <= limit:
        return source
    media_type = source[: min(source.find(","), 60) + 1] if "," in source[:60] else "data:,"
    return f"{media_type}(sha256 {hashlib.sha256(source.encode()).hexdigest()}, {len(source)} characters)"


def data_url_bytes(source: str) -> bytes:
    """Return what a data: URL holds.

    Raises:
        ValueError: it is not one, or its base64 is damaged.
    """
    head, comma, payload = source.partition(",")
    if not comma or not head.lower().startswith("data:"):
        raise ValueError("not a data: URL")
    if head.lower().endswith(";base64"):
        try:
            return base64.b64decode(urllib.parse.unquote(payload), validate=True)
        except binascii.Error:
            raise ValueError("its base64 is damaged") from None
    return urllib.parse.unquote_to_bytes(payload)


class Sources:
    """Hand out decoded sources, each fetched once while it is in use, within a budget of memory.

    It belongs to one event loop; the decoding runs on `executor`.
    """

    def __init__(self, executor: Executor, settings: Callable[[], SandboxSettings], now: Callable[[], float]) -> None:
        self._executor = executor
        self._settings = settings
        self._now = now
        self._decoded: ByteCache[tuple[float, DecodedSource]] = ByteCache(settings().source_cache_bytes)
        self._under_way: dict[str, asyncio.Task[DecodedSource]] = {}
        self._slots = asyncio.Semaphore(MAX_FETCHES_AT_ONCE)
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def get(self, source: str, *, at_any_age: bool = False) -> DecodedSource:
        """Return a decoded source; `at_any_age` takes a cached one however old it is.

        Raises:
            SourceUnusable: naming the source without its query string.
        """
        key = abridged(source)
        cached = self._decoded.get(key)
        if cached is not None and (at_any_age or self._now() - cached[0] < self._settings().source_cache_seconds):
            return cached[1]
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key, source))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        # Shielded: whoever gives up waiting must not take it away from the others.
        return await asyncio.shield(task)

    async def clear(self) -> None:
        """Forget every source and stop what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._decoded.clear()

    async def aclose(self) -> None:
        """Stop what is under way and close the connections."""
        await self.clear()
        if self._transport is not None:
            await self._transport.aclose()

    def _landed(self, key: str, task: asyncio.Task[DecodedSource]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            # Looked at, so that it is no unhandled error where nobody waits any more.
            task.exception()

    async def _load(self, key: str, source: str) -> DecodedSource:
        content = self._inline(source) if source[:5].lower() == "data:" else await self._fetch(source)
        loop = asyncio.get_running_loop()
        try:
            decoded = await loop.run_in_executor(self._executor, decode_source, content)
        except UndecodableSource as error:
            raise SourceUnusable(f"Could not decode redux_image ({without_signature(source)}): {error}") from error
        self._decoded.put(key, (self._now(), decoded), size_bytes=decoded.memory_bytes)
        return decoded

    def _inline(self, source: str) -> bytes:
        if "(sha256 " in source[:160]:
            raise SourceUnusable("The data: URL of redux_image is no longer held.")
        try:
            return data_url_bytes(source)
        except ValueError as error:
            raise SourceUnusable(f"Could not decode redux_image ({without_signature(source)}): {error}") from None

    async def _fetch(self, url: str) -> bytes:
        shown = without_signature(url)
        try:
            async with self._slots, asyncio.timeout(FETCH_TIMEOUT_SECONDS):
                return await self._get(url, shown)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            # Its own text may repeat the whole URL, so only its kind is told.
            raise SourceUnusable(f"Could not fetch redux_image: {type(error).__name__} from {shown}") from None

    async def _get(self, url: str, shown: str) -> bytes:
        # The transport itself, for the client logs every URL in full, signature included. It reads no proxy from
        # the environment either: sources lie on this machine more often than not.
        self._transport = self._transport or httpx.AsyncHTTPTransport()
        target = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._transport.handle_async_request(httpx.Request("GET", target))
            try:
                if answer.is_redirect and answer.has_redirect_location:
                    target = target.join(answer.headers["location"])
                    continue
                if answer.status_code != httpx.codes.OK:
                    raise SourceUnusable(f"Could not fetch redux_image: HTTP {answer.status_code} from {shown}")
                content = bytearray()
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_SOURCE_BYTES:
                        raise SourceUnusable(f"Could not fetch redux_image: more than 64 MiB from {shown}")
                return bytes(content)
            finally:
                await answer.aclose()
        raise SourceUnusable(f"Could not fetch redux_image: too many redirects from {shown}")
