"""The service behind the routes: accepts requests, works on them, remembers them, charges for them.

Nothing polls: when a request arrives, the queue is known, so its start and its end are. One small task for each
request in flight waits for those moments of the clock; every state is read off the clock.
"""

import asyncio
import dataclasses
import json
import logging
import random
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

from variations.sandbox.account import Account
from variations.sandbox.bill import Bill, draw_up
from variations.sandbox.cache import ByteCache
from variations.sandbox.clock import Clock
from variations.sandbox.faults import Fault, FaultPlan
from variations.sandbox.files import Assets, Outputs
from variations.sandbox.latency import Workers, draw_latency_seconds
from variations.sandbox.limits import RateLimit
from variations.sandbox.records import Record, Signer
from variations.sandbox.refusals import Refused
from variations.sandbox.settings import FIXED_SETTING_NAMES, SETTING_NAMES, SandboxSettings
from variations.sandbox.sources import Sources, SourceUnusable, abridged
from variations.sandbox.validation import RANDOM_SEEDS, InferenceRequest

SLOW_FACTOR: Final = 10.0
# A poll that comes when the clock says "done" waits this long, in real time, for an image that is still being made.
FINISH_TIMEOUT_SECONDS: Final = 10.0
FAILED_BY_ORDER: Final = "Inference failed: the model returned an error."

_log = logging.getLogger(__name__)


