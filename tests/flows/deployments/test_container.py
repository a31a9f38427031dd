"""What runs in a container: told to end, it ends in order, and goes on in the next container."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
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
START_SECONDS: Final = 240
END_SECONDS: Final = 240
# Where it is allowed, in a process namespace of its own, as a container has one: there, a first process sees no signal
# for which it has no handler.
FIRST: Final = ["unshare", "--pid", "--fork", "--mount-proc"] if os.geteuid() == 0 and shutil.which("unshare") else []


@pytest.fixture
async def pool(client: PrefectClient) -> AsyncIterator[str]:
    """A work pool that nobody serves; its name."""
    name = f"containers-{token_hex(4)}"
    await client.create_work_pool(WorkPoolCreate(name=name, type="kubernetes"))
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


def container(flow_run_id: UUID, folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start what Prefect's workers start in a container, in an empty folder."""
    env = {**os.environ, RUN_ID: str(flow_run_id), BEHAVIOUR: "reschedule"}
    prefect = [sys.executable, "-m", "prefect", "flow-run", "execute"]
    command = [*FIRST, sys.executable, "-m", "deployments.container", *prefect]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=file)  # noqa: S603


def first(process: "subprocess.Popen[bytes]") -> int:
    """Return the number of the first process, as it is seen from outside."""
    if not FIRST:
        return process.pid
    found = Process.of(process.pid)
    assert found is not None
    below = until("the first process", found.below, seconds=START_SECONDS, every=0.1)
    return below[0].pid


def listens(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)


async def states(client: PrefectClient, flow_run_id: UUID) -> list[str]:
    """Return the names of the states that a flow run has had."""
    return [state.name or "" for state in await client.read_flow_run_states(flow_run_id)]


async def test_it_stops_in_order_and_goes_on(
    environment: dict[str, str], client: PrefectClient, pool: str, sandbox: Sandbox, tmp_path: Path
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
    log = tmp_path / "log"
    with container(run, empty, log) as process:
        try:
            until("an image that is paid for", lambda: sandbox.bill().paid, seconds=START_SECONDS)
            os.kill(first(process), signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, END_SECONDS)
        finally:
            process.kill()
    assert code == 0, log.read_text(encoding="utf-8")
    assert (await states(client, run))[-3:] == ["Running", "Interrupted", "AwaitingRetry"]
    bill = sandbox.bill()
    assert 0 < bill.paid == bill.accepted < IMAGES
    assert list(read_dataset(str(destination))["status"]) == ["kept"] * bill.paid

    sandbox.configure(latency_seconds=0.2)
    with container(run, empty, log) as process:
        try:
            # It does not wait for a lease: nobody holds the dataset.
            assert await asyncio.to_thread(process.wait, END_SECONDS) == 0, log.read_text(encoding="utf-8")
        finally:
            process.kill()
    assert (await states(client, run))[-2:] == ["Running", "Completed"]
    assert (sandbox.bill().paid, sandbox.bill().accepted) == (IMAGES, IMAGES)
    assert list(read_dataset(str(destination))["status"]) == ["kept"] * IMAGES


async def test_before_the_flow_has_begun(
    environment: dict[str, str], client: PrefectClient, pool: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Told to end while Prefect is still being imported, it makes nothing, and is scheduled again."""
    assert environment
    run = await planned(client, pool, tmp_path / "photos", tmp_path / "dataset")
    log = tmp_path / "log"
    with container(run, tmp_path, log) as process:
        try:
            until("it to listen", lambda: listens(first(process)), seconds=START_SECONDS, every=0.1)
            os.kill(first(process), signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, END_SECONDS) == 0, log.read_text(encoding="utf-8")
        finally:
            process.kill()
    assert (await states(client, run))[-1] == "AwaitingRetry"
    assert sandbox.bill().accepted == 0
