"""The outer bound on a real Prefect server: a slot is held while a process works, and a limit must be there."""

import uuid
from collections.abc import AsyncIterator

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from tasks.outer_limit import one_slot
from variations.errors import SettingsError


async def taken(name: str) -> float:
    """Return how many slots of a limit are taken."""
    async with get_client() as client:
        return (await client.read_global_concurrency_limit_by_name(name)).active_slots


@pytest.fixture
async def limit(prefect_api_url: str) -> AsyncIterator[str]:  # noqa: ARG001 - it leads there
    """Make a limit of two slots; its name."""
    name = f"limit-{uuid.uuid4().hex[:8]}"
    async with get_client() as client:
        await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=2))
    yield name
    async with get_client() as client:
        await client.delete_global_concurrency_limit_by_name(name)


async def test_a_process_holds_one_slot_and_gives_it_back(limit: str) -> None:
    """Once a process, whatever the number of images."""
    async with one_slot(limit):
        assert await taken(limit) == 1
        async with one_slot(limit):
            assert await taken(limit) == 2
    assert await taken(limit) == 0


async def test_a_slot_is_given_back_by_one_that_fails(limit: str) -> None:
    """An error must not leak it."""
    with pytest.raises(RuntimeError):
        async with one_slot(limit):
            raise RuntimeError("it fails")
    assert await taken(limit) == 0


async def test_a_limit_that_is_not_there_is_named(prefect_api_url: str) -> None:  # noqa: ARG001
    """Prefect would skip it in silence."""
    with pytest.raises(SettingsError, match=r"no global concurrency limit 'no-such-limit'.*variations deploy"):
        async with one_slot("no-such-limit"):
            pytest.fail("it went on without one")


async def test_without_a_name_none_is_taken() -> None:
    """On the temporary server of a command there is none."""
    async with one_slot(""):
        pass
