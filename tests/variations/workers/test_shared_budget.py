"""What all workers were granted together never exceeds the budget, however they ask for it."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from variations.errors import StoreUnsafe
from variations.layout import budget_key
from variations.storage import Storage
from variations.workers.shared_budget import LEAST_IMAGES, PARTS, SharedBudget, open_budget

RUN = "20260101T000000Z-1"
PRICE_USD = 0.031


class SetClock:
    """Time stands still until it is set."""

    seconds = 100.0

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.seconds += seconds


def budget(
    storage: Storage, worker: str, *, max_cost_usd: float, workers: int = 1, clock: SetClock | None = None
) -> SharedBudget:
    """Return a worker's part."""
    return SharedBudget(
        storage,
        run_id=RUN,
        worker=worker,
        max_cost_usd=max_cost_usd,
        clock=clock or SetClock(),
        workers=lambda: workers,
    )


async def granted(storage: Storage) -> dict[str, float]:
    """Return what each was granted."""
    found: dict[str, float] = json.loads(await storage.get(budget_key(RUN)))
    return found


async def test_many_that_ask_at_once_get_no_more_than_there_is(any_dataset: Storage) -> None:
    """Sixteen workers spend an image at a time until nothing is left; all of it is spent, and no more."""
    await open_budget(any_dataset, RUN)
    images = 100

    async def spend(worker: SharedBudget) -> int:
        spent = 0
        while await worker.more((spent + 1) * PRICE_USD, price_usd=PRICE_USD) >= (spent + 1) * PRICE_USD - 1e-9:
            spent += 1
        return spent

    workers = [budget(any_dataset, f"w{n}", max_cost_usd=images * PRICE_USD, workers=16) for n in range(16)]
    spent = await asyncio.gather(*map(spend, workers))
    assert sum((await granted(any_dataset)).values()) <= images * PRICE_USD + 1e-6
    # What is left over with each is less than an image.
    assert images - 16 <= sum(spent) <= images


async def test_a_piece_is_a_part_of_what_is_left(dataset: Storage) -> None:
    """One that dies holds little back, and one that joins late finds something."""
    await open_budget(dataset, RUN)
    first = budget(dataset, "first", max_cost_usd=320.0, workers=2)
    assert await first.more(PRICE_USD, price_usd=PRICE_USD) == pytest.approx(320.0 / (2 * PARTS))
    small = budget(dataset, "small", max_cost_usd=11.0, workers=2)
    assert await small.more(PRICE_USD, price_usd=PRICE_USD) == pytest.approx(LEAST_IMAGES * PRICE_USD)


async def test_what_is_given_back_is_for_the_others(dataset: Storage) -> None:
    """A worker that leaves keeps what it has spent."""
    await open_budget(dataset, RUN)
    clock = SetClock()
    first, second = (budget(dataset, name, max_cost_usd=1.0, clock=clock) for name in ("first", "second"))
    assert await first.more(1.0) == pytest.approx(1.0)
    assert await second.more(0.5) == 0.0
    await first.give_back(0.4)
    assert await second.more(0.6) == 0.0, "it asks again no sooner than in two seconds"
    clock.seconds += 3
    assert await second.more(0.6) == pytest.approx(0.6)
    assert await granted(dataset) == {"first": pytest.approx(0.4), "second": pytest.approx(0.6)}


async def test_a_budget_that_is_gone_stops_the_worker(dataset: Storage) -> None:
    """What all may spend together cannot be known any more."""
    with pytest.raises(StoreUnsafe, match="budget is gone"):
        await budget(dataset, "first", max_cost_usd=1.0).more(0.5)
