"""A run's workers, as the process sees them that planned it: how far they are, who of them lives, and their end."""

import logging
from dataclasses import dataclass, replace
from typing import Final

from variations.engine.engine import Engine
from variations.engine.limits import Limits
from variations.errors import (
    Replaced,
    RunError,
    RunOver,
    RunPaused,
    StoppedByUser,
    StorageError,
    StorageUnavailable,
    of_code,
)
from variations.layout import parts_prefix
from variations.ledger.lock import DatasetLock
from variations.planned import Planned
from variations.recovery import at_once
from variations.shards import close_shard
from variations.storage import Storage
from variations.tally import Tally
from variations.workers.places import Places, Starter
from variations.workers.roster import Roster, Sign

LOOK_SECONDS: Final = 3.0
LEAVING_LOOK_SECONDS: Final = 1.0
# How long after the end of the grace period a worker may take to leave.
LEAVING_SECONDS: Final = 15.0
# Why a worker stops that is its own affair: its machine was taken away, or it was taken for dead. Others go on.
ITS_OWN: Final = frozenset({"stopped_by_user", "replaced", RunOver.code})


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CrewSeen:
    """The workers of a run at one moment.

    Attributes:
        living: labels of those that gave a sign of life of late.
        gone: labels of those that left, or gave none for too long.
        shards_done: shards whose rows are written.
        stopped_by: why one of them stopped that concerns all, if one did.
    """

    living: frozenset[str]
    gone: frozenset[str]
    shards_done: int
    stopped_by: RunError | RunPaused | None


