"""What becomes of a request that was accepted: polled until it is done, and looked up where the API forgot it."""

import asyncio
import itertools
import logging
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from variations import errors
from variations.api.client import Client
from variations.clock import Clock
from variations.engine.calls import Calls
from variations.engine.lost_submits import ForgottenRequest, LostSubmits
from variations.engine.polling import PollingSchedule
from variations.engine.request import Request
from variations.models import Completed, Failed, HistoryRecord, Metrics, OutputFile, Processing, Status

logger = logging.getLogger(__name__)

RESULT_SECONDS: Final = 120.0
# Even a request that is past its deadline is asked for so long.
CHECK_SECONDS: Final = 15.0
# So many polls in a row that failed, of requests that the status knows at once, are the endpoint's fault. Whether it
# serves again is looked at after the first of these, and more seldom each time that it does not.
POLL_FAILURES: Final = 3
POLL_AGAIN_SECONDS: Final = 15.0
LONGEST_POLL_AGAIN_SECONDS: Final = 600.0
# So many times in a row that cannot be are no slips: what the API tells is something else. It is not believed before
# the polls bore it out either.
STRAYS: Final = 2


class Poller:
    """Ask for requests.

    Args:
        client, calls: the API, within its limits.
        schedule: when to poll.
        lost: reads the pages of the history.
        clock: time.
        are_more_coming: returns whether something new is still to be submitted, so that requests may be scarce.
    """

    def __init__(
        self,
        client: Client,
        calls: Calls,
        *,
        schedule: PollingSchedule,
        lost: LostSubmits,
        clock: Clock,
        are_more_coming: Callable[[], bool],
    ) -> None:
        self._client = client
        self._calls = calls
        self._schedule = schedule
        self._lost = lost
        self._clock = clock
        self._are_more_coming = are_more_coming
        self._were_more_coming = False
        self._failed_polls_in_a_row = 0
        self._poll_again_at = 0.0
        self._poll_again_seconds = POLL_AGAIN_SECONDS
        self._strays_in_a_row = STRAYS
        # In the order in which they began to wait.
        self._asleep: dict[asyncio.Future[None], None] = {}

    async def wait(self, request: Request) -> Completed:
        """Poll until the request is done.

        Raises:
            InferenceFailed: it ran and failed.
            InferenceTimeout: it was not done by the deadline.
            RequestGone: the API forgot it, and the history does not have it, or not yet.
        """
        request_id = request.request_id or ""
        deadline = self._schedule.deadline_seconds
        left_at = 0.0
        # By when the last poll left: a process that was asleep when its answer came asks once more.
        while left_at < deadline or not request.polls:
            age = self._age(request)
            # What an earlier run submitted is asked for at once, however old it is.
            if request.polls or not request.is_resumed:
                await self._wait_until_due(request, asked=age)
            request.polls += 1
            left_at = self._age(request)
            try:
                status = await self._ask(request_id, seconds=max(deadline - age, CHECK_SECONDS))
            except errors.RequestGone as gone:
                status = await self._from_history(request, gone)
            self._look_for_the_end()
            match status:
                case Completed():
                    self._learn(request, status, asked=age)
                    return status
                case Failed():
                    raise errors.InferenceFailed(status.error, request_id=request_id)
        raise errors.InferenceTimeout(request_id, self._age(request))

    async def _ask(self, request_id: str, *, seconds: float) -> Status:
        """Ask how far a request is, where the answer brings the outputs along: a call saved for each image.

        That is the older endpoint for polls. Where it does not serve, the one for the status does.
        """
        failure: errors.VariationsError | None = None
        if self._is_poll_tried():
            try:
                found = await self._calls.get(
                    "poll", lambda: self._client.poll(request_id), seconds=RESULT_SECONDS, only_refused=True
                )
            except errors.VariationsError as error:
                failure = error
            else:
                self._failed_polls_in_a_row = 0
                return found
        attempts = itertools.count()

        async def ask() -> Status:
            next(attempts)
            return await self._client.status(request_id)

        status = await self._calls.get("status", ask, seconds=seconds)
        # Where the status failed too, or the limit is used up, the endpoint is no worse than the rest of the API.
        if failure is not None and not isinstance(failure, errors.RateLimited) and next(attempts) == 1:
            self._poll_failed(failure)
        return status

    def _poll_failed(self, failure: errors.VariationsError) -> None:
        self._failed_polls_in_a_row += 1
        if self._failed_polls_in_a_row == POLL_FAILURES:
            self._poll_again_seconds = POLL_AGAIN_SECONDS
            self._poll_again_at = self._clock.monotonic() + POLL_AGAIN_SECONDS
            logger.info("polling by the status endpoint: the other one said of a request that is there: %s", failure)

    def _is_poll_tried(self) -> bool:
        if self._failed_polls_in_a_row < POLL_FAILURES:
            return True
        now = self._clock.monotonic()
        if now < self._poll_again_at:
            return False
        self._poll_again_seconds = min(2 * self._poll_again_seconds, LONGEST_POLL_AGAIN_SECONDS)
        self._poll_again_at = now + self._poll_again_seconds
        return True

    def _age(self, request: Request) -> float:
        return self._clock.monotonic() - (request.accepted or request.submitted)

    async def _wait_until_due(self, request: Request, *, asked: float) -> None:
        """Wait until a request is to be polled that was not done at the age `asked`."""
        due = math.inf
        while True:
            # What is set may come sooner and is never put off: each new look could do that. A guess binds nobody.
            due = min(due, asked + self._schedule.next_poll_seconds(asked))
            wait, is_guess = due - self._age(request), self._schedule.is_guessing
            look_again_seconds = self._schedule.look_again_seconds
            is_woken = await self._sleep(min(wait, look_again_seconds))
            if wait <= look_again_seconds and not is_woken:
                return
            due = math.inf if is_guess else due

    async def _sleep(self, seconds: float) -> bool:
        """Wait for so long, or until all are woken; returns whether they were."""
        sleep = asyncio.ensure_future(self._clock.sleep(max(0.0, seconds)))
        self._asleep[sleep] = None
        try:
            await asyncio.wait({sleep})
        finally:
            del self._asleep[sleep]
            sleep.cancel()
        return sleep.cancelled()

    def _look_for_the_end(self) -> None:
        """Wake all who wait once nothing new is coming: no request is scarce any more, and polls are cheap."""
        are_coming = self._are_more_coming()
        if self._were_more_coming and not are_coming:
            self._wake()
        self._were_more_coming = are_coming

    def _wake(self) -> None:
        """Have every request that waits look again when it is due."""
        for sleep in self._asleep:
            sleep.cancel()

    def _learn(self, request: Request, completed: Completed, *, asked: float) -> None:
        """Learn how long a request took: what the API tells, as far as the polls bear it out; else what they show.

        It was done after it was last `asked` for in vain, and before now. A time outside of that is the API's slip, or
        no time of this kind: other units, nothing, or without the queue.
        """
        age = self._age(request)
        least = 0.0 if request.is_resumed else asked
        told = completed.metrics.total_seconds
        if told is not None and not least <= told <= age:
            self._strays_in_a_row += 1
        elif told is not None and request.polls > 1 and not request.is_resumed:
            # Of one that was done when it was first asked for, almost any time would do.
            self._strays_in_a_row = 0
        if told is not None and self._strays_in_a_row < STRAYS:
            seconds = min(max(told, least), age)
        elif not request.is_resumed:
            seconds = (least + age) / 2
        else:
            return
        if self._schedule.completed(min(seconds, self._schedule.deadline_seconds)):
            self._wake()

    async def _from_history(self, request: Request, gone: errors.RequestGone) -> Status:
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
        images = request.variation.parameters.num_outputs
        if len(record.output_urls) < images:
            try:
                all_of_it = await self._all_rows_of(record, request, images=images)
            except errors.ServiceUnavailable:
                raise gone from None
            request.may_have_more = all_of_it is None
            record = all_of_it or record
        return Completed(
            request_id,
            tuple(OutputFile(url) for url in record.output_urls),
            Metrics(cost_usd=record.cost_usd, total_seconds=record.latency_seconds),
        )

    async def _all_rows_of(self, record: HistoryRecord, request: Request, *, images: int) -> HistoryRecord | None:
        """Return the record of a request with all of its images, of which a single one names the first; None where the
        pages that have a row for each do not show it.

        Raises:
            ServiceUnavailable: they cannot be read; the images are there for days.
        """
        accepted_at = record.created_at or self._clock.now() - timedelta(seconds=self._age(request))
        wanted = ForgottenRequest(record.request_id, images=images, until=accepted_at)
        return await self._lost.find(wanted, patience_seconds=0)

    async def with_outputs(self, request: Request) -> Completed:
        """Ask for the final body of a request that is done; raises as `wait`."""
        try:
            return await self._calls.get("result", lambda: self._result(request), seconds=RESULT_SECONDS)
        except errors.RequestGone as gone:
            found = await self._from_history(request, gone)
            if not isinstance(found, Completed):
                raise
            return found

    async def _result(self, request: Request) -> Completed:
        status = await self._client.result(request.request_id or "")
        if isinstance(status, Failed):
            raise errors.InferenceFailed(status.error, request_id=request.request_id)
        if isinstance(status, Completed) and status.outputs:
            return status
        raise errors.ServiceUnavailable("done, but its result names no image", request_id=request.request_id)
