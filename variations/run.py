"""A run over a dataset, step by step: check, recover, plan, make each shard, publish. Its scheduler calls them."""

import asyncio
import logging
import random as random_module
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.canary import Canary, read_canary
from variations.canary_choice import Chosen, Said, choose, read_waiting, write_chosen, write_said
from variations.clock import Clock, SystemClock
from variations.dataset import METADATA_KEY, new_run_id, parquet_bytes
from variations.engine.budget import NO_MONEY_USD
from variations.engine.engine import Engine
from variations.engine.limits import Limits
from variations.engine.progress import Progress
from variations.engine.source_looks import looks_of
from variations.errors import BudgetReached, InsufficientCredits, NoDataset, Replaced, RunError, StorageError
from variations.estimate import read_manifest
from variations.job import Job
from variations.known import Known
from variations.layout import OPEN_KEY, part_key, plan_key, plan_shard_key, receipt_key
from variations.ledger.lock import LEASE_SECONDS, DatasetLock
from variations.ledger.probe import check_conditional_writes
from variations.ledger.writer import Writer
from variations.making import ShardMaker
from variations.plan import Plan, check_leaks
from variations.planned import planned_bytes, read_planned
from variations.planning.plan_shards import Spool, cut
from variations.publish import publish, read_known
from variations.receipt import Receipt, RunStopped
from variations.recovery import Settler, close_run
from variations.source_hashes import SourceHashes
from variations.storage import Storage, open_storage
from variations.tally import Recovery, Tally, UnknownItem
from variations.texts import started
from variations.workers.crew import Crew
from variations.workers.shared_budget import open_budget

# After so long the balance is asked for again.
BALANCE_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


