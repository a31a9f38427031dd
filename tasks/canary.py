"""The canary of a run: made and shown before the rest, which is made if that is good enough, or a person says so."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Paused

from tasks import shown
from tasks.outer_limit import one_slot
from tasks.shards import make_shards
from tasks.steps import look_at_canary, write_gallery
from variations.canary import Canary
from variations.engine.limits import Limits
from variations.engine.stopping import Handlers, handled_by, handlers_now
from variations.plan import Plan
from variations.run import Run
from variations.texts import duration

POLL_SECONDS: Final = 5.0
# So much later Prefect ends by itself what is paused: by then this process has, in its own words.
SPARE_SECONDS: Final = 600.0
RESUMED: Final = "Resumed"
NOT_RESUMED: Final = "NotResumed"
_STOP_LOOK_SECONDS: Final = 0.5

# Waits, and returns the state in which the waiting ended.
Wait = Callable[..., Awaitable[Any]]
_waiting: ContextVar[tuple[Callable[[], bool], Handlers]] = ContextVar("waiting")


async def try_canary(
    run: Run,
    plan: Plan,
    *,
    limits: Limits,
    wait: Wait,
    wait_seconds: float = 0.0,
    slot: str = "",
    gallery: bool = True,
) -> None:
    """Make the canary of a planned run, if it has one, in this process, and look at it; where it is not good enough,
    wait for somebody to say that the rest is to be made, if this is a run of a deployment. What is not to be made then
    stops the engine.

    Args:
        run: planned.
        plan: its plan.
        limits: how hard to go.
        wait: the flow that waits.
        wait_seconds: how long.
        slot: global concurrency limit of which the making takes a slot; empty: none.
        gallery: whether the gallery is written before the rest is made.
    """
    if not plan.canary:
        return
    async with one_slot(slot):
        await make_shards(run, plan, limits=limits)
    if run.engine.stopped_by is not None or plan.canary_shards == plan.shards:
        return
    canary = await look_at_canary(run)
    if canary is None:
        return
    waits = bool(not canary.is_good and deployment.id and wait_seconds)
    # Where it ends here, that is written at the end.
    if gallery and plan.canary_shards and (canary.is_good or waits):
        await write_gallery(run)
    await shown.show_canary(canary, run.job.destination, what_now=_what_now(canary, wait_seconds if waits else 0.0))
    if canary.is_good:
        await run.go_on("passed")
    elif waits and await _is_resumed(run, canary, wait=wait, seconds=wait_seconds):
        await run.go_on("allowed")
    elif run.engine.stopped_by is None:
        run.pause_after_canary()


def _what_now(canary: Canary, wait_seconds: float) -> str:
    if canary.is_good:
        return "It is good enough: the rest is made."
    if wait_seconds:
        return (
            f"It is not good enough: the flow run `{_waiting_name()}`, among the subflows of this one, waits for "
            f"{duration(wait_seconds)}. *Resume* there makes the rest."
        )
    return "It is not good enough: the rest is not made. A run with canary 0 makes it."


def _waiting_name() -> str:
    return f"canary of {flow_run.name}"


async def _is_resumed(run: Run, canary: Canary, *, wait: Wait, seconds: float) -> bool:
    """Wait in a flow run below this one, and return whether somebody resumed it."""
    token = _waiting.set((lambda: run.engine.stopped_by is not None, handlers_now()))
    try:
        state = await wait(of=str(flow_run.name), came_to=canary.summary(), seconds=seconds, return_state=True)
    except Exception as error:  # noqa: BLE001 - the run ends as paused, whatever keeps Prefect from showing it
        get_run_logger().warning("Prefect could not wait for somebody to resume this run: %r", error)
        return False
    finally:
        _waiting.reset(token)
    return bool(state.is_completed() and state.name == RESUMED)


async def wait_for_word(*, came_to: str, seconds: float) -> Any:
    """Pause this flow run in Prefect until somebody resumes it; returns the state in which it ends.

    Called by the flow that `try_canary` was given, and by no other.

    The process stays, and with it the right to the dataset. It is a flow run of its own that is paused, for Prefect
    would take the turn from one of a deployment that runs so many at once, and end it for having lost that. A server
    that is away for a while is asked again.
    """
    is_stopped, handlers = _waiting.get()
    # Each flow run has Prefect take SIGTERM for its own; it is for the run above, which ends in order.
    with handled_by(handlers):
        return await _word(came_to=came_to, seconds=seconds, is_stopped=is_stopped)


async def _word(*, came_to: str, seconds: float, is_stopped: Callable[[], bool]) -> Any:
    logger, clock = get_run_logger(), asyncio.get_running_loop()
    until = clock.time() + seconds
    run_id = UUID(flow_run.id)
    paused: State[Any] = Paused(
        timeout_seconds=math.ceil(seconds + SPARE_SECONDS),
        reschedule=False,
        message=f"The canary is not good enough: {came_to}. Resume makes the rest.",
    )
    async with get_client() as client:
        answer = await client.set_flow_run_state(run_id, paused)
    if answer.state is None or not answer.state.is_paused():
        logger.warning("Prefect does not pause this flow run: %s", answer.details)
        return _not_resumed("Prefect did not pause it")
    logger.warning("Waiting for %s for somebody to resume this flow run: %s", duration(seconds), came_to)
    ask_at = clock.time()
    while clock.time() < until:
        await asyncio.sleep(_STOP_LOOK_SECONDS)
        if is_stopped():
            return _not_resumed("the run was told to end")
        if clock.time() < ask_at:
            continue
        ask_at = clock.time() + POLL_SECONDS
        state = await _state_of(run_id)
        if state is None or state.is_paused():
            continue
        if state.is_running():
            return Completed(name=RESUMED, message="the rest is made")
        return _not_resumed(f"it was ended as {state.name}")
    return _not_resumed(f"nobody resumed it within {duration(seconds)}")


def _not_resumed(why: str) -> Any:
    return Completed(name=NOT_RESUMED, message=f"{why}: the rest is not made")


async def _state_of(run_id: UUID) -> State[Any] | None:
    """Return the state of the flow run; None while Prefect does not tell."""
    try:
        async with get_client() as client:
            return (await client.read_flow_run(run_id)).state
    except Exception as error:  # noqa: BLE001 - it is asked again
        get_run_logger().warning("It is not known whether the flow run was resumed: %r", error)
        return None
