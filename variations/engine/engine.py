"""The engine: a steady stream of requests, each from its submit to its stored images.

An item takes a slot, submits, polls until it is done and gives the slot back; then its images are fetched, checked
and stored. A slot is refilled the moment it is free. One item's failure is that item's row; what condemns the run, and
what asks for a person, closes the door to new submits, and what is in flight is finished: it is paid for.
"""

import asyncio
import logging
import random as random_module
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from variations import errors
from variations.api.answers import shown_text
from variations.api.client import Client
from variations.api.download import OutputPolicy, fetch_output
from variations.api.retry import backoff_seconds
from variations.engine.calls import OUTAGE_ITEMS, Calls
from variations.engine.clock import Clock, SystemClock
from variations.engine.limits import Limits
from variations.engine.outputs import OutputStore
from variations.engine.polling import FixedInterval, PollingSchedule
from variations.engine.progress import Progress
from variations.engine.rate import NoMoreNew, RateLimit
from variations.engine.sources import HandedOver, SourceUrls
from variations.models import (
    Completed,
    Failed,
    Metrics,
    Outcome,
    OutcomeStatus,
    OutputFile,
    Processing,
    Status,
    Variation,
)
from variations.storage import Storage
from variations.uris import public_uri

logger = logging.getLogger(__name__)

RESULT_SECONDS: Final = 120.0
CHECK_SECONDS: Final = 15.0
# After acceptance these alone say for certain that no image is to be had; anything else leaves it unknown. An output
# that could not be fetched is there for days.
CERTAIN: Final = (errors.InferenceFailed, errors.OutputInvalid, errors.OutputMissing)


@dataclass(slots=True)
class _Request:
    """What is known so far of one variation's request."""

    variation: Variation
    source: HandedOver | None = None
    request_id: str | None = None
    submitted_at: datetime | None = None
    submitted: float = 0.0
    may_be_accepted: bool = False
    polls: int = 0
    is_from_history: bool = False


