"""Ask the API: within the plan's limit, and again where that is safe."""

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from variations import errors
from variations.api.retry import get_delay_seconds, submit_delay_seconds
from variations.clock import Clock
from variations.engine.progress import Progress
from variations.engine.rate import Priority, RateLimit

# So many items in a row that came to nothing are an outage, not theirs. Where a tenth of the answers gets lost, eight
# in a row are one chance in a hundred million.
OUTAGE_ITEMS: Final = 8
# After so long in which it took nothing, it is no limit by the minute.
REFUSED_SECONDS: Final = 900.0
# These go where the submits go: what refuses them for the limit is what counts submits.
SAME_LIMIT: Final = frozenset({"poll", "status", "result"})
# These are services of their own, on other hosts: what they refuse says nothing of the limit of the submits.
OTHER_LIMITS: Final = ("history", "upload")

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def _nothing() -> None:
    pass


class Calls:
    """Send what the client offers; every call passes here, is counted, and waits its turn.

    Args:
        rate: the plan's limit.
        count_all: whether every call counts against it, or submits alone; where the API shows that this is wrong, every
            one is counted from then on.
        found_counted: called where it does.
        progress: counters of calls, moved here.
        clock, random: time, and numbers from 0 to 1.
        stop: called where nothing more is to be sent, though this call's own error is another.
    """

    def __init__(
        self,
        rate: RateLimit,
        *,
        count_all: bool,
        progress: Progress,
        clock: Clock,
        random: Callable[[], float],
        stop: Callable[[errors.ServiceDown], None],
        found_counted: Callable[[], None],
    ) -> None:
        self._rate = rate
        self._other_rates = {kind: RateLimit(0, clock=clock) for kind in OTHER_LIMITS}
        self._count_all = count_all
        self._found_counted = found_counted
        self._found_counted_at = -math.inf
        self._progress = progress
        self._clock = clock
        self._random = random
        self._stop = stop
        self._items_refused_in_a_row: Counter[str] = Counter()
        self._taken_at = clock.monotonic()

    def close_to_new(self) -> None:
        """Turn away every `send`, those that wait for their turn too."""
        for rate in (self._rate, *self._other_rates.values()):
            rate.close_to_new()

    async def send(
        self, kind: str, post: Callable[[], Awaitable[T]], *, prepare: Callable[[], Awaitable[None]] = _nothing
    ) -> T:
        """Send a POST, and again only where it is certain that it was not accepted.

        Args:
            kind: of the call.
            post: sends it.
            prepare: awaited when its turn has come, each time right before it is sent; what it raises is raised.

        Raises:
            ServiceDown: no connection can be made, many items in a row were refused by a failing API, or each one for
                the request limit for a quarter of an hour.
        """
        attempt = 1
        refused_since: float | None = None
        while True:
            sent_at = await self._prepared(kind, prepare)
            self._count(kind)
            try:
                answer = await post()
            except errors.Repeatable as error:
                delay = submit_delay_seconds(error, attempt, random=self._random())
                if delay is None:
                    down = self._outage(kind, error)
                    if down is not None:
                        raise down from error
                    raise
                if isinstance(error, errors.RateLimited):
                    self._refused(kind, sent_at, delay)
                    # Not since its turn came: writing its intent down may have taken long.
                    refused_since = refused_since or self._clock.monotonic()
                    self._check_that_any_is_taken(refused_since, error)
                else:
                    attempt += 1
                    await self._rate.sleep_before_new(delay)
            except errors.InvalidRequest:
                # An answer to this item, and a sign that the API is there.
                self._items_refused_in_a_row[kind] = 0
                raise
            except errors.SubmitUnknown as error:
                # This item stays unknown. A gateway that loses every answer must not make the whole manifest so.
                down = self._outage(kind, error)
                if down is not None:
                    self._stop(down)
                raise
            else:
                self._items_refused_in_a_row[kind] = 0
                self._taken_at = self._clock.monotonic()
                return answer

    async def _prepared(self, kind: str, prepare: Callable[[], Awaitable[None]]) -> float:
        """Wait for a turn and prepare; returns when the turn came, by the clock."""
        while True:
            turn_at = await self._take(kind, Priority.NEW)
            await prepare()
            # If that took long, a refusal may have come meanwhile: this one would be refused, too.
            if not self._rate.give_back(turn_at):
                return turn_at

    def _check_that_any_is_taken(self, refused_since: float, error: errors.RateLimited) -> None:
        if self._clock.monotonic() - max(refused_since, self._taken_at) > REFUSED_SECONDS:
            raise errors.ServiceDown(
                f"the API has refused every request for {REFUSED_SECONDS / 60:.0f} minutes ({error.message}); "
                "see what the plan of the key allows, and run the same command again"
            ) from error

    def _outage(self, kind: str, error: errors.VariationsError) -> errors.ServiceDown | None:
        self._items_refused_in_a_row[kind] += 1
        if not isinstance(error, errors.Unreachable) and self._items_refused_in_a_row[kind] < OUTAGE_ITEMS:
            return None
        return errors.ServiceDown(f"the API does not take requests ({error.message}); run the same command again later")

    async def get(self, kind: str, get: Callable[[], Awaitable[T]], *, seconds: float, only_refused: bool = False) -> T:
        """Ask, and ask again for so many seconds, or `only_refused` by the limit: a GET is always safe to repeat."""
        give_up_at = self._clock.monotonic() + seconds
        attempt = 1
        while True:
            sent_at = await self._take(kind, Priority.PAID)
            self._count(kind)
            try:
                answer = await get()
            except errors.Repeatable as error:
                is_refused = isinstance(error, errors.RateLimited)
                delay = get_delay_seconds(error, attempt, random=self._random())
                if delay is not None and is_refused:
                    self._refused(kind, sent_at, delay)
                if delay is None or self._clock.monotonic() + delay > give_up_at or (only_refused and not is_refused):
                    raise
                if not is_refused:
                    attempt += 1
                    await self._clock.sleep(delay)
            else:
                self._taken_at = self._clock.monotonic()
                return answer

    def _refused(self, kind: str, sent_at: float, reset_seconds: float) -> None:
        self._progress.refused += 1
        if kind in self._other_rates:
            self._other_rates[kind].refuse(sent_at=sent_at, reset_seconds=reset_seconds)
            return
        if not self._count_all and kind in SAME_LIMIT:
            self.count_all()
            logger.warning(
                "requests_counted is submit, but the API refused a %s for the request limit, so it counts more than "
                "submits: every request is counted for the rest of the run. Set requests_counted to all",
                kind,
            )
        if sent_at <= self._found_counted_at:
            # What the API took until then was not all counted, so it tells no limit.
            self._rate.pause(reset_seconds)
        else:
            self._rate.refuse(sent_at=sent_at, reset_seconds=reset_seconds)

    def count_all(self) -> None:
        """Count every call from now on: the API does, as it showed to this process or to another one."""
        if self._count_all:
            return
        self._count_all = self._progress.all_found_counted = True
        self._found_counted_at = self._clock.monotonic()
        self._rate.begin_again()
        self._found_counted()

    async def _take(self, kind: str, priority: Priority) -> float:
        """Wait for a turn; returns when it came, by the clock."""
        if kind in self._other_rates:
            await self._other_rates[kind].take(priority)
        if not self._count_all and kind != "submit":
            await self._rate.unpaused(priority)
        # That it is counted may have been found while it waited for a reset: then it has its turn like the others.
        if self._count_all or kind == "submit":
            await self._rate.take(priority)
        return self._clock.monotonic()

    def _count(self, kind: str) -> None:
        requests = self._progress.requests
        requests[kind] = requests.get(kind, 0) + 1
        self._progress.limit_found = self._rate.found or self._progress.limit_found
