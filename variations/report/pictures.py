"""Fetch what a report has small pictures of: the dataset's images, and the sources that can be had safely."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from variations import errors
from variations.api.download import MAX_OUTPUT_BYTES, OUTPUT_HOST, OutputPolicy, fetch_output
from variations.recovery import at_once
from variations.report.thumbnails import Thumbnails, thumbnail
from variations.storage import Storage, open_storage, split_uri

# A decoded image may take 200 MB, most take 4.
DECODED_AT_ONCE: Final = 4
SOURCE_SECONDS: Final = 20.0
# A host that answers nothing is not waited for ten thousand times.
HOST_FAILURES: Final = 5
# What is lost if it is killed is fetched again: some seconds.
SAVED_EVERY: Final = 2_000
LEFT: Final = "it is not in this gallery yet: the next one, or `variations report`, fetches it"

OnProgress = Callable[[int, int], None]
Fetch = Callable[[str], Awaitable[bytes]]


class Pictures:
    """Makes small pictures of images and sources, so many at a time.

    Args:
        storage: the dataset.
        thumbnails: where they come from and go to.
        side: of a small picture, in pixels.
        local_sources: whether files of this machine are read where a dataset names them as sources.
        http: fetches sources from the web.

    Attributes:
        missing: the reason for each picture that there is none of, by its name.
        fetched: how many were not known from an earlier report.
        left: of the missing those that were not asked for, as it was enough.
    """

    def __init__(
        self, storage: Storage, thumbnails: Thumbnails, *, side: int, local_sources: bool, http: httpx.AsyncClient
    ) -> None:
        self._storage = storage
        self._thumbnails = thumbnails
        self._side = side
        self._local_sources = local_sources
        self._http = http
        self._decoders = asyncio.Semaphore(DECODED_AT_ONCE)
        self._failed_hosts: Counter[str] = Counter()
        self.missing: dict[str, str] = {}
        self.fetched = 0
        self.left = 0

    async def make(
        self,
        images: Mapping[str, str],
        sources: Mapping[str, str],
        *,
        on_progress: OnProgress,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make those that are not there yet.

        Args:
            images: keys of the dataset's images, by the names of their pictures.
            sources: URIs of sources, by the names of theirs.
            on_progress: is told how many are done, of how many.
            is_enough: asked before each; from when it says so none is fetched any more, and what is not there yet is
                `left`.

        Raises:
            StorageError: the store of the dataset says no. What is not there, or does not decode, is `missing`.
        """
        self._thumbnails.keep_only([*images, *sources])
        # Sources first: they are fewer, and an image beside nothing shows little.
        wanted: list[tuple[str, str, Fetch]] = [(name, uri, self._source) for name, uri in sources.items()]
        wanted += [(name, key, self._storage.get) for name, key in images.items()]
        unsaved = done = 0
        on_progress(done, len(wanted))

        async def one(item: tuple[str, str, Fetch]) -> None:
            nonlocal unsaved, done
            unsaved += await self._make(*item, is_enough=is_enough)
            done += 1
            on_progress(done, len(wanted))
            if unsaved >= SAVED_EVERY:
                unsaved = 0
                await self._thumbnails.save()

        await at_once(one, wanted)
        if unsaved:
            await self._thumbnails.save()

    async def _make(self, name: str, place: str, fetch: Fetch, *, is_enough: Callable[[], bool]) -> bool:
        """Make one, and return whether it is new."""
        known = self._thumbnails.get(name)
        if known is not None and known.side == self._side:
            return False
        if is_enough():
            # One of another size will do for now.
            if known is None:
                self.left += 1
                self.missing[name] = LEFT
            return False
        try:
            # A smaller one can be made of a larger one; a report's pictures shrink when the dataset grows.
            content = known.content if known is not None and known.side > self._side else await fetch(place)
            async with self._decoders:
                small = await asyncio.to_thread(thumbnail, content, side=self._side)
        except (errors.ItemError, errors.ObjectNotFound, errors.BadInput) as error:
            self.missing[name] = str(error)
            return False
        self.fetched += 1
        self._thumbnails.add(name, self._side, small)
        return True

    async def _source(self, uri: str) -> bytes:
        """Fetch a source.

        Raises:
            SourceUnavailable: it cannot be had, or not safely; the reason is short, its URI stands beside it.
        """
        scheme = uri.partition(":")[0].lower()
        try:
            if scheme in {"http", "https"}:
                return await self._from_web(uri)
            if scheme == "file" and not self._local_sources:
                raise errors.SourceUnavailable("a file of the machine that made the dataset")
            if scheme in {"s3", "file"}:
                return await _from_store(uri)
        except (errors.ItemError, errors.Repeatable, errors.StorageError, errors.BadInput, TimeoutError) as error:
            raise errors.SourceUnavailable(str(error) or "it took too long to answer") from error
        raise errors.SourceUnavailable("it is not kept where it can be fetched from")

    async def _from_web(self, url: str) -> bytes:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            raise errors.SourceUnavailable("its address is not a URL") from None
        if self._failed_hosts[host] >= HOST_FAILURES:
            raise errors.SourceUnavailable(f"{host} did not answer for others")
        # The API's own host may be at a private address, and no other: here it stands for one that is public.
        policy = OutputPolicy(api_host=OUTPUT_HOST, allowed_hosts=[host])
        try:
            async with asyncio.timeout(SOURCE_SECONDS):
                content = await fetch_output(self._http, url, policy=policy)
        except (errors.ServiceUnavailable, TimeoutError):
            self._failed_hosts[host] += 1
            raise
        self._failed_hosts[host] = 0
        return content


async def _from_store(uri: str) -> bytes:
    root, key = split_uri(uri)
    storage = open_storage(root)
    try:
        entry = await storage.head(key)
        if entry is not None and entry.size > MAX_OUTPUT_BYTES:
            raise errors.SourceUnavailable(f"it is larger than {MAX_OUTPUT_BYTES:,} bytes")
        return await storage.get(key)
    finally:
        await storage.aclose()
