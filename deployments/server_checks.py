"""What the doctor looks at on the Prefect server."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Final
from uuid import UUID

from packaging.version import Version
from prefect import __version__
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    WorkerFilter,
    WorkerFilterStatus,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectNotFound

from config.blocks import SETTINGS_BLOCK, read_settings
from deployments import schedule
from deployments.automations import FAILURE, PREFIX, lost_block, read_automations
from deployments.deployed import Deployment
from deployments.finding import Finding
from deployments.limit import DEFAULT_SLOTS
from deployments.names import AUGMENT, LIMIT, POOL
from deployments.server import server_url
from deployments.shared import hosts_told

DEPLOY: Final = "variations deploy"
# Where a server keeps its leases by default, and where they are there again after a restart.
IN_MEMORY: Final = "prefect.server.concurrency.lease_storage.memory"
ON_DISK: Final = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem"
# A run that has waited for so long is told of; a worker that is there takes one within a quarter of a minute.
WAITED: Final = timedelta(minutes=10)

_AT_WORK: Final = [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]


async def check_version(client: PrefectClient) -> Finding:
    """Look whether the server is there, and no older than the Prefect that is installed here."""
    about, here = "server", Version(__version__)
    if client.server_type == ServerType.CLOUD:
        # It fits every client, and does not tell a version.
        return Finding(about, f"{server_url()}, Prefect Cloud")
    found = Version(await client.api_version())
    text = f"{server_url()}, Prefect {found}"
    if found.major != here.major or found.release[:2] < here.release[:2]:
        return Finding(about, f"{text}, but {here} here", f"install Prefect {here} where the server runs")
    return Finding(about, text)


async def check_leases(client: PrefectClient) -> list[Finding]:
    """Look whether the leases of concurrency limits outlive the server's process; Prefect Cloud's do."""
    if client.server_type == ServerType.CLOUD:
        return []
    settings = (await client.request("GET", "/admin/settings")).json()
    return [leases_told(str(settings["server"]["concurrency"]["lease_storage"]))]


def leases_told(storage: str) -> Finding:
    """Return what is to be said of where a server keeps its leases."""
    about = "leases"
    if storage != IN_MEMORY:
        return Finding(about, f"outlive the server's process ({storage.rpartition('.')[2]})")
    text = "kept in the server's memory: its restart ends runs of augment unpublished, and leaks their slots"
    return Finding(about, text, f"start it with {ON_DISK}")


async def check_pool(client: PrefectClient) -> Finding:
    """Look whether there is a work pool, and a worker alive that takes runs from it."""
    about = "work pool"
    try:
        pool = await client.read_work_pool(POOL)
    except ObjectNotFound:
        return Finding(about, f"there is no work pool {POOL}", DEPLOY)
    if pool.is_paused:
        return Finding(about, f"{POOL} is paused, nothing is started", f"prefect work-pool resume {POOL}")
    if pool.concurrency_limit == 0:
        mend = f"prefect work-pool clear-concurrency-limit {POOL}"
        return Finding(about, f"{POOL} lets 0 runs in at once, nothing is started", mend)
    alive = await client.read_workers_for_work_pool(
        POOL, worker_filter=WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    )
    if not alive:
        return Finding(about, f"{POOL} has no live worker", f"prefect worker start --pool {POOL}")
    workers = "1 live worker" if len(alive) == 1 else f"{len(alive)} live workers"
    return Finding(about, f"{POOL} ({pool.type}), {workers}")


async def check_queues(client: PrefectClient, deployments: list[Deployment]) -> list[Finding]:
    """Look whether the work queues that runs are put into are open: where one is not, nothing runs, or fails either."""
    runs = [one.found for one in deployments if one.found is not None]
    used = {one.work_queue_name for one in runs if one.work_pool_name == POOL}
    found = []
    for queue in await client.read_work_queues(POOL) if used else []:
        if queue.name not in used:
            continue
        about, name = "work queue", f"{quote(queue.name)} --pool {POOL}"
        if queue.is_paused:
            text = f"{queue.name} of {POOL} is paused, nothing is started"
            found.append(Finding(about, text, f"prefect work-queue resume {name}"))
        elif queue.concurrency_limit == 0:
            text = f"{queue.name} of {POOL} lets 0 runs in at once, nothing is started"
            found.append(Finding(about, text, f"prefect work-queue clear-concurrency-limit {name}"))
    return found


def check_deployment(deployment: Deployment) -> Finding:
    """Look whether a deployment is there, as this version has it."""
    if deployment.found is None:
        return Finding(deployment.name, "is not there", DEPLOY)
    if differences := deployment.differences():
        return Finding(deployment.name, f"differs from this version: {', '.join(differences)}", DEPLOY)
    return Finding(deployment.name, "is there, as this version has it")


async def check_schedule(client: PrefectClient, deployment: Deployment) -> Finding:
    """Look whether the schedule is active, and knows what to read and where to write."""
    about, found = "schedule", schedule.ours(deployment.found)
    if found is None or deployment.found is None:
        return Finding(about, "is not there", DEPLOY)
    if lacking := schedule.missing(found.parameters):
        if not found.parameters and await schedule.read_remembered(client):
            text = "has forgotten what it asks for, as by the switch in Prefect's UI"
            return Finding(about, text, f"{DEPLOY}, which remembers it")
        how = " ".join(f"--{name} …" for name in lacking)
        return Finding(about, f"has no {' and no '.join(lacking)}", f"{DEPLOY} {how}")
    if refused := deployment.refused(found.parameters):
        return Finding(
            about, f"asks for what {AUGMENT} refuses: {'; '.join(refused.values())}", _mended_by(deployment, refused)
        )
    text = f"{schedule.told(schedule.written(found))}, {found.parameters['source']} → {found.parameters['destination']}"
    if not found.active or deployment.found.paused:
        # Not by the switch in Prefect's UI: it makes the schedule forget what it asks for.
        return Finding(about, f"{text}, but it is off", f"{DEPLOY} --source {quote(found.parameters['source'])}")
    return Finding(about, text)


def _mended_by(deployment: Deployment, refused: Iterable[str]) -> str:
    # What is no parameter is left out by deploying.
    names = sorted(name for name in refused if name in deployment.schema["properties"])
    return " ".join([DEPLOY, *(f"--{name.replace('_', '-')} …" for name in names)])


async def check_next_run(
    client: PrefectClient, deployments: list[Deployment], *, now: datetime | None = None
) -> list[Finding]:
    """Look whether the server makes runs of the schedule: where it does not, nothing runs, and nothing fails either."""
    about, augment = "next run", next(one for one in deployments if one.name == AUGMENT)
    found = schedule.ours(augment.found)
    if found is None or augment.found is None or not found.active or augment.found.paused:
        return []
    runs = await _runs(client, [augment], type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    times = [one.expected_start_time for one in runs if one.auto_scheduled and one.expected_start_time is not None]
    if times:
        return [Finding(about, f"{min(times):%F %R} UTC")]
    changed = max((at for at in (found.created, found.updated) if at is not None), default=None)
    if changed is not None and (now or datetime.now(UTC)) - changed < WAITED:
        return [Finding(about, "not made yet: the schedule is a few minutes old")]
    mend = "look into the log of Prefect's server: its service Scheduler makes the runs"
    return [Finding(about, "the server has made none of the schedule", mend)]


async def check_limit(client: PrefectClient, deployments: list[Deployment]) -> Finding:
    """Look whether the concurrency limit is there, and none of its slots is held by nobody."""
    about = "concurrency limit"
    try:
        limit = await client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        return Finding(about, f"there is no limit {LIMIT}: none of the processes is held back", DEPLOY)
    if not limit.active:
        return Finding(about, f"{LIMIT} is off: none of the processes is held back", DEPLOY)
    if limit.slot_decay_per_second:
        return Finding(about, f"{LIMIT} is a rate limit: it frees the slots of processes that are at work", DEPLOY)
    if limit.limit < 1:
        return Finding(about, f"{LIMIT} has no slots: every run waits for one", f"{DEPLOY} --slots {DEFAULT_SLOTS}")
    running = await _runs(client, deployments, type=FlowRunFilterStateType(any_=_AT_WORK))
    # Each process takes one, and one whose process was killed comes back when its lease ends, in a minute.
    return _slots(about, limit, LIMIT, running, wait="a minute")


async def check_turns(client: PrefectClient, deployments: list[Deployment]) -> list[Finding]:
    """Look whether a slot of a deployment's own limit is held by nobody: its runs would wait for ever."""
    found = []
    for one in deployments:
        if one.found is not None and one.found.global_concurrency_limit is not None:
            limit = await client.read_global_concurrency_limit_by_name(one.found.global_concurrency_limit.name)
            running = await _runs(client, [one], type=FlowRunFilterStateType(any_=_AT_WORK))
            found.append(_slots(f"turn of {one.name.partition('/')[0]}", limit, "", running, wait="5 minutes"))
    return found


