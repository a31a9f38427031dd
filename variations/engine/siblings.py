"""What the images of a source look like, so that a new one that is nearly the same as another is found."""

from collections import OrderedDict
from typing import Final, NamedTuple

from variations.appearance import Appearance
from variations.gate import TWIN_COLOURS
from variations.perceptual_hash import distance

# The variations of a source are made one after the other: who comes back to one after so many others is rare.
REMEMBERED_SOURCES: Final = 10_000


class Nearest(NamedTuple):
    """Bits to the nearest of a source's other images, and to the nearest of those that have the same colours."""

    distance: int | None
    twin_distance: int | None


class Siblings:
    """The images that this process has seen, by their sources; of those it saw last."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, dict[str, Appearance]] = OrderedDict()

    def nearest(self, source: str, name: str, appearance: Appearance) -> Nearest:
        """Return how near the nearest image of a source is, other than that of this name."""
        nearest: int | None = None
        twin: int | None = None
        for other_name, other in self._seen.get(source, {}).items():
            if other_name == name:
                continue
            bits = distance(appearance.hash, other.hash)
            nearest = bits if nearest is None else min(nearest, bits)
            if (twin is None or bits < twin) and appearance.colour_difference(other) <= TWIN_COLOURS:
                twin = bits
        return Nearest(nearest, twin)

    def add(self, source: str, name: str, appearance: Appearance) -> None:
        """Remember an image of a source."""
        self._seen.setdefault(source, {})[name] = appearance
        self._seen.move_to_end(source)
        while len(self._seen) > REMEMBERED_SOURCES:
            self._seen.popitem(last=False)
