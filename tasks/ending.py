"""The end of a flow run: a state of Prefect's that tells the truth, and an event that says the same."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

import anyio
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Failed

from tasks.events import ended
from tasks.run_log import log_the_library
from variations.ending import Ending, TooManyFailed, ending_of
from variations.errors import StoppedByUser, VariationsError
from variations.plan import Plan
from variations.receipt import Receipt, RunStopped
from variations.run import Run
from variations.tally import Tally

PATIENCE_SECONDS: Final = 10.0
_STATES: Final = {"completed": Completed, "failed": Failed, "cancelled": Cancelled, "crashed": Crashed}


class End:
    """What a flow run came to.

    Attributes:
        run: the run, from when it has the dataset in hand.
        result: what it came to; whoever runs the flow sets it.
    """

    def __init__(self, max_failed_percent: float) -> None:
        self._max_failed_percent = max_failed_percent
        self._state: Any = None
        self.run: Run | None = None
        self.result: Plan | Receipt | Tally

    def state(self) -> Any:
        """Return the final state, for the flow to return: who called it gets the result, or the error raised."""
        return self._state

    async def come(self, came_to: Plan | Receipt | Tally | RunStopped | VariationsError) -> None:
        """Take the end as it has come: a result, or an error that was foreseen."""
        reason = came_to.reason if isinstance(came_to, RunStopped) else came_to
        ending = ending_of(
            came_to,
            max_failed_percent=self._max_failed_percent,
            is_cancelled=isinstance(reason, StoppedByUser) and await _is_cancelling(),
        )
        level = logging.INFO if ending.kind == "completed" else logging.ERROR
        get_run_logger().log(level, "%s: %s", ending.name, ending.message)
        receipt = came_to.receipt if isinstance(came_to, RunStopped) else came_to
        self.tell(ending, receipt if isinstance(receipt, Receipt) else None)
        self._state = _STATES[ending.kind](name=ending.name, message=ending.message, data=_data(came_to, ending))

    def tell(self, ending: Ending, receipt: Receipt | None = None) -> None:
        """Tell of the end of a run that had begun."""
        if self.run is not None:
            ended(ending, run_id=self.run.run_id, destination=self.run.job.destination, receipt=receipt)


def _data(came_to: Plan | Receipt | Tally | RunStopped | VariationsError, ending: Ending) -> Any:
    """Return what the caller of the flow gets; of a state that is none of success, that is raised."""
    if isinstance(came_to, Exception):
        return None if ending.kind == "completed" else came_to
    if isinstance(came_to, Receipt) and ending.kind == "failed":
        return TooManyFailed(came_to, ending.message)
    return came_to.as_dict() if isinstance(came_to, Tally) else asdict(came_to)


@asynccontextmanager
async def ending(*, max_failed_percent: float = 100.0) -> AsyncIterator[End]:
    """Yield what is to be told how the flow run ends, and catch the errors that were foreseen.

    Args:
        max_failed_percent: where more of its images failed, the flow run has.
    """
    log_the_library()
    end = End(max_failed_percent)
    # Prefect cancels a run whose turn it could not renew, be it because the server was away for a moment. What is in
    # flight is paid for, and two runs are kept apart by the dataset's lock: it is ended as it should be, all the same.
    with anyio.CancelScope(shield=True):
        try:
            yield end
        except (VariationsError, RunStopped) as foreseen:
            await end.come(foreseen)
        except Exception as unforeseen:
            error = f"an error that should not be: {type(unforeseen).__name__}"
            end.tell(Ending("failed", "Failed", error, "error"))
            raise
        else:
            await end.come(end.result)
    if anyio.current_effective_deadline() == -math.inf:
        with anyio.CancelScope(shield=True):
            await _end_at_once(end.state())


async def _end_at_once(state: State[Any]) -> None:
    """Bring the flow run to its final state here: the engine is cut off before it can, and would call it crashed.

    It leaves a flow run alone that has ended as far as it knows.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    final: State[Any] = State(type=state.type, name=state.name, message=state.message)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), get_client() as client:
            await client.set_flow_run_state(context.flow_run.id, final)
    except Exception as error:  # noqa: BLE001 - it is published all the same, and said to have crashed
        get_run_logger().warning("Prefect could not be told how the run ended: %r", error)
        return
    # With its result, for whoever called the flow.
    context.flow_run.state = state


async def _is_cancelling() -> bool:
    """Return whether somebody asked Prefect to cancel the flow run: then it has to end as cancelled."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), get_client() as client:
            state = (await client.read_flow_run(UUID(flow_run.id))).state
    except Exception as error:  # noqa: BLE001 - whatever keeps Prefect from telling, the run ends
        get_run_logger().warning("It is not known whether the flow run was cancelled: %r", error)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