async def check_waiting(
    client: PrefectClient, deployments: list[Deployment], *, now: datetime | None = None
) -> Finding:
    """Look whether runs that should have begun have not; those that wait for another run's end are none of them."""
    about, since = "waiting runs", (now or datetime.now(UTC)) - WAITED
    late = await _runs(client, deployments, name=FlowRunFilterStateName(any_=["Late"]))
    pending = await _runs(client, deployments, type=FlowRunFilterStateType(any_=[StateType.PENDING]))
    waiting: list[tuple[datetime | None, FlowRun]] = [(one.expected_start_time, one) for one in late]
    waiting += [(one.state.timestamp, one) for one in pending if one.state is not None]
    stuck = [(at, one) for at, one in waiting if at is not None and at < since]
    if not stuck:
        return Finding(about, f"none for over {WAITED.total_seconds() / 60:.0f} minutes")
    at, oldest = min(stuck, key=lambda pair: pair[0])
    state = oldest.state.name if oldest.state is not None else "waiting"
    text = f"{len(stuck)} for over {WAITED.total_seconds() / 60:.0f} minutes, the oldest {state} since {at:%F %R} UTC"
    how = f"prefect worker start --pool {POOL}, one more if all are busy; or prefect flow-run cancel {oldest.id}"
    return Finding(about, f"{text}: {oldest.name}", how)