class Crew:
    """The workers of a run.

    Args:
        storage: the dataset.
        planned: the run.
        engine: whose progress tells what all of them did, and which is stopped where the run is to stop.
        lock: by which the workers are told.
        limits: how long what is in flight may take, and has where it is the user who stops the run.
    """

    def __init__(
        self, storage: Storage, planned: Planned, *, engine: Engine, lock: DatasetLock, limits: Limits
    ) -> None:
        self._storage = storage
        self._planned = planned
        self._engine = engine
        self._lock = lock
        self._limits = limits
        self._roster = Roster(storage, planned.plan.run_id, lease_seconds=planned.lease_seconds)
        # What this process did itself, before there were workers: a canary.
        self._own = replace(engine.progress, requests=dict(engine.progress.requests))
        self._seen = CrewSeen(frozenset(), frozenset(), 0, None)

    async def lead(self, starter: Starter, *, workers: int) -> None:
        """Have the shards made by so many workers, and replace those that die; returns once nothing more is to be done.

        A reason that concerns all stops the engine, as it would in one process.
        """
        places = Places(starter, workers=workers, clock=self._engine.clock)
        while True:
            seen = await self._patient_look()
            if seen.stopped_by is not None:
                self._engine.stop(seen.stopped_by)
            shards_left = self._planned.plan.shards - seen.shards_done
            if self._engine.stopped_by is not None or not shards_left:
                break
            try:
                done = seen.shards_done + self._engine.progress.settled
                await places.fill(shards_left=shards_left, living=seen.living, gone=seen.gone, done=done)
            except RunError as error:
                self._engine.stop(error)
            await self._pause()
        await places.withdraw(seen.living | seen.gone)
        await self._let_them_leave()

    async def _pause(self) -> None:
        """Wait until the next look; not where the run is stopped: who cancels it kills it before long."""
        for _ in range(round(LOOK_SECONDS / LEAVING_LOOK_SECONDS)):
            if self._engine.stopped_by is None:
                await self._engine.clock.sleep(LEAVING_LOOK_SECONDS)

    async def _let_them_leave(self) -> None:
        """Wait for the workers to leave, told to where the run was stopped."""
        clock, reason = self._engine.clock, self._engine.stopped_by
        until = clock.monotonic() + self._planned.lease_seconds
        if reason is not None:
            try:
                await self._lock.announce(reason)
            except (Replaced, StorageError) as error:
                logger.warning("the workers could not be told to stop: %s", error)
            # What is in flight elsewhere is finished; a worker that dies meanwhile counts as gone after its lease.
            is_users = isinstance(reason, StoppedByUser)
            finishing = self._limits.grace_seconds if is_users else self._limits.deadline_seconds
            until = clock.monotonic() + finishing + LEAVING_SECONDS
        while (await self._patient_look()).living and clock.monotonic() < until:
            await clock.sleep(LEAVING_LOOK_SECONDS)

    async def _patient_look(self) -> CrewSeen:
        """See how they stand; of a store that is away for a while nothing is known, and nothing is lost by that."""
        try:
            self._seen = await self.look()
        except StorageUnavailable as error:
            logger.warning("it is not known how the workers stand: %s", error)
        except StorageError as error:
            # Nothing can be seen any more, nor told: to wait for them is of no use.
            self._engine.stop(error)
            self._seen = replace(self._seen, living=frozenset())
        return self._seen

    async def look(self) -> CrewSeen:
        """See how they stand, and note it in the progress.

        Raises:
            StorageError: the store says no.
        """
        signs = await self._roster.signs()
        left = await self._roster.has_left()
        living = set(await self._roster.living()) - left
        # The last one may have left since its sign was read, and what it says then is the last word.
        self._count(signs if living else await self._roster.signs(), living)
        reasons = [
            of_code(sign.stopped_by, sign.stopped_because or "")
            for sign in signs
            if sign.stopped_by is not None and sign.stopped_by not in ITS_OWN and sign.writer.token in left
        ]
        return CrewSeen(
            living=frozenset(sign.label for sign in signs if sign.writer.token in living),
            gone=frozenset(sign.label for sign in signs if sign.writer.token not in living),
            shards_done=await self._shards_done(),
            stopped_by=reasons[0] if reasons else None,
        )

    async def close(self, *, writer: str) -> Tally:
        """Make sure that nobody submits anything more, and that every row is written; returns what all came to.

        Raises:
            Replaced: somebody else closes the run at the same time.
            JournalDamaged, StorageError: as they come.
        """
        plan = self._planned.plan
        price_usd = self._engine.budget.price_usd

        async def close(shard: int) -> Tally:
            return await close_shard(
                self._storage, plan.run_id, shard, writer=writer, model=self._planned.model, price_usd=price_usd
            )

        tally = Tally()
        for one in await at_once(close, range(plan.shards)):
            tally.merge(one)
        # What one that was killed did after its last sign of life is known by the journals alone.
        progress = self._engine.progress
        progress.kept, progress.failed, progress.unknown = tally.kept, tally.failed, tally.unknown
        progress.dropped = tally.dropped
        progress.cost_usd = tally.cost_usd + tally.cost_at_risk_usd
        return tally

    def _count(self, signs: list[Sign], living: set[str]) -> None:
        progress = self._engine.progress
        own = self._own
        progress.kept = own.kept + sum(sign.kept for sign in signs)
        progress.failed = own.failed + sum(sign.failed for sign in signs)
        progress.unknown = own.unknown + sum(sign.unknown for sign in signs)
        progress.dropped = own.dropped + sum(sign.dropped for sign in signs)
        progress.rerolled = own.rerolled + sum(sign.rerolled for sign in signs)
        progress.cost_usd = own.cost_usd + sum(sign.cost_usd for sign in signs)
        progress.in_flight = sum(sign.in_flight for sign in signs if sign.writer.token in living)
        progress.refused = own.refused + sum(sign.refused for sign in signs)
        progress.limit_found = max((sign.limit_found for sign in signs if sign.limit_found), default=None)
        progress.all_found_counted = own.all_found_counted or any(sign.all_found_counted for sign in signs)
        kinds = {kind for sign in signs for kind in sign.requests} | own.requests.keys()
        progress.requests = {
            kind: own.requests.get(kind, 0) + sum(sign.requests.get(kind, 0) for sign in signs)
            for kind in sorted(kinds)
        }
        prices = [sign.price_usd for sign in signs if sign.kept and sign.price_usd]
        if prices:
            self._engine.budget.price_usd = max(prices)

    async def _shards_done(self) -> int:
        prefix = f"{parts_prefix(self._planned.plan.run_id)}part-"
        names = {entry.key.removeprefix(prefix).partition("-")[0] async for entry in self._storage.list(prefix)}
        return sum(1 for name in names if name.isascii() and name.isdigit())
