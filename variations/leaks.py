"""Find what leaks from one split into another, from what is there: groups, images made before, and how sources look."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from variations.errors import SourceUnavailable
from variations.leak_report import SAMPLES, LeakCheck, LeakReport
from variations.models import Source
from variations.near_duplicates import NearDuplicates, find_near_duplicates
from variations.recovery import at_once
from variations.source_hashes import SAVED_EVERY, SourceHashes, key_of
from variations.source_images import Look, SourceImages
from variations.splits import Groups, named_leaks

# A line in the log for each twentieth of them, where there are so many.
_MANY: Final = 100
_STEPS: Final = 20

Sources = Callable[[], Iterable[list[Source]]]
OnProgress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


async def find_leaks(
    sources: Sources,
    *,
    groups: Groups,
    before: Groups,
    how: LeakCheck,
    images: SourceImages,
    hashes: SourceHashes,
    on_progress: OnProgress = lambda done, of: None,  # noqa: ARG005 - whoever does not watch
    check: Callable[[], None] = lambda: None,
) -> LeakReport:
    """Find what leaks among the sources of a manifest that have a split.

    Args:
        sources: yields them, in the order in which `groups` took note of them, whenever it is called.
        groups: the same sources' groups and splits.
        before: those of the images that the dataset has.
        how: what is looked for.
        images: fetches sources.
        hashes: what is remembered of them.
        on_progress: is told how many were looked at, of how many.
        check: called now and then; what it raises ends the search.
    """
    leaking = groups.leaking()
    moved = await asyncio.to_thread(groups.moved_from, before)
    looks = _Looks(groups, images=images, hashes=hashes, on_progress=on_progress, check=check)
    found = NearDuplicates()
    if how.images and len(groups):
        await looks.look(sources)
        found = await looks.compare(how.max_distance)
    group_samples: list[str] = []
    if leaking:
        each = (source for batch in sources() for source in batch)
        group_samples = await asyncio.to_thread(named_leaks, leaking, each, most=SAMPLES)
    wanted = {*moved[:SAMPLES].tolist(), *(at for pair in found.samples for at in (pair.one, pair.other))}
    named = await asyncio.to_thread(_picked, sources, wanted) if wanted else {}
    return LeakReport(
        groups=len(leaking),
        group_samples=tuple(group_samples),
        moved=len(moved),
        moved_samples=tuple(_moved_text(named[at], before) for at in moved[:SAMPLES].tolist()),
        similar=found.images,
        pairs=tuple(
            {"distance": pair.distance, "one": _told(named[pair.one]), "other": _told(named[pair.other])}
            for pair in found.samples
        ),
        is_whole=found.is_whole,
        max_distance=how.max_distance,
        is_by_image=how.images,
        looked_at=looks.had,
        known_before=looks.known,
        blank=looks.blank,
        missing=looks.missing,
        missing_samples=tuple(looks.missing_samples),
    )


class _Looks:
    """What each source looks like: 12 bytes of each."""

    def __init__(
        self,
        groups: Groups,
        *,
        images: SourceImages,
        hashes: SourceHashes,
        on_progress: OnProgress,
        check: Callable[[], None],
    ) -> None:
        self._groups = groups
        self._images = images
        self._hashes = hashes
        self._on_progress = on_progress
        self._check = check
        self._values = np.zeros(len(groups), np.uint64)
        self._is_seen = np.zeros(len(groups), np.bool_)
        self._done = 0
        self.known = self.blank = self.missing = self.had = 0
        self.missing_samples: list[str] = []

    async def look(self, sources: Sources) -> None:
        """Look at each source, or remember what it looked like."""
        await self._hashes.load()
        batches = iter(sources())
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                await self._look_at(batch)
                await self._hashes.save(at_least=SAVED_EVERY)
        finally:
            # Whatever ends it, what was fetched need not be fetched again.
            await self._hashes.save()

    async def compare(self, max_distance: int) -> NearDuplicates:
        """Find those that look alike across splits."""
        seen: npt.NDArray[np.int64] = np.flatnonzero(self._is_seen)
        found = await asyncio.to_thread(
            find_near_duplicates,
            self._values[seen],
            self._groups.numbers[seen],
            max_distance=max_distance,
            most_samples=SAMPLES,
            check=self._check,
        )
        pairs = tuple(type(one)(int(seen[one.one]), int(seen[one.other]), one.distance) for one in found.samples)
        return NearDuplicates(found.images, pairs, found.is_whole)

    async def _look_at(self, batch: list[Source]) -> None:
        first = self._done
        keys = [key_of(source) for source in batch]
        known = self._hashes.get(np.array(keys, np.uint64))
        unknown: dict[int, list[int]] = {}
        for at, look in enumerate(known):
            if look is None:
                unknown.setdefault(keys[at], []).append(at)
            else:
                self.known += 1
                self._take(first + at, look)
        self._tell(len(batch) - sum(len(places) for places in unknown.values()))

        async def fetch(item: tuple[int, list[int]]) -> None:
            self._check()
            key, places = item
            try:
                look = await self._images.look(batch[places[0]].uri)
            except SourceUnavailable as error:
                self.missing += len(places)
                if len(self.missing_samples) < SAMPLES:
                    self.missing_samples.append(f"{batch[places[0]].source_id}: {error.message}")
            else:
                self._hashes.add(key, look)
                for at in places:
                    self._take(first + at, look)
            self._tell(len(places))

        await at_once(fetch, unknown.items())

    def _take(self, number: int, look: Look) -> None:
        self.had += 1
        # All that show nothing look alike, and are no two pictures of the same thing.
        self.blank += look.is_blank
        self._values[number] = look.hash
        self._is_seen[number] = not look.is_blank

    def _tell(self, more: int) -> None:
        before, self._done = self._done, self._done + more
        total = len(self._groups)
        self._on_progress(self._done, total)
        step = max(_MANY, total // _STEPS)
        if self._done // step > before // step and self._done < total:
            logger.info("looking at sources: %s of %s", f"{self._done:,}", f"{total:,}")


def _picked(sources: Sources, wanted: set[int]) -> dict[int, Source]:
    """Return sources by their numbers."""
    return {number: source for number, source in _numbered(sources) if number in wanted}


def _numbered(sources: Sources) -> Iterator[tuple[int, Source]]:
    return enumerate(source for batch in sources() for source in batch)


def _moved_text(source: Source, before: Groups) -> str:
    of_group = f" of {source.group}" if source.group else ""
    there = " and ".join(before.splits_of(source))
    return f"{source.source_id}{of_group}: {source.split} now (row {source.row}), {there} in the dataset"


def _told(source: Source) -> dict[str, Any]:
    return {
        "source_id": source.source_id,
        "source_uri": source.public_uri,
        "split": source.split,
        "row": source.row,
    }
