"""The one moment that costs money: write the intent down, POST, and write down what was accepted.

A POST leaves only while its intent is durable and fresh. Whoever takes over the journal knows by that when nothing can
come any more, and no process that slept in between submits what another has already taken in hand.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from variations import errors
from variations.api.client import Client
from variations.clock import Clock
from variations.engine.api_clock import ApiClock
from variations.engine.budget import Budget
from variations.engine.calls import Calls
from variations.engine.limits import Limits
from variations.engine.lost_submits import LostSubmit, LostSubmits
from variations.engine.rate import NoMoreNew
from variations.engine.request import Log, Request
from variations.engine.sources import HandedOver, SourceUrls
from variations.ledger.records import FoundIn, Intended
from variations.models import Variation

# How late a record may land in the history for a run to wait for it; later runs look again.
HISTORY_SECONDS: Final = 60.0


class Submitter:
    """Submit variations, each at most once.

    Args:
        client, calls: the API, within its limits.
        sources: makes the URL of a source.
        budget: holds money back for what is submitted.
        lost: finds submits whose answer was lost.
        limits: how long an intent holds.
        clock: time.
        is_stopped: whether nothing new is to be submitted.
    """

    def __init__(
        self,
        client: Client,
        calls: Calls,
        *,
        sources: SourceUrls,
        budget: Budget,
        lost: LostSubmits,
        limits: Limits,
        clock: Clock,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._client = client
        self._calls = calls
        self._sources = sources
        self._budget = budget
        self._lost = lost
        self._intent_seconds = limits.intent_seconds
        self._intent_is_over = timedelta(seconds=limits.intent_is_over_seconds)
        self._clock = clock
        self._is_stopped = is_stopped
        self._api_clock = ApiClock(clock)
        client.on_date(self._api_clock.heard)

    def is_another(self, request_id: str) -> None:
        """Remember that a request is known to be some other variation's."""
        self._lost.taken(request_id)

    async def submit(self, request: Request, log: Log) -> None:
        """Give a request its id, durably.

        Raises:
            NoMoreNew: the run is stopping, and nothing was submitted.
            SubmitUnknown: the answer was lost, and the history does not show it, or not yet.
            BudgetReached: there is no money left for it.
            Replaced, StorageError: it cannot be written down any more.
            ItemError, RunError, RunPaused: it was not accepted.
        """
        variation = request.variation
        request.source = await self._sources.url_of(variation.source)
        await self._budget.reserve(variation.parameters.num_outputs)
        request.reserved_images = variation.parameters.num_outputs
        source = request.source
        try:
            request_id = await self._calls.send(
                "submit",
                lambda: self._post(request, source),
                prepare=lambda: self._intend(request, source, log),
            )
        except errors.SubmitUnknown as lost:
            try:
                await self.look_for(request, log, patience_seconds=HISTORY_SECONDS)
            except errors.SubmitUnknown:
                # How it came to be lost says more than that it was not found.
                raise lost from None
        else:
            await self._accept(request, log, request_id)

    async def look_for(self, request: Request, log: Log, *, patience_seconds: float) -> None:
        """Look for a submit in the request history, and adopt what is found.

        Raises:
            NotInHistory: the history was read, and does not show it, or not yet.
            SubmitUnknown: the history cannot be read.
            Replaced, StorageError: what was found cannot be written down.
        """
        if request.intended_at is None or request.source is None:
            raise errors.SubmitUnknown("it is not known what was submitted, or when")
        before = request.variation.before
        # By its age: when it was intended is told by the store's clock, or this machine's, and neither is the API's.
        since, early = self._api_clock.ago(self._clock.monotonic() - request.submitted)
        lost = LostSubmit(
            redux_image=request.source.public_url,
            parameters=request.variation.parameters.as_sent(),
            since=since,
            until=since + self._intent_is_over,
            early=early,
            not_these=frozenset({before.request_id} if before and before.request_id else ()),
        )
        try:
            record = await self._lost.find(lost, patience_seconds=patience_seconds)
        except errors.ServiceUnavailable as error:
            raise errors.SubmitUnknown(f"it is not known whether it was accepted: {error.message}") from error
        if record is None:
            raise errors.NotInHistory("the request history does not show whether it was accepted, or not yet")
        await self._accept(request, log, record.request_id, found_in="history")

    async def _accept(self, request: Request, log: Log, request_id: str, *, found_in: FoundIn = "answer") -> None:
        self._lost.taken(request_id)
        await log.accept(request.variation.variation_id, request_id, found_in=found_in)
        request.request_id = request_id

    async def _intend(self, request: Request, source: HandedOver, log: Log) -> None:
        """Write down that it is about to be submitted, unless that is written and fresh."""
        while request.intent_ends <= self._clock.monotonic():
            if self._is_stopped():
                raise NoMoreNew
            # Counted from before it is written: never longer than by the store's clock.
            begun = self._clock.monotonic()
            request.intended_at = await log.append(intent_of(request.variation, source.public_url))
            request.intent_ends = begun + self._intent_seconds

    async def _post(self, request: Request, source: HandedOver) -> str:
        if self._is_stopped():
            raise NoMoreNew
        request.submitted_at = self._clock.now()
        request.submitted = self._clock.monotonic()
        request.may_be_accepted = True
        try:
            inputs = {"redux_image": source.url, **request.variation.parameters.as_sent()}
            request_id = (await self._client.submit(inputs)).request_id
        except errors.VariationsError as error:
            request.may_be_accepted = isinstance(error, errors.SubmitUnknown)
            raise
        request.accepted = self._clock.monotonic()
        return request_id


def intent_of(variation: Variation, redux_image: str | None) -> Intended:
    """Return the record to be written before a variation is submitted."""
    return Intended(
        variation_id=variation.variation_id,
        attempt=variation.attempt,
        redux_image=redux_image,
        before=variation.before,
        rolled_from=variation.rolled_from,
        seed=variation.parameters.seed if variation.rolled_from else None,
    )