class Engine:
    """Turn variations into stored images; one for all the shards of a process, which share its slots and its rate.

    Args:
        client: the API.
        storage: the dataset.
        limits: how hard to go.
        progress: counters that it moves.
        clock, random: time, and numbers from 0 to 1.
        schedule: when to poll; at a set interval if not given.
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
    ) -> None:
        self._client = client
        self._limits = limits
        self.progress = progress or Progress()
        self._clock = clock or SystemClock()
        self._random = random
        self._schedule = schedule or FixedInterval(limits.poll_interval_seconds, limits.deadline_seconds)
        self._rate = RateLimit(limits.requests_per_minute, clock=self._clock)
        self._calls = Calls(
            self._rate,
            count_all=limits.count_all_requests,
            requests=self.progress.requests,
            clock=self._clock,
            random=random,
            stop=self.stop,
        )
        self._slots = asyncio.Semaphore(limits.max_in_flight)
        # What is done and not yet stored is bounded too: where outputs cannot be had, nothing more is paid for.
        self._unsettled = asyncio.Semaphore(limits.max_in_flight + 2 * limits.max_images_in_memory)
        self._paid_in_vain_in_a_row = 0
        self._sources = SourceUrls(self._upload, presign_seconds=limits.presign_seconds)
        self._policy = OutputPolicy(urlsplit(client.endpoint.base_url).hostname or "", limits.output_hosts)
        self._outputs = OutputStore(
            self._fetch, storage=storage, max_images=limits.max_images_in_memory, pause=self._back_off
        )
        self.stopped_by: errors.RunError | errors.RunPaused | None = None

    def stop(self, reason: errors.RunError | errors.RunPaused) -> None:
        """Submit nothing more and finish what is in flight; the first reason stays."""
        if self.stopped_by is None:
            self.stopped_by = reason
            self.progress.stopping = reason.message
            self._rate.close_to_new()

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

    async def run(self, variations: Iterable[Variation], outcomes: list[Outcome] | None = None) -> list[Outcome]:
        """Make the variations, and return what became of each image.

        A variation that was not submitted because the engine stopped has no outcome: it is still to be made.

        Args:
            variations: to be made, in their order.
            outcomes: the list to return, filled as it happens: what is in it is known even if this is cancelled.
        """
        outcomes = [] if outcomes is None else outcomes
        async with asyncio.TaskGroup() as group:
            for variation in variations:
                await self._unsettled.acquire()
                await self._slots.acquire()
                if self.stopped_by is not None:
                    self._slots.release()
                    self._unsettled.release()
                    break
                group.create_task(self._make(variation, outcomes))
        return outcomes

    async def _make(self, variation: Variation, outcomes: list[Outcome]) -> None:
        request = _Request(variation)
        made: list[Outcome] = []
        try:
            completed = await self._request(request)
            made = await self._collect(request, completed)
        except NoMoreNew:
            pass
        except asyncio.CancelledError:
            # The process is being ended. What may be paid for is written down, and not paid for again.
            if request.may_be_accepted:
                interrupted = errors.Interrupted("the process was ended while it was in flight")
                outcomes += self._not_kept(request, interrupted)
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one item must not take the paid requests of others with it
            made = self._not_kept(request, error)
        finally:
            self._unsettled.release()
        outcomes += made
        for outcome in made:
            self._count(outcome)
        self._check_what_is_paid(made)

    async def _request(self, request: _Request) -> Completed:
        """Take a request from submit to completion; the slot, which the caller took, is given back at its end."""
        try:
            await self._submit(request)
            self.progress.in_flight += 1
            try:
                return await self._wait(request)
            finally:
                self.progress.in_flight -= 1
        finally:
            self._slots.release()

    async def _submit(self, request: _Request) -> None:
        request.source = await self._sources.url_of(request.variation.source)
        inputs = {"redux_image": request.source.url, **request.variation.parameters.as_sent()}

        async def submit() -> str:
            request.submitted_at = self._clock.now()
            request.submitted = self._clock.monotonic()
            request.may_be_accepted = True
            try:
                return (await self._client.submit(inputs)).request_id
            except errors.VariationsError as error:
                request.may_be_accepted = isinstance(error, errors.SubmitUnknown)
                raise

        request.request_id = await self._calls.send("submit", submit)

    async def _wait(self, request: _Request) -> Completed:
        """Poll until the request is done."""
        request_id = request.request_id or ""
        while (age := self._clock.monotonic() - request.submitted) < self._schedule.deadline_seconds:
            await self._clock.sleep(self._schedule.next_poll_seconds(age, request.polls))
            request.polls += 1
            try:
                status = await self._calls.get(
                    "status", lambda: self._client.status(request_id), seconds=self._schedule.deadline_seconds - age
                )
            except errors.RequestGone as gone:
                status = await self._from_history(request, gone)
            match status:
                case Completed():
                    return status
                case Failed():
                    raise errors.InferenceFailed(status.error, request_id=request_id)
        raise errors.InferenceTimeout(request_id, age)

    async def _from_history(self, request: _Request, gone: errors.RequestGone) -> Status:
        """Look a request up that the API forgot: its record stays, and its output lives for days."""
        request_id = request.request_id or ""
        try:
            record = await self._calls.get(
                "history", lambda: self._client.history_record(request_id), seconds=RESULT_SECONDS
            )
        except (errors.ItemError, errors.RunError):
            # The history is a service of its own: what is wrong with it is not wrong with the run.
            raise gone from None
        if record.status == "FAILED":
            return Failed(request_id, record.error or "")
        if record.status == "PENDING":
            return Processing(request_id)
        if not record.output_urls:
            raise gone
        request.is_from_history = True
        return Completed(
            request_id,
            tuple(OutputFile(url) for url in record.output_urls),
            Metrics(cost_usd=record.cost_usd, total_seconds=record.latency_seconds),
        )

    async def _collect(self, request: _Request, completed: Completed) -> list[Outcome]:
        """Fetch and store every image of a finished request; what is missing of those wanted is a row too."""
        if not completed.outputs:
            completed = await self._with_outputs(request)
        completed_at = self._clock.now()
        wanted = request.variation.parameters.num_outputs
        made = min(wanted, len(completed.outputs))
        cost_usd = completed.metrics.cost_usd
        shared_by = wanted if request.is_from_history else made
        cost_each = self._limits.price_usd if cost_usd is None else cost_usd / shared_by

        async def keep(index: int) -> Outcome:
            outcome = self._outcome(request, index, metrics=completed.metrics, completed_at=completed_at)
            if index >= made:
                return self._missing(request, outcome, made=made)
            outcome = replace(outcome, cost_usd=cost_each, output_url=public_uri(completed.outputs[index].url))
            try:
                image = await self._outputs.keep(request.variation, completed.outputs[index], output_index=index)
            except Exception as error:  # noqa: BLE001 - nor may one image take the others of its request with it
                code, text = _code_and_text(error)
                return replace(outcome, status=self._blame(request, error), error_code=code, error=text)
            return replace(outcome, status="kept", image=image)

        return list(await asyncio.gather(*(keep(index) for index in range(wanted))))

    def _missing(self, request: _Request, outcome: Outcome, *, made: int) -> Outcome:
        """Return the row of an image that was wanted, and that the finished request does not name."""
        if request.is_from_history:
            # A single record names one output of several: the others were made, and may be found.
            error: errors.ItemError = errors.RequestGone("forgotten by the API, and the history names no such output")
            outcome = replace(outcome, status="unknown", cost_usd=self._limits.price_usd)
        else:
            error = errors.OutputMissing(f"asked for {request.variation.parameters.num_outputs}, the API made {made}")
        return replace(outcome, error_code=error.code, error=error.message)

    async def _with_outputs(self, request: _Request) -> Completed:
        try:
            return await self._calls.get("result", lambda: self._result(request), seconds=RESULT_SECONDS)
        except errors.RequestGone as gone:
            found = await self._from_history(request, gone)
            if not isinstance(found, Completed):
                raise
            return found

    async def _result(self, request: _Request) -> Completed:
        status = await self._client.result(request.request_id or "")
        if isinstance(status, Failed):
            raise errors.InferenceFailed(status.error, request_id=request.request_id)
        if isinstance(status, Completed) and status.outputs:
            return status
        raise errors.ServiceUnavailable("done, but its result names no image", request_id=request.request_id)

    def _not_kept(self, request: _Request, error: Exception) -> list[Outcome]:
        """Return the rows of a request that came to nothing; none if it was the run that ended before it left."""
        status = self._blame(request, error)
        if request.request_id is None and isinstance(error, errors.RunError | errors.RunPaused):
            return []
        code, text = _code_and_text(error)
        return [
            replace(
                self._outcome(request, index),
                status=status,
                error_code=code,
                error=text,
                # What cannot be known is counted as spent.
                cost_usd=self._limits.price_usd if status == "unknown" else 0.0,
            )
            for index in range(request.variation.parameters.num_outputs)
        ]

    def _blame(self, request: _Request, error: Exception) -> OutcomeStatus:
        """Say what an error makes of its item, and stop the run where it is not the item's alone."""
        if isinstance(error, errors.RunError | errors.RunPaused):
            self.stop(error)
        if not isinstance(error, errors.VariationsError):
            logger.error("an error that should not be, in %s", request.variation.variation_id, exc_info=error)
        if isinstance(error, errors.ItemUnknown):
            return "unknown"
        return "unknown" if request.request_id is not None and not isinstance(error, CERTAIN) else "failed"

    def _outcome(
        self,
        request: _Request,
        output_index: int,
        *,
        metrics: Metrics = Metrics(),  # noqa: B008 - frozen
        completed_at: datetime | None = None,
    ) -> Outcome:
        return Outcome(
            variation=request.variation,
            output_index=output_index,
            status="failed",
            redux_image=request.source.public_url if request.source else None,
            request_id=request.request_id,
            submitted_at=request.submitted_at,
            completed_at=completed_at,
            metrics=metrics,
            polls=request.polls,
        )

    def _count(self, outcome: Outcome) -> None:
        progress = self.progress
        progress.cost_usd += outcome.cost_usd
        match outcome.status:
            case "kept":
                progress.kept += 1
            case "failed":
                progress.failed += 1
            case "unknown":
                progress.unknown += 1

    def _check_what_is_paid(self, made: list[Outcome]) -> None:
        """Stop where request after request is paid for and none brings an image: going on would only cost."""
        if any(outcome.status == "kept" for outcome in made):
            self._paid_in_vain_in_a_row = 0
        elif any(outcome.cost_usd for outcome in made):
            self._paid_in_vain_in_a_row += 1
            if self._paid_in_vain_in_a_row >= OUTAGE_ITEMS:
                last = f"{made[-1].error_code}: {made[-1].error}"
                self.stop(
                    errors.ServiceDown(
                        f"{OUTAGE_ITEMS} paid requests in a row brought no image ({last}); "
                        "see to it, then run the same command again"
                    )
                )

    async def _upload(self, content: bytes, content_type: str) -> str:
        return (await self._calls.send("upload", lambda: self._client.upload_asset([(content, content_type)])))[0]

    async def _fetch(self, url: str) -> bytes:
        return await fetch_output(self._client.http, url, policy=self._policy)

    async def _back_off(self, attempt: int) -> None:
        await self._clock.sleep(backoff_seconds(attempt, random=self._random()))


def _code_and_text(error: Exception) -> tuple[str, str]:
    if isinstance(error, errors.VariationsError):
        return error.code, error.message
    return "internal_error", shown_text(f"{type(error).__name__}: {error}")
