"""A run whose turn Prefect could not renew: it is not cut off."""

import asyncio
from typing import Any

import anyio
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import StateType

from tasks import ending
from variations.tally import Tally


@flow(name="loses its turn", persist_result=False)
async def loses_its_turn() -> Any:
    """Be cancelled as Prefect cancels, while something is in flight."""
    with anyio.CancelScope() as as_prefect_does:
        async with ending() as end:
            as_prefect_does.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            end.result = Tally()
        return end.state()
    raise AssertionError("it was cut off")


@pytest.mark.usefixtures("environment")
async def test_what_is_in_flight_is_finished_and_the_state_is_the_true_one() -> None:
    """Its images are paid for, and the dataset's lock keeps any other run away."""
    state = await loses_its_turn(return_state=True)
    assert (state.type, state.name) == (StateType.COMPLETED, "Completed"), state


@flow(name="is cut off with its engine", persist_result=False)
async def is_cut_off(scope: Any) -> Any:
    """Have the engine cancelled around it, and go on to the end."""
    async with ending() as end:
        scope.cancel()
        end.result = Tally(kept=3, cost_usd=0.093)
    await asyncio.sleep(0)
    return end.state()


@pytest.mark.usefixtures("environment")
async def test_a_run_whose_engine_is_cut_off_ends_as_what_it_came_to() -> None:
    """On a real server, where Prefect would say that it crashed, and `recover` would be started for nothing."""
    async with get_client() as client:
        with anyio.CancelScope() as scope:
            await is_cut_off(scope)
        flow_filter = FlowFilter(name=FlowFilterName(any_=["is cut off with its engine"]))
        (run,) = await client.read_flow_runs(flow_filter=flow_filter)
    assert run.state is not None
    found = (run.state.type, run.state.name, run.state.message)
    assert found == (StateType.COMPLETED, "Completed", "3 kept, 0.09 USD")
