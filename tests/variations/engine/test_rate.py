"""The plan's limit: turns at a pace, who goes first, pauses and the closed door."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.engine.rate import NoMoreNew, Priority, RateLimit

from .simulation import LoopClock, simulate
from .turns import let_through, most_allowed, most_in_a_minute


@pytest.mark.parametrize("per_minute", [5, 50, 60, 120, 500, 1000])
def test_the_pace_holds_in_every_sliding_minute(per_minute: int) -> None:
    """However many wait, a minute never has more than the limit and its burst of a second, and not much fewer."""

    async def main() -> list[float]:
        return await let_through(RateLimit(per_minute, clock=LoopClock()), 3 * per_minute)

    times = simulate(main())
    assert most_in_a_minute(times) <= most_allowed(per_minute)
    assert max(times) - min(times) <= 180


@settings(max_examples=40, deadline=None)
@given(
    per_minute=st.integers(1, 2000),
    gaps=st.lists(st.floats(0, 90, allow_nan=False), min_size=1, max_size=60),
)
def test_the_pace_holds_however_requests_arrive(per_minute: int, gaps: list[float]) -> None:
    """Idle time is not saved up beyond the documented burst."""

    async def main() -> list[float]:
        rate = RateLimit(per_minute, clock=LoopClock())
        tasks = []
        for gap in gaps:
            await asyncio.sleep(gap)
            tasks += [asyncio.create_task(let_through(rate, 3))]
        return [at for task in tasks for at in await task]

    assert most_in_a_minute(simulate(main())) <= most_allowed(per_minute)


def test_an_even_pace_has_no_gaps_and_no_bunches() -> None:
    """After its burst, 60 a minute are one a second."""

    async def main() -> list[float]:
        return await let_through(RateLimit(60, clock=LoopClock()), 30)

    steps = [later - earlier for earlier, later in pairwise(simulate(main())[1:])]
    assert steps == pytest.approx([1.0] * len(steps))


def test_no_limit_lets_everything_through_at_once() -> None:
    """0 means no limit."""

    async def main() -> list[float]:
        return await let_through(RateLimit(0, clock=LoopClock()), 500)

    assert len(set(simulate(main()))) == 1


def test_what_is_paid_for_goes_first() -> None:
    """A poll that comes later overtakes every submit that waits; among equals the first come go first."""

    async def main() -> list[str]:
        rate = RateLimit(60, clock=LoopClock())
        order: list[str] = []

        async def one(name: str, priority: Priority) -> None:
            await rate.take(priority)
            order.append(name)

        await let_through(rate, 2)
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one(f"new {number}", Priority.NEW))
            await asyncio.sleep(0.01)
            for number in range(3):
                group.create_task(one(f"paid {number}", Priority.PAID))
        return order

    assert simulate(main()) == ["paid 0", "paid 1", "paid 2", "new 0", "new 1", "new 2"]


def test_a_pause_holds_everything_and_a_longer_one_prolongs_it() -> None:
    """Nothing leaves before the last end that a 429 told, those that already waited included."""

    async def main() -> list[float]:
        clock = LoopClock()
        rate = RateLimit(600, clock=clock)
        start = clock.monotonic()
        rate.pause(10)
        waiting = asyncio.create_task(let_through(rate, 3))
        await asyncio.sleep(5)
        rate.pause(20)
        rate.pause(1)
        later = asyncio.create_task(let_through(rate, 1))
        return [at - start for at in (*await waiting, *await later)]

    times = simulate(main())
    assert min(times) == pytest.approx(25)
    assert max(times) < 26


def test_uncounted_requests_wait_for_the_end_of_a_pause() -> None:
    """`unpaused` returns at the end of the longest pause, and at once where there is none."""

    async def main() -> tuple[float, float]:
        clock = LoopClock()
        rate = RateLimit(60, clock=clock)
        start = clock.monotonic()
        await rate.unpaused(Priority.PAID)
        at_once = clock.monotonic() - start
        rate.pause(3)
        asyncio.get_running_loop().call_later(2, rate.pause, 5)
        await rate.unpaused(Priority.PAID)
        return at_once, clock.monotonic() - start

    at_once, paused = simulate(main())
    assert at_once == 0
    assert paused == pytest.approx(7)


def test_closing_turns_away_waiting_and_coming_submits_and_lets_polls_through() -> None:
    """Those that wait end that moment, not when their turn would have come."""

    async def main() -> tuple[float, list[float]]:
        clock = LoopClock()
        rate = RateLimit(6, clock=clock)
        await let_through(rate, 1)
        waiting = [asyncio.create_task(rate.take(Priority.NEW)) for _ in range(5)]
        await asyncio.sleep(1)
        start = clock.monotonic()
        rate.close_to_new()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        took = clock.monotonic() - start
        assert all(isinstance(end, NoMoreNew) for end in ends)
        with pytest.raises(NoMoreNew):
            await rate.take(Priority.NEW)
        return took, await let_through(rate, 2)

    took, polls = simulate(main())
    assert took == 0
    assert polls[1] - polls[0] == pytest.approx(10)


def test_a_turn_that_was_given_in_the_moment_of_closing_is_taken_back() -> None:
    """Nothing new leaves after `close_to_new`, not even what was just let through."""

    async def main() -> None:
        rate = RateLimit(0, clock=LoopClock())
        turn = asyncio.create_task(rate.take(Priority.NEW))
        await asyncio.sleep(0)
        # Between the pump's word and the waiter's next step.
        await asyncio.sleep(0)
        rate.close_to_new()
        with pytest.raises(NoMoreNew):
            await turn

    simulate(main())


def test_a_backoff_ends_when_the_door_closes() -> None:
    """A submit that waits to be repeated is new too."""

    async def main() -> float:
        clock = LoopClock()
        rate = RateLimit(0, clock=clock)
        start = clock.monotonic()
        asyncio.get_running_loop().call_later(2, rate.close_to_new)
        with pytest.raises(NoMoreNew):
            await rate.sleep_before_new(30)
        return clock.monotonic() - start

    assert simulate(main()) == pytest.approx(2)


def test_waiters_that_give_up_cost_no_turn_and_no_wake_up() -> None:
    """A cancelled waiter is skipped: the next one has its turn, and later ones are served too."""

    async def main() -> list[float]:
        clock = LoopClock()
        rate = RateLimit(60, clock=clock)
        await let_through(rate, 2)
        start = clock.monotonic()
        given_up = [asyncio.create_task(rate.take(Priority.PAID)) for _ in range(5)]
        last = asyncio.create_task(let_through(rate, 1))
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.wait(given_up)
        first = await last
        await asyncio.sleep(100)
        return [at - start for at in (*first, *await let_through(rate, 1))]

    first, later = simulate(main())
    assert first == pytest.approx(1)
    assert later == pytest.approx(first + 100)
