"""One of the machines that work on a run: it takes shards until none is left to anybody."""

import asyncio
import logging
import math
import random as random_module
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Final

from variations import errors
from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.clock import Clock, SystemClock
from variations.engine.budget import Granted
from variations.engine.engine import Engine
from variations.engine.limits import Limits
from variations.engine.progress import Progress
from variations.engine.source_looks import looks_of
from variations.estimate import read_signed
from variations.layout import parts_prefix
from variations.ledger.journal import read_last
from variations.ledger.lock import look
from variations.ledger.records import Ended
from variations.ledger.writer import Writer
from variations.making import ShardMaker
from variations.planned import Planned, read_planned
from variations.recovery import shards_begun
from variations.storage import Storage, open_storage
from variations.tally import Tally
from variations.workers.roster import Roster, Sign
from variations.workers.shared_budget import SharedBudget

# Beats in a lease, and the seconds between two of them at the most: so late it learns that the run is to stop.
_BEATS: Final = 4
_MOST_BEAT_SECONDS: Final = 5.0
# Of the grace period, what remains for a worker that is told to stop by the process that planned: that was told before.
GRACE_SHARE: Final = 0.5
# So long a part of the shards is kept for workers that are to come: what it takes a process or a container to begin.
COMING_SECONDS: Final = 60.0
# Between two looks at whether more may be taken.
SHARE_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class WorkerRun:
    """A worker's part in a run. `join`, then `make` each shard that `take` brings, then `leave`.

    Args:
        planned: the run.
        storage: its dataset.
        engine: does it.
        budget: this worker's part of what the run may cost; None where that is not limited.
        writer: this worker.
        clock: time.
        signed: public URI → URI, of the sources whose URI carries a signature.
        label: what its scheduler calls it.
    """

    def __init__(
        self,
        planned: Planned,
        *,
        storage: Storage,
        engine: Engine,
        budget: SharedBudget | None,
        writer: Writer,
        clock: Clock,
        signed: dict[str, str],
        label: str = "",
    ) -> None:
        self.job = planned.job()
        self.plan = planned.plan
        self.run_id = planned.plan.run_id
        self.engine = engine
        self._storage = storage
        self._budget = budget
        self._writer = writer
        self._clock = clock
        self._label = label
        self._roster = Roster(storage, self.run_id, lease_seconds=planned.lease_seconds)
        self._maker = ShardMaker(
            storage,
            engine=engine,
            writer=writer,
            run_id=self.run_id,
            model=planned.model,
            signed=signed,
            is_shared=True,
        )
        self._beat_seconds = min(_MOST_BEAT_SECONDS, planned.lease_seconds / _BEATS)
        self._beats = 0
        self._beating: asyncio.Task[None] | None = None
        # Each begins at another shard, so that few claim the same one.
        first = int(writer.token[:8], 16) % max(1, self.plan.shards)
        self._untaken: deque[int] = deque([*range(first, self.plan.shards), *range(first)])
        self._ended: set[int] = set()
        self._writers: dict[int, str] = {}
        self._is_told = False
        self._parent: str | None = None
        self._wanted = planned.workers
        self._coming_until = clock.monotonic() + COMING_SECONDS
        self._has_learned = False
        self.workers = 1

    @property
    def failed_by(self) -> errors.RunError | errors.RunPaused | None:
        """Why this worker alone could not go on; None where it did, or where the whole run was to stop."""
        return None if self._is_told else self.engine.stopped_by

    async def check(self) -> float | None:
        """Check the key; returns the balance in USD if the API tells it.

        Raises:
            Unauthorized, Forbidden: the key is refused.
            Unreachable: there is no API at the given address.
        """
        return await self.engine.check_key()

    async def join(self) -> None:
        """Give the first sign of life, and go on giving them.

        Raises:
            RunOver: the run is closed, or the one that planned it is gone.
            StorageError: the store says no.
        """
        self.engine.progress.total = self.plan.images
        await self._check_is_open()
        if self.engine.stopped_by is not None:
            raise self.engine.stopped_by
        await self._roster.sign(self._sign())
        await self._divide()
        self._beating = asyncio.create_task(self._beat())

    async def take(self) -> int | None:
        """Take a shard that nobody has, or whose worker is gone; None once none is left, or nothing more is to be done.

        With its part of the shards in hand this waits: the rest is for the others. It waits, too, while others are at
        work: what one of them leaves behind, should it die, is for the rest to make. A store that says no stops the
        engine.
        """
        while self.engine.stopped_by is None:
            if self._has_its_share():
                await self._clock.sleep(SHARE_SECONDS)
                continue
            try:
                shard = await self._take_untaken()
                if shard is None:
                    shard = await self._take_abandoned()
                if shard is not None:
                    return shard
                if not any(self._is_with_others(number) for number in range(self.plan.shards)):
                    return None
                if self._budget is not None:
                    await self._budget.give_back()
            except errors.StorageUnavailable as error:
                logger.warning("no shard could be taken: %s", error)
            except errors.StorageError as error:
                self.engine.stop(error)
            await self._clock.sleep(self._beat_seconds)
        return None

    async def make(self, shard: int) -> Tally:
        """Make the variations of a shard that was taken, and write its rows."""
        tally = await self._maker.make(shard)
        if self.engine.stopped_by is None:
            self._ended.add(shard)
        return tally

    async def leave(self) -> Tally:
        """Leave the run in order; returns what this worker's shards came to.

        What could not be written is left to the others, or to who closes the run.
        """
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
            self._beating = None
            try:
                if self._budget is not None:
                    await self._budget.give_back()
                await self._roster.leave(self._sign())
            except errors.RunError as error:
                logger.warning("it could not be written down that this worker leaves: %s", error)
        return self._maker.tally()

    def _has_its_share(self) -> bool:
        """Return whether the shards that are left are for others to take.

        One worker could have all of a small run in flight before the next one has begun, and that one would find
        nothing to do. So as many are counted as are to come, for as long as that takes; from then on those that are
        there, and nobody leaves a slot empty for them.
        """
        are_coming = self._clock.monotonic() < self._coming_until
        workers = max(self.workers, self._wanted if are_coming else 1)
        share = math.ceil((self.plan.shards - len(self._ended)) / workers)
        # Nothing to share is nothing to wait for.
        if not share or self._maker.in_hand < share:
            return False
        return self.workers < workers or self._maker.has_waiting

    def _is_with_others(self, shard: int) -> bool:
        return shard not in self._ended and shard not in self._maker

    async def _take_untaken(self) -> int | None:
        while self._untaken and self.engine.stopped_by is None:
            shard = self._untaken.popleft()
            if await self._maker.claim(shard):
                return shard
            begun = set(await shards_begun(self._storage, self.run_id))
            self._untaken = deque(number for number in self._untaken if number not in begun)
        return None

    async def _take_abandoned(self) -> int | None:
        """Take a shard that is not done, and whose writer gives no sign of life."""
        await self._find_ended()
        living = set(await self._roster.living())
        for shard in filter(self._is_with_others, range(self.plan.shards)):
            if self._writers.get(shard) in living:
                continue
            last = await read_last(self._storage, self.run_id, shard)
            if last is None:
                continue
            if last.records and isinstance(last.records[-1], Ended):
                self._ended.add(shard)
                continue
            writer = self._writers[shard] = last.header.writer.partition(".")[0]
            if writer in living:
                continue
            # Who closes the run is not among the living, either; what it has in hand is not to be taken from it.
            await self._check_is_open()
            if self.engine.stopped_by is not None:
                return None
            logger.warning("shard %d was left by a worker that is gone, and is taken over", shard)
            if await self._maker.take_over(shard, last.header.writer):
                return shard
            self._writers.pop(shard)
        return None

    async def _find_ended(self) -> None:
        """Note the shards whose rows are written: they are done with, or as good as that."""
        prefix = f"{parts_prefix(self.run_id)}part-"
        async for entry in self._storage.list(prefix):
            name = entry.key.removeprefix(prefix).partition("-")[0]
            if name.isascii() and name.isdigit():
                self._ended.add(int(name))

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(self._beat_seconds)
            try:
                async with asyncio.timeout(_BEATS * self._beat_seconds):
                    await self._roster.sign(self._sign())
                    await self._divide()
                    await self._check_is_open()
                    await self._find_ended()
                    if not self._has_learned:
                        await self._learn()
            except Exception as error:  # noqa: BLE001 - what keeps two apart is the journals: a beat may be lost
                logger.warning("no sign of life could be written: %s", str(error) or type(error).__name__)

    async def _divide(self) -> None:
        """Take this worker's part of what the account allows."""
        living = sorted({*await self._roster.living(), self._writer.token})
        if len(living) < self.workers:
            # Another one is started in the place of one that is gone.
            self._coming_until = self._clock.monotonic() + COMING_SECONDS
        self.workers = len(living)
        self.engine.divide(workers=len(living), rank=living.index(self._writer.token))

    async def _learn(self) -> None:
        """Begin where the others are: who comes late, or in the place of another, need not find the limit again.

        That is after the first beat, when the others have made room for this one; they are heard once.
        """
        signs = await self._roster.signs_of_living()
        self._has_learned = True
        found = [sign.limit_found for sign in signs if sign.limit_found]
        self.engine.learn(
            limit=median(found) if found else None, all_counted=any(sign.all_found_counted for sign in signs)
        )

    async def _check_is_open(self) -> None:
        """Stop where the run is over, or is to stop."""
        seen = await look(self._storage)
        run = seen.run if seen is not None else None
        token = run.writer.token if run is not None and run.writer is not None else None
        reason: errors.RunError | errors.RunPaused | None = None
        if seen is None or run is None or run.run_id != self.run_id or run.state == "closed":
            reason = errors.RunOver(f"the run {self.run_id} is over")
        elif run.stopped_by is not None:
            reason = errors.of_code(run.stopped_by, run.stopped_because or "")
        elif not seen.is_at_work or (self._parent or token) != token:
            # Another one that has the dataset in hand closes the run: what it takes is not to be taken from it.
            reason = errors.RunOver(f"the process that planned the run {self.run_id} is gone")
        self._parent = self._parent or token
        if reason is not None and self.engine.stopped_by is None:
            self._is_told = True
            # The process that planned waits for this one, and has the same time until it is killed.
            self.engine.stop(reason, grace_share=GRACE_SHARE)

    def _sign(self) -> Sign:
        progress, reason = self.engine.progress, self.engine.stopped_by
        self._beats += 1
        return Sign(
            writer=self._writer,
            label=self._label,
            beat=self._beats,
            kept=progress.kept,
            failed=progress.failed,
            unknown=progress.unknown,
            dropped=progress.dropped,
            rerolled=progress.rerolled,
            in_flight=progress.in_flight,
            cost_usd=progress.cost_usd,
            price_usd=self.engine.budget.price_usd,
            requests=dict(progress.requests),
            refused=progress.refused,
            limit_found=progress.limit_found,
            all_found_counted=progress.all_found_counted,
            stopped_by=reason.code if reason else None,
            stopped_because=reason.message if reason else None,
        )


