"""The sandbox's clock: real time plus an offset that can be moved, so that an hour passes at once in a test."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime


class Clock:
    """Tell the time in epoch seconds and wait for a moment of it, through jumps.

    It belongs to one event loop: `advance` is called on it. Built on the monotonic clock, so that a step of
    the machine's own clock moves nothing.
    """

    def __init__(self) -> None:
        self._origin = time.time() - time.monotonic()
        self._offset_seconds = 0.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Return the sandbox's time in epoch seconds."""
        return self._origin + time.monotonic() + self._offset_seconds

    @property
    def offset_seconds(self) -> float:
        """Return how far ahead of real time this clock is."""
        return self._offset_seconds

    def advance(self, seconds: float) -> None:
        """Jump ahead and wake everybody who waits for a moment that has come.

        Raises:
            ValueError: time only goes forward.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError("a clock is advanced by a finite number of seconds that is not negative")
        self._offset_seconds += seconds
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def reset(self) -> None:
        """Show real time again."""
        self._offset_seconds = 0.0

    async def wait_until(self, moment: float) -> None:
        """Return once the clock shows `moment` (epoch seconds) or later."""
        while (left_seconds := moment - self.now()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_seconds):
                    await self._moved.wait()


def iso_utc(moment: float) -> str:
    """Return epoch seconds as an ISO-8601 timestamp in UTC, to the millisecond, with a `Z`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
