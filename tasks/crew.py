"""Have a run's shards made by other machines: each is a run of the `work` deployment, on whatever pool that names."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from variations.errors import RunError, SettingsError
from variations.run import Run

# Runs that wait for a machine are told of once in so many looks.
_TELL_EVERY: Final = 15


async def check_deployment(name: str) -> None:
    """Make sure that there is a deployment for the workers, before anything is paid.

    Raises:
        SettingsError: there is none.
    """
    async with get_client() as client:
        try:
            await client.read_deployment_by_name(name)
        except (ObjectNotFound, ValueError):
            raise SettingsError(
                f"workers: there is no deployment {name!r} on this Prefect server to run them; `variations deploy` "
                "makes it, and the setting work_deployment names another one"
            ) from None


async def make_with_workers(run: Run, *, workers: int, deployment: str, profile: str) -> None:
    """Have the shards of a planned run made by runs of a deployment; what stops the run stops its engine.

    Args:
        run: planned.
        workers: so many at once; one that dies is replaced.
        deployment: `flow/deployment`.
        profile: of the settings, on the machines that work.
    """
    if run.engine.stopped_by is not None:
        return
    crew = await run.open_to_workers()
    parameters = {"destination": run.job.destination, "run_id": run.run_id, "profile": profile}
    await crew.lead(WorkRuns(deployment, parameters), workers=workers)


class WorkRuns:
    """Workers as runs of a deployment; the label of each is the id of its flow run.

    Args:
        deployment: `flow/deployment`.
        parameters: of each of them.
    """

    def __init__(self, deployment: str, parameters: Mapping[str, str]) -> None:
        self._deployment = deployment
        self._parameters = dict(parameters)
        self._started = 0
        self._looks = 0

    async def start(self) -> str:
        """Start one more, as a subflow that the UI shows below this flow run.

        Raises:
            RunError: Prefect does not take it.
        """
        self._started += 1
        name = f"work {self._parameters['run_id']} {self._started}"
        try:
            flow_run = await arun_deployment(
                self._deployment, parameters=self._parameters, timeout=0, flow_run_name=name
            )
        except Exception as error:
            raise RunError(f"no worker could be started by {self._deployment}: {error}") from error
        get_run_logger().info("Started the worker %r by %s", flow_run.name, self._deployment)
        return str(flow_run.id)

    async def ended(self, labels: Collection[str]) -> Mapping[str, str]:
        """Return those whose flow run has ended, each with its state."""
        try:
            runs = await self._read(labels) if labels else []
        except Exception as error:  # noqa: BLE001 - their signs of life tell it, too
            get_run_logger().warning("Prefect does not tell how the workers stand: %r", error)
            return {}
        waiting = sum(
            1 for one in runs if one.state is not None and (one.state.is_scheduled() or one.state.is_pending())
        )
        if waiting and self._looks % _TELL_EVERY == _TELL_EVERY - 1:
            get_run_logger().info(
                "%d of the workers wait for a machine: is a worker of their work pool running?", waiting
            )
        self._looks += 1
        return {
            str(one.id): f"{one.name!r}: {one.state.name}" + (f", {one.state.message}" if one.state.message else "")
            for one in runs
            if one.state is not None and one.state.is_final()
        }

    async def withdraw(self, labels: Collection[str]) -> None:
        """Cancel those whose flow run waits for a machine."""
        try:
            for one in await self._read(labels) if labels else []:
                if one.state is not None and (one.state.is_scheduled() or one.state.is_pending()):
                    async with get_client() as client:
                        state: State[Any] = Cancelled(message="its run is over: nothing is left to do")
                        await client.set_flow_run_state(one.id, state, force=True)
        except Exception as error:  # noqa: BLE001 - one that begins all the same finds that its run is over
            get_run_logger().warning("Workers that wait for a machine could not be cancelled: %r", error)

    @staticmethod
    async def _read(labels: Collection[str]) -> list[FlowRun]:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(label) for label in labels]))
        async with get_client() as client:
            return await client.read_flow_runs(flow_run_filter=wanted)
