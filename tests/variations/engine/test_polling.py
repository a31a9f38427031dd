"""When to poll."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.engine.latencies import Distribution, Latencies
from variations.engine.polling import FixedInterval, PollingPlan, plan_polls


@pytest.mark.parametrize(
    ("age_seconds", "expected"), [(0.0, 4.0), (595.9, 4.0), (598.0, 2.0), (600.0, 0.0), (700.0, 0.0)]
)
def test_a_fixed_interval_never_reaches_beyond_the_deadline(age_seconds: float, expected: float) -> None:
    """The last poll is due at the deadline itself."""
    assert FixedInterval(4.0, 600.0, 16).next_poll_seconds(age_seconds) == pytest.approx(expected)


def distribution(shares: list[float]) -> Distribution:
    """Return latencies of which so many lie between one second and the next."""
    total = sum(shares) * 1.02
    done = np.concatenate([[0.0], np.cumsum(shares) / total])
    ages = np.arange(len(done), dtype=float)
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(done) * (ages[1:] + ages[:-1]) / 2)])
    return Distribution(ages, done, seconds)


def cost_of(latencies: Distribution, polls: tuple[int, ...], price: float) -> float:
    """Return what polls at these ages cost on average, polls and waiting together."""
    cost, before = 0.0, 0
    for at in polls:
        done = latencies.done[at] - latencies.done[before]
        waiting = latencies.ages[at] * done - (latencies.seconds[at] - latencies.seconds[before])
        cost += price * (1 - latencies.done[before]) + waiting
        before = at
    return cost


@settings(max_examples=80, deadline=None)
@given(
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8).filter(lambda found: sum(found) > 0.01),
    price=st.floats(0.01, 3.0),
)
def test_no_other_polls_cost_less(shares: list[float], price: float) -> None:
    """Tried against every choice of ages there is."""
    latencies = distribution(shares)
    last = len(latencies.ages) - 1
    choices = [(*chosen, last) for count in range(last) for chosen in itertools.combinations(range(1, last), count)]
    least = min(cost_of(latencies, polls, price) for polls in choices)
    (plan,) = plan_polls(latencies, [price])
    assert price * plan.polls + plan.waiting_seconds == pytest.approx(least)


def learned_plans(*prices: float) -> list[PollingPlan]:
    """Return plans for what is known before anything was seen."""
    return plan_polls(Latencies(16.0, deadline_seconds=600.0).distribution(), prices)


def test_dearer_polls_are_fewer_and_wait_longer() -> None:
    """Each price has its own best polls."""
    plans = learned_plans(0.1, 0.3, 1.0, 3.0, 10.0)
    for cheap, dear in itertools.pairwise(plans):
        assert dear.polls < cheap.polls
        assert dear.waiting_seconds > cheap.waiting_seconds


@given(age=st.floats(0, 700, allow_nan=False))
def test_the_next_poll_is_always_later_until_the_deadline(age: float) -> None:
    """However late a poll was answered."""
    for plan in learned_plans(0.1, 3.0):
        later = plan.next_poll_age(age)
        assert later > age or age >= plan.ages[-2]
        assert later <= plan.ages[-1]
