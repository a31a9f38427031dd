"""`prefect.yaml`: what it names is there, and what it says fits the flows."""

import re
import tomllib
from fnmatch import fnmatch
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from config import Settings
from deployments.automations import SILENCE
from deployments.names import AUGMENT, DEPLOYMENTS, LIMIT, POOL, SCHEDULE

ROOT = Path(__file__).parents[2]
TEXT = (files("deployments") / "prefect.yaml").read_text(encoding="utf-8")
CONTENT: dict[str, Any] = yaml.safe_load(TEXT)
ENTRIES: dict[str, dict[str, Any]] = {
    f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}": entry for entry in CONTENT["deployments"]
}


def test_the_deployments_are_these() -> None:
    """Those that setup and automations know by name."""
    assert tuple(ENTRIES) == DEPLOYMENTS


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_an_entrypoint_is_the_dotted_name_of_a_flow(name: str) -> None:
    """Loaded by its path a flow file would be a second module."""
    module, _, flow = ENTRIES[name]["entrypoint"].rpartition(".")
    found = getattr(import_module(module), flow)
    assert isinstance(found, Flow)
    assert f"{found.name}/{ENTRIES[name]['name']}" == name


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_an_entry_says(name: str) -> None:
    """Its pool, its description, and default parameters that the flow has."""
    entry = ENTRIES[name]
    module, _, flow = entry["entrypoint"].rpartition(".")
    schema = parameter_schema(getattr(import_module(module), flow))
    assert entry["work_pool"]["name"] == POOL
    assert len(entry["description"]) > 50
    assert set(entry.get("parameters", {})) <= set(schema.properties)


def test_the_environment_of_a_job() -> None:
    """It names the limit that is set up, by a setting that there is, and asks for heartbeats that can be missed."""
    for entry in ENTRIES.values():
        assert entry["work_pool"]["job_variables"]["env"] == {
            "VARIATIONS_CONCURRENCY_LIMIT": LIMIT,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": f"{SILENCE.total_seconds() / 20:.0f}",
        }
    assert "concurrency_limit" in Settings.model_fields


def test_augment_is_scheduled_daily_and_queues() -> None:
    """A day's run that is late does not meet the next one; the schedule is `variations deploy`'s to make."""
    assert CONTENT["definitions"]["schedule"] == {"slug": SCHEDULE, "cron": "0 6 * * *", "timezone": "UTC"}
    assert "schedules" not in ENTRIES[AUGMENT]
    assert ENTRIES[AUGMENT]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    # What pays nothing waits for nobody.
    assert [name for name, entry in ENTRIES.items() if "concurrency_limit" in entry] == [AUGMENT]


def test_no_path_of_a_machine_is_in_it() -> None:
    """The code is installed where a worker runs, and not looked for."""
    assert CONTENT["pull"] == []
    assert re.findall(r"(?<![\w*])/(?:\w+/)+\w+", TEXT) == []


def test_it_comes_with_a_wheel() -> None:
    """And so do the job templates of the work pools: setup reads them from where the package is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["deployments"]
    folder = ROOT / "deployments"
    needed = ["prefect.yaml", *(f"templates/{path.name}" for path in (folder / "templates").iterdir())]
    assert len(needed) > 1
    assert [name for name in needed if not any(fnmatch(name, one) for one in patterns)] == []
