"""What a contestant made, and what of it was waiting."""

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        submitted_at: when its POST left, in epoch seconds.
        done_at: when it was known to be done, and where its file is.
        latency_seconds: what the API says that it took.
    """

    submitted_at: float
    done_at: float
    latency_seconds: float

    @property
    def waited_seconds(self) -> float:
        """For how long it was done and nobody knew; the way of the submit and of the answers is in it."""
        return self.done_at - self.submitted_at - self.latency_seconds


@dataclass(frozen=True, slots=True)
class Made:
    """What a contestant made.

    Attributes:
        images: in the order of their submits.
        cpu_seconds: of its process.
        lost_submits: how many requests were perhaps accepted, and are not known.
    """

    images: Sequence[Image]
    cpu_seconds: float
    lost_submits: int = 0

    def done_by(self, moment: float) -> int:
        """Return how many were done by a moment, in epoch seconds."""
        return sum(image.done_at <= moment for image in self.images)

    @property
    def seconds(self) -> float:
        """From the first submit until the last image is known to be done."""
        return max(image.done_at for image in self.images) - self.images[0].submitted_at

    @property
    def mean_latency_seconds(self) -> float:
        """Mean of what the API says that each took."""
        return statistics.fmean(image.latency_seconds for image in self.images)

    @property
    def mean_waited_seconds(self) -> float:
        """Mean of how long an image was done and nobody knew."""
        return statistics.fmean(image.waited_seconds for image in self.images)

    def ideal_seconds(self, slots: int) -> float:
        """Return how long the same images take, in the same order, where a slot is filled at once when it is free."""
        free_at = [0.0] * slots
        for image in self.images:
            heapq.heapreplace(free_at, free_at[0] + image.latency_seconds)
        return max(free_at)
