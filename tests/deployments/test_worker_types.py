"""The job templates in the hands of the workers themselves, in an environment that has their packages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from botocore.validate import validate_parameters

HERE: Final = Path(__file__).parent
TEMPLATES: Final = HERE.parents[1] / "deployments/templates"
SECONDS: Final = 240

# It takes minutes and a way to PyPI, which nobody expects of `make test`; `make e2e`, and so CI, runs these.
pytestmark = pytest.mark.skipif(
    not os.environ.get("E2E_IMAGES"), reason="E2E_IMAGES=1 installs the workers' packages, 230 MB, and asks them"
)
Script = Callable[[str, Path], str]


def run(*command: str | Path) -> str:
    """Run a command; returns what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """Run `worker_types.py` where the packages of `worker-types.txt` are."""
    folder = tmp_path_factory.mktemp("workers")
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin/python"
    # The system's certificates, as pip takes them: a network may have its own.
    run(uv, "pip", "install", "--quiet", "--system-certs", "--python", python, "-r", HERE / "worker-types.txt")
    return lambda verb, path: run(python, HERE / "worker_types.py", verb, path)


@pytest.fixture(scope="module")
def prepared(script: Script) -> dict[str, Any]:
    """What the workers make of our templates, by their types."""
    return dict(json.loads(script("prepared", TEMPLATES)))


def test_the_copies_are_what_the_workers_have(script: Script, tmp_path: Path) -> None:
    """The default templates, with which the quick tests compare ours, are those of the packages that are named."""
    script("defaults", tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_text(encoding="utf-8") == (HERE / "base_job_templates" / path.name).read_text(encoding="utf-8")


def test_kubernetes_knows_every_field_of_the_job(prepared: dict[str, Any]) -> None:
    """What its own client does not know it leaves out."""
    job, known = prepared["kubernetes"]["manifest"], prepared["kubernetes"]["known"]
    pod = job["spec"]["template"]["spec"]
    # The worker wants them there, and Kubernetes does not know them there; they are 1 anyway.
    assert (pod.pop("completions"), pod.pop("parallelism")) == (1, 1)
    assert job == known
    (container,) = pod["containers"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    # The image's entrypoint, which passes signals on, stays.
    assert "command" not in container
    env = {one["name"]: one["value"] for one in container["env"]}
    # The worker would set it to something else, were there a limit of Kubernetes' own.
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert env["VARIATIONS_CONCURRENCY_LIMIT"] == "variations"


def test_ecs_takes_the_task(prepared: dict[str, Any]) -> None:
    """By its own description of its API: the definition that the worker registers, and its request to run it."""
    operations = boto3.client("ecs", region_name="eu-central-1").meta.service_model
    for name, found in (("RegisterTaskDefinition", "definition"), ("RunTask", "request")):
        validate_parameters(prepared["ecs"][found], operations.operation_model(name).input_shape)
    (container,) = prepared["ecs"]["definition"]["containerDefinitions"]
    assert container["stopTimeout"] == 120
    assert [secret["name"] for secret in container["secrets"]] == ["SEGMIND_API_KEY"]
    assert prepared["ecs"]["request"]["overrides"]["taskRoleArn"].endswith("role/task")


def test_docker_runs_our_command_in_our_image(prepared: dict[str, Any]) -> None:
    """With a limit of memory, and without rights that it does not need."""
    job = prepared["docker"]
    assert re.fullmatch(r"variations:\d+\.\d+\.\d+", job["image"])
    assert job["command"] == "prefect flow-run execute"
    assert (job["mem_limit"], job["networks"]) == ("1g", ["variations_default"])
    assert job["container_create_kwargs"]["cap_drop"] == ["ALL"]
