"""May it be repeated, and when: pure functions of the error and the attempt.

A submit and a GET differ in what their errors are, not in these rules: the client raises `Repeatable` for a submit only
where the answer proves that it was not accepted. An `ItemUnknown`, the lost answer to a submit, is never repeated.
"""

from typing import Final

from variations.errors import RateLimited, Repeatable, Unreachable, VariationsError

SUBMIT_ATTEMPTS: Final = 5
# Eight make about a minute, in which a network comes back that was only restarted.
CONNECT_ATTEMPTS: Final = 8
FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0
# A reset that is further away than this is not believed: the vendor's limits are per minute.
LONGEST_LIMIT_SECONDS: Final = 120.0
# Nor one that has passed already. Then it is waited for a little: a 429 is not answered at once with the next request.
SHORTEST_LIMIT_SECONDS: Final = 1.0


def submit_delay_seconds(error: VariationsError, attempt: int, *, random: float) -> float | None:
    """Return how long to wait before a submit is sent again, or None if it is not.

    A 429 is repeated for as long as it takes, a connection that cannot be made `CONNECT_ATTEMPTS` times; anything else
    `SUBMIT_ATTEMPTS` times in all, because a 500 on a submit may be a value that the API chokes on.

    Args:
        error: what the submit raised.
        attempt: how often it has been sent, counted from 1; a 429 does not count.
        random: from 0 to 1, so that many items do not come back in step.
    """
    if isinstance(error, RateLimited):
        return limit_seconds(error)
    attempts = CONNECT_ATTEMPTS if isinstance(error, Unreachable) else SUBMIT_ATTEMPTS
    if isinstance(error, Repeatable) and attempt < attempts:
        return backoff_seconds(attempt, random=random)
    return None


def get_delay_seconds(error: VariationsError, attempt: int, *, random: float) -> float | None:
    """Return how long to wait before a GET is sent again, or None if it is not; a deadline is the caller's."""
    if isinstance(error, RateLimited):
        return limit_seconds(error)
    return backoff_seconds(attempt, random=random) if isinstance(error, Repeatable) else None


def limit_seconds(error: RateLimited) -> float:
    """Return how long a 429 asks to wait; a second where it does not say, or nothing that can be believed."""
    told = error.wait_seconds or 0.0
    return max(SHORTEST_LIMIT_SECONDS, told) if told <= LONGEST_LIMIT_SECONDS else SHORTEST_LIMIT_SECONDS


def backoff_seconds(attempt: int, *, random: float) -> float:
    """Return an exponential delay with jitter: half of it fixed, half of it drawn."""
    delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 16))
    return delay * (0.5 + random / 2)
