"""One step of planning in a process of its own: `python -m benches.planning_step STEP MANIFEST DATASET`.

The last line of standard output is the `Took` as JSON. The seconds begin when everything is imported.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.clock import SystemClock
from variations.engine.limits import Limits
from variations.estimate import estimate
from variations.job import Job
from variations.plan import Plan
from variations.run import running
from variations.storage import open_storage

# Nothing is asked of the API: a run checks its key in a step of its own.
NOWHERE: Final = Endpoint("SG_0000000000000000", "http://127.0.0.1:9")


@dataclass(frozen=True, slots=True)
class Took:
    """What a step took.

    Attributes:
        seconds, cpu_seconds: of the step.
        most_bytes: of memory, resident at once, in the whole life of the process.
        new: variations that are to be made.
        already_done: that the dataset has.
    """

    seconds: float
    cpu_seconds: float
    most_bytes: int
    new: int
    already_done: int


async def look(job: Job) -> Plan:
    """Do as `variations plan`: read the manifest against what the dataset has, and write nothing."""
    return await estimate(job, limits=Limits())


async def plan(job: Job, *, publishes: bool = False) -> Plan:
    """Do as the first steps of a run: take the dataset in hand, and write the plan, shard by shard."""
    storage = open_storage(job.destination, missing_ok=True)
    async with default_http_client() as http:
        client = Client(http, endpoint=NOWHERE)
        async with running(job, storage=storage, client=client, limits=Limits(), clock=SystemClock()) as run:
            await run.recover()
            planned = await run.plan()
            if publishes:
                await run.publish()
    await storage.aclose()
    return planned


async def run_again(job: Job) -> Plan:
    """Do as a whole run that finds nothing to do."""
    return await plan(job, publishes=True)


STEPS: Final[dict[str, Callable[[Job], Coroutine[Any, Any, Plan]]]] = {
    "look": look,
    "plan": plan,
    "run_again": run_again,
}


def main(step: str, manifest: str, dataset: str) -> None:
    """Do a step and say what it took."""
    job = Job(manifest, dataset)
    began, cpu_began = time.monotonic(), time.process_time()
    found = asyncio.run(STEPS[step](job))
    took = Took(time.monotonic() - began, time.process_time() - cpu_began, _most_bytes(), found.new, found.already_done)
    sys.stdout.write(f"{json.dumps(asdict(took))}\n")


def _most_bytes() -> int:
    """Return the peak of this process's own memory; `ru_maxrss` begins with that of whoever started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
