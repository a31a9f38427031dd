"""The canary of a run: made and shown before the rest, which is made if that is good enough, or a person says so."""

import asyncio
import math
from typing import Any, Final
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Paused

from tasks import shown
from tasks.outer_limit import one_slot
from tasks.shards import make_shards
from tasks.steps import look_at_canary, write_gallery
from variations.canary import Canary
from variations.engine.limits import Limits
from variations.errors import StoppedByUser
from variations.receipt import Plan, duration
from variations.run import Run

POLL_SECONDS: Final = 5.0
# So much later Prefect ends by itself what is paused: by then this process has, in its own words.
SPARE_SECONDS: Final = 600.0
_STOP_LOOK_SECONDS: Final = 0.5


async def try_canary(
    run: Run, plan: Plan, *, limits: Limits, slot: str = "", gallery: bool = True, wait_seconds: float = 0.0
) -> None:
    """Make the canary of a planned run, if it has one, in this process, and look at it; where it is not good enough,
    wait for somebody to resume the flow run, if it is a deployment's. What is not to be made then stops the engine.

    Args:
        run: planned.
        plan: its plan.
        limits: how hard to go.
        slot: global concurrency limit of which the making takes a slot; empty: none.
        gallery: whether the gallery is written before the rest is made.
        wait_seconds: how long to wait.
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
    elif waits and await _is_resumed(run, canary, seconds=wait_seconds):
        await run.go_on("allowed")
    elif run.engine.stopped_by is None:
        run.pause_after_canary()


def _what_now(canary: Canary, wait_seconds: float) -> str:
    if canary.is_good:
        return "It is good enough: the rest is made."
    if wait_seconds:
        return (
            f"It is not good enough: the flow run waits for {duration(wait_seconds)}. *Resume* makes the rest, "
            "*Cancel* does not."
        )
    return "It is not good enough: the rest is not made. A run with canary 0 makes it."


async def _is_resumed(run: Run, canary: Canary, *, seconds: float) -> bool:
    """Pause the flow run in Prefect, and wait for somebody to resume it; returns whether somebody did.

    The process stays, and the dataset is its own meanwhile. Where a deployment runs so many at once, Prefect gives its
    turn to the next one; that finds the dataset busy. A server that is away for a while is asked again.
    """
    logger, clock = get_run_logger(), asyncio.get_running_loop()
    until = clock.time() + seconds
    run_id = UUID(flow_run.id)
    paused: State[Any] = Paused(
        timeout_seconds=math.ceil(seconds + SPARE_SECONDS),
        reschedule=False,
        pause_key=f"canary {run.run_id}",
        message=f"The canary is not good enough: {canary.summary()}. Resume makes the rest.",
    )
    try:
        async with get_client() as client:
            answer = await client.set_flow_run_state(run_id, paused)
        if answer.state is None or not answer.state.is_paused():
            logger.warning("Prefect does not pause this flow run: %s", answer.details)
            return False
    except Exception as error:  # noqa: BLE001 - the run ends as paused, whatever keeps Prefect from showing it
        logger.warning("Prefect does not pause this flow run: %r", error)
        return False
    logger.warning("Waiting for %s for somebody to resume this flow run: %s", duration(seconds), canary.summary())
    ask_at = clock.time()
    while clock.time() < until and run.engine.stopped_by is None:
        await asyncio.sleep(_STOP_LOOK_SECONDS)
        if clock.time() < ask_at:
            continue
        ask_at = clock.time() + POLL_SECONDS
        state = await _state_of(run_id)
        if state is None or state.is_paused():
            continue
        if state.is_cancelling() or state.is_cancelled():
            # The signal that a worker sends then may come late, or never.
            run.engine.stop(
                StoppedByUser("stopped: the flow run was cancelled while it waited; the same command goes on")
            )
        return bool(state.is_running())
    return False


async def _state_of(run_id: UUID) -> State[Any] | None:
    """Return the state of the flow run; None while Prefect does not tell."""
    try:
        async with get_client() as client:
            return (await client.read_flow_run(run_id)).state
    except Exception as error:  # noqa: BLE001 - it is asked again
        get_run_logger().warning("It is not known whether the flow run was resumed: %r", error)
        return None
