"""Which polls are the best by what is scarce, and how many requests are of use in flight."""

import asyncio

import pytest

from variations.engine.latencies import Latencies
from variations.engine.limits import MOST_IN_FLIGHT, Limits
from variations.engine.polling import FixedInterval
from variations.engine.rate import Priority, RateLimit
from variations.engine.schedule import GUESSING, LearnedSchedule, schedule_of

from .simulation import LoopClock, simulate
from .test_latencies import drawn


class Desk:
    """A schedule that has seen 200 completions around 16 s, and its rate."""

    def __init__(self, **limits: float) -> None:
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.rate = RateLimit(self.limits.requests_per_minute, clock=LoopClock())
        latencies = Latencies(16.0, deadline_seconds=self.limits.deadline_seconds)
        self.schedule = LearnedSchedule(latencies, rate=self.rate, limits=self.limits)
        for seconds in drawn(200):
            self.schedule.completed(seconds)

    async def make_scarce(self) -> list[asyncio.Task[None]]:
        """Let something new wait for its turn."""
        waiting = [asyncio.create_task(self.rate.take(Priority.NEW)) for _ in range(3)]
        await asyncio.sleep(0)
        return waiting

    def polls(self) -> list[float]:
        """Return the ages at which a request is polled that takes 30 s."""
        ages = [0.0]
        while ages[-1] < 30:
            ages.append(ages[-1] + self.schedule.next_poll_seconds(ages[-1]))
        return ages[1:]


def test_where_requests_are_scarce_there_are_fewer_polls() -> None:
    """As soon as something new waits for its turn, and no longer."""

    async def main() -> tuple[int, int, int]:
        desk = Desk(requests_per_minute=60.0)
        before = len(desk.polls())
        waiting = await desk.make_scarce()
        scarce = len(desk.polls())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return before, scarce, len(desk.polls())

    before, scarce, after = simulate(main())
    assert scarce < before == after


def test_where_slots_are_the_bottleneck_a_scarce_request_is_still_worth_a_poll() -> None:
    """With one slot the limit is never reached, whatever is polled."""

    async def main() -> tuple[int, int]:
        desk = Desk(requests_per_minute=600.0, max_in_flight=1)
        before = len(desk.polls())
        await desk.make_scarce()
        return before, len(desk.polls())

    before, scarce = simulate(main())
    assert scarce == before


@pytest.mark.parametrize("limits", [{"requests_per_minute": 0.0}, {"count_all_requests": False}])
def test_polls_that_cost_nothing_are_more(limits: dict[str, float]) -> None:
    """Where there is no limit, or none that counts them."""

    async def main() -> tuple[int, int]:
        return len(Desk(requests_per_minute=60.0).polls()), len(Desk(**{"requests_per_minute": 60.0, **limits}).polls())

    counted, free = simulate(main())
    assert free > counted


@pytest.mark.parametrize(("per_minute", "least", "most"), [(5, 4, 7), (60, 14, 26), (600, 90, 200), (6000, 256, 256)])
def test_as_many_are_in_flight_as_the_limit_can_feed(per_minute: float, least: int, most: int) -> None:
    """By Little's law, with some room; and never more than the ceiling."""

    async def main() -> int:
        return Desk(requests_per_minute=per_minute).schedule.most_in_flight

    assert least <= simulate(main()) <= most <= MOST_IN_FLIGHT


def test_a_number_in_flight_that_is_set_is_kept() -> None:
    """Whatever the limit could feed."""

    async def main() -> int:
        return Desk(requests_per_minute=6000.0, max_in_flight=7).schedule.most_in_flight

    assert simulate(main()) == 7


def test_it_says_when_it_only_guesses() -> None:
    """Until some dozens are done."""

    async def main() -> None:
        rate = RateLimit(0, clock=LoopClock())
        schedule = schedule_of(Limits(), rate=rate)
        for _ in range(GUESSING):
            assert schedule.is_guessing
            schedule.completed(16.0)
        assert not schedule.is_guessing

    simulate(main())


def test_an_interval_that_is_set_is_kept() -> None:
    """Learning is off."""

    async def main() -> object:
        return schedule_of(Limits(poll_interval_seconds=3.0), rate=RateLimit(0, clock=LoopClock()))

    assert simulate(main()) == FixedInterval(3.0, 600.0, MOST_IN_FLIGHT)
