"""Fetch what a report has small pictures of: the dataset's images, and the sources that can be had safely."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import httpx

from variations import errors
from variations.recovery import at_once
from variations.report.thumbnails import Thumbnails, thumbnail
from variations.source_images import DECODED_AT_ONCE, SourceImages
from variations.storage import Storage

# What is lost if it is killed is fetched again: some seconds.
SAVED_EVERY: Final = 2_000

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
    """

    def __init__(
        self, storage: Storage, thumbnails: Thumbnails, *, side: int, local_sources: bool, http: httpx.AsyncClient
    ) -> None:
        self._storage = storage
        self._thumbnails = thumbnails
        self._side = side
        self._source_images = SourceImages(local_files=local_sources, http=http)
        self._decoders = asyncio.Semaphore(DECODED_AT_ONCE)
        self.missing: dict[str, str] = {}
        self.fetched = 0

    async def make(self, images: Mapping[str, str], sources: Mapping[str, str], *, on_progress: OnProgress) -> None:
        """Make those that are not there yet.

        Args:
            images: keys of the dataset's images, by the names of their pictures.
            sources: URIs of sources, by the names of theirs.
            on_progress: is told how many are done, of how many.

        Raises:
            StorageError: the store of the dataset says no. What is not there, or does not decode, is `missing`.
        """
        self._thumbnails.keep_only([*images, *sources])
        wanted: list[tuple[str, str, Fetch]] = [(name, key, self._storage.get) for name, key in images.items()]
        wanted += [(name, uri, self._source_images.fetch) for name, uri in sources.items()]
        unsaved = done = 0
        on_progress(done, len(wanted))

        async def one(item: tuple[str, str, Fetch]) -> None:
            nonlocal unsaved, done
            unsaved += await self._make(*item)
            done += 1
            on_progress(done, len(wanted))
            if unsaved >= SAVED_EVERY:
                unsaved = 0
                await self._thumbnails.save()

        await at_once(one, wanted)
        if unsaved:
            await self._thumbnails.save()

    async def _make(self, name: str, place: str, fetch: Fetch) -> bool:
        """Make one, and return whether it is new."""
        known = self._thumbnails.get(name)
        if known is not None and known.side == self._side:
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
