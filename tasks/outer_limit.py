"""The outer bound: how many processes may work at once with one key, by a global concurrency limit of Prefect's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectNotFound

from variations.errors import SettingsError

# The slot of a process that was killed comes back after so long; the least that Prefect allows.
LEASE_SECONDS: Final = 60


@asynccontextmanager
async def one_slot(name: str) -> AsyncIterator[None]:
    """Hold one slot of a global concurrency limit while this process works; without a name, none.

    It is taken once a process, never for an image: that takes 200 ms. Prefect skips in silence a limit that does not
    exist, so that is asked for. Who loses its lease, because the server is away for a minute, works on: what is in
    flight is paid for, and what keeps two from paying for the same is the journal, not this.

    Raises:
        SettingsError: there is no such limit.
    """
    if not name:
        yield
        return
    async with get_client() as client:
        try:
            limit = await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            raise SettingsError(
                f"concurrency_limit: there is no global concurrency limit {name!r} on this Prefect server; "
                "`variations deploy` makes it"
            ) from None
    if limit.active_slots >= limit.limit:
        get_run_logger().info("All %d slots of the limit %s are taken: waiting for one", limit.limit, name)
    async with concurrency(
        name, occupy=1, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False
    ):
        yield
