"""A Prefect server on which nothing is set up, or everything."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from config.blocks import KEY_BLOCK, SETTINGS_BLOCK
from deployments.automations import NAMES
from deployments.names import DEPLOYMENTS, LIMIT, POOL
from deployments.schedule import REMEMBERED, Wish
from deployments.setup import Wishes, set_up
from deployments.step import Outcome, Step


async def steps_of(wishes: Wishes) -> dict[str, Step]:
    """Set up, and return what became of each thing."""
    return {step.thing: step async for step in set_up(wishes)}


def untouched(steps: dict[str, Step]) -> bool:
    """Return whether nothing was done."""
    return {step.outcome for step in steps.values()} <= {Outcome.KEPT, Outcome.LEFT_OUT}


async def wipe() -> None:
    """Take everything away from the server that a setup puts there."""
    async with get_client() as client:
        for name in NAMES:
            for automation in await client.read_automations_by_name(name):
                await client.delete_automation(automation.id)
        for name in DEPLOYMENTS:
            with suppress(ObjectNotFound):
                await client.delete_deployment((await client.read_deployment_by_name(name)).id)
        with suppress(ObjectNotFound):
            await client.delete_variable_by_name(REMEMBERED)
        with suppress(ObjectNotFound):
            await client.delete_work_pool(POOL)
        with suppress(ObjectNotFound):
            await client.delete_global_concurrency_limit_by_name(LIMIT)
        for name, block_type in ((KEY_BLOCK, "secret"), (SETTINGS_BLOCK, "variations-settings")):
            with suppress(ObjectNotFound):
                await client.delete_block_document((await client.read_block_document_by_name(name, block_type)).id)


@pytest.fixture(scope="module")
def bare(prefect_api_url: str) -> Iterator[str]:
    """Give the address of a server on which nothing is set up; nothing is left behind for other tests."""
    asyncio.run(wipe())
    yield prefect_api_url
    asyncio.run(wipe())


@pytest.fixture(scope="module")
def deployed(bare: str) -> str:
    """Give the address of a server on which everything is set up, with a schedule that is on."""
    wish = Wish({"source": "s3://nowhere/manifest.csv", "destination": "s3://nowhere/{date}"})
    asyncio.run(steps_of(Wishes(schedule=wish, api_key="SG_0123456789abcdef")))
    return bare


@pytest.fixture
async def client(bare: str) -> AsyncIterator[PrefectClient]:
    """Give a client of that server."""
    assert bare
    async with get_client() as client:
        yield client
