"""Turns of a rate limit: taken together, and counted by the minute."""

import asyncio

from variations.engine.rate import BURST_SECONDS, Priority, RateLimit

from .simulation import LoopClock


def most_in_a_minute(times: list[float]) -> int:
    """Return the largest number of events in any sliding minute."""
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 60 + 1e-6:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_allowed(per_minute: float) -> int:
    """Return what the documented burst allows in any minute."""
    return int((60 + BURST_SECONDS) * per_minute / 60 + 1e-6) + 1


async def let_through(rate: RateLimit, count: int, priority: Priority = Priority.PAID) -> list[float]:
    """Take so many turns at once, and return when each came."""
    clock = LoopClock()

    async def one() -> float:
        await rate.take(priority)
        return clock.monotonic()

    return await asyncio.gather(*(one() for _ in range(count)))
