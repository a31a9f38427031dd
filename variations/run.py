"""A run over a dataset, step by step: check, plan, make each shard, publish. Whoever schedules it calls the steps."""

import asyncio
import json
import logging
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.dataset import check_labels, new_run_id, outcomes_table, parquet_bytes
from variations.engine.clock import Clock, SystemClock
from variations.engine.engine import Engine
from variations.engine.limits import Limits
from variations.engine.progress import Progress
from variations.errors import BadInput, RunError, StorageError
from variations.manifest import fetch_manifest
from variations.models import Outcome
from variations.plan import Planner, Recipe, Spool, cut, label_schema_of, variations_of
from variations.publish import RECEIPT_NAME, RUNS_PREFIX, part_key, publish, read_known
from variations.receipt import Plan, Receipt, RunStopped, Tally, started
from variations.storage import Storage, open_storage
from variations.uris import public_uri, shown_uri

# A connection for each request in flight, and some for what is being fetched.
_SPARE_CONNECTIONS: Final = 16
# So much of a shard's rows is lost at most where the process is killed.
WRITE_ROWS_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is to do: the manifest it reads, the dataset it grows, and what it makes of each source.

    `uri_column` and `id_column` name columns of the manifest where their names do not tell.

    Raises:
        BadInput: a URI carries a signature or credentials, which would show in plans, receipts and logs; or the dataset
            would lie among its own sources, and its images be taken for them.
    """

    source: str
    destination: str
    recipe: Recipe = field(default_factory=Recipe)
    uri_column: str | None = None
    id_column: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would do harm."""
        for name, uri in (("source", self.source), ("destination", self.destination)):
            if _has_secret(uri):
                raise BadInput(
                    f"the {name} carries a signature or credentials ({shown_uri(uri)}): name the place alone, "
                    "credentials are boto3's to find"
                )
        source, destination = (open_storage(uri).uri for uri in (self.source, self.destination))
        if f"{destination}/".startswith(f"{source}/"):
            raise BadInput(
                f"the destination {self.destination} lies within the source {self.source}: the next run would take the "
                "images of this one for sources; name a place beside it"
            )


