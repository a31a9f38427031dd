"""The engine: a steady stream of requests, each from its submit to its stored images.

An item takes a slot, submits, polls until it is done and gives the slot back; then its images are fetched, checked
and stored, and it is written down what became of them. A slot is refilled the moment it is free. One item's failure is
that item's row; what condemns the run, and what asks for a person, closes the door to new submits, and what is in
flight is finished: it is paid for.
"""

import asyncio
import contextlib
import logging
import random as random_module
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from variations import errors
from variations.api.client import Client
from variations.api.download import OutputPolicy, fetch_output
from variations.api.retry import backoff_seconds
from variations.clock import Clock, SystemClock
from variations.engine.budget import Budget, Granted
from variations.engine.calls import Calls
from variations.engine.collector import Collector
from variations.engine.in_vain import InVain
from variations.engine.limits import Limits
from variations.engine.lost_submits import LostSubmits
from variations.engine.outputs import OutputStore
from variations.engine.poller import CHECK_SECONDS, Poller
from variations.engine.polling import PollingSchedule
from variations.engine.progress import Progress
from variations.engine.rate import NoMoreNew, RateLimit
from variations.engine.request import Log, Request, Unsettled
from variations.engine.schedule import schedule_of
from variations.engine.slots import Slots
from variations.engine.source_looks import SourceLooks
from variations.engine.sources import SourceUrls
from variations.engine.submitter import HISTORY_SECONDS, Submitter
from variations.gate import Gate
from variations.ledger.records import FoundIn, Record, Settled, Withdrawn
from variations.models import Completed, HistoryRecord, Outcome, Variation
from variations.rolls import is_vacant, next_roll, settled_together
from variations.storage import Storage

logger = logging.getLogger(__name__)

LAST_WORD_SECONDS: Final = 5.0
# So long after the last submit, where nothing waits for a slot, the run is at its end.
END_SECONDS: Final = 2.0


class NoLog:
    """Writes nothing down: for benches, and tests of what the engine does besides."""

    async def append(self, *records: Record) -> datetime:
        """Forget the records."""
        del records
        return datetime.now(UTC)

    async def accept(self, variation_id: str, request_id: str, *, found_in: FoundIn = "answer") -> None:
        """Forget it."""


