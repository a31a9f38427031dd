"""The job templates: what a flow run's container is, for each type of work pool whose default does not do."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import boto3
import docker
import pytest
import requests
import yaml
from botocore.validate import validate_parameters
from jsonschema import Draft202012Validator
from prefect.client.orchestration import PrefectClient
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import find_placeholders
from prefect.workers.base import BaseJobConfiguration
from pydantic import ConfigDict

from config.settings import Settings
from deployments.container import BEHAVIOUR
from deployments.work_pool import PoolType

ROOT: Final = Path(__file__).parents[2]
DEPLOYMENTS: Final = ROOT / "deployments"
DEFAULTS: Final = Path(__file__).with_name("base_job_templates")
TYPES: Final[tuple[PoolType, ...]] = ("docker", "kubernetes", "ecs")
# What a deployment of ours says to each job; the templates need not.
DEPLOYED: Final[dict[str, Any]] = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text(encoding="utf-8"))[
    "deployments"
][0]["work_pool"]["job_variables"]
# What Fargate has for half a processor, in MB.
FARGATE_512: Final = (1024, 2048, 3072, 4096)
SECRET: Final = {"name": "SEGMIND_API_KEY", "valueFrom": "arn:aws:secretsmanager:eu-central-1:1:secret:key"}


def template(pool_type: str, folder: Path = DEPLOYMENTS / "templates") -> dict[str, Any]:
    """Return a job template."""
    return dict(json.loads((folder / f"{pool_type}.json").read_text(encoding="utf-8")))


class AnyJob(BaseJobConfiguration):
    """A job of any type of worker."""

    model_config = ConfigDict(extra="allow")


async def rendered(pool_type: str, **variables: Any) -> dict[str, Any]:
    """Fill a template in with its defaults, a deployment's variables and these, as Prefect's workers do."""
    # Blocks and variables would be read from a server; there are none in it, and none is asked.
    client = PrefectClient("http://127.0.0.1:9/api")
    job: Any = await AnyJob.from_template_and_values(template(pool_type), {**DEPLOYED, **variables}, client=client)
    return dict(job.model_dump())


def test_the_templates_are_these() -> None:
    """A process needs none: what is to be said of it stands in `prefect.yaml`."""
    assert sorted(path.stem for path in (DEPLOYMENTS / "templates").iterdir()) == sorted(TYPES)


@pytest.mark.parametrize("pool_type", TYPES)
def test_prefect_takes_it(pool_type: str) -> None:
    """The server's own check: each placeholder has a variable."""
    assert WorkPoolCreate(name="variations", type=pool_type, base_job_template=template(pool_type))
    broken = template(pool_type)
    del broken["variables"]["properties"]["image"]
    with pytest.raises(ValueError, match="image"):
        WorkPoolCreate(name="variations", type=pool_type, base_job_template=broken)


@pytest.mark.parametrize("pool_type", TYPES)
def test_the_variables_are_a_schema_that_the_defaults_fulfil(pool_type: str) -> None:
    """And each of them is used."""
    schema = template(pool_type)["variables"]
    Draft202012Validator.check_schema(schema)
    defaults = {
        name: one["default"] for name, one in schema["properties"].items() if one.get("default", None) is not None
    }
    Draft202012Validator(schema).validate(defaults)
    used = {one.name for one in find_placeholders(template(pool_type)["job_configuration"])}
    assert used == set(schema["properties"])


@pytest.mark.parametrize("pool_type", TYPES)
def test_it_is_the_workers_own_but_for_what_was_changed_on_purpose(pool_type: str) -> None:
    """Variables are added, one is taken away, others have another default; nothing else differs."""
    ours, theirs = template(pool_type), template(pool_type, DEFAULTS)
    ours_now, theirs_now = (one["variables"].pop("properties") for one in (ours, theirs))
    assert ours["variables"] == theirs["variables"]
    added = {"docker": set(), "kubernetes": {"secret_name", "termination_grace_period_seconds"}}
    assert ours_now.keys() - theirs_now.keys() == added.get(pool_type, {"secrets", "stop_timeout"})
    assert theirs_now.keys() - ours_now.keys() == ({"backoff_limit"} if pool_type == "kubernetes" else set())
    for name in ours_now.keys() & theirs_now.keys():
        for one in (ours_now[name], theirs_now[name]):
            one.pop("default", None)
        assert ours_now[name] == theirs_now[name], name
    if pool_type == "kubernetes":
        del theirs["job_configuration"]["job_manifest"]["spec"]["backoffLimit"]
    assert is_within(theirs["job_configuration"], ours["job_configuration"])


