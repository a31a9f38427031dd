"""The API forgets a result an hour after the submit: a run that is killed is finished before and after that."""

import pytest

from . import scenarios
from .scene import Scene, Store, running_api
from .workers import Workers


@pytest.mark.parametrize("die_at", ["accepted-after:4", "post-unanswered:3"])
@pytest.mark.parametrize("minutes", [59, 61])
def test_what_is_in_flight_is_fetched_an_hour_later(
    minutes: int, die_at: str, chaos_store: Store, chaos_workers: Workers
) -> None:
    """By its id or, where that was lost, by its inputs; from the API itself or by the history."""
    # Its own: a clock that was moved on goes wrong for whoever comes next.
    with running_api() as api:
        verdict = scenarios.hours_later(
            Scene(chaos_store, api, chaos_workers, images=6), minutes=minutes, die_at=die_at
        )
    assert verdict.is_complete, verdict