class Engine:
    """Turn variations into stored images; one for all the shards of a process, which share its slots and its rate.

    Args:
        client: the API.
        storage: the dataset.
        limits: how hard to go.
        progress: counters that it moves.
        clock, random: time, and numbers from 0 to 1.
        schedule: when to poll; as the limits ask for, if not given.
        more_budget: where the budget is shared, asks for more of it (see `Budget`).
        gate: which images are flagged, and what becomes of those.
        looks: what sources look like, to compare their images with; None where that is not asked for.

    Attributes:
        clock: time.
        rate: the request limit, as far as it is known.
        stopped_by: why nothing more is submitted, if that is so.
        gate: which images are flagged, and what becomes of those.
    """

    def __init__(
        self,
        client: Client,
        *,
        storage: Storage,
        limits: Limits,
        progress: Progress | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random_module.random,
        schedule: PollingSchedule | None = None,
        more_budget: Callable[[float], Awaitable[Granted]] | None = None,
        gate: Gate = Gate(),  # noqa: B008 - frozen
        looks: SourceLooks | None = None,
    ) -> None:
        self._client = client
        self._limits = limits
        self.progress = progress or Progress()
        self.clock = clock or SystemClock()
        self._random = random
        self.rate = RateLimit(
            limits.requests_per_minute,
            clock=self.clock,
            first_requests_per_minute=limits.first_requests_per_minute,
        )
        schedule = schedule or schedule_of(limits, rate=self.rate)
        self._calls = Calls(
            self.rate,
            count_all=limits.count_all_requests,
            progress=self.progress,
            clock=self.clock,
            random=random,
            stop=self.stop,
            found_counted=schedule.count_all,
        )
        self._slots = Slots(lambda: schedule.most_in_flight)
        # What is done and not yet stored is bounded too: where outputs cannot be had, nothing more is paid for.
        self._unsettled = Slots(lambda: schedule.most_in_flight + 2 * limits.max_images_in_memory)
        self._in_vain = InVain()
        self.budget = Budget(limits.max_cost_usd, price_usd=limits.price_usd, more=more_budget)
        lost = LostSubmits(self._history_page, clock=self.clock)
        self._submitter = Submitter(
            client,
            self._calls,
            sources=SourceUrls(self._upload, presign_seconds=limits.presign_seconds),
            budget=self.budget,
            lost=lost,
            limits=limits,
            clock=self.clock,
            is_stopped=lambda: self.stopped_by is not None,
        )
        self._poller = Poller(
            client,
            self._calls,
            schedule=schedule,
            lost=lost,
            clock=self.clock,
            are_more_coming=self._are_more_coming,
        )
        self._items: set[asyncio.Task[None]] = set()
        self._grace: asyncio.Task[None] | None = None
        self._policy = OutputPolicy(urlsplit(client.endpoint.base_url).hostname or "", limits.output_hosts)
        self._outputs = OutputStore(
            self._fetch,
            storage=storage,
            max_images=limits.max_images_in_memory,
            pause=self._back_off,
            looks=looks,
        )
        self.gate = gate
        self._collector = Collector(
            self._outputs,
            with_outputs=self._poller.with_outputs,
            budget=self.budget,
            gate=gate,
            clock=self.clock,
            stop=self.stop,
        )
        self._schedule = schedule
        self.stopped_by: errors.RunError | errors.RunPaused | None = None

    @property
    def most_in_flight(self) -> int:
        """Requests that are of use in flight at the moment."""
        return self._schedule.most_in_flight

    def divide(self, *, workers: int, rank: int) -> None:
        """Take this process's part of what the account allows, which so many share from now on.

        Args:
            workers: that share the request limit, and the requests in flight where those are limited.
            rank: of this one among them, from 0; the parts of all ranks add up to the whole, but nobody has less than
                one request in flight.
        """
        self.rate.divide(workers)
        if self._limits.max_in_flight:
            self._schedule.limit_in_flight(max(1, (self._limits.max_in_flight + rank) // workers))

    def learn(self, *, limit: float | None, all_counted: bool) -> None:
        """Go by what other workers found of the request limit, as far as this one found nothing itself.

        Args:
            limit: in requests a minute, of all workers; None if none was found.
            all_counted: the API showed that it counts every call.
        """
        if all_counted:
            self._calls.count_all()
        if limit is not None:
            self.rate.learn(limit)

    def stop(self, reason: errors.RunError | errors.RunPaused, *, grace_share: float = 1.0) -> None:
        """Submit nothing more and finish what is in flight; the first reason stays.

        Where it is the user, or a machine that is about to be taken away, what is in flight has the grace period to
        finish; what has not by then is left to the next run, which finds it in the journal.

        Args:
            reason: why.
            grace_share: of the grace period, what is left of it.
        """
        if self.stopped_by is None:
            self.stopped_by = reason
            self.progress.stopping = reason.message
            self._calls.close_to_new()
        if isinstance(reason, errors.StoppedByUser) and self._grace is None:
            seconds = grace_share * self._limits.grace_seconds
            self._grace = asyncio.get_running_loop().create_task(self._end_after_grace(seconds))

    async def _end_after_grace(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        for item in self._items:
            item.cancel()

    async def check_key(self) -> float | None:
        """Ask for the balance, so that a wrong key is found before anything else; USD, or None where it is not told.

        Raises:
            Unauthorized, Forbidden: the key is refused.
            Unreachable: there is no API at that address.
        """
        try:
            return (await self._calls.get("credits", self._client.credits, seconds=CHECK_SECONDS)).total
        except (errors.Unauthorized, errors.Forbidden, errors.Unreachable):
            raise
        except errors.VariationsError as error:
            logger.warning("the balance is not known: %s", error)
            return None

    async def run(self, variations: Iterable[Variation], log: Log | None = None) -> list[Outcome]:
        """Make the variations, and return what became of each image.

        A variation that was not submitted because the engine stopped has no outcome: it is still to be made. Nor has
        one that is in flight when the grace period ends: it is in the log.

        Args:
            variations: to be made, in their order.
            log: where it is written down.
        """
        return await self._each((Request(variation) for variation in variations), log or NoLog())

    async def resume(
        self, items: Iterable[Unsettled], log: Log | None = None, *, gate: Gate | None = None
    ) -> list[Outcome]:
        """Fetch what earlier runs submitted; submits nothing. Returns what is known now of each image that was unknown.

        What is still unknown is not written down again.

        Args:
            items: that were submitted.
            log: where it is written down.
            gate: of the run that submitted them; this engine's own, if not given.
        """
        return await self._each((Request.of_unsettled(item, gate=gate) for item in items), log or NoLog())

    def is_another(self, request_id: str) -> None:
        """Remember that a request is known to be some variation's, which none that is looked for can be."""
        self._submitter.is_another(request_id)

    async def _each(self, requests: Iterable[Request], log: Log) -> list[Outcome]:
        outcomes: list[Outcome] = []
        async with asyncio.TaskGroup() as group:
            for request in requests:
                await self._unsettled.acquire()
                await self._slots.acquire()
                if self.stopped_by is not None:
                    self._slots.release()
                    self._unsettled.release()
                    break
                item = group.create_task(self._fill(request, log, outcomes))
                self._items.add(item)
                item.add_done_callback(self._items.discard)
        return outcomes

    async def _fill(self, request: Request, log: Log, outcomes: list[Outcome]) -> None:
        """Make a variation, and what takes its place where it is flagged; the caller took the slot of the first one."""
        following: Request | None = request
        while following is not None:
            made = await self._make(following, log, outcomes)
            following = self._next_roll(following, made)
            if following is not None:
                await self._take_slot()

    def _next_roll(self, request: Request, made: list[Outcome]) -> Request | None:
        variation = request.variation
        # Who resumes submits nothing: the next run, or whoever has the shard, fills the place.
        may_roll = not request.is_resumed and self.stopped_by is None and variation.roll + 1 < self.gate.rolls
        if not may_roll or not is_vacant(made):
            return None
        self.progress.rerolled += sum(outcome.is_dropped for outcome in made)
        return Request(next_roll(variation))

    async def _take_slot(self) -> None:
        await self._unsettled.acquire()
        try:
            await self._slots.acquire()
        except BaseException:
            self._unsettled.release()
            raise

    async def _make(self, request: Request, log: Log, outcomes: list[Outcome]) -> list[Outcome]:
        made: list[Outcome] = []
        try:
            made = await self._made(request, log)
            await self._write_down(request, made, log)
        except asyncio.CancelledError:
            await self._take_back(request, log)
            raise
        except errors.RunError as error:
            # What cannot be written down is not done; the next run finds what can be found.
            self.stop(error)
            return []
        finally:
            self._unsettled.release()
            self._settle_money(request, made)
        outcomes += made
        if not request.is_resumed:
            for outcome in made:
                self.count(outcome)
            if (in_vain := self._in_vain.reason_to_stop(made)) is not None:
                self.stop(in_vain)
        return made

    async def _take_back(self, request: Request, log: Log) -> None:
        """Write down that an intent came to nothing, on the way out: else it would be held as perhaps paid for."""
        if request.intended_at is not None and not request.may_be_accepted:
            with contextlib.suppress(errors.RunError, TimeoutError):
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await log.append(Withdrawn(variation_id=request.variation.variation_id, reason="the run ended"))

    async def _made(self, request: Request, log: Log) -> list[Outcome]:
        try:
            return await self._collector.collect(request, await self._request(request, log))
        except NoMoreNew:
            return []
        except Exception as error:  # noqa: BLE001 - a bug in one item must not take the paid requests of others with it
            return self._collector.not_kept(request, error)

    async def _write_down(self, request: Request, made: list[Outcome], log: Log) -> None:
        variation_id = request.variation.variation_id
        if not made:
            if request.intended_at is not None and not request.may_be_accepted:
                await log.append(Withdrawn(variation_id=variation_id, reason="the run stopped before it was submitted"))
        elif not (request.is_resumed and all(outcome.status == "unknown" for outcome in made)):
            all_of_it = settled_together(sorted([*request.known, *made], key=lambda outcome: outcome.output_index))
            images = tuple(outcome.without_variation() for outcome in all_of_it)
            await log.append(Settled(variation_id=variation_id, images=images))

    def _settle_money(self, request: Request, made: list[Outcome]) -> None:
        """Turn what was reserved for a request into what it cost; what is unknown stays reserved."""
        images = request.reserved_images
        if not images:
            return
        known = [outcome for outcome in made if outcome.status != "unknown"]
        was_not_submitted = not made and not request.may_be_accepted
        self.budget.settle(
            images,
            known_images=images if was_not_submitted else len(known),
            cost_usd=sum(outcome.cost_usd for outcome in known),
            charged_images=sum(1 for outcome in known if outcome.cost_usd),
            is_reported=any(outcome.metrics.cost_usd is not None for outcome in known),
        )

    def _are_more_coming(self) -> bool:
        return self._slots.are_wanted or self.rate.plenty_seconds < END_SECONDS

    async def _request(self, request: Request, log: Log) -> Completed:
        """Take a request from submit to completion; the slot, which the caller took, is given back at its end."""
        try:
            if not request.is_resumed:
                self._outputs.expect(request.variation)
                await self._submitter.submit(request, log)
            elif request.request_id is None:
                patience = HISTORY_SECONDS / 2 - (self.clock.monotonic() - request.submitted)
                await self._submitter.look_for(request, log, patience_seconds=max(0.0, patience))
            self.progress.in_flight += 1
            try:
                return await self._poller.wait(request)
            finally:
                self.progress.in_flight -= 1
        finally:
            self._slots.release()

    def count(self, outcome: Outcome) -> None:
        """Count an image of this run; those that earlier runs submitted are counted by whoever resumes them."""
        progress = self.progress
        progress.cost_usd += outcome.cost_usd
        match outcome.status:
            case "kept":
                progress.kept += 1
            case "failed":
                progress.failed += 1
            case "unknown":
                progress.unknown += 1
            case "rejected":
                progress.dropped += outcome.is_dropped

    async def _history_page(self, page: int, *, from_date: str, to_date: str) -> list[HistoryRecord]:
        return await self._calls.get(
            "history",
            lambda: self._client.history(page=page, from_date=from_date, to_date=to_date),
            seconds=HISTORY_SECONDS,
        )

    async def _upload(self, content: bytes, content_type: str) -> str:
        return (await self._calls.send("upload", lambda: self._client.upload_asset([(content, content_type)])))[0]

    async def _fetch(self, url: str) -> bytes:
        return await fetch_output(self._client.http, url, policy=self._policy)

    async def _back_off(self, attempt: int) -> None:
        await self.clock.sleep(backoff_seconds(attempt, random=self._random()))
