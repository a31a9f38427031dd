"""About how long a run takes, by what is known before it starts."""

import math
from dataclasses import dataclass

from variations.clock import SystemClock
from variations.engine.latencies import Latencies
from variations.engine.limits import Limits
from variations.engine.rate import RateLimit
from variations.engine.schedule import OTHER_REQUESTS, LearnedSchedule


@dataclass(frozen=True, slots=True)
class Forecast:
    """About how long a run takes, and how many requests it keeps in flight."""

    seconds: float
    in_flight: int


def forecast(limits: Limits, *, requests: int, uploads: int = 0) -> Forecast:
    """Forecast a run by whichever binds: the request limit, as far as it is told, or the slots.

    Args:
        limits: how hard it goes.
        requests: to be submitted.
        uploads: calls besides.
    """
    rate = RateLimit(
        limits.requests_per_minute,
        clock=SystemClock(),
        first_requests_per_minute=limits.first_requests_per_minute,
    )
    expected = limits.expected_latency_seconds
    learned = LearnedSchedule(Latencies(expected, deadline_seconds=limits.deadline_seconds), rate=rate, limits=limits)
    a_minute, in_flight = learned.images_a_minute, learned.most_in_flight
    if limits.poll_interval_seconds:
        polls = math.ceil(expected / limits.poll_interval_seconds)
        calls = polls + OTHER_REQUESTS if limits.count_all_requests else 1
        in_flight = limits.most_in_flight
        a_minute = min(rate.requests_per_minute / calls, 60 * in_flight / max(expected, 1e-9))
    if not requests:
        return Forecast(0.0, in_flight)
    besides = uploads * 60 / rate.requests_per_minute if limits.count_all_requests else 0.0
    return Forecast(requests * 60 / a_minute + besides + expected, in_flight)
