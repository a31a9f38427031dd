"""The plan's request limit, shared by every shard of a process."""

import asyncio
import heapq
import itertools
from enum import IntEnum

from variations.clock import Clock

# What may be caught up after a pause of our own, such as a busy processor.
BURST_SECONDS = 1.0


class Priority(IntEnum):
    """Who goes first: what is paid for never waits for what is not."""

    PAID = 0
    NEW = 1


class NoMoreNew(Exception):
    """The run is stopping: nothing new is let through."""


class RateLimit:
    """Let requests through at an even pace, the paid ones first.

    Args:
        requests_per_minute: the pace; 0 for no limit.
        clock: time.
    """

    def __init__(self, requests_per_minute: float, *, clock: Clock) -> None:
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._next_at = clock.monotonic()
        self._paused_until = self._next_at
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._pump: asyncio.Task[None] | None = None
        self._closed_to_new = False
        self._closing = asyncio.Event()

    async def take(self, priority: Priority) -> None:
        """Return when one request may leave.

        Raises:
            NoMoreNew: `close_to_new` was called, before or while this waited.
        """
        if self._closed_to_new and priority is Priority.NEW:
            raise NoMoreNew
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._let_through())
        await turn
        # It may have been closed between the turn and this line.
        if self._closed_to_new and priority is Priority.NEW:
            raise NoMoreNew

    async def unpaused(self) -> None:
        """Return when no 429 holds everything: for requests that the pace does not count."""
        while (wait := self._paused_until - self._clock.monotonic()) > 0:
            await self._clock.sleep(wait)

    async def sleep_before_new(self, seconds: float) -> None:
        """Wait before something new is tried again.

        Raises:
            NoMoreNew: `close_to_new` was called, before or while this waited.
        """
        waits = {asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._closing.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._closed_to_new:
            raise NoMoreNew

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long: the API said 429."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def close_to_new(self) -> None:
        """Turn away every `Priority.NEW`, those that wait too."""
        self._closed_to_new = True
        self._closing.set()
        for priority, _, turn in self._waiting:
            if priority is Priority.NEW and not turn.done():
                turn.set_exception(NoMoreNew())

    async def _let_through(self) -> None:
        while self._waiting:
            now = self._clock.monotonic()
            wait = max(self._next_at, self._paused_until) - now
            if wait > 0:
                await self._clock.sleep(wait)
                continue
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                self._next_at = max(self._next_at, now - BURST_SECONDS) + self._interval
