"""A run's budget, shared by its workers: each spends what it was granted, and asks for more before it needs it.

What all were granted together never exceeds the budget, for the one object that says so is replaced only by who read it
last. The pieces shrink with what is left: a worker that joins late finds some, and one that dies holds little back.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from pydantic import TypeAdapter

from variations.clock import Clock
from variations.engine.budget import NO_MONEY_USD
from variations.errors import PreconditionFailed, StorageUnavailable, StoreUnsafe
from variations.layout import budget_key
from variations.storage import Storage

# A piece is this part of what is left for each worker, and at least so many images.
PARTS: Final = 16
LEAST_IMAGES: Final = 8
# After it was told that nothing is left, a worker asks again no sooner: others may have given something back.
AGAIN_SECONDS: Final = 2.0
_MOST_REFUSED: Final = 100

_GRANTED: Final = TypeAdapter(dict[str, float])


async def open_budget(storage: Storage, run_id: str) -> None:
    """Begin with nothing granted; done once, by who plans the run."""
    await storage.put_if_absent(budget_key(run_id), b"{}", content_type="application/json")


class SharedBudget:
    """One worker's part of a run's budget.

    Args:
        storage: the dataset.
        run_id: of the run.
        worker: the token of this worker.
        max_cost_usd: what the run may cost at most.
        clock: time.
        workers: how many share it at the moment.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        run_id: str,
        worker: str,
        max_cost_usd: float,
        clock: Clock,
        workers: Callable[[], int] = lambda: 1,
    ) -> None:
        self._storage = storage
        self._key = budget_key(run_id)
        self._worker = worker
        self._max_cost_usd = max_cost_usd
        self._clock = clock
        self._workers = workers
        self._granted_usd = 0.0
        self._asking = asyncio.Lock()
        self._nothing_left_until = -1.0

    async def more(self, needed_usd: float, *, price_usd: float = 0.0) -> float:
        """Return what this worker may spend in all; at least what is needed, if so much is left.

        Args:
            needed_usd: in all.
            price_usd: of an image.

        Raises:
            StorageError: the store says no; nothing was granted.
        """
        async with self._asking:
            if needed_usd <= self._granted_usd or self._clock.monotonic() < self._nothing_left_until:
                return self._granted_usd

            def granted(free_usd: float, before_usd: float) -> float:
                least = needed_usd - before_usd
                piece = max(least, LEAST_IMAGES * price_usd, free_usd / (PARTS * max(1, self._workers())))
                return before_usd + min(piece, free_usd) if least <= free_usd + NO_MONEY_USD else before_usd

            await self._change(granted)
            if self._granted_usd + NO_MONEY_USD < needed_usd:
                self._nothing_left_until = self._clock.monotonic() + AGAIN_SECONDS
            return self._granted_usd

    async def give_back(self, committed_usd: float) -> None:
        """Keep what is spent or at risk, and leave the rest to the others.

        Raises:
            StorageError: the store says no.
        """
        async with self._asking:
            await self._change(lambda _, before_usd: min(before_usd, committed_usd))

    async def _change(self, change: Callable[[float, float], float]) -> None:
        for _ in range(_MOST_REFUSED):
            entry = await self._storage.head(self._key)
            all_granted = _GRANTED.validate_json(await self._storage.get(self._key)) if entry is not None else {}
            before = all_granted.get(self._worker, 0.0)
            granted = change(max(0.0, self._max_cost_usd - sum(all_granted.values())), before)
            if entry is None:
                raise StoreUnsafe(f"{self._storage.uri_of(self._key)}: the run's budget is gone")
            if granted != before:
                content = _GRANTED.dump_json({**all_granted, self._worker: granted})
                try:
                    await self._storage.replace(self._key, content, etag=entry.etag, content_type="application/json")
                except PreconditionFailed:
                    # Another worker was first, or this very write took effect and its answer was lost.
                    continue
            self._granted_usd = granted
            return
        raise StorageUnavailable(
            f"{self._storage.uri_of(self._key)}: others replaced it {_MOST_REFUSED} times in a row"
        )
