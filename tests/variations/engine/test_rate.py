"""The plan's limit: the pace, who goes first, pauses and the closed door."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.engine.pace import MARGIN
from variations.engine.rate import BURST_SECONDS, NoMoreNew, Priority, RateLimit

from .simulation import LoopClock, simulate


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


def test_workers_share_a_limit_and_share_it_anew() -> None:
    """So many take their part each; when one leaves, the others go faster."""

    async def main() -> None:
        rates = [RateLimit(600, clock=LoopClock()) for _ in range(3)]
        for rate in rates:
            rate.divide(3)
            assert rate.requests_per_minute == pytest.approx(200)
        for rate in rates[:2]:
            rate.divide(2)
            assert rate.requests_per_minute == pytest.approx(300)
        times = [at for some in await asyncio.gather(*(let_through(rate, 300) for rate in rates[:2])) for at in some]
        assert most_in_a_minute(times) <= 2 * most_allowed(300)

    simulate(main())


def test_what_a_worker_has_found_is_told_for_all_of_them() -> None:
    """The limit is the account's, of which it uses its part."""

    async def main() -> None:
        clock = LoopClock()
        rate = RateLimit(0, clock=clock, first_requests_per_minute=60)
        rate.divide(2)
        await let_through(rate, 40)
        rate.refuse(sent_at=clock.monotonic(), reset_seconds=1.0)
        found = rate.found
        assert found is not None
        assert found == pytest.approx(2 * rate.requests_per_minute / MARGIN, rel=0.01)
        rate.divide(1)
        assert rate.found == pytest.approx(found)

    simulate(main())


def test_what_another_worker_found_is_begun_with() -> None:
    """At this one's share of it; what was found here is better, and what is told is the most."""

    async def main() -> None:
        clock = LoopClock()
        rate = RateLimit(0, clock=clock, first_requests_per_minute=60)
        rate.divide(4)
        rate.learn(600)
        assert rate.requests_per_minute == pytest.approx(MARGIN * 150)
        # It is not told on as if it had been found: of one that is wrong there would be ever more witnesses.
        assert rate.found is None
        rate.learn(60)
        assert rate.requests_per_minute == pytest.approx(MARGIN * 150)
        told = RateLimit(300, clock=clock)
        told.divide(4)
        told.learn(600)
        assert told.requests_per_minute == pytest.approx(75)
        times = await let_through(rate, 300)
        assert most_in_a_minute(times) <= most_allowed(150)
        rate.refuse(sent_at=clock.monotonic(), reset_seconds=1.0)
        assert rate.found == pytest.approx(600, rel=0.05)

    simulate(main())


def test_a_limit_that_rose_is_told_without_another_refusal() -> None:
    """What was taken in a minute in which nothing was refused is allowed."""

    async def main() -> tuple[float | None, float | None]:
        clock = LoopClock()
        rate = RateLimit(0, clock=clock, first_requests_per_minute=60)
        await let_through(rate, 60)
        rate.refuse(sent_at=clock.monotonic(), reset_seconds=1.0)
        found = rate.found
        await let_through(rate, 2000)
        return found, rate.found

    before, after = simulate(main())
    assert before is not None
    assert after is not None
    assert after > 2 * before


