"""What the images of a source look like, so that a new one that is nearly the same as another is found."""

from collections import OrderedDict
from typing import Final

from variations.appearance import Appearance, Nearest

# The variations of a source are made one after the other: who comes back to one after so many others is rare.
REMEMBERED_SOURCES: Final = 10_000


class Siblings:
    """The images that this process has seen, by their sources; of those it saw last."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, dict[str, Appearance]] = OrderedDict()

    def nearest(self, source: str, name: str, appearance: Appearance) -> Nearest:
        """Return how near the nearest image of a source is, other than that of this name."""
        seen = self._seen.get(source, {})
        return appearance.nearest(other for other_name, other in seen.items() if other_name != name)

    def add(self, source: str, name: str, appearance: Appearance) -> None:
        """Remember an image of a source."""
        self._seen.setdefault(source, {})[name] = appearance
        self._seen.move_to_end(source)
        while len(self._seen) > REMEMBERED_SOURCES:
            self._seen.popitem(last=False)
