"""What runs in a container: told to end, it ends in order, and goes on in the next container."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Final
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate

from deployments.container import BEHAVIOUR, RUN_ID
from flows.augment import augment
from tests.e2e.processes import Process, until
from variations import read_dataset
from variations.sandbox import Sandbox, sample_photos

IMAGES: Final = 12
GOES_ON: Final = {"AwaitingRetry", "Pending", "Submitting", "Running"}
# Patience, on a machine that does much else.
SECONDS: Final = 240
CONTAINED: Final = [sys.executable, "-m", "deployments.container"]
PREFECT: Final = [sys.executable, "-m", "prefect"]
# Where it is allowed, in a process namespace of its own, as a container has one: there, a first process sees no signal
# for which it has no handler.
FIRST: Final = ["unshare", "--pid", "--fork", "--mount-proc"] if os.geteuid() == 0 and shutil.which("unshare") else []


@pytest.fixture
async def pool(client: PrefectClient) -> AsyncIterator[str]:
    """A work pool of its own; its name."""
    name = f"containers-{token_hex(4)}"
    await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    yield name
    await client.delete_work_pool(name)


async def planned(client: PrefectClient, pool: str, source: Path, destination: Path) -> UUID:
    """Deploy to a pool, and return a flow run of it."""
    deployment = await client.create_deployment(
        flow_id=await client.create_flow(augment),
        name=pool,
        entrypoint="flows.augment.augment",
        work_pool_name=pool,
        parameters={
            "source": str(source),
            "destination": str(destination),
            "variations_per_source": IMAGES // 3,
            "max_in_flight": 2,
        },
    )
    return (await client.create_flow_run_from_deployment(deployment)).id


def by_default() -> None:
    """Undo what a shell does to SIGINT for what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def container(command: list[str], folder: Path, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run what runs in a container, as its first process and in an empty folder; nothing of it stays."""
    with (folder.parent / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [*FIRST, *CONTAINED, *command],
            cwd=folder,
            env={**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "1", BEHAVIOUR: "reschedule", **env},
            stdout=log,
            stderr=log,
            preexec_fn=by_default,  # noqa: PLW1509 - there is one thread that matters, and it does one thing
        )
    started = Process.of(process.pid)
    assert started is not None
    try:
        yield process
    finally:
        below = started.below()
        process.kill()
        process.wait()
        for one in below:
            one.kill()


def first(process: "subprocess.Popen[bytes]") -> int:
    """Return the number of the first process, as it is seen from outside."""
    started = Process.of(process.pid)
    assert started is not None
    return until("the first process", started.below, seconds=SECONDS, every=0.1)[0].pid if FIRST else process.pid


def listens(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)


async def states(client: PrefectClient, flow_run_id: UUID) -> list[str]:
    """Return the names of the states that a flow run has had."""
    return [state.name or "" for state in await client.read_flow_run_states(flow_run_id)]


@pytest.mark.parametrize("what", ["flow-run execute", "worker start"])
async def test_it_stops_in_order_and_goes_on(
    what: str, environment: dict[str, str], client: PrefectClient, pool: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """SIGTERM to the first process alone: the flow settles, lets go, and is scheduled; the next one does the rest."""
    assert environment
    sandbox.configure(latency_seconds=2.0)
    source, destination, empty = (tmp_path / name for name in ("photos", "dataset", "empty"))
    source.mkdir()
    empty.mkdir()
    for photo in sample_photos()[:3]:
        shutil.copy(photo, source)
    run = await planned(client, pool, source, destination)
    if what == "worker start":
        command, env = [*PREFECT, *what.split(), "--pool", pool], {}
    else:
        command, env = [*PREFECT, *what.split()], {RUN_ID: str(run)}

    with container(command, empty, **env) as process:
        await asyncio.to_thread(until, "an image that is paid for", lambda: sandbox.bill().paid, seconds=SECONDS)
        os.kill(first(process), signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, SECONDS) == 0, (tmp_path / "log").read_text(encoding="utf-8")
    assert (await states(client, run))[-3:] == ["Running", "Interrupted", "AwaitingRetry"]
    bill = sandbox.bill()
    assert 0 < bill.paid == bill.accepted < IMAGES
    assert list(read_dataset(str(destination))["status"]) == ["kept"] * bill.paid

    sandbox.configure(latency_seconds=0.2)
    with container(command, empty, **env):
        # It does not wait for a lease: nobody holds the dataset.
        async with asyncio.timeout(SECONDS):
            while (now := (await states(client, run))[-1]) in GOES_ON:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.5)
    assert now == "Completed"
    assert (sandbox.bill().paid, sandbox.bill().accepted) == (IMAGES, IMAGES)
    assert list(read_dataset(str(destination))["status"]) == ["kept"] * IMAGES


async def test_before_the_flow_has_begun(
    environment: dict[str, str], client: PrefectClient, pool: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Told to end while Prefect is still being imported, it makes nothing, and is scheduled again."""
    assert environment
    run = await planned(client, pool, tmp_path / "photos", tmp_path / "dataset")
    (empty := tmp_path / "empty").mkdir()
    with container([*PREFECT, "flow-run", "execute"], empty, **{RUN_ID: str(run)}) as process:
        until("it to listen", lambda: listens(first(process)), seconds=SECONDS, every=0.1)
        os.kill(first(process), signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, SECONDS) == 0, (tmp_path / "log").read_text(encoding="utf-8")
    assert (await states(client, run))[-1] == "AwaitingRetry"
    assert sandbox.bill().accepted == 0


@pytest.mark.parametrize(("script", "code"), [("exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_code_is_the_commands(script: str, code: int) -> None:
    """As a shell gives it, which is how Prefect's workers read it."""
    done = subprocess.run([*CONTAINED, sys.executable, "-c", script], check=False)  # noqa: S603
    assert done.returncode == code
