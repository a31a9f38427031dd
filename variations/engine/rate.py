"""The plan's request limit, shared by every shard of a process: kept where it is told, and found where it is not."""

import asyncio
import heapq
import itertools
import math
from collections import deque
from enum import IntEnum
from typing import Final

from variations.clock import Clock

# What may be caught up after a pause of our own, such as a busy processor.
BURST_SECONDS: Final = 1.0
# The vendor counts by the minute.
WINDOW_SECONDS: Final = 60.0
# While nothing was refused yet the pace doubles in the first, and on the way back to a limit in the second.
FIRST_DOUBLING_SECONDS: Final = 15.0
DOUBLING_SECONDS: Final = 60.0
# The vendor's smallest plan, and its usual one.
LEAST_PACE: Final = 5.0
USUAL_PACE: Final = 60.0
# What was found is not used to the last request, so that a window that begins a little early has room for it.
MARGIN: Final = 0.97
# At the limit that was found the pace goes on rising, by a hundredth in so many requests and no sooner than in so many
# seconds: a refusal costs one request in some hundreds, and a limit that was raised is not missed.
TRYING_REQUESTS: Final = 100
TRYING_SECONDS: Final = 15.0
# And the longer nothing was refused, the faster: twice as fast after each of these.
TRYING_DOUBLES_SECONDS: Final = 180.0
# So far above what was refused, it was another limit.
GONE: Final = 1.15
# Who is refused again so soon after a pause was told no reset that holds: the pauses double, up to the slowest pace.
AGAIN_SECONDS: Final = 10.0
LONGEST_AGAIN_SECONDS: Final = WINDOW_SECONDS / LEAST_PACE


class Priority(IntEnum):
    """Who goes first: what is paid for never waits for what is not."""

    PAID = 0
    NEW = 1


class NoMoreNew(Exception):
    """The run is stopping: nothing new is let through."""


class RateLimit:
    """Let requests through at an even pace, the paid ones first.

    A refusal (429) holds everything until its reset and lowers the pace to what the API took in the minute before it,
    once for all that were refused together; from there it rises again: slowly near that limit, and faster the longer
    it is not refused.

    Args:
        requests_per_minute: never faster than this; 0 for as fast as the API takes it.
        clock: time.
        first_requests_per_minute: what to begin with where none is told; 0 for as fast as the API takes it.
    """

    def __init__(self, requests_per_minute: float, *, clock: Clock, first_requests_per_minute: float = 0.0) -> None:
        self._most = requests_per_minute or math.inf
        self._pace = requests_per_minute or first_requests_per_minute or math.inf
        self._limit: float | None = None
        self._workers = 1
        self._clock = clock
        self._next_at = clock.monotonic()
        self._paused_until = self._next_at
        self._lowered_at = -math.inf
        self._passed: deque[float] = deque()
        self._refused: list[float] = []
        self._taken = self._least = 0.0
        self._again_seconds = 0.0
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._new_waiting = 0
        self._pump: asyncio.Task[None] | None = None
        self._closed_to_new = False
        self._closing = asyncio.Event()

    @property
    def requests_per_minute(self) -> float:
        """The pace at the moment; infinite where no limit is known."""
        return self._pace

    @property
    def found(self) -> float | None:
        """The limit in requests a minute that the API showed to all workers; None if it never refused.

        Where it took more since than it seemed to allow, for a minute in which it refused nothing, that is it.
        """
        if self._limit is None:
            return None
        now = self._clock.monotonic()
        self._forget_passed(now)
        is_quiet = now - self._lowered_at >= WINDOW_SECONDS
        return self._workers * max(self._limit, len(self._passed) if is_quiet else 0.0)

    @property
    def is_scarce(self) -> bool:
        """Whether something new waits for its turn: with more requests a minute the run would be faster."""
        return self._new_waiting > 0

    def divide(self, workers: int) -> None:
        """Go on at this process's share of the limit, which so many share from now on; what was learned is kept."""
        change = self._workers / workers
        self._workers = workers
        self._most *= change
        self._pace *= change
        self._taken *= change
        self._least *= change
        if self._limit is not None:
            self._limit *= change

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
            self._new_waiting -= is_new
        # It may have been closed between the turn and this line.
        if self._closed_to_new and is_new:
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
        """Let nothing through for so long."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def refuse(self, *, sent_at: float, reset_seconds: float) -> None:
        """Learn that the API refused a request: let nothing through until the reset, and then go slower.

        Args:
            sent_at: when the request left, by the clock; those that left before the pace was lowered are of one burst.
            reset_seconds: from now on until the API takes requests again.
        """
        now = self._clock.monotonic()
        self._refused.append(sent_at)
        if is_first := sent_at > self._lowered_at:
            is_again = math.isfinite(self._lowered_at) and now < self._paused_until + AGAIN_SECONDS
            self._again_seconds = min(max(1.0, 2 * self._again_seconds), LONGEST_AGAIN_SECONDS) if is_again else 0.0
            self.pause(self._again_seconds)
            self._lowered_at = now
            # A reset further away than a window is long does not tell when this one began.
            window_began = now - WINDOW_SECONDS + (reset_seconds if reset_seconds < WINDOW_SECONDS else 0.0)
            self._refused = [at for at in self._refused if at > window_began]
            self._taken = sum(1.0 for at in self._passed if window_began < at <= now) - len(self._refused)
            self._least = max(LEAST_PACE, USUAL_PACE if math.isinf(self._pace) else self._pace / 4)
        else:
            # It was counted as taken, like all that was under way.
            self._taken -= 1
        self.pause(reset_seconds)
        if self._taken >= self._least:
            # No more than was asked for; the pace may be below a limit that is known already, by its margin.
            self._limit = min(self._taken, max(self._pace, self._limit or 0.0))
            self._pace = min(self._pace, MARGIN * self._limit)
        elif is_first:
            # Somebody else asks with the same key, or the API is not well: too little to tell a limit by.
            self._pace = min(self._pace, self._least)

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
            self._passed.append(now)
            self._forget_passed(now)
            interval = WINDOW_SECONDS / self._pace
            self._next_at = max(self._next_at, now - BURST_SECONDS) + interval
            if self._waiting:
                self._pace = min(self._most, self._pace * self._growth(interval))

    def _forget_passed(self, now: float) -> None:
        while self._passed and self._passed[0] <= now - WINDOW_SECONDS:
            self._passed.popleft()

    def _growth(self, interval: float) -> float:
        """Return by how much the pace may rise with one request, which has the time until the next one for itself."""
        if math.isinf(self._pace):
            return 1.0
        never_refused = math.isinf(self._lowered_at)
        fast = float(2.0 ** (interval / (FIRST_DOUBLING_SECONDS if never_refused else DOUBLING_SECONDS)))
        if self._limit is None or not MARGIN * self._limit <= self._pace <= GONE * self._limit:
            return fast
        faster = math.exp2(min(20.0, (self._clock.monotonic() - self._lowered_at) / TRYING_DOUBLES_SECONDS))
        return min(fast, 1.0 + 0.01 * faster * min(1 / TRYING_REQUESTS, interval / TRYING_SECONDS))
