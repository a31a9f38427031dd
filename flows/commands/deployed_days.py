"""The days of a backfill as runs of a deployment, each started once the one before has ended.

To queue them all would not keep their order: a run that finds its deployment's place taken asks again half a minute
later, and the server gives the place, once it is free, to whichever run asks first.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import httpx

from flows.commands.terminal import say
from variations.backfill import Day, DayEnd
from variations.errors import SettingsError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

LOOK_SECONDS: Final = 2.0
# Those of other days may be good: its manifest is missing, or more of its images failed than its threshold allows.
_GOES_ON: Final = frozenset({"Completed", "CompletedWithFailures", "Planned", "Failed"})


async def made_by(deployment: str, days: Sequence[Day], parameters: Mapping[str, Any]) -> AsyncIterator[DayEnd]:
    """Yield what came of each day, as its run ends; one that somebody has to look after is the last.

    Args:
        deployment: `flow/deployment`.
        days: the oldest first.
        parameters: of each run, but for its day.

    Raises:
        SettingsError: there is no such deployment.
    """
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes 2 s to import
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415
    from prefect.states import Scheduled  # noqa: PLC0415
    from prefect.utilities.urls import url_for  # noqa: PLC0415

    async with get_client() as client:
        try:
            found = await client.read_deployment_by_name(deployment)
        except (ObjectNotFound, ValueError):
            raise SettingsError(
                f"--deployment: this Prefect server has no {deployment!r}; `variations deploy` makes augment/variations"
            ) from None
        for one in days:
            flow_run = await client.create_flow_run_from_deployment(
                found.id,
                parameters={**parameters, "date": str(one.day)},
                state=Scheduled(),
                name=f"{found.name} {one.day}",
                tags=["backfill"],
            )
            # Its name is another one once it has begun.
            say(f"{one.day}: started, {url_for(flow_run) or f'flow run {flow_run.id}'}")
            end = await _ended(client, flow_run, one)
            yield end
            if end.is_stop:
                return


async def _ended(client: "PrefectClient", flow_run: "FlowRun", one: Day) -> DayEnd:
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError  # noqa: PLC0415

    while True:
        try:
            state = (await client.read_flow_run(flow_run.id)).state
        except ObjectNotFound:
            return DayEnd(one.day, "its flow run was deleted", is_stop=True)
        except (httpx.TransportError, PrefectHTTPStatusError):
            # A server that is away for a while is waited for: the run, on its machine, waits for it, too.
            state = None
        if state is not None and state.is_final():
            name = str(state.name)
            said = f"{name}: {state.message}" if state.message else name
            return DayEnd(one.day, said, is_stop=name not in _GOES_ON, state=name)
        await asyncio.sleep(LOOK_SECONDS)
