"""The work pool: where runs are put, and workers take them from."""

import json
from importlib.resources import files
from typing import Any, Final, Literal

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from deployments.names import POOL
from deployments.step import Outcome, Step
from variations.errors import SettingsError

PoolType = Literal["process", "docker", "kubernetes", "ecs"]
DEFAULT_TYPE: Final[PoolType] = "process"


async def ensure_pool(client: PrefectClient, pool_type: PoolType | None) -> Step:
    """Make the work pool if it is not there. One that is there is kept as it is: its job template is its owner's.

    Args:
        client: the server.
        pool_type: what it is to be; None: what it is, or a process pool.

    Raises:
        SettingsError: there is one of another type.
    """
    thing = f"work pool {POOL}"
    try:
        found = await client.read_work_pool(POOL)
    except ObjectNotFound:
        made = pool_type or DEFAULT_TYPE
        wanted = WorkPoolCreate(name=POOL, type=made, base_job_template=await _job_template(made))
        try:
            await client.create_work_pool(wanted)
        except ObjectAlreadyExists:
            # Somebody else deploys at the same time.
            return await ensure_pool(client, pool_type)
        return Step(thing, Outcome.CREATED, made)
    if pool_type is not None and found.type != pool_type:
        raise SettingsError(
            f"the work pool {POOL} is of the type {found.type}, and a pool's type cannot be changed; delete it first "
            f"(`prefect work-pool delete {POOL}`), or leave out --pool-type"
        )
    # Who paused it had a reason; it is told, for nothing runs.
    is_paused = f"; paused, nothing is started: prefect work-pool resume {POOL}" if found.is_paused else ""
    return Step(thing, Outcome.KEPT, found.type + is_paused)


async def _job_template(pool_type: PoolType) -> dict[str, Any]:
    """Return what a job of the pool looks like: ours where there is one, else Prefect's."""
    ours = files("deployments") / "templates" / f"{pool_type}.json"
    if ours.is_file():
        return dict(json.loads(ours.read_text(encoding="utf-8")))
    prefects = await get_default_base_job_template_for_infrastructure_type(pool_type)
    if prefects is None:
        raise SettingsError(f"no job template for a work pool of the type {pool_type} is known")
    return prefects
