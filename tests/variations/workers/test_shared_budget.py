"""What all workers were granted together never exceeds the budget, however they ask for it."""

import asyncio
import json
from collections.abc import Collection

import pytest

from tests.variations.workers.clock import SetClock
from variations.engine.budget import NO_MONEY_USD
from variations.errors import StoreUnsafe
from variations.layout import budget_key
from variations.storage import Storage
from variations.workers.shared_budget import AGAIN_SECONDS, LEAST_IMAGES, PARTS, SharedBudget, open_budget

RUN = "20260101T000000Z-1"
PRICE_USD = 0.031


class Worker:
    """A worker that spends its part an image at a time."""

    def __init__(
        self, storage: Storage, name: str, *, max_cost_usd: float, team: Collection[str], clock: SetClock
    ) -> None:
        self.spent_usd = 0.0
        self.granted_usd = 0.0

        async def living() -> Collection[str]:
            return team

        self.budget = SharedBudget(
            storage,
            run_id=RUN,
            worker=name,
            max_cost_usd=max_cost_usd,
            clock=clock,
            living=living,
            keep=self._keep,
        )

    def _keep(self) -> float:
        self.granted_usd = self.spent_usd
        return self.spent_usd

    async def spend(self, usd: float = PRICE_USD) -> bool:
        """Spend so much; returns whether it could."""
        while self.spent_usd + usd > self.granted_usd + NO_MONEY_USD:
            self.granted_usd, may_grow = await self.budget.more(self.spent_usd + usd, price_usd=PRICE_USD)
            if not may_grow:
                return False
            await asyncio.sleep(0)
        self.spent_usd += usd
        return True


def team(storage: Storage, *names: str, max_cost_usd: float) -> list[Worker]:
    """Return workers that share a budget, and live."""
    clock = SetClock()
    return [Worker(storage, name, max_cost_usd=max_cost_usd, team=set(names), clock=clock) for name in names]


async def granted(storage: Storage) -> dict[str, float]:
    """Return what each was granted."""
    found: dict[str, float] = json.loads(await storage.get(budget_key(RUN)))["granted"]
    return found


@pytest.mark.parametrize("images", [5, 16, 100])
async def test_many_that_ask_at_once_spend_all_there_is_and_no_more(any_dataset: Storage, images: int) -> None:
    """Sixteen workers spend an image at a time until nothing is left, and what one has over is another's."""
    await open_budget(any_dataset, RUN)
    workers = team(any_dataset, *(f"w{n}" for n in range(16)), max_cost_usd=images * PRICE_USD)
    assert sum(await asyncio.gather(*map(_spend_all, workers))) == images
    assert sum((await granted(any_dataset)).values()) <= images * PRICE_USD + NO_MONEY_USD


async def test_one_that_has_nothing_to_do_leaves_its_part_to_the_others(any_dataset: Storage) -> None:
    """All of the budget is spent by those that have work, down to the last image."""
    await open_budget(any_dataset, RUN)
    idle, busy = team(any_dataset, "idle", "busy", max_cost_usd=20 * PRICE_USD)
    assert await idle.spend()
    spending = asyncio.create_task(_spend_all(busy))
    await asyncio.sleep(0.05)
    await idle.budget.give_back()
    assert await spending == 19
    # It has work again, and there is nothing left for it.
    assert not await idle.spend()


async def _spend_all(worker: Worker) -> int:
    spent = 0
    while await worker.spend():
        spent += 1
    return spent


async def test_what_a_living_one_may_give_back_is_waited_for(dataset: Storage) -> None:
    """And what one that is gone was granted is not: it may have spent it."""
    await open_budget(dataset, RUN)
    clock = SetClock()
    everybody = {"first", "second"}
    first, second = (
        Worker(dataset, name, max_cost_usd=2 * PRICE_USD, team=everybody, clock=clock) for name in ("first", "second")
    )
    assert await first.budget.more(2 * PRICE_USD, price_usd=PRICE_USD) == (2 * PRICE_USD, True)
    began = clock.seconds
    assert await second.budget.more(PRICE_USD, price_usd=PRICE_USD) == (0.0, True)
    assert clock.seconds - began == AGAIN_SECONDS
    everybody.remove("first")
    assert await second.budget.more(PRICE_USD, price_usd=PRICE_USD) == (0.0, False)


async def test_a_piece_is_a_part_of_what_is_left(dataset: Storage) -> None:
    """One that dies holds little back, and one that joins late finds something."""
    await open_budget(dataset, RUN)
    first, _ = team(dataset, "first", "other", max_cost_usd=320.0)
    assert (await first.budget.more(PRICE_USD, price_usd=PRICE_USD)).usd == pytest.approx(320.0 / (2 * PARTS))
    small, _ = team(dataset, "small", "other", max_cost_usd=11.0)
    assert (await small.budget.more(PRICE_USD, price_usd=PRICE_USD)).usd == pytest.approx(LEAST_IMAGES * PRICE_USD)
    scarce = 320.0 / (2 * PARTS) + LEAST_IMAGES * PRICE_USD + 4 * PRICE_USD
    last, _ = team(dataset, "last", "other", max_cost_usd=scarce)
    assert (await last.budget.more(PRICE_USD, price_usd=PRICE_USD)).usd == pytest.approx(2 * PRICE_USD)


async def test_a_budget_that_is_gone_stops_the_worker(dataset: Storage) -> None:
    """What all may spend together cannot be known any more."""
    (worker,) = team(dataset, "first", max_cost_usd=1.0)
    with pytest.raises(StoreUnsafe, match="budget is gone"):
        await worker.spend()