@asynccontextmanager
async def open_worker(
    destination: str,
    run_id: str,
    *,
    endpoint: Endpoint,
    limits: Limits,
    progress: Progress | None = None,
    clock: Clock | None = None,
    label: str = "",
) -> AsyncIterator[WorkerRun]:
    """Open what a worker needs for a run that is planned, and close it afterwards.

    Args:
        destination: the dataset.
        run_id: of the run.
        endpoint: the API and its key.
        limits: how hard to go, where the run does not say so itself.
        progress: counters to be moved.
        clock: time.
        label: what its scheduler calls it.

    Raises:
        BadInput: the destination is no URI, or no such run is planned there.
        RunOver: the run was closed before it had planned anything.
        StorageError: the store says no.
    """
    storage = open_storage(destination)
    try:
        planned = await _planned(storage, run_id)
        limits = planned.limits(limits)
        signed = await read_signed(planned.job()) if planned.signed_sources else {}
        async with default_http_client(max_connections=limits.most_connections) as http:
            client = Client(http, endpoint=endpoint, model=planned.model)
            async with working(
                planned,
                storage=storage,
                client=client,
                limits=limits,
                clock=clock or SystemClock(),
                progress=progress,
                signed=signed,
                label=label,
            ) as worker:
                yield worker
    finally:
        await storage.aclose()


