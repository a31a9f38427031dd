"""So many workers at once: each that ends before the run does is replaced, but not for ever."""

import logging
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from variations.clock import Clock
from variations.errors import RunError

# Beyond one for each: where so many end in a row and nothing was done meanwhile, it is no accident.
MOST_IN_VAIN: Final = 2
NO_SIGN: Final = "it gave no sign of life any more"
# Between the end of one that never began to work and the next: at first, doubled each time, and at the most.
FIRST_WAIT_SECONDS: Final = 5.0
MOST_WAIT_SECONDS: Final = 300.0
# So long none may have begun: a work pool may be busy, or make its machines first.
PATIENCE_SECONDS: Final = 1800.0

logger = logging.getLogger(__name__)


class Starter(Protocol):
    """Starts workers, on whatever machines there are; a worker's label is its name for it."""

    async def start(self) -> str:
        """Start one more worker; returns its label.

        Raises:
            RunError: none can be started.
        """

    async def ended(self, labels: Collection[str]) -> Mapping[str, str]:
        """Return those of the workers that run no more, each with what is known of why."""

    async def withdraw(self, labels: Collection[str]) -> None:
        """See to it that those of the workers that have not begun yet never do."""


class Places:
    """The workers that were started for a run.

    Args:
        starter: starts them.
        workers: how many are wanted at once, at the most.
        clock: time.
    """

    def __init__(self, starter: Starter, *, workers: int, clock: Clock) -> None:
        self._starter = starter
        self._workers = workers
        self._clock = clock
        self._began = clock.monotonic()
        self._started: set[str] = set()
        self._over: dict[str, str] = {}
        self._refused = 0
        self._done = 0
        self._in_vain = 0
        self._never_joined = 0
        self._not_before = 0.0

    async def fill(self, *, shards_left: int, living: Collection[str], gone: Collection[str], done: int) -> None:
        """Start as many as are wanted, and are not there; one that was just started counts, wherever it waits.

        Args:
            shards_left: to be made; more workers than that would have nothing to do.
            living: labels of those that gave a sign of life of late.
            gone: labels of those that gave none for too long, or have left.
            done: what all of them have done so far, by whatever measure.

        Raises:
            RunError: none can be started, they end one after another, or none has begun for long.
        """
        if done != self._done:
            self._done, self._in_vain = done, 0
        ended = await self._starter.ended(self._started - self._over.keys())
        self._note_over({**dict.fromkeys(sorted(self._there & set(gone)), NO_SIGN), **ended}, joined={*living, *gone})
        while len(self._there) < min(self._workers, shards_left) and self._may_start():
            if not await self._start():
                break
        if not (living or gone) and self._clock.monotonic() - self._began > PATIENCE_SECONDS:
            raise RunError(
                f"no worker has begun within {PATIENCE_SECONDS / 60:g} minutes: has the work pool a free place? "
                "The same command goes on"
            )

    async def withdraw(self, joined: Collection[str]) -> None:
        """Call those off that have not joined the run: there is nothing to do for them any more."""
        await self._starter.withdraw(self._there - set(joined))

    @property
    def _there(self) -> set[str]:
        return self._started - self._over.keys()

    def _note_over(self, over: Mapping[str, str], *, joined: Collection[str]) -> None:
        self._over.update(over)
        # One that never gave a sign has a machine on which it cannot work. The next one may get the same machine, which
        # is free again, while the others go on.
        in_vain = len(over.keys() - set(joined))
        if in_vain:
            self._never_joined += in_vain
            wait_seconds = min(MOST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self._never_joined)
            self._not_before = self._clock.monotonic() + wait_seconds

    def _may_start(self) -> bool:
        if self._never_joined <= self._workers + MOST_IN_VAIN:
            return not self._there or self._clock.monotonic() >= self._not_before
        if not self._there:
            raise self._one_after_another()
        return False

    async def _start(self) -> bool:
        is_replacement = len(self._started) >= self._workers
        if is_replacement and self._in_vain >= self._workers + MOST_IN_VAIN:
            raise self._one_after_another()
        try:
            self._started.add(await self._starter.start())
        except RunError as error:
            self._refused += 1
            if not self._there and self._refused > MOST_IN_VAIN:
                raise
            logger.warning("%s; it is tried again", error)
            return False
        self._refused = 0
        if is_replacement:
            self._in_vain += 1
            # They are replaced in the order in which they were found to be over.
            gone = list(self._over.values())[len(self._started) - self._workers - 1]
            logger.warning("A worker is gone (%s): another one was started", gone)
        return True

    @property
    def _last(self) -> str:
        return list(self._over.values())[-1]

    def _one_after_another(self) -> RunError:
        return RunError(f"workers end one after another; the last one: {self._last}")
