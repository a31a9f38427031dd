"""What a run may spend: reserved before each POST, so that requests in flight cannot overrun it together.

Where several machines work on a run, each spends what it was granted of the run's budget, and asks for more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from variations import errors

# It only keeps sums of floats from refusing what is just enough.
NO_MONEY_USD: Final = 1e-6


class Granted(NamedTuple):
    """What a process may spend of a shared budget in all, in USD, and whether that can become more by itself."""

    usd: float
    may_grow: bool = True


class Budget:
    """Money of a run, in images.

    Args:
        max_cost_usd: what the run may cost at most; 0 for no limit.
        price_usd: of an image, until the API reports what it charges.
        more: asked with what is needed in all, returns what this process was granted; one that did not get it and may
            yet is to ask again. None where the whole budget is its own.

    Attributes:
        price_usd: what an image is taken to cost: the most that the API charged for one in this run, or the setting.
        spent_usd: charged for certain.
    """

    def __init__(
        self, max_cost_usd: float, *, price_usd: float, more: Callable[[float], Awaitable[Granted]] | None = None
    ) -> None:
        self._max_cost_usd = max_cost_usd
        self._granted = Granted(0.0) if more else Granted(max_cost_usd, may_grow=False)
        self._more = more
        self._reserved_images = 0
        self._images_in_flight = 0
        self._settled = asyncio.Event()
        self._is_reported = False
        self.price_usd = price_usd
        self.spent_usd = 0.0

    @property
    def committed_usd(self) -> float:
        """What is spent, or would be if every request in flight, and every unknown one, is charged."""
        return self.spent_usd + self._reserved_images * self.price_usd

    async def reserve(self, images: int) -> None:
        """Set the price of so many images aside; wait while what is in flight may yet turn out to cost less.

        Raises:
            BudgetReached: there is not enough left for them.
            StorageError: what is left of a shared budget cannot be told.
        """
        while self._max_cost_usd:
            # At what price is not known for certain before the API has charged one: until then, one at a time.
            if self._is_reported or not self._images_in_flight:
                needed_usd = self.committed_usd + images * self.price_usd
                # What was granted meanwhile may be somebody else's by now: it is looked at again.
                if needed_usd <= self._granted.usd + NO_MONEY_USD:
                    break
                if await self._is_granted(needed_usd):
                    continue
                if not self._images_in_flight:
                    if self._granted.may_grow:
                        continue
                    raise errors.BudgetReached(
                        f"paused: budget. {self.committed_usd:.3f} USD are spent or at risk{self._here}, and another "
                        f"{images * self.price_usd:.3f} would exceed max_cost_usd {self._max_cost_usd:g}; the same "
                        "command goes on, with the same or a higher one"
                    )
            self._settled.clear()
            await self._settled.wait()
        self._reserved_images += images
        self._images_in_flight += images

    @property
    def _here(self) -> str:
        return "" if self._more is None else " on this machine"

    async def _is_granted(self, needed_usd: float) -> bool:
        if self._more is not None:
            self._granted = await self._more(needed_usd)
        return needed_usd <= self._granted.usd + NO_MONEY_USD

    def keep_what_is_committed(self) -> float:
        """Return what is committed, in USD, and give up whatever else was granted of a shared budget."""
        self._granted = Granted(min(self._granted.usd, self.committed_usd))
        return self._granted.usd

    def settle(
        self,
        images: int,
        *,
        known_images: int,
        cost_usd: float = 0.0,
        charged_images: int = 0,
        is_reported: bool = False,
    ) -> None:
        """Turn a reservation into what came of it.

        Args:
            images: that were reserved.
            known_images: of which it is known what became; the others stay reserved.
            cost_usd: what the API charged for the known ones.
            charged_images: for how many of them.
            is_reported: the API told what it charged; where that was nothing, the price stays what it is taken to be.
        """
        self._images_in_flight -= images
        self._reserved_images -= known_images
        self.spent_usd += cost_usd
        if charged_images and cost_usd:
            each = cost_usd / charged_images
            self.price_usd = max(self.price_usd, each) if self._is_reported else each
        self._is_reported |= is_reported or bool(cost_usd)
        self._settled.set()