@asynccontextmanager
async def working(
    planned: Planned,
    *,
    storage: Storage,
    client: Client,
    limits: Limits,
    clock: Clock,
    progress: Progress | None = None,
    signed: dict[str, str] | None = None,
    label: str = "",
    random: Callable[[], float] = random_module.random,
    writer: Writer | None = None,
) -> AsyncIterator[WorkerRun]:
    """Put a worker together of parts that are open already; it leaves the run at the end."""
    writer = writer or Writer.this_process(since=clock.now())
    roster = Roster(storage, planned.plan.run_id, lease_seconds=planned.lease_seconds)
    budget = None
    if limits.max_cost_usd:
        budget = SharedBudget(
            storage,
            run_id=planned.plan.run_id,
            worker=writer.token,
            max_cost_usd=limits.max_cost_usd,
            clock=clock,
            living=roster.living,
            keep=lambda: engine.budget.keep_what_is_committed(),  # noqa: PLW0108 - the engine is made of it
            random=random,
        )

    async def more(needed_usd: float) -> Granted:
        assert budget is not None  # noqa: S101 - it is asked for only where there is one
        granted = await budget.more(needed_usd, price_usd=engine.budget.price_usd)
        return granted if engine.stopped_by is None else granted._replace(may_grow=False)

    gate = planned.job().recipe.gate
    looks = looks_of(gate, client.http, most_in_flight=limits.most_in_flight)
    engine = Engine(
        client,
        storage=storage,
        limits=limits,
        progress=progress,
        clock=clock,
        random=random,
        more_budget=more if budget is not None else None,
        gate=gate,
        looks=looks,
    )
    worker = WorkerRun(
        planned,
        storage=storage,
        engine=engine,
        budget=budget,
        writer=writer,
        clock=clock,
        signed=signed or {},
        label=label,
    )
    try:
        yield worker
    finally:
        if looks is not None:
            await looks.aclose()
        await worker.leave()


async def _planned(storage: Storage, run_id: str) -> Planned:
    try:
        planned = await read_planned(storage, run_id)
    except errors.ObjectNotFound:
        raise errors.BadInput(f"no run {run_id!r} is planned at {storage.uri}") from None
    if planned is None:
        raise errors.RunOver(f"the run {run_id} was closed before it had planned anything")
    if not planned.lease_seconds:
        raise errors.BadInput(f"the run {run_id} was planned by an older version: it has no place for workers")
    return planned
