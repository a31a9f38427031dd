"""How long requests take: learned from those that are done."""

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# So many are remembered, and after so many more one weighs half.
REMEMBERED: Final = 320
HALF_LIFE: Final = 96
# What is known before anything was seen: guesses that stand in for so many, around what is expected and anywhere.
GUESSES: Final = 16
WILD_GUESSES: Final = 8
GUESSED_SPREAD: Final = 0.3
# The newest ones that are compared with all: the share of the others that each one exceeds is even where nothing has
# changed. Its mean, and its mean distance from the middle, then stray no further, but once in some thousands.
COMPARED: Final = 16
MEAN_STRAYS: Final = 4 * math.sqrt(1 / 12 / COMPARED)
DISTANCE_STRAYS: Final = 4 * math.sqrt(1 / 48 / COMPARED)
# Some take longer than any that was seen; how much, nobody knows.
LEAST_TAIL: Final = 0.01
# Ages at which a poll may be put: at quantiles of those seen, a few past the longest of them, and on to the deadline;
# and where slow ones are so few that the quantiles leave a gap, in it.
QUANTILES: Final = 128
FRINGE: Final = 8
TAIL_STEP: Final = 1.08
GAP_STEP: Final = 1.2
LEAST_SECONDS: Final = 1e-3
LEAST_WIDTH: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Distribution:
    """Latencies at a few dozen ages, where polls may be put.

    Attributes:
        ages: seconds since a request was accepted, rising from 0 to the deadline.
        done: share of the requests that are done by each age.
        seconds: the sum of the latencies of those, as a share of all requests.
    """

    ages: Floats
    done: Floats
    seconds: Floats


class Latencies:
    """The latencies seen last.

    They weigh less as newer ones come, and are forgotten at once when those differ: a service that slows down, or
    turns bimodal, is known anew after `COMPARED` of them.

    Args:
        expected_seconds: before any was seen.
        deadline_seconds: longer than which nothing is waited for.
    """

    def __init__(self, expected_seconds: float, *, deadline_seconds: float) -> None:
        self._expected_seconds = expected_seconds
        self._deadline_seconds = deadline_seconds
        self._seen: deque[float] = deque(_guesses(expected_seconds), maxlen=REMEMBERED)
        self._ranks: deque[float] = deque(maxlen=COMPARED)
        self._compared_with: Distribution | None = None
        self.count = 0

    def add(self, seconds: float) -> bool:
        """Learn how long one request took; returns whether it showed that they take less than was known."""
        self.count += 1
        if self._compared_with is None or self.count % COMPARED == 0:
            self._compared_with = self.distribution()
        known = self._compared_with
        self._seen.append(seconds)
        self._ranks.append(float(np.interp(seconds, known.ages, known.done)))
        if len(self._ranks) < COMPARED or not self._differ():
            return False
        are_faster = sum(self._ranks) / COMPARED < 0.5 - MEAN_STRAYS / 2
        newest = list(self._seen)[-COMPARED:]
        self._seen.clear()
        self._seen.extend(newest)
        self._ranks.clear()
        self._compared_with = None
        return are_faster

    def _differ(self) -> bool:
        ranks = np.array(self._ranks)
        distance = float(np.abs(ranks - 0.5).mean())
        return abs(float(ranks.mean()) - 0.5) > MEAN_STRAYS or abs(distance - 0.25) > DISTANCE_STRAYS

    @property
    def mean_seconds(self) -> float:
        """Mean latency; what is expected, before any was seen."""
        if not self.count:
            return self._expected_seconds
        return float(np.average(np.array(self._seen), weights=self._weights()))

    def _weights(self) -> Floats:
        weights: Floats = 0.5 ** (np.arange(len(self._seen))[::-1] / HALF_LIFE)
        weights /= weights.sum()
        return weights

    def distribution(self) -> Distribution:
        """Return what is known now: the latencies seen, each smeared a little, and a long tail of what was not seen."""
        seen = np.maximum(np.array(self._seen), LEAST_SECONDS)
        order = np.argsort(seen)
        weights = self._weights()[order]
        seen = seen[order]
        shares = np.cumsum(weights) - weights / 2
        width = _kernel_width(np.log(seen), weights, shares)
        shortest, middle, longest = seen[0] * math.exp(-3 * width), np.interp(0.5, shares, seen), seen[-1]
        fringe = longest * math.exp(3 * width)
        deadline = max(self._deadline_seconds, fringe * TAIL_STEP)
        steps = math.ceil(math.log(deadline / fringe) / math.log(TAIL_STEP))
        body = np.interp(np.linspace(0.0, 1.0, QUANTILES), shares, seen)
        beyond = np.geomspace(fringe, deadline, steps + 1)
        gaps = _filled(body[body >= middle])
        ages = np.unique(np.concatenate([[0.0, shortest], body, gaps, np.linspace(longest, fringe, FRINGE), beyond]))
        distances = np.log(np.maximum(ages, LEAST_SECONDS / 2)[:, None] / seen) / width
        # The logistic curve, which is the normal one's close neighbour.
        smeared = (weights / (1 + np.exp(-1.702 * np.clip(distances, -30, 30)))).sum(axis=1)
        tail = max(LEAST_TAIL, 1.0 / (len(seen) + 2))
        done = (1 - tail) * smeared + tail * (1 - middle / np.maximum(ages, middle))
        done[0] = 0.0
        seconds = np.concatenate([[0.0], np.cumsum(np.diff(done) * (ages[1:] + ages[:-1]) / 2)])
        return Distribution(ages, done, seconds)


def _filled(ages: Floats) -> Floats:
    """Return ages between those of these that are further apart than `GAP_STEP`, which is an outlier's doing."""
    found: list[float] = []
    for below, above in pairwise(map(float, ages)):
        if above > GAP_STEP * below:
            steps = math.ceil(math.log(above / below) / math.log(GAP_STEP))
            found += [below * (above / below) ** (step / steps) for step in range(1, steps)]
    return np.array(found)


def _kernel_width(logs: Floats, weights: Floats, shares: Floats) -> float:
    """Return by how much each latency is smeared, as a share of itself: Silverman's rule of thumb.

    It goes by the quartiles where they lie closer than the deviation: of two modes each keeps its own width.
    """
    deviation = math.sqrt(float(np.sum(weights * (logs - np.sum(weights * logs)) ** 2)))
    lower, upper = np.interp([0.25, 0.75], shares, logs)
    count = 1 / float(np.sum(weights**2))
    return max(0.9 * min(deviation, float(upper - lower) / 1.34) / math.pow(count, 0.2), LEAST_WIDTH)


def _guesses(expected_seconds: float) -> list[float]:
    """Return latencies around the expected one, and some from a twentieth to four times of it."""
    deviation = math.sqrt(math.log1p(GUESSED_SPREAD**2))
    near = NormalDist(math.log(max(expected_seconds, LEAST_SECONDS)) - deviation**2 / 2, deviation)
    guesses = [math.exp(near.inv_cdf((n + 0.5) / GUESSES)) for n in range(GUESSES)]
    wild = np.geomspace(expected_seconds / 20, expected_seconds * 4, WILD_GUESSES)
    return [*map(float, wild), *guesses]
