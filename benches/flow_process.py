"""Run one flow in a process of its own, and write down all the time how far it is and what it has cost.

`python -m benches.flow_process JSON` reads an `Order`, and writes a `Course` to the file that the order names.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benches.course import Course, Sample
from benches.prefect_server import python_path
from benches.servers import cpu_seconds

SAMPLE_SECONDS: Final = 0.25
DRAIN_SECONDS: Final = 60.0
# What of a user's own settings has nothing to do with a bench.
FOREIGN: Final = ("VARIATIONS_", "SEGMIND_", "AWS_", "PREFECT_")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LOG_CHARACTERS: Final = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be run.

    Attributes:
        flow: `augment`, or `plain`.
        parameters: of the flow.
        pids: the servers whose CPU time is read too, by their names.
        course: file for how it went.
    """

    flow: str
    parameters: dict[str, Any]
    pids: dict[str, int]
    course: str


def run_flow(
    flow: str, parameters: Mapping[str, Any], *, environment: Mapping[str, str], pids: Mapping[str, int]
) -> Course:
    """Run a flow in a process of its own, with Prefect's usual logging, and return how it went.

    Args:
        flow: `augment`, or `plain`.
        parameters: of the flow.
        environment: by which it finds the servers.
        pids: the servers whose CPU time is read too, by their names.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    # In an empty folder lies no variations.toml, prefect.toml or .env.
    with tempfile.TemporaryDirectory(prefix="variations-bench-") as folder:
        course, log = Path(folder, "course.json"), Path(folder, "log")
        order = Order(flow=flow, parameters=dict(parameters), pids=dict(pids), course=str(course))
        with log.open("wb") as output:
            done = subprocess.run(  # noqa: S603 - ours
                [sys.executable, "-m", "benches.flow_process", json.dumps(asdict(order))],
                env={**variables, **environment, "PYTHONPATH": python_path()},
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            end = log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:]
            raise RuntimeError(f"the flow {flow} ended with code {done.returncode}:\n{end}")
        told = json.loads(course.read_bytes())
    return Course([Sample(**sample) for sample in told["samples"]], told["wanted"], told["result"])


def main(text: str) -> None:
    """Run what is ordered."""
    order = Order(**json.loads(text))
    # Imported before anything is measured: that is the same for every flow, and has nothing to do with the images.
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - takes 2 s
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    from benches.plain_flow import plain  # noqa: PLC0415
    from flows.augment import augment  # noqa: PLC0415
    from variations.engine.progress import watch  # noqa: PLC0415

    flow: Any = {"augment": augment, "plain": plain}[order.flow]
    with watch() as progress:
        samples: list[Sample] = []
        is_over = threading.Event()

        def watch_it() -> None:
            while not is_over.wait(SAMPLE_SECONDS):
                samples.append(_sample(progress.kept, order.pids))

        samples.append(_sample(0, order.pids))
        watcher = threading.Thread(target=watch_it, daemon=True)
        watcher.start()
        result = asyncio.run(flow(**order.parameters))
        APILogWorker.drain_all(timeout=DRAIN_SECONDS)
        EventsWorker.drain_all(timeout=DRAIN_SECONDS)
        is_over.set()
        watcher.join()
        samples.append(_sample(progress.kept, order.pids))
    course = Course(samples, progress.total or 0, result)
    Path(order.course).write_text(json.dumps(asdict(course), default=str), encoding="utf-8")


def _sample(kept: int, pids: Mapping[str, int]) -> Sample:
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    cpu = {"client": time.process_time(), **{name: cpu_seconds(pid) for name, pid in pids.items()}}
    return Sample(time.time(), kept, resident_pages * _PAGE_BYTES, cpu)


if __name__ == "__main__":
    main(*sys.argv[1:])
