"""How fast requests may leave: as fast as the plan's limit allows, which is found by what the API refuses."""

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from variations.clock import Clock

# The vendor counts by the minute.
WINDOW_SECONDS: Final = 60.0
# While nothing was refused yet the pace doubles in the first, and on the way back to a limit in the second.
FIRST_DOUBLING_SECONDS: Final = 15.0
DOUBLING_SECONDS: Final = 60.0
# Far below the vendor's smallest plan, of which others may use their part; and its usual one.
LEAST_PACE: Final = 1.0
USUAL_PACE: Final = 60.0
# What was found is not used to the last request, so that a window that begins a little early has room for it.
MARGIN: Final = 0.97
# At the limit that was found the pace goes on rising, by a hundredth in so many requests and no sooner than in so many
# seconds: a refusal costs one request in some hundreds, and a limit that was raised is not missed.
TRYING_REQUESTS: Final = 100
TRYING_SECONDS: Final = 15.0
# And the longer nothing was refused, the faster: twice as fast after each of these, or so many requests.
TRYING_DOUBLES_SECONDS: Final = 180.0
TRYING_DOUBLES_REQUESTS: Final = 40
# So far above what was refused, it was another limit.
GONE: Final = 1.15
# Of a few requests a minute one more or less is taken, depending on when the minute began: within that one it is known
# only that the pace was too high, by about so much.
A_LITTLE_LOWER: Final = 0.9
# Two refusals agree on a limit where they differ by less. One alone that is further below what is known may be a short
# spell of something else.
AGREEING: Final = 0.8
# Who is refused again so soon after a pause was told no reset that holds: the pauses double, up to the longest.
AGAIN_SECONDS: Final = 10.0
LONGEST_AGAIN_SECONDS: Final = 15.0
# Where the first request after a pause was refused too, the next one goes ahead of the others by so much.
AHEAD_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the limit, in requests a minute, to this process.

    Attributes:
        pace: to go at.
        limit: that was found; None before.
        doubt: what the API took the last time it refused, where that was much less than the limit found or told.
    """

    pace: float
    limit: float | None = None
    doubt: float | None = None

    def times(self, factor: float) -> "_Known":
        """Return the same for another share."""
        return _Known(
            self.pace * factor,
            self.limit and self.limit * factor,
            self.doubt and self.doubt * factor,
        )


class Pace:
    """Find the fastest pace at which the API refuses next to nothing.

    A refusal lowers it to what the API took in the minute before, once for all that were refused together; from there
    it rises again: slowly near that limit, and faster the longer nothing is refused.

    Args:
        requests_per_minute: never faster than this; 0 for as fast as the API takes it.
        clock: time.
        first_requests_per_minute: what to begin with where none is told; 0 for as fast as the API takes it.
    """

    def __init__(self, requests_per_minute: float, *, clock: Clock, first_requests_per_minute: float = 0.0) -> None:
        self._most = requests_per_minute or math.inf
        self._first = _Known(requests_per_minute or first_requests_per_minute or math.inf)
        self._known = self._first
        # As it was before the last refusals, which are judged together.
        self._before = self._known
        self._workers = 1
        self._clock = clock
        self._refused_at = self._lowered_at = self._resumes_at = self._divided_at = -math.inf
        self._is_early = False
        self._passed: deque[float] = deque()
        self._refused: list[float] = []
        self._taken = self._taken_since = 0.0
        self._again_seconds = 0.0
        self._one_goes_ahead = False
        # What another worker found; told on, it would seem to be found by many.
        self._is_hearsay = False

    @property
    def requests_per_minute(self) -> float:
        """The pace at the moment; infinite where no limit is known."""
        return self._known.pace

    @property
    def found(self) -> float | None:
        """The limit in requests a minute, of all workers, that the API showed to this one; None if it never refused.

        Where it took more since than it seemed to allow, for a minute in which it refused nothing and as many shared
        it, that is it.
        """
        if self._known.limit is None or self._is_hearsay:
            return None
        now = self._clock.monotonic()
        self._forget_passed(now)
        is_quiet = now - max(self._refused_at, self._divided_at) >= WINDOW_SECONDS
        return self._workers * max(self._known.limit, len(self._passed) if is_quiet else 0.0)

    @property
    def refused_at(self) -> float:
        """When the last burst of refusals began, by the clock."""
        return self._refused_at

    def divide(self, workers: int) -> None:
        """Go on at this process's share of the limit, which so many share from now on; what was learned is kept."""
        if workers == self._workers:
            return
        change = self._workers / workers
        self._workers = workers
        self._divided_at = self._clock.monotonic()
        self._most *= change
        self._known = self._known.times(change)
        self._before = self._before.times(change)
        self._taken *= change
        self._taken_since *= change

    def learn(self, limit: float) -> None:
        """Go on at this process's share of a limit that another one found, unless this one found it itself.

        Args:
            limit: in requests a minute, of all workers together.
        """
        share = limit / self._workers
        if self._known.limit is None and share < self._most:
            self._known = self._before = _Known(MARGIN * share, share)
            # As if the refusals that showed it had been this one's: more is tried as slowly.
            self._refused_at = self._clock.monotonic()
            self._is_hearsay = True

    def begin_again(self) -> None:
        """Forget what was found of the limit."""
        self._known = self._before = self._first.times(1 / self._workers)

    def passed(self, *, more_wait: bool) -> float:
        """Note that a request leaves; returns the seconds until the next one may, and goes faster where more wait."""
        now = self._clock.monotonic()
        self._passed.append(now)
        self._forget_passed(now)
        interval = WINDOW_SECONDS / self._known.pace
        if more_wait:
            pace = min(self._most, self._known.pace * self._growth(interval))
            self._known = replace(self._known, pace=pace)
        if self._one_goes_ahead:
            self._one_goes_ahead = False
            return max(interval, AHEAD_SECONDS)
        return interval

    def refused(self, *, sent_at: float, reset_seconds: float) -> float:
        """Learn that the API refused a request, and go slower; returns for how many seconds nothing is to leave.

        Args:
            sent_at: when the request left, by the clock; those that left before the last refusal are of one burst.
            reset_seconds: from now on until the API takes requests again.
        """
        now = self._clock.monotonic()
        self._is_hearsay = False
        self._refused.append(sent_at)
        if sent_at > self._refused_at:
            self._begin_burst(now, reset_seconds)
        else:
            # It was counted as taken, like all that was under way.
            self._taken -= 1
            self._taken_since -= 1
        self._one_goes_ahead = self._taken_since <= 0
        # Where nothing was taken since the last refusal this is the same spell, of which nothing is known but that.
        self._known = self._before if self._one_goes_ahead else self._lowered()
        if self._known != self._before:
            self._lowered_at = now
        pause = max(reset_seconds, self._again_seconds)
        self._resumes_at = max(self._resumes_at, now + pause)
        return pause

    def _begin_burst(self, now: float, reset_seconds: float) -> None:
        is_again = now < self._resumes_at + AGAIN_SECONDS
        self._again_seconds = min(max(1.0, 2 * self._again_seconds), LONGEST_AGAIN_SECONDS) if is_again else 0.0
        minute_ago = now - WINDOW_SECONDS
        self._refused = [at for at in self._refused if at > minute_ago]
        self._taken = self._taken_from(minute_ago + reset_seconds)
        if self._taken < self._known.pace / 4:
            # So few that the reset is hardly when this minute ends.
            self._taken = self._taken_from(minute_ago)
        self._taken_since = self._taken_from(self._refused_at)
        self._before = self._known
        # What left before the pace was lowered still counts.
        self._is_early = now - self._lowered_at < WINDOW_SECONDS
        self._refused_at = now

    def _taken_from(self, moment: float) -> int:
        return sum(at > moment for at in self._passed) - sum(at > moment for at in self._refused)

    def _lowered(self) -> _Known:
        """Return what is known now, by what was known before and what was taken."""
        pace, limit, taken = self._before.pace, self._before.limit, self._taken
        least = max(LEAST_PACE / self._workers, USUAL_PACE / self._workers if math.isinf(pace) else pace / 4)
        if self._is_early and taken >= pace - 1:
            return self._before
        if math.isfinite(pace):
            taken = min(max(taken, A_LITTLE_LOWER * pace), taken + 1)
        if taken < least:
            # Somebody else asks with the same key, or the API is not well: too little to tell a limit by.
            return replace(self._before, pace=min(pace, least))
        # No more than was asked for; the pace may be below a limit that is known already, by its margin.
        found = min(taken, max(pace, limit or 0.0))
        lower = min(pace, MARGIN * found)
        expected, doubt = limit or self._most, self._before.doubt
        is_likely = math.isinf(expected) or found >= AGREEING * expected
        if is_likely or (doubt and AGREEING <= found / doubt <= 1 / AGREEING):
            return _Known(lower, found)
        return _Known(lower, limit, found)

    def _growth(self, interval: float) -> float:
        """Return by how much the pace may rise with one request, which has the time until the next one for itself."""
        pace, limit = self._known.pace, self._known.limit
        if math.isinf(pace):
            return 1.0
        never_refused = math.isinf(self._refused_at)
        fast = float(2.0 ** (interval / (FIRST_DOUBLING_SECONDS if never_refused else DOUBLING_SECONDS)))
        if limit is None or not MARGIN * limit <= pace <= GONE * limit:
            return fast
        doubling = max(TRYING_DOUBLES_SECONDS, TRYING_DOUBLES_REQUESTS * interval)
        faster = math.exp2(min(20.0, (self._clock.monotonic() - self._refused_at) / doubling))
        return min(fast, 1.0 + 0.01 * faster * min(1 / TRYING_REQUESTS, interval / TRYING_SECONDS))

    def _forget_passed(self, now: float) -> None:
        while self._passed and self._passed[0] <= now - WINDOW_SECONDS:
            self._passed.popleft()
