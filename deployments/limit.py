"""The global concurrency limit: an outer bound on how many processes work at once, whoever starts them."""

from typing import Final

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from deployments.names import LIMIT
from deployments.step import Outcome, Step

# As many as one run may ask for: what is scarce is the API's request limit, and more processes do not make more of it.
DEFAULT_SLOTS: Final = 64


async def ensure_limit(client: PrefectClient, slots: int | None) -> Step:
    """Make the limit, with a slot for each process that may work at once; None keeps what it has."""
    thing = f"concurrency limit {LIMIT}"
    try:
        found = await client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        made = DEFAULT_SLOTS if slots is None else slots
        try:
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=made))
        except ObjectAlreadyExists:
            # Somebody else deploys at the same time.
            return await ensure_limit(client, slots)
        return Step(thing, Outcome.CREATED, f"{made} slots")
    wanted = found.limit if slots is None else slots
    differences = [f"{found.limit} slots → {wanted}"] if found.limit != wanted else []
    # One that is off lets everybody through; one that decays is a rate limit, and frees the slots of those at work.
    differences += ["switched on"] if not found.active else []
    differences += ["slots no longer decay"] if found.slot_decay_per_second else []
    if differences:
        await client.update_global_concurrency_limit(
            LIMIT, GlobalConcurrencyLimitUpdate(limit=wanted, active=True, slot_decay_per_second=0)
        )
        return Step.changed(thing, differences)
    return Step(thing, Outcome.KEPT, f"{found.limit} slots")