@dataclass(slots=True)
class _ShardRows:
    """The rows of a shard: where they are written, what they are made of, and how many were written last.

    They are written to two keys by turns: a write that is broken off may land later than the one after it, and must not
    land on it. What stands in both is the same row.
    """

    keys: tuple[str, str]
    outcomes: list[Outcome]
    labels: pa.Schema
    written: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Run:
    """One execution of a job. Its steps are called in order, `make` once for each shard, several at a time.

    Args:
        job: what to do.
        storage: the destination.
        engine: does it.
        clock: time.
    """

    def __init__(self, job: Job, *, storage: Storage, engine: Engine, limits: Limits, clock: Clock) -> None:
        self.job = job
        self.engine = engine
        self._storage = storage
        self._limits = limits
        self._clock = clock
        self._started = clock.now()
        self._started_at = clock.monotonic()
        self._signed: dict[str, str] = {}
        self._tally = Tally()
        self._unwritten: dict[str, bytes] = {}
        self._begun: set[int] = set()
        self._made = 0
        self._plan: Plan | None = None
        self.run_id = new_run_id(self._started, random=secrets.token_hex(3))

    async def check(self) -> float | None:
        """Check what can be checked before anything is paid: the key. Returns the balance in USD if the API tells it.

        Raises:
            Unauthorized, Forbidden: the key is refused.
            Unreachable: there is no API at the given address.
        """
        return await self.engine.check_key()

    async def plan(self) -> Plan:
        """Read the manifest, leave out what the dataset has, and write the rest to the destination, shard by shard.

        Raises:
            ManifestError: the manifest is missing, empty or unusable.
            StorageError: the destination cannot be written.
        """
        with tempfile.TemporaryDirectory() as folder:
            spool = Spool(Path(folder), source=self.job.source, run_id=self.run_id, model=self.job.recipe.model)
            planner, plan = await _read_manifest(
                self.job,
                storage=self._storage,
                limits=self._limits,
                run_id=self.run_id,
                spool=spool,
                check=self._check_stopped,
            )
            prefix = f"{RUNS_PREFIX}{self.run_id}/plan/"
            shards = cut(spool.variations, plan.shard_size)
            number = 0
            while (content := await asyncio.to_thread(_next_shard, shards)) is not None:
                await self._storage.put(f"{prefix}shard-{number:05d}.parquet", content)
                number += 1
                self._check_stopped()
            if planner.counts.rejected:
                await self._storage.put(part_key(self.run_id, "rejected"), spool.rejected)
        # The last one: a plan that lies there is whole.
        await self._storage.put(f"{prefix}plan.json", _json({**asdict(plan), "recipe": self._recipe()}))
        self._signed = planner.signed
        self._plan = plan
        self.engine.progress.total = plan.images
        return plan

    def _check_stopped(self) -> None:
        if self.engine.stopped_by is not None:
            raise self.engine.stopped_by

    def _recipe(self) -> dict[str, object]:
        recipe = self.job.recipe
        return {**asdict(recipe), "parameters": recipe.parameters.model_dump(exclude={"seed"})}

    async def make(self, shard: int) -> Tally:
        """Make the variations of one shard and write its rows, those so far every minute.

        When the engine has been stopped, it makes those that are in flight and leaves the others. A destination that
        cannot be written stops the engine; `publish` tries once more to write the rows.

        Raises:
            RuntimeError: the shard was begun already; making it again would pay again.
        """
        if shard in self._begun:
            raise RuntimeError(f"shard {shard} was begun already, and is not made twice")
        self._begun.add(shard)
        key = f"{RUNS_PREFIX}{self.run_id}/plan/shard-{shard:05d}.parquet"
        tally = Tally()
        try:
            table = await asyncio.to_thread(_read_table, await self._storage.get(key))
        except StorageError as error:
            self.engine.stop(error)
            return tally
        outcomes: list[Outcome] = []
        keys = (part_key(self.run_id, f"{shard:05d}"), part_key(self.run_id, f"{shard:05d}-b"))
        rows = _ShardRows(keys, outcomes, labels=label_schema_of(table))
        writing = asyncio.create_task(self._write_every_minute(rows))
        try:
            await self.engine.run(variations_of(table, signed=self._signed), outcomes)
        finally:
            writing.cancel()
            await asyncio.wait({writing})
            tally.add(outcomes)
            self._tally.add(outcomes)
            self._made += len({outcome.variation.variation_id for outcome in outcomes})
            # Even where this is being cancelled: what is in these rows was paid for.
            await self._write(rows)
        return tally

    async def _write_every_minute(self, rows: _ShardRows) -> None:
        while True:
            await self._clock.sleep(WRITE_ROWS_SECONDS)
            await self._write(rows)

    async def _write(self, rows: _ShardRows) -> None:
        """Write the rows of a shard as they are now, over those written before."""
        async with rows.writing:
            if len(rows.outcomes) == rows.written:
                return
            outcomes = list(rows.outcomes)
            content = await asyncio.to_thread(
                lambda: parquet_bytes(
                    outcomes_table(outcomes, labels=rows.labels, run_id=self.run_id, model=self.job.recipe.model)
                )
            )
            key, rows.keys = rows.keys[0], (rows.keys[1], rows.keys[0])
            try:
                await self._storage.put(key, content)
            except StorageError as error:
                self._unwritten[key] = content
                self.engine.stop(error)
            else:
                rows.written = len(outcomes)
                self._unwritten.pop(key, None)

    async def publish(self) -> Receipt:
        """Merge the rows into the dataset's metadata, and write the receipt.

        Raises:
            RunStopped: the engine was stopped; the receipt is in it, and says how to go on.
        """
        rows: int | None = None
        try:
            while self._unwritten:
                key, content = next(iter(self._unwritten.items()))
                await self._storage.put(key, content)
                del self._unwritten[key]
            rows = await publish(self._storage)
            await self._storage.put(f"{RUNS_PREFIX}{self.run_id}/{RECEIPT_NAME}", _json(self._receipt(rows).as_dict()))
        except StorageError as error:
            self.engine.stop(error)
        except Exception as error:
            logger.exception("the metadata could not be published")
            self.engine.stop(RunError(f"the metadata could not be published: {type(error).__name__}: {error}"))
        receipt = self._receipt(rows)
        if self.engine.stopped_by is not None:
            raise RunStopped(receipt, self.engine.stopped_by)
        return receipt

    def _receipt(self, dataset_rows: int | None) -> Receipt:
        if self._plan is None:
            raise RuntimeError("a run is planned before it is published")
        plan, tally, reason = self._plan, self._tally, self.engine.stopped_by
        requests = dict(self.engine.progress.requests)
        return Receipt(
            run_id=self.run_id,
            source=plan.source,
            destination=plan.destination,
            started_at=started(self._started),
            seconds=round(self._clock.monotonic() - self._started_at, 1),
            sources=plan.sources,
            rejected=plan.rejected,
            duplicates=plan.duplicates,
            already_done=plan.already_done,
            failed_before=plan.failed_before,
            unknown_before=plan.unknown_before,
            partly_there=plan.partly_there,
            wanted=plan.images,
            paid=tally.paid,
            kept=tally.kept,
            failed=tally.failed,
            unknown=tally.unknown,
            left=plan.new - self._made,
            cost_usd=round(tally.cost_usd, 6),
            cost_at_risk_usd=round(tally.cost_at_risk_usd, 6),
            requests=requests,
            requests_per_image=round(sum(requests.values()) / tally.kept, 2) if tally.kept else None,
            errors=dict(tally.errors.most_common()),
            error_samples=tally.error_samples,
            notes=dict(tally.notes.most_common()),
            rejected_rows=plan.rejected_rows,
            stopped_by=reason.code if reason else None,
            stopped_because=reason.message if reason else None,
            dataset_rows=dataset_rows,
        )


