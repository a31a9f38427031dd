"""May it be repeated, and when: the rules as a table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations import errors
from variations.api.retry import (
    CONNECT_ATTEMPTS,
    LONGEST_DELAY_SECONDS,
    SUBMIT_ATTEMPTS,
    backoff_seconds,
    get_delay_seconds,
    limit_seconds,
    submit_delay_seconds,
)

BUSY = errors.ServiceUnavailable("500")
NO_CONNECTION = errors.Unreachable("refused")


@pytest.mark.parametrize(
    ("error", "attempt", "delay"),
    [
        (BUSY, 1, 0.5),
        (BUSY, 2, 1.0),
        (BUSY, 4, 4.0),
        (BUSY, SUBMIT_ATTEMPTS, None),
        (NO_CONNECTION, 1, 0.5),
        (NO_CONNECTION, SUBMIT_ATTEMPTS, 8.0),
        (NO_CONNECTION, CONNECT_ATTEMPTS - 1, LONGEST_DELAY_SECONDS),
        (NO_CONNECTION, CONNECT_ATTEMPTS, None),
        (errors.RateLimited("429", wait_seconds=42.0), 1, 42.0),
        (errors.RateLimited("429", wait_seconds=42.0), 999, 42.0),
        (errors.SubmitUnknown("lost"), 1, None),
        (errors.InvalidRequest("400"), 1, None),
        (errors.InferenceFailed("422"), 1, None),
        (errors.Unauthorized("401"), 1, None),
        (errors.Forbidden("403"), 1, None),
        (errors.ModelUnavailable("410"), 1, None),
        (errors.UnexpectedAnswer("405"), 1, None),
        (errors.InsufficientCredits("406"), 1, None),
        (errors.SpendLimitReached("406"), 1, None),
    ],
)
def test_a_submit_is_repeated_only_where_it_was_not_accepted(
    error: errors.VariationsError, attempt: int, delay: float | None
) -> None:
    """So often, so late, and otherwise never."""
    assert submit_delay_seconds(error, attempt, random=1.0) == delay


@pytest.mark.parametrize(
    ("error", "attempt", "delay"),
    [
        (BUSY, 1, 0.5),
        (BUSY, 500, LONGEST_DELAY_SECONDS),
        (NO_CONNECTION, 500, LONGEST_DELAY_SECONDS),
        (errors.RateLimited("429", wait_seconds=42.0), 1, 42.0),
        (errors.RequestGone("404"), 1, None),
        (errors.Unauthorized("401"), 1, None),
        (errors.UnexpectedAnswer("405"), 1, None),
    ],
)
def test_a_get_is_repeated_without_end(error: errors.VariationsError, attempt: int, delay: float | None) -> None:
    """The caller has a deadline."""
    assert get_delay_seconds(error, attempt, random=1.0) == delay


@pytest.mark.parametrize(
    ("wait_seconds", "expected"), [(None, 1.0), (0.0, 1.0), (0.3, 1.0), (17.5, 17.5), (120.0, 120.0), (86400.0, 1.0)]
)
def test_a_limit_is_believed_within_reason(wait_seconds: float | None, expected: float) -> None:
    """A reset that has passed is not answered at once, one that is days away is not waited for."""
    assert limit_seconds(errors.RateLimited("429", wait_seconds=wait_seconds)) == expected


@settings(deadline=None)
@given(attempt=st.integers(1, 10**6), random=st.floats(0, 1))
def test_a_backoff_stays_within_its_bounds(attempt: int, random: float) -> None:
    """Half of it is fixed, so that it is never nothing; it grows, to the longest delay."""
    delay = backoff_seconds(attempt, random=random)
    assert 0.25 <= delay <= LONGEST_DELAY_SECONDS
    assert backoff_seconds(attempt + 1, random=random) >= delay
