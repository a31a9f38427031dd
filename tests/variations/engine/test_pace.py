"""The pace: shared by workers, and found by what the API refuses."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from variations.engine.pace import MARGIN
from variations.engine.rate import Priority, RateLimit

from .simulation import LoopClock, simulate
from .turns import let_through, most_allowed, most_in_a_minute


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


def test_a_limit_is_not_told_as_a_larger_one_where_more_share_it() -> None:
    """What one took of it alone, in the minute before the others came, is not what each of them takes."""

    async def main() -> None:
        clock = LoopClock()
        rate = RateLimit(0, clock=clock, first_requests_per_minute=60)
        await let_through(rate, 60)
        rate.refuse(sent_at=clock.monotonic(), reset_seconds=1.0)
        await let_through(rate, 90)
        found = rate.found
        rate.divide(10)
        assert rate.found == pytest.approx(found, rel=0.05)
        await let_through(rate, 5)
        rate.divide(10)
        assert rate.found == pytest.approx(found, rel=0.05)

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
    [
        (1, 3, 0),
        (1, 3, 3),
        (1, 4, 4),
        (1, 5, 0),
        (1, 5, 5),
        (2, 5, 5),
        (12, 60, 0),
        (12, 60, 60),
        (20, 60, 0),
        (20, 60, 60),
        (50, 120, 120),
    ],
)
@pytest.mark.parametrize("is_sliding", [True, False], ids=["sliding", "by the clock"])
def test_a_small_share_of_a_limit_is_no_storm(workers: int, limit: int, told: int, *, is_sliding: bool) -> None:
    """The smallest plan, less than that, and a usual one that many share: of so few, one more or less means little."""

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
