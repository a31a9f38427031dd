"""A run's budget, shared by its workers: each spends what it was granted, and asks for more before it needs it.

What all were granted together never exceeds the budget, for the one object that says so is replaced only by who read it
last. The pieces shrink with what is left: a worker that joins late finds some, and one that dies holds little back. One
that has nothing to do, or too little for an image, gives back what it does not need and says so; the budget is used up
once all that live have said so.
"""

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import TypeAdapter

from variations.clock import Clock
from variations.engine.budget import NO_MONEY_USD, Granted
from variations.errors import PreconditionFailed, StorageUnavailable, StoreUnsafe
from variations.layout import budget_key
from variations.storage import Storage

# A piece is this part of what is left for each worker, and so many images where that leaves as many to the others.
PARTS: Final = 16
LEAST_IMAGES: Final = 8
# After it was told that nothing is left, a worker asks again no sooner: others may have given something back.
AGAIN_SECONDS: Final = 2.0
# Of a hundred workers that ask at once, as at the start of a run, one has its way at a time.
_MOST_REFUSED: Final = 500
_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Shares:
    """What each worker was granted in all, in USD, and who has given back what it did not need."""

    granted: dict[str, float] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()


_SHARES: Final = TypeAdapter(Shares)


async def open_budget(storage: Storage, run_id: str, *, granted: Mapping[str, float] | None = None) -> None:
    """Begin with what was spent before there were workers; done once, by who plans the run.

    Args:
        storage: the dataset.
        run_id: of the run.
        granted: by the token of who spent it, in USD.
    """
    shares = Shares({token: usd for token, usd in (granted or {}).items() if usd})
    await storage.put_if_absent(budget_key(run_id), _SHARES.dump_json(shares), content_type="application/json")


class SharedBudget:
    """One worker's part of a run's budget.

    Args:
        storage: the dataset.
        run_id: of the run.
        worker: the token of this worker.
        max_cost_usd: what the run may cost at most.
        clock: time.
        living: returns the tokens of the workers that live.
        keep: returns what this worker needs of what it was granted, in USD, and from then on spends no more than that
            before it has asked again.
        random: numbers from 0 to 1, so that those that ask at once do not come back in step.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        run_id: str,
        worker: str,
        max_cost_usd: float,
        clock: Clock,
        living: Callable[[], Awaitable[Collection[str]]],
        keep: Callable[[], float],
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._storage = storage
        self._key = budget_key(run_id)
        self._worker = worker
        self._max_cost_usd = max_cost_usd
        self._clock = clock
        self._living = living
        self._keep = keep
        self._random = random
        self._granted_usd = 0.0
        self._has_given_back = False
        self._asking = asyncio.Lock()

    async def more(self, needed_usd: float, *, price_usd: float = 0.0) -> Granted:
        """Return what this worker may spend in all; at least what is needed, if so much is left.

        Where it is not, and another worker may yet give something back, this takes a moment.

        Args:
            needed_usd: in all.
            price_usd: of an image.

        Raises:
            StorageError: the store says no; nothing was granted.
        """
        async with self._asking:
            if needed_usd <= self._granted_usd and not self._has_given_back:
                return Granted(self._granted_usd)
            others = set(await self._living()) - {self._worker}

            def ask(free_usd: float, before_usd: float) -> float | None:
                least = needed_usd - before_usd
                if least > free_usd + NO_MONEY_USD:
                    return None
                fair = free_usd / (len(others) + 1)
                piece = max(least, min(LEAST_IMAGES * price_usd, fair), fair / PARTS)
                return before_usd + min(piece, free_usd)

            shares = await self._change(ask)
            if not self._has_given_back:
                return Granted(self._granted_usd)
            if others <= set(shares.waiting):
                return Granted(self._granted_usd, may_grow=False)
        await self._clock.sleep(AGAIN_SECONDS)
        return Granted(self._granted_usd)

    async def give_back(self) -> None:
        """Keep what is spent or at risk, and leave the rest to the others, until more is asked for.

        Raises:
            StorageError: the store says no.
        """
        async with self._asking:
            if not self._has_given_back or self._granted_usd > self._keep() + NO_MONEY_USD:
                await self._change(lambda *_: None)

    async def _change(self, ask: Callable[[float, float], float | None]) -> Shares:
        """Change this worker's share; where nothing can be asked for, what it does not need is given back."""
        for refused in range(1, _MOST_REFUSED + 1):
            entry = await self._storage.head(self._key)
            if entry is None:
                raise StoreUnsafe(f"{self._storage.uri_of(self._key)}: the run's budget is gone")
            shares = _SHARES.validate_json(await self._storage.get(self._key))
            before = shares.granted.get(self._worker, 0.0)
            asked = ask(max(0.0, self._max_cost_usd - sum(shares.granted.values())), before)
            granted = min(before, self._keep()) if asked is None else asked
            others_wait = tuple(one for one in shares.waiting if one != self._worker)
            changed = replace(
                shares,
                granted={**shares.granted, self._worker: granted},
                waiting=(*others_wait, self._worker) if asked is None else others_wait,
            )
            if changed != shares:
                content = _SHARES.dump_json(changed)
                try:
                    await self._storage.replace(self._key, content, etag=entry.etag, content_type="application/json")
                except PreconditionFailed:
                    # Another worker was first, or this very write took effect and its answer was lost.
                    pause = min(_LONGEST_PAUSE_SECONDS, refused * _PAUSE_SECONDS)
                    await self._clock.sleep(self._random() * pause)
                    continue
            self._granted_usd, self._has_given_back = granted, asked is None
            return changed
        raise StorageUnavailable(
            f"{self._storage.uri_of(self._key)}: others replaced it {_MOST_REFUSED} times in a row"
        )