class Service:
    """Be the API. It belongs to one event loop, and every method is called on it.

    Args:
        settings: as at the start; `reset` comes back to them.
        faults: ordered from the start.
    """

    def __init__(self, settings: SandboxSettings, faults: Iterable[Fault] = ()) -> None:
        self._settings_at_start = settings
        self._faults_at_start = tuple(faults)
        self._executor = ThreadPoolExecutor(settings.image_threads, thread_name_prefix="sandbox-images")
        self.clock = Clock()
        self.signer = Signer(secrets.token_bytes(32))
        self.settings = settings
        self.sources = Sources(self._executor, lambda: self.settings, self.clock.now)
        self.outputs = Outputs(self._executor, self.sources, ByteCache(settings.output_cache_bytes))
        self.assets = Assets(settings.asset_bytes)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.settings = self._settings_at_start
        self.clock.reset()
        self.account = Account(self.settings)
        self.faults = FaultPlan(self._faults_at_start, seed=self.settings.seed)
        self.rate_limit = RateLimit()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.records: dict[str, Record] = {}
        self._workers = Workers(self.settings.workers)
        self._chances = random.Random(self.settings.seed)  # noqa: S311 - it is a simulation
        self._in_flight: set[Record] = set()

    async def reset(self) -> None:
        """Forget everything and come back to the settings, faults and clock of the start."""
        await self._cancel_in_flight()
        await self.sources.clear()
        self.outputs.clear()
        self.assets.clear()
        self._start_afresh()

    async def aclose(self) -> None:
        """Stop all work and free threads and connections."""
        await self._cancel_in_flight()
        await self.sources.aclose()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def configure(self, changes: dict[str, Any]) -> None:
        """Change settings while running; `credits` and `free_credits` set the balances.

        Raises:
            ValueError: a setting is unknown, fixed or out of bounds.
        """
        unknown = changes.keys() - SETTING_NAMES
        fixed = changes.keys() & FIXED_SETTING_NAMES
        if unknown or fixed:
            raise ValueError(f"cannot be changed: {', '.join(sorted(unknown | fixed))}")
        # JSON has no tuples.
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
        }
        self.settings = dataclasses.replace(self.settings, **values)
        self.account.credits = values.get("credits", self.account.credits)
        self.account.free_credits = values.get("free_credits", self.account.free_credits)
        if "workers" in values:
            self._workers.resize(self.settings.workers)
        if "seed" in values:
            self._chances = random.Random(self.settings.seed)  # noqa: S311 - it is a simulation

    async def advance_clock(self, seconds: float) -> None:
        """Move the clock ahead and return once what became due is settled.

        Raises:
            ValueError: time only goes forward.
        """
        self.clock.advance(seconds)
        now = self.clock.now()
        due = [record.work for record in self._in_flight if record.work is not None and now >= record.completed_at]
        if due:
            await asyncio.wait(due, timeout=FINISH_TIMEOUT_SECONDS)

    def accept(self, request: InferenceRequest, *, model: str, endpoint: Literal["v1", "v2"]) -> Record:
        """Accept a request, queue it and start its work.

        Raises:
            Refused: 406, the account does not cover it.
        """
        settings = self.settings
        wanted: int = request.value("num_outputs")
        self.account.reserve(settings, images=wanted)
        now = self.clock.now()
        seconds = draw_latency_seconds(settings, self._chances)
        if self.faults.strikes("slow"):
            seconds *= SLOW_FACTOR
        started_at = self._workers.occupy(now, seconds=seconds)
        seed = request.value("seed")
        record = Record(
            request_id=str(uuid.uuid4()),
            model=model,
            source=abridged(request.source),
            sent=json.dumps(dict(request.sent), separators=(",", ":")).encode(),
            seed=self._chances.randrange(1, 2**31) if seed in RANDOM_SEEDS else seed,
            outputs_wanted=wanted,
            endpoint=endpoint,
            submitted_at=now,
            started_at=started_at,
            completed_at=started_at + seconds,
        )
        self.records[record.request_id] = record
        delivered = wanted
        if wanted > 1 and self.faults.strikes("fewer_outputs"):
            delivered = self._chances.randrange(1, wanted)
        if self.faults.strikes("output_blank"):
            record.made = "blank"
        elif self.faults.strikes("output_copy"):
            record.made = "copy"
        error = FAILED_BY_ORDER if self.faults.strikes("failed") else None
        record.work = asyncio.create_task(
            self._work(record, request, images=delivered, error=error, price_usd=settings.price_usd)
        )
        self._in_flight.add(record)
        record.work.add_done_callback(lambda _: self._in_flight.discard(record))
        return record

    async def find(self, request_id: str) -> Record:
        """Return a request that is not older than a result is kept, settled if it is due.

        Raises:
            Refused: 404, unknown or expired.
        """
        record = self.records.get(request_id)
        lifetime_seconds = self.settings.result_lifetime_seconds
        if record is None or self.clock.now() - record.submitted_at >= lifetime_seconds:
            raise Refused(404, "Request not found. It does not exist, or its result has expired.")
        if record.work is not None and self.clock.now() >= record.completed_at:
            await asyncio.wait({record.work}, timeout=FINISH_TIMEOUT_SECONDS)
        return record

    async def finish(self, record: Record) -> None:
        """Return once a request is over: what a blocking call waits for."""
        if record.work is not None:
            await asyncio.wait({record.work})
        if record.settled is None:
            raise Refused(503, "The sandbox is being stopped or reset.")

    async def output(self, file_name: str) -> bytes:
        """Return an output file, made again if it is no longer held.

        Raises:
            Refused: 404, there is no such file, or its seven days are over.
        """
        missing = Refused(404, "File not found. It does not exist, or it has expired.")
        # 32 hex digits of the request id, the output's number, the signature.
        digits = file_name[:32]
        try:
            record = self.records.get(str(uuid.UUID(hex=digits)))
        except ValueError:
            raise missing from None
        if record is None or record.state(self.clock.now()) != "COMPLETED":
            raise missing
        expected = {record.file_name(i, self.signer(record.request_id, i)): i for i in range(len(record.file_sizes))}
        age_seconds = self.clock.now() - record.submitted_at
        if file_name not in expected or age_seconds >= self.settings.output_lifetime_seconds:
            raise missing
        try:
            return await self.outputs.get(record, expected[file_name])
        except SourceUnusable:
            raise missing from None

    def bill(self) -> Bill:
        """Return the bill as it stands."""
        credits_left = self.account.balance_usd
        return draw_up(self.records.values(), self.clock.now(), calls=self.calls, credits_left=credits_left)

    async def _work(
        self, record: Record, request: InferenceRequest, *, images: int, error: str | None, price_usd: float
    ) -> None:
        await self.clock.wait_until(record.started_at)
        began = time.monotonic()
        sizes: tuple[int, ...] = ()
        if error is None:
            try:
                sizes = await self.outputs.make(record, request, images=images)
            except SourceUnusable as unusable:
                error = str(unusable)
            except Exception:  # noqa: BLE001 - see below
                # Whatever goes wrong in the making is a FAILED request, there as here.
                _log.exception("the sandbox could not make request %s", record.request_id)
                error = "Inference failed: internal error."
        # Where the latency is shorter than the work really takes, the times told are those a client sees.
        record.completed_at = max(record.completed_at, record.started_at + time.monotonic() - began)
        await self.clock.wait_until(record.completed_at)
        record.file_sizes = sizes
        record.error = error
        record.cost_usd = self.account.settle(
            reserved_images=record.outputs_wanted, delivered_images=len(sizes), price_usd=price_usd
        )
        record.remaining_credits = self.account.balance_usd
        record.settled = "FAILED" if error is not None else "COMPLETED"
        record.work = None

    async def _cancel_in_flight(self) -> None:
        tasks = [record.work for record in self._in_flight if record.work is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