class Run:
    """One execution of a job. Its steps are called in order, `make` once for each shard, several at a time.

    Args:
        job: what to do.
        storage: the destination.
        engine: does it.
        limits: how hard to go.
        clock: time.
        lock: the right to work on the destination.
        writer: this process.
    """

    def __init__(
        self,
        job: Job,
        *,
        storage: Storage,
        engine: Engine,
        limits: Limits,
        clock: Clock,
        writer: Writer,
        lock: DatasetLock,
    ) -> None:
        self.job = job
        self.engine = engine
        self._storage = storage
        self._limits = limits
        self._clock = clock
        self._writer = writer
        self._lock = lock
        self._started = clock.now()
        self._started_at = clock.monotonic()
        self._balance_usd: float | None = None
        self._known: Known | None = None
        self._recovery = Recovery()
        self._held: list[UnknownItem] = []
        self._resubmit: set[bytes] = set()
        self._plan: Plan | None = None
        self._maker: ShardMaker | None = None
        self._next_shard = 0
        self._open_shards = 0
        self._canary_ids: tuple[str, ...] = ()
        self._canary: Canary | None = None
        self._said: Said | None = None
        self._crew: Crew | None = None
        self._crew_tally: Tally | None = None
        # Of the metadata, as it was read or written last; None where there is none.
        self._rows: int | None = None
        # Whether this run has anything to add to it.
        self._has_rows = False
        # Whether there is nothing that the next run would have to do for the run that is open.
        self._is_finished = True
        # Known once the store was asked for the time: runs are told apart, and ordered, by their ids.
        self.run_id = ""

    async def check(self) -> float | None:
        """Check what can be checked before anything is paid: the key. Returns the balance in USD if the API tells it.

        Raises:
            Unauthorized, Forbidden: the key is refused.
            Unreachable: there is no API at the given address.
        """
        self._balance_usd = await self.engine.check_key()
        return self._balance_usd

    async def recover(self, *, wait: bool = False) -> Recovery:
        """Take the dataset in hand, close what an earlier run left open, and look for what it paid for.

        Submits nothing. From here on no other run works on the dataset, until this one is closed.

        Args:
            wait: whether to wait while another run works on it; where nothing new is to be made, only until it is known
                whether that lives.

        Raises:
            StoreUnsafe: the store cannot keep two runs apart.
            DatasetBusy: another run works on it, and `wait` was not asked for, or it lives (`LookedAfter`).
            StorageError: the store says no.
        """
        self.engine.progress.step = "looking after earlier runs"
        began = self._clock.monotonic()
        await self._check_there_is_a_dataset()
        await check_conditional_writes(self._storage)
        self.run_id = new_run_id(await self._storage.now(), random=self._writer.token[:6])
        # What is open is looked after by whoever works on the dataset: a recovery waits for the dead alone.
        waits_for_living = self.job.source is not None
        unfinished = await self._lock.acquire(
            self.run_id, wait=wait, waits_for_living=waits_for_living, check=self._check_stopped
        )
        touched: set[str] = set()
        if unfinished is not None:
            self._is_finished = False
            await close_run(self._storage, unfinished, writer=self._writer.token, price_usd=self._limits.price_usd)
            touched.add(unfinished)
        known = await read_known(self._storage, runs=touched)
        settler = Settler(self._storage, engine=self.engine, writer=self._writer.token, limits=self._limits)
        self._recovery = await settler.settle(known)
        self._recovery.closed_run = unfinished
        touched |= settler.touched
        if touched:
            known = Known()
            await publish(self._storage, touched, known=known)
        self._known = known
        self._rows = known.rows
        self._held = [
            UnknownItem(key.hex(), before.run_id, request_id=before.request_id) for key, before in known.held.items()
        ]
        if self.job.recipe.resubmit_after_seconds is not None:
            wanted = self.job.recipe.resubmit_after_seconds
            self._resubmit = {key for key, seconds in settler.not_found.items() if seconds >= wanted}
        self._check_stopped()
        if self._clock.monotonic() - began > BALANCE_SECONDS:
            # It waited, perhaps for hours, for a run that was paid from the same account, and that is the older one.
            self._balance_usd = await self.engine.check_key()
            self.run_id = new_run_id(await self._storage.now(), random=self._writer.token[:6])
        await self._lock.begin(self.run_id)
        self._is_finished = True
        return self._recovery

    async def _check_there_is_a_dataset(self) -> None:
        if self.job.source is None and not (
            await self._storage.exists(OPEN_KEY) or await self._storage.exists(METADATA_KEY)
        ):
            raise NoDataset(f"no dataset at {self._storage.uri}: no run has ever written there")

    async def plan(self, *, workers: int = 0) -> Plan:
        """Read the manifest, leave out what the dataset has, and write the rest to the destination, shard by shard.

        Args:
            workers: machines that are to take the shards; 0 where this process does.

        Raises:
            ManifestError: the manifest is missing, empty or unusable.
            LeakFound: sources leak from one split into another, and must not; nothing is paid.
            BudgetReached, InsufficientCredits: it would cost more than it may, or than there is; nothing is paid.
            StorageError: the destination cannot be written.
        """
        if self._known is None or self.job.source is None:
            raise RuntimeError("a run recovers what earlier ones left open before it plans, and has a source")
        self.engine.progress.step = "planning"
        with tempfile.TemporaryDirectory() as folder:
            spool = Spool(Path(folder), source=self.job.source, run_id=self.run_id, model=self.job.recipe.model)
            planner, plan = await read_manifest(
                self.job,
                known=self._known,
                limits=self._limits,
                run_id=self.run_id,
                spool=spool,
                hashes=SourceHashes(self._storage, is_kept=True),
                resubmit=self._resubmit,
                check=self._check_stopped,
                on_look=self._tell_looked,
            )
            check_leaks(plan, self.job.leaks)
            self._check_money(plan)
            chosen = Chosen()
            if plan.canary:
                waiting = await read_waiting(self._storage, plan.source)
                chosen = await asyncio.to_thread(
                    choose, spool.variations, self.job.recipe.canary, first=filter(planner.is_wanted, waiting)
                )
                plan = plan.with_canary(len(chosen.ids), new=len(chosen.rows))
                await write_chosen(self._storage, self.run_id, chosen)
            shards = cut(spool.variations, plan.shard_size, first=chosen.rows)
            number = 0
            while (content := await asyncio.to_thread(_next_shard, shards)) is not None:
                await self._storage.put(plan_shard_key(self.run_id, number), content)
                number += 1
                self._check_stopped()
            if planner.counts.rejected:
                await self._storage.put(part_key(self.run_id, "rejected"), spool.rejected)
        self._is_finished = False
        # The last one: a plan that lies there is whole. And only once: a run that was closed meanwhile has one already.
        content = planned_bytes(
            plan,
            self.job,
            limits=self._limits,
            lease_seconds=self._lock.lease_seconds,
            workers=workers,
            signed_sources=len(planner.signed),
        )
        key = plan_key(self.run_id)
        if await self._storage.put_if_absent(key, content) is None and await self._storage.get(key) != content:
            raise Replaced(f"{self._storage.uri_of(key)}: this run was closed by another one")
        self._maker = ShardMaker(
            self._storage,
            engine=self.engine,
            writer=self._writer,
            run_id=self.run_id,
            model=self.job.recipe.model,
            signed=planner.signed,
        )
        self._has_rows = plan.new > 0 or plan.rejected > 0
        # A million ids, which nothing asks for any more.
        self._known = None
        self._plan, self._canary_ids = plan, chosen.ids
        self._open_shards = plan.canary_shards if plan.canary else plan.shards
        self.engine.progress.total = plan.images
        return plan

    def _tell_looked(self, done: int, of: int) -> None:
        self.engine.progress.step = f"looking at sources {done:,} of {of:,}"

    def _check_stopped(self) -> None:
        if self.engine.stopped_by is not None:
            raise self.engine.stopped_by

    def _check_money(self, plan: Plan) -> None:
        limit, balance = self._limits.max_cost_usd, self._balance_usd
        cost = f"{plan.images:,} images at {self._limits.price_usd:g} USD are {plan.cost_usd:,.2f} USD"
        if limit and plan.cost_usd > limit + NO_MONEY_USD:
            raise BudgetReached(
                f"{cost}, more than max_cost_usd {limit:g}; nothing was submitted: allow more, or ask for fewer"
            )
        if balance is not None and plan.cost_usd > balance + NO_MONEY_USD:
            raise InsufficientCredits(
                f"{cost}, and the balance is {balance:,.2f} USD; nothing was submitted: top it up, or ask for fewer"
            )

    async def take(self) -> int | None:
        """Take the next shard of the plan; None once there is none, or nothing more is to be done.

        Where there is a canary, its shards alone are there until `go_on`.
        """
        if self._next_shard >= self._open_shards or self.engine.stopped_by is not None:
            return None
        self._next_shard += 1
        return self._next_shard - 1

    async def look_at_canary(self) -> Canary | None:
        """Publish what the canary's shards came to, and say how it stands; None where that cannot be: the engine stops.

        Raises:
            RuntimeError: there is none, or it was not planned yet.
        """
        if self._plan is None or not self._canary_ids:
            raise RuntimeError("a run without a canary has none to look at")
        try:
            await self._lock.confirm()
            if self._next_shard and self._maker is not None:
                await self._maker.finish()
                self._rows = await publish(self._storage, [self.run_id])
            recipe = self.job.recipe
            self._canary = await read_canary(
                self._storage,
                self._canary_ids,
                most_percent=recipe.max_canary_percent,
                rolls=recipe.gate.max_rolls,
            )
        except (StorageError, Replaced) as error:
            self.engine.stop(error)
            return None
        except Exception as error:
            logger.exception("the canary could not be published")
            self.engine.stop(RunError(f"the canary could not be published: {type(error).__name__}: {error}"))
            return None
        return self._canary

    async def go_on(self, said: Said) -> None:
        """Make the rest, too; what cannot be written down stops the engine."""
        if self._plan is None or self._canary is None:
            raise RuntimeError("a canary is looked at before a run goes on")
        try:
            await write_said(self._storage, self.run_id, said, summary=self._canary.summary())
        except StorageError as error:
            self.engine.stop(error)
            return
        self._said, self._open_shards = said, self._plan.shards

    def pause_after_canary(self) -> None:
        """Leave the rest to a later run, once somebody has looked at the canary."""
        if self._canary is None:
            raise RuntimeError("a canary is looked at before a run pauses for it")
        self.engine.stop(self._canary.paused(self._storage))

    async def open_to_workers(self) -> Crew:
        """Let other machines take the shards of the plan, in place of this process; returns who looks after them.

        Raises:
            StorageError: the store says no.
        """
        if self._limits.max_cost_usd:
            # What a canary has cost is this process's part.
            await open_budget(
                self._storage, self.run_id, granted={self._writer.token: self.engine.budget.committed_usd}
            )
        planned = await read_planned(self._storage, self.run_id)
        if planned is None:
            raise Replaced(f"{self._storage.uri_of(plan_key(self.run_id))}: this run was closed by another one")
        self._crew = Crew(self._storage, planned, engine=self.engine, lock=self._lock, limits=self._limits)
        return self._crew

    async def make(self, shard: int) -> Tally:
        """Make the variations of one shard, and write its rows.

        When the engine has been stopped, it makes those that are in flight and leaves the others. A destination that
        cannot be written stops the engine; `publish` tries once more to write the rows.

        Raises:
            RuntimeError: the shard was begun already; making it again would pay again.
        """
        if self._maker is None:
            raise RuntimeError("a run is planned before its shards are made")
        return await self._maker.make(shard)

    async def publish(self) -> Receipt:
        """Merge the rows into the dataset's metadata, and write the receipt; where nothing was to be done, write none.

        Raises:
            RunStopped: the engine was stopped; the receipt is in it, and says how to go on.
        """
        try:
            # Who slept and was taken over leaves the journals to the one who has them now.
            await self._lock.confirm()
            if self._maker is not None:
                if self._crew is not None:
                    self._crew_tally = await self._crew.close(writer=self._writer.token)
                await self._maker.finish()
                if self._has_rows or self._rows is None:
                    self._rows = await publish(self._storage, [self.run_id])
            if self._plan is not None or self._recovery.lines():
                await self._storage.put_if_absent(receipt_key(self.run_id), self._receipt().to_bytes())
            self._is_finished = True
        except (StorageError, Replaced) as error:
            self.engine.stop(error)
        except Exception as error:
            logger.exception("the metadata could not be published")
            self.engine.stop(RunError(f"the metadata could not be published: {type(error).__name__}: {error}"))
        receipt = self._receipt()
        if self.engine.stopped_by is not None:
            raise RunStopped(receipt, self.engine.stopped_by)
        return receipt

    def _receipt(self) -> Receipt:
        tally = self._crew_tally or (self._maker.tally() if self._maker is not None else Tally())
        reason = self.engine.stopped_by
        return Receipt.of(
            self._plan or Plan(self.run_id, self.job.source or "", self.job.destination),
            tally,
            started_at=started(self._started),
            seconds=self._clock.monotonic() - self._started_at,
            requests=self.engine.progress.requests,
            refused=self.engine.progress.refused,
            limit_found=self.engine.progress.limit_found,
            all_found_counted=self.engine.progress.all_found_counted,
            held=self._held,
            recovery=self._recovery,
            stopped_by=reason.code if reason else None,
            stopped_because=reason.message if reason else None,
            dataset_rows=self._rows,
            max_cost_usd=self._limits.max_cost_usd,
            price_usd=round(self.engine.budget.price_usd, 6),
            set_price_usd=self._limits.price_usd,
            canary=self._canary_text(),
        )

    def _canary_text(self) -> str:
        if self._canary is None:
            return ""
        then = {"passed": "the rest was made, too", "allowed": "somebody let the rest be made, too"}
        return f"{self._canary.summary()}; {then.get(self._said or '', 'the rest was not made')}"

    async def aclose(self) -> None:
        """Give the dataset back; where something is left to do for this run, the next one does it first."""
        await self._lock.release(is_closed=self._is_finished)


