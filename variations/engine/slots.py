"""Slots for what is in flight: as many as are of use at the moment."""

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """A semaphore whose size may change while it is in use; the first come are the first served.

    Args:
        size: returns how many may be taken at the moment; whoever waits is served as soon as one is given back.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.taken = 0

    @property
    def are_wanted(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._waiting)

    async def acquire(self) -> None:
        """Return when a slot is taken."""
        self._hand_out()
        if self.taken < self._size() and not self._waiting:
            self.taken += 1
            return
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                # It was handed over in the moment of the cancellation.
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back."""
        self.taken -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self.taken < self._size():
            slot = self._waiting.popleft()
            if not slot.done():
                self.taken += 1
                slot.set_result(None)
