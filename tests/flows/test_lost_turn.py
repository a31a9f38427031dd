"""A run whose turn Prefect could not renew: it is not cut off."""

import asyncio
from typing import Any

import anyio
import pytest
from prefect import flow
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
