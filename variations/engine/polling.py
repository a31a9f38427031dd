"""When to ask how far a request is: where waiting for it and asking in vain cost least together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from variations.engine.latencies import Distribution, Floats


class PollingSchedule(Protocol):
    """Decides when the next poll of a request is due."""

    @property
    def deadline_seconds(self) -> float:
        """How long after its submission a request is given up as a time-out."""

    @property
    def most_in_flight(self) -> int:
        """Requests to keep in flight."""

    @property
    def is_guessing(self) -> bool:
        """Whether it may soon know better: what it tells then holds only until it is asked again."""

    @property
    def look_again_seconds(self) -> float:
        """After how long whoever waits for a poll is to ask again, which may be due sooner by then."""

    def next_poll_seconds(self, age_seconds: float) -> float:
        """Return how long to wait before the next poll of a request, which is not done at that age."""

    def completed(self, seconds: float) -> bool:
        """Learn how long a request took; returns whether polls that were set before are likely due sooner now."""

    def limit_in_flight(self, most: int) -> None:
        """Keep no more than so many requests in flight from now on."""

    def count_all(self) -> None:
        """Take it that polls count against the request limit, from now on."""


@dataclass(slots=True)
class FixedInterval:
    """Poll at a set interval."""

    interval_seconds: float
    deadline_seconds: float
    most_in_flight: int
    is_guessing: bool = False
    look_again_seconds: float = math.inf

    def next_poll_seconds(self, age_seconds: float) -> float:
        """Return the interval, or what the deadline leaves of it."""
        return min(self.interval_seconds, max(0.0, self.deadline_seconds - age_seconds))

    def completed(self, seconds: float) -> bool:
        """Learn nothing."""
        del seconds
        return False

    def limit_in_flight(self, most: int) -> None:
        """Keep no more than so many requests in flight from now on."""
        self.most_in_flight = most

    def count_all(self) -> None:
        """Change nothing: the interval is set."""


@dataclass(frozen=True, slots=True)
class PollingPlan:
    """The best polls at one price.

    Attributes:
        ages: at which a request may be polled, rising; the last one is the deadline.
        next_poll: of each age at which a request is not done yet, the index of the age of its next poll.
        polls: that a request takes, on average.
        waiting_seconds: for which a request is done and not known to be, on average.
    """

    ages: Floats
    next_poll: NDArray[np.intp]
    polls: float
    waiting_seconds: float

    def next_poll_age(self, age_seconds: float) -> float:
        """Return the age at which a request is to be polled that is not done at this one; at the end, the deadline."""
        at = int(np.searchsorted(self.ages, age_seconds, side="right")) - 1
        return float(self.ages[self.next_poll[min(max(at, 0), len(self.next_poll) - 1)]])


def plan_polls(latencies: Distribution, prices_seconds: Sequence[float]) -> list[PollingPlan]:
    """Return the best polls for each price of a poll, in seconds of waiting that it is worth.

    Whatever was done before, what is best from an age on depends on that age alone, so it is worked out from the
    deadline back. A poll at age t that follows one at age s, both shares of all requests,

        price * pending(s)  +  (waiting until t of those done between s and t)  +  best from t on

    is least for the best t.
    """
    ages, done, seconds = latencies.ages, latencies.done, latencies.seconds
    prices = np.array(prices_seconds)
    last = len(ages) - 1
    cost = np.zeros((len(prices), last + 1))
    follows = np.full((len(prices), last + 1), last, dtype=np.intp)
    for at in range(last - 1, -1, -1):
        later = slice(at + 1, last + 1)
        waiting = ages[later] * (done[later] - done[at]) - (seconds[later] - seconds[at])
        total = waiting + cost[:, later]
        best = total.argmin(axis=1)
        follows[:, at] = at + 1 + best
        cost[:, at] = prices * (1 - done[at]) + total[np.arange(len(prices)), best]
    return [_plan(latencies, row) for row in follows]


def _plan(latencies: Distribution, next_poll: NDArray[np.intp]) -> PollingPlan:
    """Follow the polls of a request from the start."""
    ages, done, seconds = latencies.ages, latencies.done, latencies.seconds
    polls = waiting = 0.0
    at, last = 0, len(ages) - 1
    while at < last:
        then = int(next_poll[at])
        polls += 1 - done[at]
        waiting += ages[then] * (done[then] - done[at]) - (seconds[then] - seconds[at])
        at = then
    return PollingPlan(ages, next_poll, float(polls), float(waiting))
