"""The deployments of `prefect.yaml`: compared with what is on the server, and deployed by Prefect where they differ."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

from deployments.names import AUGMENT
from deployments.schedule import Wish, ensure_schedule
from deployments.step import Outcome, Step
from variations.errors import VariationsError

_LINES_SHOWN: Final = 12


class DeployFailed(VariationsError):
    """`prefect deploy` did not do it; the message ends in its own words."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as it is wanted, and as it is.

    Attributes:
        name: the flow's and its own, as Prefect writes them.
        entry: what `prefect.yaml` says of it.
        schema: the schema of its flow's parameters.
        found: what is on the server; None if nothing is.
    """

    name: str
    entry: Mapping[str, Any]
    schema: Mapping[str, Any]
    found: DeploymentResponse | None

    def differences(self) -> list[str]:
        """Return in what it is not as it is wanted, its schedules aside."""
        if self.found is None:
            return []
        pool, limit, found = self.entry["work_pool"], self.entry.get("concurrency_limit", {}), self.found
        options, held = found.concurrency_options, found.global_concurrency_limit
        pairs = {
            "entrypoint": (self.entry["entrypoint"], found.entrypoint),
            "description": (self.entry["description"], found.description),
            "tags": (self.entry["tags"], found.tags),
            "work pool": (pool["name"], found.work_pool_name),
            "job variables": (pool["job_variables"], found.job_variables),
            "parameters": (self.entry.get("parameters", {}), found.parameters),
            "form": (self.schema, found.parameter_openapi_schema),
            "runs at once": (limit.get("limit"), held.limit if held else None),
            "turns": (True, self._gives_turns()),
            "queueing": (limit.get("collision_strategy"), options.collision_strategy if options else None),
            "pull steps": ([], found.pull_steps or []),
        }
        return [name for name, (wanted, is_now) in pairs.items() if wanted != is_now]

    def _gives_turns(self) -> bool:
        """Return whether its own limit works: one that is off lets no run begin, and one that decays lets two."""
        held = self.found.global_concurrency_limit if self.found else None
        return held is None or (held.active and not held.slot_decay_per_second)

    async def give_turns(self, client: PrefectClient) -> None:
        """Have its own limit work again: deploying sets how many, and nothing else."""
        held = self.found.global_concurrency_limit if self.found else None
        if held is not None and not self._gives_turns():
            update = GlobalConcurrencyLimitUpdate(active=True, slot_decay_per_second=0)
            await client.update_global_concurrency_limit(held.name, update)

    def refused(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        """Return what of a schedule's parameters its flow would refuse, each with the reason, by its name."""
        names = self.schema.get("properties", {}).keys()
        if not names:
            return {}
        unknown = {name: f"{name} is no parameter of it" for name in sorted(parameters.keys() - names)}
        given = {name: value for name, value in parameters.items() if name in names}
        wrong = validate(given, dict(self.schema), ignore_required=True)
        return unknown | {str(one.path[0]): f"{one.path[0]}: {one.message}" for one in wrong if one.path}

    def step(self) -> Step:
        """Return what becomes of it, its schedules aside."""
        thing = f"deployment {self.name}"
        return Step(thing, Outcome.CREATED) if self.found is None else Step.changed(thing, self.differences())


async def read_deployments(client: PrefectClient) -> list[Deployment]:
    """Return the deployments of `prefect.yaml`, each beside what is on the server."""
    return [await _read(client, entry) for entry in _file()["deployments"]]


async def ensure_deployments(client: PrefectClient, wish: Wish) -> list[Step]:
    """Deploy what is not there or differs, the way `prefect deploy` does it; the schedule is handed to the server.

    Raises:
        DeployFailed: Prefect did not.
    """
    deployments = await read_deployments(client)
    stale = [one for one in deployments if one.found is None or one.differences()]
    if stale:
        await _deploy([one.entry for one in stale])
    for one in stale:
        await one.give_turns(client)
    steps = []
    for one in deployments:
        steps.append(one.step())
        if one.name == AUGMENT:
            steps.append(await ensure_schedule(client, _file()["definitions"]["schedule"], wish))
    return steps


def _file() -> dict[str, Any]:
    return dict(yaml.safe_load((files("deployments") / "prefect.yaml").read_text(encoding="utf-8")))


async def _read(client: PrefectClient, entry: dict[str, Any]) -> Deployment:
    flow: Flow[..., Any] = await asyncio.to_thread(
        load_flow_from_entrypoint, entry["entrypoint"], use_placeholder_flow=False
    )
    name = f"{flow.name}/{entry['name']}"
    try:
        found = await client.read_deployment_by_name(name)
    except ObjectNotFound:
        found = None
    return Deployment(name, entry, parameter_schema(flow).model_dump(exclude_unset=True), found)


async def _deploy(entries: list[Mapping[str, Any]]) -> None:
    content = {**_file(), "deployments": entries}
    # Away from the checkout: what lies around has no say in it, and the flows come from where they are installed.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", path, "--all"),
            cwd=folder,
            env={**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    if process.returncode:
        lines = [line.rstrip() for line in output.decode(errors="replace").splitlines() if line.strip()]
        raise DeployFailed("\n".join(["`prefect deploy` failed:", *lines[-_LINES_SHOWN:]]))
