"""The budget: what is reserved and settled, and that no order of them overruns it."""

import asyncio
import contextlib
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.engine.budget import Budget, Granted
from variations.errors import BudgetReached

from .simulation import simulate

PRICE = 0.031


async def settled(waiting: Awaitable[None]) -> asyncio.Task[None]:
    """Return a reservation that has been given every chance to go through."""
    task = asyncio.ensure_future(waiting)
    for _ in range(5):
        await asyncio.sleep(0)
    return task  # type: ignore[return-value]


async def told(limit: float) -> Budget:
    """Return a budget with so much left, that knows the price: the API has charged one image."""
    budget = Budget(limit + PRICE, price_usd=PRICE)
    await budget.reserve(1)
    budget.settle(1, known_images=1, cost_usd=PRICE, charged_images=1)
    return budget


async def test_before_the_price_is_known_one_is_submitted_at_a_time() -> None:
    """The setting may be wrong: many at once at twice the price would overrun it together."""
    budget = Budget(10 * PRICE, price_usd=PRICE)
    await budget.reserve(1)
    waiting = [await settled(budget.reserve(1)) for _ in range(2)]
    assert not any(one.done() for one in waiting)
    budget.settle(1, known_images=1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert [one.done() for one in waiting] == [True, False]
    budget.settle(1, known_images=1, cost_usd=8 * PRICE, charged_images=1)
    with pytest.raises(BudgetReached):
        await waiting[1]


async def test_a_budget_is_for_so_many_images() -> None:
    """The last image that the money is for is let through, the next one is not, sums of floats or no."""
    budget = Budget(10 * PRICE, price_usd=PRICE)
    for _ in range(10):
        await budget.reserve(1)
        budget.settle(1, known_images=0)
    with pytest.raises(BudgetReached, match=r"max_cost_usd 0\.31"):
        await budget.reserve(1)
    assert budget.committed_usd == pytest.approx(0.31)
    assert budget.spent_usd == 0


async def test_no_limit_is_no_limit() -> None:
    """Zero means none, however much is in flight."""
    budget = Budget(0, price_usd=PRICE)
    await budget.reserve(10**9)
    assert budget.committed_usd == pytest.approx(PRICE * 10**9)


async def test_a_refused_reservation_reserves_nothing() -> None:
    """What did not fit leaves room for what is smaller."""
    budget = Budget(3 * PRICE, price_usd=PRICE)
    with pytest.raises(BudgetReached):
        await budget.reserve(4)
    await budget.reserve(3)


async def test_who_does_not_fit_waits_for_what_is_in_flight() -> None:
    """It may fail, and cost nothing: only when nothing is in flight any more is it too much for certain."""
    budget = await told(2 * PRICE)
    await budget.reserve(2)
    waiting = await settled(budget.reserve(1))
    assert not waiting.done()
    budget.settle(1, known_images=1)
    await waiting
    too_much = await settled(budget.reserve(1))
    budget.settle(1, known_images=1, cost_usd=PRICE, charged_images=1)
    budget.settle(1, known_images=0)
    with pytest.raises(BudgetReached):
        await too_much


async def test_what_stays_unknown_stays_reserved() -> None:
    """Of four images one is charged, one was free and two are unknown: these count as spent."""
    budget = await told(4 * PRICE)
    await budget.reserve(4)
    budget.settle(4, known_images=2, cost_usd=PRICE, charged_images=1)
    assert budget.spent_usd == pytest.approx(2 * PRICE)
    assert budget.committed_usd == pytest.approx(4 * PRICE)
    await budget.reserve(1)
    budget.settle(1, known_images=0)
    with pytest.raises(BudgetReached):
        await budget.reserve(1)


async def test_the_first_price_that_the_api_reports_replaces_the_setting() -> None:
    """It may be lower; after that the dearest counts, for what is in flight too."""
    budget = Budget(1.0, price_usd=0.1)
    await budget.reserve(4)
    budget.settle(1, known_images=1, cost_usd=0.02, charged_images=1)
    assert budget.price_usd == pytest.approx(0.02)
    assert budget.committed_usd == pytest.approx(0.02 + 3 * 0.02)
    budget.settle(2, known_images=2, cost_usd=0.1, charged_images=2)
    assert budget.price_usd == pytest.approx(0.05)
    budget.settle(1, known_images=1, cost_usd=0.01, charged_images=1)
    assert budget.price_usd == pytest.approx(0.05)
    assert budget.committed_usd == budget.spent_usd == pytest.approx(0.13)


async def test_a_price_of_nothing_is_a_price() -> None:
    """Many may be in flight from then on; what is reserved for each stays the setting, which may be charged yet."""
    budget = Budget(5 * PRICE, price_usd=PRICE)
    await budget.reserve(1)
    budget.settle(1, known_images=1, is_reported=True)
    for _ in range(5):
        await budget.reserve(1)
    too_much = await settled(budget.reserve(1))
    assert not too_much.done()
    budget.settle(1, known_images=1, cost_usd=PRICE / 2, charged_images=1, is_reported=True)
    budget.settle(1, known_images=1, is_reported=True)
    await too_much
    assert budget.price_usd == PRICE


async def test_a_failure_says_nothing_of_the_price() -> None:
    """What was free does not make images free."""
    budget = Budget(1.0, price_usd=PRICE)
    await budget.reserve(2)
    budget.settle(2, known_images=2)
    assert (budget.price_usd, budget.spent_usd, budget.committed_usd) == (PRICE, 0.0, 0.0)


async def test_the_error_says_what_to_do() -> None:
    """It names what is spent, what the next would cost, and the setting; it is a pause, and not a failure."""
    budget = Budget(1.0, price_usd=0.4)
    await budget.reserve(2)
    budget.settle(2, known_images=0)
    with pytest.raises(BudgetReached) as caught:
        await budget.reserve(1)
    for words in ("paused", "0.800 USD", "0.400", "max_cost_usd 1", "higher"):
        assert words in str(caught.value)
    assert caught.value.code == "budget"


@given(
    st.floats(0.01, 5.0),
    st.lists(st.tuples(st.sampled_from(["reserve", "free", "charge", "unknown"]), st.integers(1, 4)), max_size=60),
)
def test_at_a_price_that_holds_the_limit_is_never_exceeded(limit: float, steps: list[tuple[str, int]]) -> None:  # noqa: C901 - it is a model
    """Whatever is reserved and settled, in any order: spent and at risk stay within the limit, and nobody waits on."""

    async def main() -> None:
        budget = Budget(limit, price_usd=PRICE)
        in_flight: list[int] = []
        waiting: list[tuple[int, asyncio.Task[None]]] = []

        async def look() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            for one in [one for one in waiting if one[1].done()]:
                waiting.remove(one)
                if one[1].exception() is None:
                    in_flight.append(one[0])
            assert budget.spent_usd - 1e-9 <= budget.committed_usd <= limit + 1e-5

        def settle(step: str, images: int) -> None:
            known = 0 if step == "unknown" else images
            charged = images if step == "charge" else 0
            budget.settle(images, known_images=known, cost_usd=charged * PRICE, charged_images=charged)

        for step, images in steps:
            if step == "reserve":
                waiting.append((images, asyncio.ensure_future(budget.reserve(images))))  # type: ignore[arg-type]
            elif in_flight:
                settle(step, in_flight.pop(0))
            await look()
        while in_flight:
            settle("charge", in_flight.pop())
            await look()
        assert not waiting

    simulate(main())


@given(
    images=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    pieces=st.lists(st.floats(0.0, 10 * PRICE), min_size=1, max_size=30),
)
def test_no_more_is_reserved_than_was_granted(images: list[int], pieces: list[float]) -> None:
    """Many that reserve at once ask for more together, and what one was granted another may take."""

    async def main() -> None:
        left = iter(pieces)
        granted = 0.0

        async def more(_: float) -> Granted:
            nonlocal granted
            await asyncio.sleep(0)
            piece = next(left, None)
            granted += piece or 0.0
            return Granted(granted, may_grow=piece is not None)

        budget = Budget(1000.0, price_usd=PRICE, more=more)

        async def reserve(count: int) -> None:
            with contextlib.suppress(BudgetReached):
                await budget.reserve(count)
                assert budget.committed_usd <= granted + 1e-5
                budget.settle(count, known_images=count, cost_usd=count * PRICE, charged_images=count)

        await asyncio.gather(*map(reserve, images))
        assert budget.spent_usd <= granted + 1e-5

    simulate(main())
