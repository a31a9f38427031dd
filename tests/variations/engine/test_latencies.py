"""What is learned of how long requests take."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.engine.latencies import COMPARED, REMEMBERED, Latencies

DEADLINE_SECONDS = 600.0


def learned(*seen: float, expected_seconds: float = 16.0) -> Latencies:
    """Return what is known after some completions."""
    latencies = Latencies(expected_seconds, deadline_seconds=DEADLINE_SECONDS)
    for seconds in seen:
        latencies.add(seconds)
    return latencies


def drawn(count: int, *, mean: float = 16.0, spread: float = 0.2, seed: int = 1) -> list[float]:
    """Return lognormal latencies."""
    rng, variance = random.Random(seed), math.log1p(spread**2)  # noqa: S311 - it is a simulation
    return [mean * rng.lognormvariate(-variance / 2, math.sqrt(variance)) for _ in range(count)]


def share_done(latencies: Latencies, age: float) -> float:
    """Return which share is done by an age."""
    found = latencies.distribution()
    return float(np.interp(age, found.ages, found.done))


@settings(max_examples=60, deadline=None)
@given(seen=st.lists(st.floats(0, 5000, allow_nan=False), max_size=2 * REMEMBERED))
def test_whatever_was_seen_shares_rise_from_none_to_nearly_all(seen: list[float]) -> None:
    """Ages rise too, from the start to the deadline or beyond."""
    found = learned(*seen).distribution()
    assert np.all(np.diff(found.ages) > 0)
    assert np.all(np.diff(found.done) >= -1e-12)
    assert (found.ages[0], found.done[0]) == (0, 0)
    assert found.ages[-1] >= DEADLINE_SECONDS
    assert 0.9 < found.done[-1] <= 1


def test_before_anything_was_seen_the_expected_latency_stands_in() -> None:
    """With a wide spread, and something everywhere: nobody knows."""
    nothing = learned()
    assert (nothing.count, nothing.mean_seconds) == (0, 16.0)
    assert 0.35 < share_done(nothing, 16) < 0.65
    assert share_done(nothing, 1.7) > 0.03
    assert share_done(nothing, 60) < 0.97


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.45])
def test_what_was_seen_is_what_is_expected(spread: float) -> None:
    """Its mean, and the share of it that is done by some ages."""
    seen = drawn(REMEMBERED, spread=spread)
    latencies = learned(*seen)
    assert latencies.mean_seconds == pytest.approx(np.mean(seen), rel=0.1)
    for age in np.quantile(seen, [0.2, 0.5, 0.8]):
        assert share_done(latencies, age) == pytest.approx(np.mean(np.array(seen) <= age), abs=0.08)


def test_two_modes_stay_two() -> None:
    """Hardly anything is expected to end between them."""
    rng = random.Random(2)  # noqa: S311 - it is a simulation
    seen = [rng.gauss(12, 0.6) if rng.random() < 0.8 else rng.gauss(32, 1.6) for _ in range(200)]
    latencies = learned(*seen)
    assert share_done(latencies, 26) - share_done(latencies, 15) < 0.03
    assert 0.7 < share_done(latencies, 15) < 0.88


@pytest.mark.parametrize("longest", [40.0, 400.0, 5000.0])
def test_one_that_took_much_longer_leaves_no_gap_in_which_no_poll_may_be_put(longest: float) -> None:
    """The next one that takes a little longer than the others is not left alone for as long as that one took."""
    ages = learned(*drawn(100), longest, *drawn(100, seed=2)).distribution().ages
    ages = ages[ages >= 16.0]
    assert max(ages[1:] / ages[:-1]) <= 1.21


@pytest.mark.parametrize("factor", [0.4, 2.0, 5.0])
def test_a_change_is_known_after_some_dozens(factor: float) -> None:
    """What was before is forgotten at once when it no longer fits."""
    after = drawn(2 * COMPARED, mean=16 * factor, seed=3)
    latencies = learned(*drawn(300), *after)
    assert share_done(latencies, float(np.median(after))) == pytest.approx(0.5, abs=0.15)
    assert abs(share_done(latencies, 16) - (factor < 1)) < 0.1


def test_chance_alone_forgets_nothing() -> None:
    """Three thousand of the same kind are seen as one kind: the window stays full."""
    latencies = Latencies(16.0, deadline_seconds=DEADLINE_SECONDS)
    kept = []
    for number, seconds in enumerate(drawn(3000)):
        latencies.add(seconds)
        if number >= REMEMBERED + 100:
            kept.append(len(latencies._seen))
    assert sum(count < REMEMBERED for count in kept) / len(kept) < 0.25
