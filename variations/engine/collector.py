"""The rows of a request: what became of each of its images, whether it was finished or came to nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from variations import errors
from variations.api.answers import shown_text
from variations.clock import Clock
from variations.engine.budget import Budget
from variations.engine.outputs import OutputStore
from variations.engine.request import Request
from variations.gate import Gate
from variations.models import Completed, Metrics, Outcome, OutcomeStatus, OutputFile
from variations.rolls import settled_together
from variations.uris import public_uri

logger = logging.getLogger(__name__)

# After acceptance these alone say for certain that no image is to be had; anything else leaves it unknown. An output
# that could not be fetched is there for days.
CERTAIN: Final = (errors.InferenceFailed, errors.OutputInvalid, errors.OutputMissing)


class Collector:
    """Say what became of each image that a request was to bring; those of a finished one are fetched and stored.

    Args:
        outputs: fetches, checks and stores an image.
        with_outputs: asks for the body of a finished request whose status named no image.
        budget: knows the price of an image where the API does not tell it.
        gate: which images are flagged, where a request has none of its own.
        clock: time.
        stop: called with an error that is not its item's alone.
    """

    def __init__(
        self,
        outputs: OutputStore,
        *,
        with_outputs: Callable[[Request], Awaitable[Completed]],
        budget: Budget,
        gate: Gate,
        clock: Clock,
        stop: Callable[[errors.RunError | errors.RunPaused], None],
    ) -> None:
        self._outputs = outputs
        self._with_outputs = with_outputs
        self._budget = budget
        self._gate = gate
        self._clock = clock
        self._stop = stop

    async def collect(self, request: Request, completed: Completed) -> list[Outcome]:
        """Fetch and store every wanted image of a finished request; return their rows, of those that are missing too.

        Raises:
            VariationsError: its body, which names the images, could not be had.
        """
        if not completed.outputs:
            completed = await self._with_outputs(request)
        completed_at = self._clock.now()
        asked = request.variation.parameters.num_outputs
        made = min(asked, len(completed.outputs))
        cost_usd = completed.metrics.cost_usd
        shared_by = asked if request.may_have_more else made
        gate = request.gate or self._gate
        cost_each = self._budget.price_usd if cost_usd is None else cost_usd / shared_by
        files = _files(request, completed)

        async def keep(index: int) -> Outcome:
            outcome = _outcome(request, index, metrics=completed.metrics, completed_at=completed_at)
            if index not in files:
                return self._missing(request, outcome, made=made)
            outcome = replace(outcome, cost_usd=cost_each, output_url=public_uri(files[index].url))
            try:
                brought = await self._outputs.keep(request.variation, files[index], output_index=index, gate=gate)
            except Exception as error:  # noqa: BLE001 - nor may one image take the others of its request with it
                return _with_error(outcome, error, self._blame(request, error))
            if brought.image is None:
                return replace(
                    outcome,
                    status="rejected",
                    measures=brought.measures,
                    error_code=errors.Flagged.code,
                    error=brought.reason,
                    can_retry=request.variation.roll + 1 < gate.rolls,
                )
            return replace(outcome, status="kept", image=brought.image, measures=brought.measures)

        brought = await asyncio.gather(*(keep(index) for index in request.wanted))
        return settled_together([*request.known, *brought])[len(request.known) :]

    def _missing(self, request: Request, outcome: Outcome, *, made: int) -> Outcome:
        """Return the row of an image that was wanted, and that the finished request does not name."""
        if request.may_have_more:
            # The others were made, perhaps, and may be found.
            gone = errors.RequestGone("forgotten by the API, and the history names no such output, or not yet")
            return _with_error(replace(outcome, cost_usd=self._budget.price_usd), gone, "unknown")
        asked = request.variation.parameters.num_outputs
        return _with_error(outcome, errors.OutputMissing(f"asked for {asked}, the API made {made}"), "failed")

    def not_kept(self, request: Request, error: Exception) -> list[Outcome]:
        """Return the rows of a request that came to nothing; none if it was the run that ended before it left."""
        status = self._blame(request, error)
        if request.request_id is None and isinstance(error, errors.RunError | errors.RunPaused):
            return []
        # What cannot be known is counted as spent.
        cost_usd = self._budget.price_usd if status == "unknown" else 0.0
        rows = [
            replace(_with_error(_outcome(request, index), error, status), cost_usd=cost_usd) for index in request.wanted
        ]
        return settled_together([*request.known, *rows])[len(request.known) :]

    def _blame(self, request: Request, error: Exception) -> OutcomeStatus:
        """Say what an error makes of its item, and stop the run where it is not the item's alone."""
        if isinstance(error, errors.RunError | errors.RunPaused):
            self._stop(error)
        if not isinstance(error, errors.VariationsError):
            logger.error("an error that should not be, in %s", request.variation.variation_id, exc_info=error)
        if isinstance(error, errors.ItemUnknown):
            return "unknown"
        return "unknown" if request.request_id is not None and not isinstance(error, CERTAIN) else "failed"


def _files(request: Request, completed: Completed) -> dict[int, OutputFile]:
    """Return the files of the images that are wanted, by their numbers.

    What the history names may be a part, and in another order: no file is taken for two images.
    """
    known = {outcome.output_url for outcome in request.known if outcome.output_url}
    files = [file for file in completed.outputs if public_uri(file.url) not in known]
    if len(completed.outputs) - len(files) == len(known):
        return dict(zip(request.wanted, files, strict=False))
    in_order = dict(enumerate(completed.outputs))
    return {index: in_order[index] for index in request.wanted if index in in_order and in_order[index] in files}


def _outcome(
    request: Request,
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


def _with_error(outcome: Outcome, error: Exception, status: OutcomeStatus) -> Outcome:
    """Return the row with what went wrong, and whether trying it again can help."""
    if isinstance(error, errors.VariationsError):
        code, text = error.code, error.message
    else:
        code, text = "internal_error", shown_text(f"{type(error).__name__}: {error}")
    can_retry = None
    if status == "failed":
        can_retry = error.can_retry if isinstance(error, errors.ItemError) else True
    return replace(outcome, status=status, error_code=code, error=text, can_retry=can_retry)