def is_within(part: Any, whole: Any) -> bool:
    """Return whether everything that is in the one is in the other, in the same place."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(is_within(part[key], whole.get(key)) for key in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_within, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize("pool_type", TYPES)
async def test_a_job_of_any_type(pool_type: str) -> None:
    """It runs Prefect's command in our image, goes on elsewhere, and has what the deployment says."""
    job = await rendered(pool_type)
    assert job["command"] is None
    assert job["env"] == {BEHAVIOUR: "reschedule", **DEPLOYED["env"]}
    number = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert number is not None
    assert f"variations:{number[1]}" in json.dumps(job)


async def test_what_a_deployment_says_wins() -> None:
    """As another image does, and its environment is added."""
    job = await rendered("docker", image="registry.example/variations:1", env={**DEPLOYED["env"], "AWS_REGION": "eu"})
    assert job["image"] == "registry.example/variations:1"
    assert job["env"] == {BEHAVIOUR: "reschedule", **DEPLOYED["env"], "AWS_REGION": "eu"}


async def test_a_job_of_kubernetes() -> None:
    """It is nobody privileged, has the time that it takes to stop, and Prefect alone tries it again."""
    job = (await rendered("kubernetes"))["job_manifest"]
    assert job["spec"]["backoffLimit"] == 0
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] == "variations"
    assert pod["terminationGracePeriodSeconds"] > 3 * Settings().grace_seconds
    user = pod["securityContext"]["runAsUser"]
    assert pod["securityContext"]["runAsNonRoot"]
    dockerfile = (DEPLOYMENTS / "Dockerfile").read_text(encoding="utf-8")
    assert f"--uid {user} " in dockerfile
    assert f"USER {user}:{user}\n" in dockerfile
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    # All that the image writes to.
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    assert "--home-dir /tmp " in dockerfile
    # Not there, it is no reason not to start: the key is in Prefect's block then.
    assert container["envFrom"] == [{"secretRef": {"name": "variations", "optional": True}}]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "512Mi"},
        "limits": {"memory": "1Gi"},
    }


@pytest.mark.parametrize(
    "secrets", [[], [{"name": "SEGMIND_API_KEY", "valueFrom": "arn:aws:secretsmanager:eu:1:secret:k"}]]
)
async def test_a_task_of_ecs(secrets: list[dict[str, str]]) -> None:
    """ECS's own description of its API takes the task's definition and the request to run it."""
    job = await rendered("ecs", secrets=secrets, cluster="c", task_role_arn="arn:aws:iam::1:role/r")
    operations = boto3.client("ecs", region_name="eu-central-1").meta.service_model
    definition = job["task_definition"]
    (container,) = definition["containerDefinitions"]
    assert container["secrets"] == secrets
    assert 3 * Settings().grace_seconds < container["stopTimeout"] <= 120
    assert definition["memory"] in FARGATE_512
    assert definition["cpu"] == 512
    # As the worker writes them.
    definition |= {"cpu": str(definition["cpu"]), "memory": str(definition["memory"])}
    validate_parameters(definition, operations.operation_model("RegisterTaskDefinition").input_shape)
    request = {**job["task_run_request"], "tags": [], "taskDefinition": "variations"}
    request["overrides"] |= {"cpu": definition["cpu"], "memory": definition["memory"]}
    (overridden,) = request["overrides"]["containerOverrides"]
    overridden |= {
        "command": ["prefect", "flow-run", "execute"],
        "environment": [{"name": name, "value": value} for name, value in overridden["environment"].items()],
    }
    validate_parameters(request, operations.operation_model("RunTask").input_shape)
    assert request["overrides"]["taskRoleArn"] == "arn:aws:iam::1:role/r"


async def test_a_container_of_docker() -> None:
    """Docker's client takes what it is created with; there is no engine here to create it."""
    job = await rendered("docker")
    client = docker.DockerClient(base_url="http://127.0.0.1:9", version="1.45")
    asked = {"environment": job["env"], "mem_limit": job["mem_limit"], **job["container_create_kwargs"]}
    with pytest.raises(requests.ConnectionError):
        client.containers.create(job["image"], job["command"], **asked)
    with pytest.raises(TypeError, match="unexpected keyword argument 'capabilities'"):
        client.containers.create(job["image"], job["command"], capabilities=[], **asked)
    client.close()


@pytest.mark.parametrize("pool_type", TYPES)
def test_no_secret_is_in_it(pool_type: str) -> None:
    """Where a secret goes there is its name, and no default."""
    found = {
        name: one.get("default")
        for name, one in template(pool_type)["variables"]["properties"].items()
        if re.search(r"secret|credential|key|auth", name)
    }
    assert set(map(json.dumps, found.values())) <= {'"variations"', "null", "[]"}
    assert "SG_" not in json.dumps(template(pool_type))


def test_the_copies_are_of_packages_for_the_prefect_that_is_locked() -> None:
    """They were taken beside the same version."""
    lines = Path(__file__).with_name("worker-types.txt").read_text(encoding="utf-8").splitlines()
    assert f"prefect=={version('prefect')}" in lines
    assert sorted(path.stem for path in DEFAULTS.iterdir()) == sorted(TYPES)
