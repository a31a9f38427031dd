"""Fetch what a report has small pictures of: the dataset's images, and the sources that can be had safely."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Final

import httpx

from variations import errors
from variations.recovery import at_once
from variations.report.thumbnails import Thumbnails, thumbnail
from variations.source_images import DECODED_AT_ONCE, SourceImages
from variations.storage import Storage

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
        local_sources: the URIs of files of this machine that are read where a dataset names them as sources; None: of
            all.
        http: fetches sources from the web.

    Attributes:
        missing: the reason for each picture that there is none of, by its name.
        fetched: how many were not known from an earlier report.
        left: of the missing those that were not asked for, as it was enough.
    """

    def __init__(
        self,
        storage: Storage,
        thumbnails: Thumbnails,
        *,
        side: int,
        local_sources: Container[str] | None,
        http: httpx.AsyncClient,
    ) -> None:
        self._storage = storage
        self._thumbnails = thumbnails
        self._side = side
        self._source_images = SourceImages(local_files=local_sources, http=http)
        self._decoders = asyncio.Semaphore(DECODED_AT_ONCE)
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
        wanted: list[tuple[str, str, Fetch]] = [(name, uri, self._source_images.fetch) for name, uri in sources.items()]
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
