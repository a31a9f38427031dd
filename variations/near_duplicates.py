"""Find images that look alike across splits, among the perceptual hashes of a million of them, in seconds.

Two hashes of 64 bits that differ in few of them differ in even fewer in one of three bands of 21 bits: in a third, at
the most. So only hashes are compared that are so near in a band, which an index of each band tells (this is known as
multi-index hashing).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from variations.leak_report import MOST_DISTANCE
from variations.perceptual_hash import BITS

_BANDS: Final = 3
_CHUNK: Final = 1 << 20
# Half a minute of work where very many are alike: more would tell no more.
MOST_COMPARED: Final = 1_000_000_000

_Hashes = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]
_Places = npt.NDArray[np.int32]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Alike:
    """Two images in different splits that look alike, by their numbers, and how many bits of their hashes differ."""

    one: int
    other: int
    distance: int


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What looks alike across splits.

    Attributes:
        images: how many look like one in another split.
        samples: pairs of them, the nearest first: of each different hash the one that is most like it, as far as they
            are not too many.
        is_whole: whether all were compared; if so many look alike that it would take too long, not all were.
    """

    images: int = 0
    samples: tuple[Alike, ...] = ()
    is_whole: bool = True


def find_near_duplicates(
    hashes: _Hashes,
    splits: npt.NDArray[np.uint16],
    *,
    max_distance: int,
    most_samples: int,
    most_compared: int = MOST_COMPARED,
    check: Callable[[], None] = lambda: None,
) -> NearDuplicates:
    """Find the images that differ in at most so many bits from one in another split. Synchronous: call it in a thread.

    Args:
        hashes: of each image.
        splits: of each image, as a number.
        max_distance: in bits, 0 to `MOST_DISTANCE`.
        most_samples: so many pairs are named.
        most_compared: so many pairs of hashes are compared at the most.
        check: called now and then; what it raises ends the search.
    """
    if not 0 <= max_distance <= MOST_DISTANCE:
        raise ValueError(f"max_distance is {max_distance}, and not 0 to {MOST_DISTANCE}")
    if len(hashes) < 2:  # noqa: PLR2004 - a pair
        return NearDuplicates()
    known = _Known(hashes, splits)
    found = _Found(known, most_samples)
    # Every pair across splits has one that is not in the largest split alone: only these are looked for.
    asking = np.flatnonzero(known.is_mixed | (known.split != np.bincount(splits).argmax()))
    compared = 0
    for ours, theirs in _candidates(known.hashes, asking, max_distance // _BANDS):
        check()
        found.add(ours, theirs, max_distance)
        compared += len(ours)
        if compared >= most_compared:
            break
    return NearDuplicates(int(known.counts[found.is_alike].sum()), found.pairs(splits), compared < most_compared)


def _candidates(hashes: _Hashes, asking: _Numbers, radius: int) -> Iterator[tuple[_Numbers, _Numbers]]:
    for band in range(_BANDS):
        index = _Index(_band(hashes, band), width=len(range(band, BITS, _BANDS)))
        for mask in _masks(index.width, radius):
            yield from index.near(asking, mask)


class _Known:
    """The different hashes, in their order, and of each how many images have it, and in which split these are."""

    def __init__(self, hashes: _Hashes, splits: npt.NDArray[np.uint16]) -> None:
        self.order = np.lexsort((splits, hashes))
        ordered, split = hashes[self.order], splits[self.order]
        self.starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        self.ends = np.concatenate((self.starts[1:], [len(ordered)]))
        self.hashes: _Hashes = ordered[self.starts]
        self.counts: _Numbers = self.ends - self.starts
        # Of those in several splits the first one; they are in order.
        self.split = split[self.starts]
        self.is_mixed: _Flags = split[self.ends - 1] != self.split


class _Found:
    """The hashes that are alike across splits, and the nearest pairs."""

    def __init__(self, known: _Known, most: int) -> None:
        self._known = known
        self._most = most
        self.is_alike = known.is_mixed.copy()
        # Of each hash its nearest one, and how near that is.
        self._nearest: dict[int, tuple[int, int]] = {}
        for number in np.flatnonzero(known.is_mixed)[: 2 * most].tolist():
            self._nearest[number] = (0, number)

    def add(self, ours: _Numbers, theirs: _Numbers, max_distance: int) -> None:
        """Take note of those of some pairs that are near, and across splits."""
        known = self._known
        distances = np.bitwise_count(known.hashes[ours] ^ known.hashes[theirs])
        near = np.flatnonzero(distances <= max_distance)
        if not len(near):
            return
        ours, theirs, distances = ours[near], theirs[near], distances[near]
        across = known.is_mixed[ours] | known.is_mixed[theirs] | (known.split[ours] != known.split[theirs])
        across &= ours != theirs
        ours, theirs, distances = ours[across], theirs[across], distances[across]
        self.is_alike[ours] = True
        self.is_alike[theirs] = True
        self._note(ours, theirs, distances)

    def _note(self, ours: _Numbers, theirs: _Numbers, distances: npt.NDArray[np.uint8]) -> None:
        for at in np.argsort(distances, kind="stable")[: self._most].tolist():
            distance = int(distances[at])
            for one, other in ((int(ours[at]), int(theirs[at])), (int(theirs[at]), int(ours[at]))):
                self._nearest[one] = min(self._nearest.get(one, (BITS, -1)), (distance, other))
        # Two hashes may be each other's nearest, which is one pair.
        if len(self._nearest) > 4 * self._most:
            best = sorted(self._nearest.items(), key=lambda item: item[1])[: 2 * self._most]
            self._nearest = dict(best)

    def pairs(self, splits: npt.NDArray[np.uint16]) -> tuple[Alike, ...]:
        """Return the nearest ones, as images."""
        known = self._known
        found = []
        pairs = {(distance, min(one, other), max(one, other)) for one, (distance, other) in self._nearest.items()}
        for distance, one, other in sorted(pairs):
            first = int(known.order[known.starts[one]])
            # Where a hash is in several splits, its last image is in another one than its first.
            last = int(known.order[known.ends[other] - 1])
            if splits[first] == splits[last]:
                last = int(known.order[known.starts[other]])
            if splits[first] == splits[last]:
                first = int(known.order[known.ends[one] - 1])
            found.append(Alike(min(first, last), max(first, last), distance))
        return tuple(found[: self._most])


class _Index:
    """Which hashes have which value of a band: in the order of their values, and where each value begins."""

    def __init__(self, values: _Numbers, *, width: int) -> None:
        self._values = values
        self.width = width
        self._order = np.argsort(values, kind="stable")
        # A search in a million sorted values takes twenty times as long as a look into 16 MB.
        self._begins = np.zeros((1 << width) + 1, np.int32)
        np.cumsum(np.bincount(values, minlength=1 << width), out=self._begins[1:])

    def near(self, asking: _Numbers, mask: int) -> Iterator[tuple[_Numbers, _Numbers]]:
        """Yield pairs of a hash that asks and one whose band differs from its own by a mask, so many at a time."""
        for at in range(0, len(asking), _CHUNK):
            ours = asking[at : at + _CHUNK]
            wanted = self._values[ours] ^ mask
            begins = self._begins[wanted]
            counts = self._begins[wanted + 1] - begins
            yield from self._expanded(ours, begins, counts)

    def _expanded(self, ours: _Numbers, begins: _Places, counts: _Places) -> Iterator[tuple[_Numbers, _Numbers]]:
        some = counts > 0
        ours, begins, counts = ours[some], begins[some], counts[some]
        ends = np.cumsum(counts, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        for first in range(0, total, _CHUNK):
            places = np.arange(first, min(first + _CHUNK, total))
            which = np.searchsorted(ends, places, "right")
            offsets = places - (ends[which] - counts[which])
            yield ours[which], self._order[begins[which] + offsets]


def _band(hashes: _Hashes, band: int) -> _Numbers:
    """Return every third bit, packed: neighbouring bits of a perceptual hash tell of each other."""
    values = np.zeros(len(hashes), np.int64)
    for at, bit in enumerate(range(band, BITS, _BANDS)):
        values |= ((hashes >> np.uint64(bit)) & np.uint64(1)).astype(np.int64) << at
    return values


def _masks(width: int, radius: int) -> Iterator[int]:
    """Yield every change of at most so many bits."""
    for changed in range(radius + 1):
        for bits in combinations(range(width), changed):
            yield sum(1 << bit for bit in bits)