async def check_settings(client: PrefectClient) -> Finding:
    """Look which settings the block holds for all machines, and whether they send requests elsewhere."""
    about, stored = "settings block", await read_settings(client)
    if stored is None:
        return Finding(about, f"there is no block {SETTINGS_BLOCK}", DEPLOY)
    names = ", ".join(sorted(stored)) or "nothing: all is as it is by default"
    hosts = hosts_told(stored)
    return Finding(about, f"{SETTINGS_BLOCK} holds {names}" + (f"; {hosts}" if hosts else ""))


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
    if await lost_block(client, compared):
        return Finding(about, "notify a block that is gone: nobody is told of failures", f"{DEPLOY} --notify TYPE/NAME")
    names = [one.wanted.name for one in compared]
    unseen = "" if FAILURE in names else f"; nobody is notified ({DEPLOY} --notify TYPE/NAME)"
    return Finding(about, f"{_names(names)}{unseen}")


def _slots(
    about: str, limit: GlobalConcurrencyLimitResponse, name: str, running: list[FlowRun], *, wait: str
) -> Finding:
    text = f"{name}, " if name else ""
    text += f"{limit.active_slots} of {limit.limit} slots taken"
    if limit.active_slots <= len(running):
        return Finding(about, text)
    free = f"prefect global-concurrency-limit update {limit.name} --active-slots {len(running)}"
    return Finding(about, f"{text}, and {len(running)} runs at work", f"wait {wait}; if it stays so: {free}")


async def _runs(
    client: PrefectClient,
    deployments: Iterable[Deployment],
    *,
    type: FlowRunFilterStateType | None = None,  # noqa: A002 - Prefect's word
    name: FlowRunFilterStateName | None = None,
) -> list[FlowRun]:
    ids: list[UUID] = [one.found.id for one in deployments if one.found is not None]
    return await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ids)),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=type, name=name)),
        limit=200,
    )


def _names(names: list[str]) -> str:
    return ", ".join(name.removeprefix(PREFIX) for name in names)
