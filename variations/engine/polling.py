"""When to ask how far a request is."""

from dataclasses import dataclass
from typing import Protocol


class PollingSchedule(Protocol):
    """Decides when the next poll of a request is due."""

    @property
    def deadline_seconds(self) -> float:
        """How long after its submission a request is given up as a time-out."""

    def next_poll_seconds(self, age_seconds: float, polls: int) -> float:
        """Return how long to wait before the next poll of a request.

        Args:
            age_seconds: since it was accepted.
            polls: how often it was polled so far.
        """


@dataclass(frozen=True, slots=True)
class FixedInterval:
    """Poll at a set interval."""

    interval_seconds: float
    deadline_seconds: float

    def next_poll_seconds(self, age_seconds: float, polls: int) -> float:
        """Return the interval, or what the deadline leaves of it."""
        del polls
        return min(self.interval_seconds, max(0.0, self.deadline_seconds - age_seconds))
