"""The learned schedule: when to poll, and how many to keep in flight, by what is the bottleneck at the moment.

What a poll is worth in seconds of waiting depends on what is scarce. With R requests a minute and S slots, requests of
p polls that take l seconds and are noticed w seconds late come to

    min(R / (1 + p),  60 * S / (l + w))

images a minute: fewer polls help the one, less waiting the other.
"""

import math
from dataclasses import replace
from typing import Final

from variations.engine.latencies import Latencies
from variations.engine.limits import Limits
from variations.engine.polling import FixedInterval, PollingPlan, PollingSchedule, plan_polls
from variations.engine.rate import RateLimit

# Prices of a poll, as shares of the mean latency: where requests are for nothing, where they are not, and dearer ones.
FREE: Final = 1 / 200
FAIR: Final = 1 / 90
DEARER: Final = (1 / 50, 1 / 25, 1 / 12, 1 / 6, 1 / 3, 2 / 3)
# Among prices that bring nearly as much, the one that waits least.
NEARLY: Final = 0.99
# Its submit, besides the polls: the last of them brings its outputs.
OTHER_REQUESTS: Final = 1
# So many completions make a new plan worth the work of making it.
RENEWED_AFTER: Final = 16
GUESSING: Final = 32
# Who waits for a poll looks again after so long while it only guesses, and after so many times the mean latency later:
# a poll that was put that far off was put there for requests that may come no more.
LOOK_AGAIN_SECONDS: Final = 1.0
LOOK_AGAIN_MEANS: Final = 1.5
# Slots beyond what the limit can feed cost nothing, and what is submitted late for want of one is lost.
HEADROOM: Final = 2.0
SPARE_SLOTS: Final = 4


def schedule_of(limits: Limits, *, rate: RateLimit) -> PollingSchedule:
    """Return the schedule that the limits ask for: learned, where they set no interval."""
    if limits.poll_interval_seconds:
        return FixedInterval(limits.poll_interval_seconds, limits.deadline_seconds, limits.most_in_flight)
    latencies = Latencies(limits.expected_latency_seconds, deadline_seconds=limits.deadline_seconds)
    return LearnedSchedule(latencies, rate=rate, limits=limits)


class LearnedSchedule:
    """Poll when it costs least, by the completions seen so far.

    Args:
        latencies: how long requests take.
        rate: the request limit, as far as it is known.
        limits: which calls count, how many may be in flight, and when a request is given up.
    """

    def __init__(self, latencies: Latencies, *, rate: RateLimit, limits: Limits) -> None:
        self.deadline_seconds = limits.deadline_seconds
        self._latencies = latencies
        self._rate = rate
        self._limits = limits
        self._renew_at = 0
        self._mean_seconds = 0.0
        self._plans: list[PollingPlan] = []

    def completed(self, seconds: float) -> bool:
        """Learn how long a request took; returns whether polls that were set before are likely due sooner now."""
        are_faster = self._latencies.add(seconds)
        if are_faster:
            self._renew_at = 0
        return are_faster

    def next_poll_seconds(self, age_seconds: float) -> float:
        """Return how long to wait before the next poll of a request, which is not done at that age."""
        age = self._plan().next_poll_age(age_seconds)
        return max(0.0, min(age, self.deadline_seconds) - age_seconds)

    @property
    def is_guessing(self) -> bool:
        """Whether too little was seen to rely on it."""
        return self._latencies.count < GUESSING

    @property
    def look_again_seconds(self) -> float:
        """After how long whoever waits for a poll is to ask again, which may be due sooner by then."""
        return (
            LOOK_AGAIN_SECONDS if self.is_guessing else max(LOOK_AGAIN_SECONDS, LOOK_AGAIN_MEANS * self._mean_seconds)
        )

    @property
    def most_in_flight(self) -> int:
        """Requests to keep in flight, by Little's law: what the limit lets through, times how long each one takes."""
        most = self._limits.most_in_flight
        if self._limits.max_in_flight:
            return most
        plan = self._where_requests_are_scarce()
        seconds = self._mean_seconds + plan.waiting_seconds
        return min(most, math.ceil(HEADROOM * self._images_a_minute(plan) / 60 * seconds) + SPARE_SLOTS)

    def limit_in_flight(self, most: int) -> None:
        """Keep no more than so many requests in flight from now on."""
        self._limits = replace(self._limits, max_in_flight=most)

    def count_all(self) -> None:
        """Take it that polls count against the request limit, from now on."""
        self._limits = replace(self._limits, count_all_requests=True)

    @property
    def images_a_minute(self) -> float:
        """What the limits let through, as far as they are known."""
        return self._images_a_minute(self._where_requests_are_scarce())

    def _plan(self) -> PollingPlan:
        self._renew()
        if not self._limits.count_all_requests or math.isinf(self._rate.requests_per_minute):
            return self._plans[0]
        if self.is_guessing or not self._rate.is_scarce:
            return self._plans[1]
        return self._where_requests_are_scarce()

    def _where_requests_are_scarce(self) -> PollingPlan:
        self._renew()
        plans = self._plans[1:]
        best = max(map(self._images_a_minute, plans))
        return next(plan for plan in plans if self._images_a_minute(plan) >= NEARLY * best)

    def _images_a_minute(self, plan: PollingPlan) -> float:
        """Return what both limits let through with a plan."""
        requests = OTHER_REQUESTS + plan.polls if self._limits.count_all_requests else 1.0
        seconds = self._mean_seconds + plan.waiting_seconds
        return min(self._rate.requests_per_minute / requests, 60 * self._limits.most_in_flight / max(seconds, 1e-9))

    def _renew(self) -> None:
        seen = self._latencies.count
        if self._plans and seen < self._renew_at:
            return
        self._renew_at = seen + min(RENEWED_AFTER, max(1, seen // 4))
        self._mean_seconds = self._latencies.mean_seconds
        prices = [share * self._mean_seconds for share in (FREE, FAIR, *DEARER)]
        self._plans = plan_polls(self._latencies.distribution(), prices)
