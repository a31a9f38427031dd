"""A Prefect server that is started again while runs are at work: what they hold there is still theirs."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Pending, Running

from deployments.names import LIMIT
from deployments.server_checks import check_leases
from flows.augment import augment
from tests.e2e.prefect_server import running_server

LEASE_SECONDS = 300.0


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[PrefectClient]:
    """Run a server that remembers what the last one in the folder knew, and give a client of it."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PREFECT_HOME": str(folder / "prefect")}
    with (
        running_server(folder, env, database_url=None) as server,
        temporary_settings({PREFECT_API_URL: server.api_url}),
    ):
        async with get_client() as client:
            yield client


async def slots(client: PrefectClient, name: str) -> int:
    """Return how many slots of a limit are taken."""
    return (await client.read_global_concurrency_limit_by_name(name)).active_slots


async def test_what_runs_hold_outlives_the_server(tmp_path: Path) -> None:
    """A run's turn at its deployment and its slot of the limit can be kept, which the engine ends a run over if it
    fails, and be given back, which fails in silence.
    """
    async with running(tmp_path) as client:
        deployment_id = await client.create_deployment(
            await client.create_flow(augment), name="restart", concurrency_limit=1
        )
        run = await client.create_flow_run_from_deployment(deployment_id)
        await client.set_flow_run_state(run.id, Pending())
        await client.set_flow_run_state(run.id, Running())
        await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=2))
        answer = await client.increment_concurrency_slots_with_lease([LIMIT], 1, "concurrency", LEASE_SECONDS)
        slot = UUID(answer.json()["lease_id"])
    async with running(tmp_path) as client:
        run = await client.read_flow_run(run.id)
        assert run.state is not None
        assert run.state.is_running()
        turn = run.state.state_details.deployment_concurrency_lease_id
        assert turn is not None
        turns = (await client.read_deployment(deployment_id)).global_concurrency_limit
        assert turns is not None
        for lease in (turn, slot):
            await client.renew_concurrency_lease(lease, LEASE_SECONDS)
        assert (await slots(client, turns.name), await slots(client, LIMIT)) == (1, 1)
        await client.release_concurrency_slots_with_lease(slot)
        await client.set_flow_run_state(run.id, Completed())
        assert (await slots(client, turns.name), await slots(client, LIMIT)) == (0, 0)
        # And one that is over is not renewed for ever.
        with pytest.raises(PrefectHTTPStatusError, match="410"):
            await client.renew_concurrency_lease(slot, LEASE_SECONDS)
        (finding,) = await check_leases(client)
        assert finding.is_ok, finding
