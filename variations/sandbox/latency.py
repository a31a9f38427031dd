"""How long a request takes: a distribution around the real API's mean, and the workers that it occupies."""

import heapq
import math
import random

from variations.sandbox.settings import SandboxSettings

# Four fifths and one fifth of the requests; the mean of the two modes is the mean that was asked for.
FAST_SHARE = 0.8
FAST_FACTOR = 0.75
SLOW_FACTOR = 2.0


def draw_latency_seconds(settings: SandboxSettings, rng: random.Random) -> float:
    """Draw one latency in seconds of the sandbox's clock, `speed` included."""
    mean = settings.latency_seconds / settings.speed
    if mean == 0:
        return 0.0
    if settings.latency_shape == "bimodal":
        mean *= FAST_FACTOR if rng.random() < FAST_SHARE else SLOW_FACTOR
    if settings.latency_spread == 0:
        return mean
    if settings.latency_shape == "lognormal":
        variance = math.log1p(settings.latency_spread**2)
        return mean * rng.lognormvariate(-variance / 2, math.sqrt(variance))
    # A normal one has a left tail: no request is quicker than a tenth of the mean.
    return max(mean / 10, rng.gauss(mean, mean * settings.latency_spread))


class Workers:
    """Hold the moment at which each worker is free, so that the whole queue is known when a request arrives."""

    def __init__(self, count: int) -> None:
        self._free_at = [0.0] * count

    def occupy(self, now: float, *, seconds: float) -> float:
        """Give the request to the worker that is free first and return when the work starts (epoch seconds)."""
        started_at = max(now, self._free_at[0])
        heapq.heapreplace(self._free_at, started_at + seconds)
        return started_at

    def resize(self, count: int) -> None:
        """Change how many there are; work that was given out keeps its times."""
        busiest = sorted(self._free_at, reverse=True)[:count]
        self._free_at = busiest + [0.0] * (count - len(busiest))
        heapq.heapify(self._free_at)
