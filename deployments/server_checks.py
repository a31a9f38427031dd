"""What the doctor looks at on the Prefect server."""

from typing import Final

from packaging.version import Version
from prefect import __version__
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from deployments import schedule
from deployments.automations import FAILURE, PREFIX, read_automations
from deployments.deployed import Deployment
from deployments.finding import Finding
from deployments.names import LIMIT, POOL
from deployments.server import server_url

DEPLOY: Final = "variations deploy"


async def check_version(client: PrefectClient) -> Finding:
    """Look whether the server is there, and no older than the Prefect that is installed here."""
    about, found, here = "server", Version(await client.api_version()), Version(__version__)
    text = f"{server_url()}, Prefect {found}"
    if found.major != here.major or found.release[:2] < here.release[:2]:
        return Finding(about, f"{text}, but {here} here", f"install Prefect {here} where the server runs")
    return Finding(about, text)


async def check_pool(client: PrefectClient) -> Finding:
    """Look whether there is a work pool, and a worker alive that takes runs from it."""
    about = "work pool"
    try:
        pool = await client.read_work_pool(POOL)
    except ObjectNotFound:
        return Finding(about, f"there is no work pool {POOL}", DEPLOY)
    if pool.is_paused:
        return Finding(about, f"{POOL} is paused, nothing is started", f"prefect work-pool resume {POOL}")
    alive = await client.read_workers_for_work_pool(
        POOL, worker_filter=WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    )
    if not alive:
        return Finding(about, f"{POOL} has no live worker", f"prefect worker start --pool {POOL}")
    workers = "1 live worker" if len(alive) == 1 else f"{len(alive)} live workers"
    return Finding(about, f"{POOL} ({pool.type}), {workers}")


def check_deployment(deployment: Deployment) -> Finding:
    """Look whether a deployment is there, as this version has it."""
    if deployment.found is None:
        return Finding(deployment.name, "is not there", DEPLOY)
    if differences := deployment.differences():
        return Finding(deployment.name, f"differs from this version: {', '.join(differences)}", DEPLOY)
    return Finding(deployment.name, "is there, as this version has it")


def check_schedule(deployment: Deployment) -> Finding:
    """Look whether the schedule is active, and knows what to read and where to write."""
    about, found = "schedule", schedule.ours(deployment.found)
    if found is None or deployment.found is None:
        return Finding(about, "is not there", DEPLOY)
    if lacking := schedule.missing(found.parameters):
        how = " ".join(f"--{name} …" for name in lacking)
        return Finding(about, f"has no {' and no '.join(lacking)}", f"{DEPLOY} {how}")
    text = f"{schedule.told(schedule.written(found))}, {found.parameters['source']} → {found.parameters['destination']}"
    if not found.active or deployment.found.paused:
        return Finding(about, f"{text}, but it is off", "switch it on, on the deployment's page in Prefect's UI")
    return Finding(about, text)


async def check_limit(client: PrefectClient, deployments: list[Deployment]) -> Finding:
    """Look whether the concurrency limit is there, and none of its slots is held by nobody."""
    about = "concurrency limit"
    try:
        limit = await client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        return Finding(about, f"there is no limit {LIMIT}: none of the processes is held back", DEPLOY)
    if not limit.active:
        return Finding(about, f"{LIMIT} is off: none of the processes is held back", DEPLOY)
    ids = [one.found.id for one in deployments if one.found is not None]
    running = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ids)),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING, StateType.PENDING])
            )
        ),
        limit=200,
    )
    text = f"{LIMIT}, {limit.active_slots} of {limit.limit} slots taken"
    # Each process takes one, and one whose process was killed comes back when its lease ends.
    if limit.active_slots > len(running):
        free = f"prefect global-concurrency-limit update {LIMIT} --active-slots {len(running)}"
        return Finding(about, f"{text}, and {len(running)} runs at work", f"wait a minute; if it stays so: {free}")
    return Finding(about, text)


async def check_automations(client: PrefectClient) -> Finding:
    """Look whether the automations are there, as this version has them, and switched on."""
    about = "automations"
    try:
        compared = await read_automations(client)
    except ObjectNotFound:
        return Finding(about, "need the deployments, which are not all there", DEPLOY)
    stale = [one.wanted.name for one in compared if one.found is None or one.differences()]
    if stale:
        return Finding(about, f"not there, or not as this version has them: {_names(stale)}", DEPLOY)
    off = [one.wanted.name for one in compared if one.found is not None and not one.found.enabled]
    if off:
        return Finding(about, f"switched off: {_names(off)}", "switch them on, on the page Automations of Prefect's UI")
    names = [one.wanted.name for one in compared]
    unseen = "" if FAILURE in names else f"; nobody is notified ({DEPLOY} --notify TYPE/NAME)"
    return Finding(about, f"{_names(names)}{unseen}")


def _names(names: list[str]) -> str:
    return ", ".join(name.removeprefix(PREFIX) for name in names)