@asynccontextmanager
async def open_run(
    job: Job,
    *,
    endpoint: Endpoint,
    limits: Limits,
    progress: Progress | None = None,
    clock: Clock | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> AsyncIterator[Run]:
    """Open what a run needs, and close it afterwards.

    Args:
        job: what to do.
        endpoint: the API and its key.
        limits: how hard to go.
        progress: counters to be moved.
        clock: time.
        lease_seconds: after so long without a sign of life another run may take this one over.

    Raises:
        BadInput: the destination is no URI.
    """
    clock = clock or SystemClock()
    storage = open_storage(job.destination, missing_ok=True)
    async with default_http_client(max_connections=limits.most_connections) as http:
        try:
            async with running(
                job,
                storage=storage,
                client=Client(http, endpoint=endpoint, model=job.recipe.model),
                limits=limits,
                progress=progress,
                clock=clock,
                lease_seconds=lease_seconds,
            ) as run:
                yield run
        finally:
            await storage.aclose()


@asynccontextmanager
async def running(
    job: Job,
    *,
    storage: Storage,
    client: Client,
    limits: Limits,
    clock: Clock,
    progress: Progress | None = None,
    lease_seconds: float = LEASE_SECONDS,
    random: Callable[[], float] = random_module.random,
    writer: Writer | None = None,
) -> AsyncIterator[Run]:
    """Put a run together of parts that are open already, and give the dataset back at its end."""
    gate = job.recipe.gate
    looks = looks_of(gate, client.http, most_in_flight=limits.most_in_flight)
    engine = Engine(
        client,
        storage=storage,
        limits=limits,
        progress=progress,
        clock=clock,
        random=random,
        gate=gate,
        looks=looks,
    )
    writer = writer or Writer.this_process(since=clock.now())
    lock = DatasetLock(storage, writer=writer, clock=clock, lease_seconds=lease_seconds, lost=engine.stop)
    run = Run(job, storage=storage, engine=engine, limits=limits, clock=clock, writer=writer, lock=lock)
    try:
        yield run
    finally:
        if looks is not None:
            await looks.aclose()
        await run.aclose()


def _next_shard(shards: Iterator[pa.Table]) -> bytes | None:
    table = next(shards, None)
    return None if table is None else parquet_bytes(table)
