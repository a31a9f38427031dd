"""What sources look like, for the distance of each image to its own: looked at once a process, while the API works."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
from PIL import Image

from variations.appearance import Appearance, Nearest, appearance_of, copies_of, small_copy
from variations.engine.limits import MOST_IN_FLIGHT
from variations.errors import VariationsError
from variations.gate import Gate
from variations.images import BLANK_SPREAD
from variations.models import Source
from variations.source_images import SourceImages, opened_upright

# A source is looked at when its image is submitted, and its look wanted when that is done: as many others are submitted
# in between as are in flight, and some more where it takes longer than they do. Of each some 150 KB.
REMEMBERED_IN_FLIGHT: Final = 2
AT_ONCE: Final = 4
# An image that is there and paid for waits so long for its source to be looked at, and then goes without.
PATIENCE_SECONDS: Final = 5.0
# Of the copy that is kept of each, of some 150 KB.
_MOST_SIDE: Final = 512

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Look:
    """A small copy of a source, and what copies of it in other sizes look like."""

    small: Image.Image
    copies: dict[tuple[int, int], tuple[Appearance, ...]] = field(default_factory=dict)

    def copies_in(self, size: tuple[int, int]) -> tuple[Appearance, ...]:
        found = self.copies.get(size)
        if found is None:
            found = self.copies[size] = copies_of(self.small, size)
        return found


class SourceLooks:
    """Looks at sources, each once as long as it is remembered, so many at a time. A source that cannot be had is none.

    Args:
        fetch: returns the content of a source, by its URI, wherever that is safe.
        most_in_flight: requests in flight at the very most.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], *, most_in_flight: int = MOST_IN_FLIGHT) -> None:
        self._fetch = fetch
        self._most = REMEMBERED_IN_FLIGHT * most_in_flight
        self._places = asyncio.Semaphore(AT_ONCE)
        self._looks: OrderedDict[str, asyncio.Task[_Look | None]] = OrderedDict()

    def expect(self, source: Source) -> asyncio.Task[_Look | None]:
        """Begin to look at a source, if nobody has; its images are yet to be made."""
        look = self._look_at(source)
        self._looks.move_to_end(source.public_uri)
        return look

    def _look_at(self, source: Source) -> asyncio.Task[_Look | None]:
        # Whoever asks in passing leaves it at its place: that of an image that is yet to come is wanted more.
        look = self._looks.get(source.public_uri)
        if look is None:
            look = self._looks[source.public_uri] = asyncio.create_task(self._look(source))
            while len(self._looks) > self._most:
                self._looks.popitem(last=False)
        return look

    async def wait(self, source: Source) -> None:
        """Wait until a source was looked at; not for long."""
        await asyncio.wait({self._look_at(source)}, timeout=PATIENCE_SECONDS)

    async def nearest(self, source: Source, appearance: Appearance, size: tuple[int, int]) -> Nearest:
        """Return how near an image is to its source, or to that mirrored, or cropped to its shape.

        That is not known where the source could not be had by now, or one of the two is blank.
        """
        looking = self._look_at(source)
        if not looking.done() or looking.cancelled() or appearance.contrast < BLANK_SPREAD:
            return Nearest()
        look = looking.result()
        if look is None:
            return Nearest()
        copies = look.copies.get(size)
        if copies is None:
            copies = await asyncio.to_thread(look.copies_in, size)
        return appearance.nearest(copies)

    async def aclose(self) -> None:
        """Look at nothing more."""
        for look in self._looks.values():
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def _look(self, source: Source) -> _Look | None:
        try:
            async with self._places:
                content = await self._fetch(source.uri)
                return await asyncio.to_thread(_look_of, content)
        except VariationsError as error:
            logger.info("the source %s is not compared with its images: %s", source.public_uri, error)
        except Exception as error:  # noqa: BLE001 - no image that is paid for is to suffer by this
            logger.warning("the source %s could not be looked at: %s", source.public_uri, type(error).__name__)
        return None


def _look_of(content: bytes) -> _Look | None:
    with opened_upright(content) as image:
        small = small_copy(image)
    small.thumbnail((_MOST_SIDE, _MOST_SIDE))
    if appearance_of(small).contrast < BLANK_SPREAD:
        return None
    return _Look(small)


def looks_of(gate: Gate, http: httpx.AsyncClient, *, most_in_flight: int) -> SourceLooks | None:
    """Return what looks at sources for a gate; None where it asks for no source.

    Files of this machine are read where a source is one: a manifest that may name none has had them refused.
    """
    if not gate.sources:
        return None
    return SourceLooks(SourceImages(local_files=None, http=http).fetch, most_in_flight=most_in_flight)
