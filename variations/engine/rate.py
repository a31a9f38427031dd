"""The plan's request limit, shared by every shard of a process: kept where it is told, and found where it is not."""

import asyncio
import heapq
import itertools
from enum import IntEnum
from typing import Final

from variations.clock import Clock
from variations.engine.pace import Pace

# What may be caught up after a pause of our own, such as a busy processor.
BURST_SECONDS: Final = 1.0


class Priority(IntEnum):
    """Who goes first: what is paid for never waits for what is not."""

    PAID = 0
    NEW = 1


class NoMoreNew(Exception):
    """The run is stopping: nothing new is let through."""


class RateLimit:
    """Let requests through at an even pace, the paid ones first.

    A refusal (429) holds everything until its reset, and lowers the pace.

    Args:
        requests_per_minute: never faster than this; 0 for as fast as the API takes it.
        clock: time.
        first_requests_per_minute: what to begin with where none is told; 0 for as fast as the API takes it.
    """

    def __init__(self, requests_per_minute: float, *, clock: Clock, first_requests_per_minute: float = 0.0) -> None:
        self._pace = Pace(requests_per_minute, clock=clock, first_requests_per_minute=first_requests_per_minute)
        self._clock = clock
        self._next_at = clock.monotonic()
        self._paused_until = self._next_at
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._new_waiting = 0
        self._last_waited_at = self._next_at
        self._pump: asyncio.Task[None] | None = None
        self._closed_to_new = False
        self._closing = asyncio.Event()

    @property
    def requests_per_minute(self) -> float:
        """The pace at the moment; infinite where no limit is known."""
        return self._pace.requests_per_minute

    @property
    def found(self) -> float | None:
        """The limit in requests a minute, of all workers, that the API showed to this one; None if it never refused."""
        return self._pace.found

    @property
    def is_scarce(self) -> bool:
        """Whether something new waits for its turn: with more requests a minute the run would be faster."""
        return self._new_waiting > 0

    @property
    def plenty_seconds(self) -> float:
        """For how long nothing new has waited for its turn."""
        return 0.0 if self.is_scarce else self._clock.monotonic() - self._last_waited_at

    def divide(self, workers: int) -> None:
        """Go on at this process's share of the limit, which so many share from now on; what was learned is kept."""
        self._pace.divide(workers)

    def learn(self, limit: float) -> None:
        """Go on at this process's share of the limit in requests a minute that another worker found."""
        self._pace.learn(limit)

    def begin_again(self) -> None:
        """Forget what was found of the limit: it was not all counted."""
        self._pace.begin_again()

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
        is_new = priority is Priority.NEW
        self._new_waiting += is_new
        try:
            await turn
        finally:
            if is_new:
                self._new_waiting -= 1
                self._last_waited_at = self._clock.monotonic()
        # It may have been closed between the turn and this line.
        if self._closed_to_new and is_new:
            raise NoMoreNew

    async def unpaused(self, priority: Priority) -> None:
        """Return when no 429 holds everything: for requests that the pace does not count.

        Raises:
            NoMoreNew: `close_to_new` was called, before or while this waited.
        """
        is_new = priority is Priority.NEW
        while (wait := self._paused_until - self._clock.monotonic()) > 0:
            await (self.sleep_before_new(wait) if is_new else self._clock.sleep(wait))
        if self._closed_to_new and is_new:
            raise NoMoreNew

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
        """Let nothing through for so long."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def refuse(self, *, sent_at: float, reset_seconds: float) -> None:
        """Learn that the API refused a request: let nothing through until the reset, and then go slower.

        Args:
            sent_at: when the request left, by the clock; those that left before the pace was lowered are of one burst.
            reset_seconds: from now on until the API takes requests again.
        """
        self.pause(self._pace.refused(sent_at=sent_at, reset_seconds=reset_seconds))

    def give_back(self, turn_at: float) -> bool:
        """Give a turn back where the API refused a request since, and takes none yet; returns whether that is so.

        Args:
            turn_at: when it came, by the clock.
        """
        if turn_at > self._pace.refused_at or self._paused_until <= self._clock.monotonic():
            return False
        # Not sent, and so not taken: for the pace that is the same as if it had been refused with the others.
        self._pace.refused(sent_at=turn_at, reset_seconds=0.0)
        return True

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
            if turn.done():
                continue
            turn.set_result(None)
            interval = self._pace.passed(more_wait=bool(self._waiting))
            self._next_at = max(self._next_at, now - BURST_SECONDS) + interval
