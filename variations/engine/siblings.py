"""What the images of a source look like, so that a new one that is nearly the same as another is found."""

from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from variations.appearance import ALIKE_COLOURS, COLOUR_CELLS, Appearance, Nearest

# The variations of a source are made one after the other: who comes back to one after so many others is rare. 10 MB.
REMEMBERED_IMAGES: Final = 20_000
_COLOURS: Final = 3 * COLOUR_CELLS**2
_AT_ONCE: Final = 64


class Siblings:
    """The images that this process has seen, by their sources; of those it saw last."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Images] = OrderedDict()
        self._count = 0

    def nearest(self, source: str, name: str, appearance: Appearance) -> Nearest:
        """Return how near the nearest image of a source is, other than that of this name."""
        seen = self._seen.get(source)
        return seen.nearest(name, appearance) if seen is not None else Nearest()

    def add(self, source: str, name: str, appearance: Appearance) -> None:
        """Remember an image of a source."""
        seen = self._seen.setdefault(source, _Images())
        self._seen.move_to_end(source)
        self._count += seen.add(name, appearance)
        while self._count > REMEMBERED_IMAGES and len(self._seen) > 1:
            self._count -= len(self._seen.popitem(last=False)[1])


class _Images:
    """The images of one source: in arrays, for a new one is compared with all of them, which may be hundreds."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._hashes: npt.NDArray[np.uint64] = np.empty(1, np.uint64)
        self._colours: npt.NDArray[np.uint8] = np.empty((1, _COLOURS), np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, name: str, appearance: Appearance) -> bool:
        """Remember an image; returns whether it is another one."""
        count = len(self)
        place = self._places.setdefault(name, count)
        if place == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
            self._colours = np.concatenate([self._colours, np.empty_like(self._colours)])
        self._hashes[place] = appearance.hash
        self._colours[place] = np.frombuffer(appearance.colours, np.uint8)
        return place == count

    def nearest(self, name: str, appearance: Appearance) -> Nearest:
        """Return how near the nearest one of another name is."""
        bits = np.bitwise_count(self._hashes[: len(self)] ^ np.uint64(appearance.hash))
        places = np.argsort(bits, kind="stable")
        places = places[places != self._places.get(name, -1)]
        if not len(places):
            return Nearest()
        # Nearest first: one of the same colours is most often among the first few.
        colours = np.frombuffer(appearance.colours, np.uint8).astype(np.int16)
        alike: int | None = None
        for at in range(0, len(places), _AT_ONCE):
            some = places[at : at + _AT_ONCE]
            is_alike = np.abs(self._colours[some] - colours).mean(axis=1) <= ALIKE_COLOURS
            if is_alike.any():
                alike = int(bits[some[is_alike.argmax()]])
                break
        return Nearest(int(bits[places[0]]), alike)