@asynccontextmanager
async def open_run(
    job: Job,
    *,
    endpoint: Endpoint,
    limits: Limits,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Run]:
    """Open what a run needs, and close it afterwards.

    Args:
        job: what to do.
        endpoint: the API and its key.
        limits: how hard to go.
        progress: counters to be moved.
        clock: time.

    Raises:
        BadInput: the destination is no URI.
    """
    clock = clock or SystemClock()
    storage = open_storage(job.destination, missing_ok=True)
    async with default_http_client(max_connections=limits.max_in_flight + _SPARE_CONNECTIONS) as http:
        client = Client(http, endpoint=endpoint, model=job.recipe.model)
        engine = Engine(client, storage=storage, limits=limits, progress=progress, clock=clock)
        try:
            yield Run(job, storage=storage, engine=engine, limits=limits, clock=clock)
        finally:
            await storage.aclose()


async def estimate(job: Job, *, limits: Limits) -> Plan:
    """Say what a run would do, without paying and without writing anything.

    Raises:
        ManifestError: the manifest is missing, empty or unusable.
        StorageError: the source or the destination cannot be read.
    """
    storage = open_storage(job.destination, missing_ok=True)
    try:
        _, plan = await _read_manifest(job, storage=storage, limits=limits, run_id="", spool=None)
    finally:
        await storage.aclose()
    return plan


async def _read_manifest(
    job: Job,
    *,
    storage: Storage,
    limits: Limits,
    run_id: str,
    spool: Spool | None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Planner, Plan]:
    known = await read_known(storage)
    async with fetch_manifest(job.source, uri_column=job.uri_column, id_column=job.id_column) as manifest:
        check_labels(manifest.label_schema)
        planner = Planner(job.recipe, known=known, labels=manifest.label_schema, spool=spool, check=check)
        await asyncio.to_thread(planner.read, manifest.batches())
    counts = planner.counts
    plan = Plan(
        run_id=run_id,
        source=job.source,
        destination=job.destination,
        sources=counts.sources,
        rejected=counts.rejected,
        duplicates=counts.duplicates,
        variations=counts.variations,
        already_done=counts.done,
        failed_before=counts.failed_before,
        unknown_before=counts.unknown_before,
        partly_there=counts.partly,
        new=counts.new,
        images=counts.images,
        shards=counts.shards(),
        shard_size=counts.shard_size(),
        cost_usd=round(counts.cost_usd(limits), 6),
        seconds=round(counts.seconds(limits), 1),
        requests_per_minute=limits.requests_per_minute,
        requests_counted="polls counted" if limits.count_all_requests else "submits alone",
        max_in_flight=limits.max_in_flight,
        rejected_rows=tuple(f"row {row.row}: {row.reason}" for row in planner.first_rejected),
    )
    return planner, plan


def _has_secret(uri: str) -> bool:
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() == "file":
        return False
    # In a key a `?` is a letter, but who pasted a signed URL with s3:// before it did not mean one.
    return "@" in rest.partition("/")[0] or public_uri(f"https://{rest}") != f"https://{rest}"


def _next_shard(shards: Iterator[pa.Table]) -> bytes | None:
    table = next(shards, None)
    return None if table is None else parquet_bytes(table)


def _read_table(content: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(content))


def _json(value: object) -> bytes:
    # Half a surrogate pair, which UTF-8 cannot spell, comes out as JSON's own escape of it.
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
