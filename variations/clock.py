"""Time as an argument, so that a test can run hours in milliseconds."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

# Linux's monotonic clock stands still while the machine sleeps, and what was good for a minute would be good for hours.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the engine asks of time."""

    def now(self) -> datetime:
        """Return the time of day, in UTC, for records."""

    def monotonic(self) -> float:
        """Return seconds since some moment, for measuring."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment; those for which the machine was suspended count where the system tells."""
        return time.clock_gettime(_CLOCK)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
