"""Several processes on one dataset: one works, the others wait, go, or take over; each image is paid once."""

import pytest

from . import scenarios
from .conftest import Furnish


@pytest.mark.parametrize("count", [2, 4, 8])
def test_twins_pay_once(count: int, furnish: Furnish) -> None:
    """Whoever does not wait is told that the dataset is busy, or finds it done."""
    verdict = scenarios.twins(furnish(), count)
    assert verdict.is_complete, verdict


def test_who_waits_takes_over_from_who_is_killed(furnish: Furnish) -> None:
    """At once on the same machine, where a process that is gone is known to be."""
    verdict = scenarios.heir(furnish())
    assert verdict.is_complete, verdict


def test_sigterm_leaves_to_the_next_what_has_no_time(furnish: Furnish) -> None:
    """It ends by itself, with a receipt that lists what is in flight."""
    verdict = scenarios.told_to_stop(furnish())
    assert verdict.is_complete, verdict


def test_a_sleeper_pays_nothing_after_it_was_replaced(furnish: Furnish) -> None:
    """It finds its journal taken and ends; what it had intended before is found by the other."""
    verdict = scenarios.sleeper(furnish())
    assert verdict.is_complete, verdict
