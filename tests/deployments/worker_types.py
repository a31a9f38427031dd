"""Run with the workers' own packages, in an environment of its own (worker-types.txt): what they make of a template.

worker_types.py defaults FOLDER     write the workers' own job templates there
worker_types.py prepared FOLDER     print what the workers make of the templates that lie there, as JSON
"""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from kubernetes_asyncio.client import ApiClient
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.workers.base import BaseWorker
from prefect_aws.workers import ECSWorker
from prefect_docker.worker import DockerWorker
from prefect_kubernetes import KubernetesWorker

WORKERS: dict[str, type[BaseWorker[Any, Any, Any]]] = {
    worker.type: worker for worker in (DockerWorker, ECSWorker, KubernetesWorker)
}
VARIABLES: dict[str, Any] = {"env": {"VARIATIONS_CONCURRENCY_LIMIT": "variations"}}
# What a person fills in, by the README.
MORE: dict[str, dict[str, Any]] = {
    "docker": {"networks": ["variations_default"]},
    "kubernetes": {"image": "registry.example/variations:1"},
    "ecs": {
        "image": "registry.example/variations:1",
        "cluster": "variations",
        "execution_role_arn": "arn:aws:iam::1:role/execution",
        "task_role_arn": "arn:aws:iam::1:role/task",
        "secrets": [{"name": "SEGMIND_API_KEY", "valueFrom": "arn:aws:secretsmanager:eu-central-1:1:secret:key"}],
    },
}


def write_defaults(folder: Path) -> None:
    """Write the workers' own templates."""
    for pool_type, worker in WORKERS.items():
        text = json.dumps(worker.get_default_base_job_template(), indent=2)
        (folder / f"{pool_type}.json").write_text(text + "\n", encoding="utf-8")


async def prepare(pool_type: str, template: dict[str, Any]) -> Any:
    """Return the job's configuration, prepared for a flow run as a worker does it."""
    worker, flow_run = WORKERS[pool_type], FlowRun(flow_id=uuid4(), name="swift-fox", deployment_id=uuid4())
    pool = WorkPool(name="variations", type=pool_type, base_job_template=template)
    values = {**VARIABLES, **MORE[pool_type]}
    # No block and no variable is in it, and no server is asked.
    client = PrefectClient("http://127.0.0.1:9/api")
    configuration = await worker.job_configuration.from_template_and_values(template, values, client=client)
    configuration.prepare_for_flow_run(flow_run, work_pool=pool, worker_name="worker")
    if pool_type == "kubernetes":
        return await _known_to_kubernetes(configuration.job_manifest)
    if pool_type == "docker":
        return configuration.model_dump(mode="json")
    at_work: Any = worker(work_pool_name="variations")
    definition = at_work._prepare_task_definition(configuration, "eu-central-1", flow_run)
    # Else the worker asks AWS which subnets there are.
    configuration.task_run_request["networkConfiguration"] = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
    request = at_work._prepare_task_run_request(configuration, definition, "variations:1", True)
    return {"definition": definition, "request": request}


async def _known_to_kubernetes(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a job, and what Kubernetes' own client makes of it: a field that the API does not have is gone."""
    async with ApiClient() as client:
        job = client.deserialize(SimpleNamespace(data=json.dumps(manifest)), "V1Job")
        return {"manifest": manifest, "known": client.sanitize_for_serialization(job)}


async def print_prepared(folder: Path) -> None:
    """Print what the workers make of the templates."""
    found = {
        pool_type: await prepare(pool_type, json.loads((folder / f"{pool_type}.json").read_text(encoding="utf-8")))
        for pool_type in WORKERS
    }
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    if sys.argv[1] == "defaults":
        write_defaults(Path(sys.argv[2]))
    else:
        asyncio.run(print_prepared(Path(sys.argv[2])))
