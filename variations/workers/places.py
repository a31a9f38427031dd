"""So many workers at once: each that ends before the run does is replaced, but not for ever."""

import logging
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from variations.errors import RunError

# Beyond one for each: where so many end in a row and nothing was done meanwhile, it is no accident.
MOST_IN_VAIN: Final = 2
NO_SIGN: Final = "it gave no sign of life any more"

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
    """

    def __init__(self, starter: Starter, *, workers: int) -> None:
        self._starter = starter
        self._workers = workers
        self._started: set[str] = set()
        self._over: dict[str, str] = {}
        self._done = 0
        self._in_vain = 0

    async def fill(self, *, shards_left: int, gone: Collection[str], done: int) -> None:
        """Start as many as are wanted, and are not there; one that was just started counts, wherever it waits.

        Args:
            shards_left: to be made; more workers than that would have nothing to do.
            gone: labels of those that gave no sign of life for too long, or have left.
            done: what all of them have done so far, by whatever measure.

        Raises:
            RunError: none can be started, or they end one after another.
        """
        if done != self._done:
            self._done, self._in_vain = done, 0
        ended = await self._starter.ended(self._started - self._over.keys())
        self._over = {**dict.fromkeys(self._started & set(gone), NO_SIGN), **self._over, **ended}
        while len(self._started) - len(self._over) < min(self._workers, shards_left):
            if len(self._started) >= self._workers:
                self._replace()
            self._started.add(await self._starter.start())

    async def withdraw(self, joined: Collection[str]) -> None:
        """Call those off that have not joined the run: there is nothing to do for them any more."""
        await self._starter.withdraw(self._started - self._over.keys() - set(joined))

    def _replace(self) -> None:
        last = list(self._over.values())[-1]
        self._in_vain += 1
        if self._in_vain > self._workers + MOST_IN_VAIN:
            raise RunError(f"workers end one after another; the last one: {last}")
        logger.warning("A worker is gone (%s): another one is started", last)