@dataclass
class Limiter:
    """A limit of requests a minute as an API keeps it, in sliding minutes or in those of the clock.

    Attributes:
        limit: by the seconds since the start.
        told: what it tells, by how long it is until the reset.
        asked, refused: when, in seconds since the start.
    """

    limit: Callable[[float], int]
    is_sliding: bool = True
    told: Callable[[float], float] = lambda seconds: seconds
    asked: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    _taken: deque[float] = field(default_factory=deque)

    def refusal(self, now: float) -> float | None:
        """Take a request, or return the reset that is told."""
        self.asked.append(now)
        while self._taken and self._taken[0] <= (now - 60 if self.is_sliding else now // 60 * 60 - 1e-9):
            self._taken.popleft()
        if len(self._taken) < self.limit(now):
            self._taken.append(now)
            return None
        self.refused.append(now)
        return self.told(self._taken[0] + 60 - now if self.is_sliding and self._taken else 60 - now % 60)

    def taken_a_minute(self, begin: float, end: float) -> float:
        """Return how many requests a minute it took between two moments."""
        count = sum(begin <= at < end for at in self.asked) - sum(begin <= at < end for at in self.refused)
        return count / (end - begin) * 60

    def refused_share(self, begin: float, end: float) -> float:
        """Return the share of the requests between two moments that it refused."""
        return sum(begin <= at < end for at in self.refused) / sum(begin <= at < end for at in self.asked)


async def ask(rate: RateLimit, limiter: Limiter, *, until: float, at_once: int = 30) -> None:
    """Ask without a pause until so many seconds after the start, over a network that is now fast and now slow."""
    clock, rng = LoopClock(), random.Random(1)  # noqa: S311 - it is a simulation
    start = clock.monotonic()

    async def one() -> None:
        while clock.monotonic() < start + until:
            await rate.take(Priority.PAID)
            sent_at = clock.monotonic()
            await asyncio.sleep(rng.uniform(0.02, 0.6))
            reset_seconds = limiter.refusal(clock.monotonic() - start)
            await asyncio.sleep(rng.uniform(0.02, 0.6))
            if reset_seconds is not None:
                # As the calls have it.
                rate.refuse(sent_at=sent_at, reset_seconds=max(1.0, reset_seconds) if reset_seconds <= 120 else 1.0)

    await asyncio.gather(*(one() for _ in range(at_once)))


@pytest.mark.parametrize("limit", [60, 600])
@pytest.mark.parametrize("is_sliding", [True, False], ids=["sliding", "by the clock"])
def test_a_limit_that_is_found_is_used_up(limit: int, *, is_sliding: bool) -> None:
    """However the API counts its minutes, refusals that are under way with another cost the pace nothing."""

    async def main() -> tuple[Limiter, RateLimit]:
        rate = RateLimit(0, clock=LoopClock(), first_requests_per_minute=60)
        limiter = Limiter(lambda _: limit, is_sliding=is_sliding)
        await ask(rate, limiter, until=1200)
        return limiter, rate

    limiter, rate = simulate(main())
    assert limiter.taken_a_minute(240, 1200) >= 0.93 * limit
    assert limiter.refused_share(240, 1200) <= 0.01
    assert rate.found == pytest.approx(limit, rel=0.05)


@pytest.mark.parametrize(
    ("told", "least_used"),
    [(lambda _: 0.0, 0.85), (lambda _: -3600.0, 0.85), (lambda _: 400 * 86400.0, 0.85)],
    ids=["none", "past", "far away"],
)
def test_without_a_reset_to_go_by_the_limit_is_found_too(told: Callable[[float], float], least_used: float) -> None:
    """Who is refused again and again waits longer and longer; a reset that is far away is not believed."""

    async def main() -> tuple[Limiter, RateLimit]:
        rate = RateLimit(0, clock=LoopClock(), first_requests_per_minute=60)
        limiter = Limiter(lambda _: 60, is_sliding=False, told=told)
        await ask(rate, limiter, until=1500)
        return limiter, rate

    limiter, rate = simulate(main())
    assert len([at for at in limiter.refused if at < 300]) <= 30
    assert limiter.refused_share(300, 1500) <= 0.01
    assert limiter.taken_a_minute(300, 1500) >= least_used * 60
    assert rate.found == pytest.approx(60, rel=0.1)


def test_a_limit_that_is_raised_is_noticed_within_minutes() -> None:
    """The longer nothing is refused, the faster it is tried whether there is more."""

    async def main() -> Limiter:
        limiter = Limiter(lambda seconds: 60 if seconds < 600 else 600)
        await ask(RateLimit(0, clock=LoopClock(), first_requests_per_minute=60), limiter, until=1800)
        return limiter

    limiter = simulate(main())
    assert limiter.taken_a_minute(300, 600) <= 60
    assert limiter.taken_a_minute(1500, 1800) >= 0.9 * 600


@pytest.mark.parametrize("are_told", [True, False])
def test_what_somebody_else_no_longer_uses_is_taken_up(*, are_told: bool) -> None:
    """Another run with the same key, or another worker of this one, which share the limit evenly."""

    async def main() -> Limiter:
        rates = [RateLimit(0, clock=LoopClock(), first_requests_per_minute=60) for _ in range(2)]
        limiter = Limiter(lambda _: 120)
        if are_told:
            for rate in rates:
                rate.divide(2)
        await asyncio.gather(ask(rates[0], limiter, until=1500), ask(rates[1], limiter, until=600))
        return limiter

    limiter = simulate(main())
    assert limiter.taken_a_minute(240, 600) >= 0.85 * 120
    assert limiter.refused_share(240, 1500) <= 0.015
    assert limiter.taken_a_minute(1200, 1500) >= 0.9 * 120


@pytest.mark.parametrize(
    ("workers", "limit", "told"),
    [(1, 5, 0), (1, 5, 5), (2, 5, 5), (12, 60, 0), (12, 60, 60), (20, 60, 0), (20, 60, 60), (50, 120, 120)],
)
@pytest.mark.parametrize("is_sliding", [True, False], ids=["sliding", "by the clock"])
def test_a_small_share_of_a_limit_is_no_storm(workers: int, limit: int, told: int, *, is_sliding: bool) -> None:
    """The smallest plan, and a usual one that many share: of a few requests a minute one more or less means little."""

    async def main() -> Limiter:
        rates = [RateLimit(told, clock=LoopClock(), first_requests_per_minute=60) for _ in range(workers)]
        limiter = Limiter(lambda _: limit, is_sliding=is_sliding)
        for rate in rates:
            rate.divide(workers)
        await asyncio.gather(*(ask(rate, limiter, until=3600, at_once=8) for rate in rates))
        return limiter

    limiter = simulate(main())
    assert limiter.refused_share(600, 3600) <= (0.02 if is_sliding else 0.01)
    assert limiter.taken_a_minute(600, 3600) >= 0.8 * limit


@pytest.mark.parametrize("limit", [60, 600])
@pytest.mark.parametrize("blocked_seconds", [30, 60, 200])
@pytest.mark.parametrize("is_told", [True, False], ids=["told a reset", "no reset"])
def test_a_spell_in_which_all_is_refused_is_not_taken_for_the_limit(
    limit: int, blocked_seconds: int, *, is_told: bool
) -> None:
    """One request at a time looks whether it is over, and then it goes on as before within a minute or two."""
    begin, end = 200, 200 + blocked_seconds

    async def main() -> Limiter:
        limiter = Limiter(
            lambda seconds: 0 if begin < seconds < end else limit,
            is_sliding=False,
            told=lambda seconds: seconds if is_told else 0.0,
        )
        await ask(RateLimit(limit, clock=LoopClock()), limiter, until=end + 600)
        return limiter

    limiter = simulate(main())
    assert len([at for at in limiter.refused if begin < at < end]) <= limit / 10 + blocked_seconds / 10 + 8
    assert limiter.taken_a_minute(end + 120, end + 600) >= 0.9 * limit


def test_a_limit_that_is_cut_is_no_storm() -> None:
    """Nor is one cut to a thirtieth."""
    for before, after in ((60, 12), (600, 120), (600, 20)):

        async def main(before: int = before, after: int = after) -> Limiter:
            limiter = Limiter(lambda seconds: before if seconds < 600 else after, is_sliding=False)
            await ask(RateLimit(0, clock=LoopClock(), first_requests_per_minute=60), limiter, until=3000)
            return limiter

        limiter = simulate(main())
        assert len([at for at in limiter.refused if 600 <= at < 900]) <= 20
        assert limiter.refused_share(900, 3000) <= 0.01
        assert limiter.taken_a_minute(900, 3000) >= 0.88 * after


@pytest.mark.parametrize("is_sliding", [True, False], ids=["sliding", "by the clock"])
def test_a_reset_that_is_a_minute_away_whenever_it_is_asked_does_not_halve_the_pace(*, is_sliding: bool) -> None:
    """It does not tell when this minute began: what was taken in the last one is counted."""

    async def main() -> Limiter:
        limiter = Limiter(lambda _: 60, is_sliding=is_sliding, told=lambda _: 59.5)
        await ask(RateLimit(0, clock=LoopClock(), first_requests_per_minute=60), limiter, until=1800)
        return limiter

    assert simulate(main()).taken_a_minute(300, 1800) >= 0.75 * 60
