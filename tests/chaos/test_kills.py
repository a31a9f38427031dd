"""A process that is killed, at whatever point, costs nothing twice and loses nothing: the judge is the bill."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import pytest

from .conftest import Furnish
from .kills import DEATHS, Outcome, kill_at, labels_without_a_death, name_of

# Much of a death is waiting: for the API, for the history.
AT_ONCE: Final = 4

Outcomes = dict[tuple[str, ...], "Future[Outcome]"]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, furnish: Furnish) -> Iterator[Outcomes]:
    """Let die those that were asked for, some at once."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    asked = [call.params["labels"] for call in calls if call is not None]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {labels: pool.submit(lambda labels=labels: kill_at(furnish(), *labels)) for labels in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("labels", DEATHS, ids=name_of)
def test_a_killed_run_is_finished_by_the_next(labels: tuple[str, ...], outcomes: Outcomes) -> None:
    """Every image is there, with one row and one line on the bill."""
    outcome = outcomes[labels].result()
    assert outcome.died == labels
    assert outcome.verdict.is_complete, outcome.verdict


def test_somebody_dies_at_every_point() -> None:
    """A point that no test uses proves nothing; an intent is taken back only where a run is stopped."""
    assert labels_without_a_death() == {"withdrawn-before", "withdrawn-after"}
