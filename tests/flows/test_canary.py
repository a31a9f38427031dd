"""A canary in Prefect, on a real server: shown, paused as Prefect pauses, resumed, given up, and told to end."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling

from flows.augment import augment
from tests.flows.conftest import Variations, at_work
from tests.flows.test_shown import artifacts_of, events_of, last_run
from variations import read_dataset
from variations.errors import DatasetBusy
from variations.ledger.lock import look
from variations.receipt import RunStopped
from variations.sandbox import Sandbox, sample_photos
from variations.storage import open_storage

PACE: dict[str, Any] = {"requests_per_minute": 6000.0, "poll_interval_seconds": 0.1}
ASKED: dict[str, Any] = {"variations_per_source": 4, "canary": 4, **PACE}
IMAGES = 12

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """A folder of three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sample_photos()[:3]:
        (folder / photo.name).write_bytes(photo.read_bytes())
    return str(folder)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Where the dataset is to lie."""
    return str(tmp_path / "dataset")


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Be a run of a deployment, as Prefect's own documentation has it for tests, that waits for so long."""

    def waits(seconds: float) -> None:
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a2bcd0ff-94b4-4fd0-8b5e-8c5e9ca5e1cd")
        monkeypatch.setenv("VARIATIONS_CANARY_WAIT_SECONDS", str(seconds))

    return waits


async def until_paused(dataset: str) -> FlowRun:
    """Wait until the flow run that waits for the canary of a dataset is paused in Prefect."""
    async with asyncio.timeout(90):
        while True:
            await asyncio.sleep(0.3)
            async with get_client() as client:
                runs = await client.read_flow_runs(limit=200)
            for run in runs:
                is_its = run.name.startswith(f"canary of augment {dataset}")
                if is_its and run.state is not None and run.state.is_paused():
                    return run


async def state_of(run: FlowRun) -> tuple[StateType, str | None]:
    """Return type and name of the state of a flow run as it is now."""
    async with get_client() as client:
        state = (await client.read_flow_run(run.id)).state
    assert state is not None
    return state.type, state.name


async def test_a_good_one_goes_on_and_is_shown(photos: str, dataset: str, sandbox: Sandbox) -> None:
    """With what it came to and a link to the gallery, which was written before the rest was made."""
    receipt = await augment(photos, dataset, **ASKED)
    assert (receipt["kept"], sandbox.bill().accepted) == (IMAGES, IMAGES)
    assert receipt["canary"] == "4 images, none failed: 0 %; the rest was made, too"
    run = await last_run(dataset)
    assert run.state is not None
    assert run.state.name == "Completed"
    text = str((await artifacts_of(run))["variations-canary"].data)
    assert "| passed | 4 |" in text
    assert "It is good enough: the rest is made." in text
    assert f"(file://{dataset}/report.html)" in text


async def test_a_bad_one_pauses_the_run_and_the_next(photos: str, dataset: str, sandbox: Sandbox) -> None:
    """It ends as PausedCanary, with an event that says so; the same again pays for nothing, and without a canary the
    rest is made.
    """
    sandbox.set_faults("failed:1:2")
    with pytest.raises(RunStopped, match=r"^paused: canary\. Of its 4 images 50 % failed") as stopped:
        await augment(photos, dataset, **ASKED)
    assert (stopped.value.receipt.kept, stopped.value.receipt.left) == (2, 8)
    assert stopped.value.receipt.gallery == f"file://{dataset}/report.html"
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.FAILED, "PausedCanary")
    shown = await artifacts_of(run)
    assert {"variations-canary", "variations-gallery", "variations-receipt"} <= set(shown)
    assert "A run with canary 0 makes it." in str(shown["variations-canary"].data)
    events = await events_of(run, until="run.paused")
    assert events[-1]["resource"]["variations.reason"] == "canary"

    with pytest.raises(RunStopped, match=r"^paused: canary\. Of its 4 images 50 % failed"):
        await augment(photos, dataset, **ASKED)
    assert sandbox.bill().accepted == 4
    receipt = await augment(photos, dataset, **{**ASKED, "canary": 0})
    assert (receipt["kept"], receipt["failed_before"], sandbox.bill().accepted) == (8, 2, IMAGES)


async def test_a_deployed_run_waits_and_is_resumed(
    photos: str, dataset: str, sandbox: Sandbox, deployed: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Prefect it is Paused; the dataset is its own all the while, longer than its lease; then the rest is made."""
    deployed(120.0)
    monkeypatch.setenv("VARIATIONS_LEASE_SECONDS", "2")
    sandbox.set_faults("failed:1:2")
    running = asyncio.create_task(augment(photos, dataset, max_failed_percent=50.0, **ASKED))
    run = await until_paused(dataset)
    assert run.state is not None
    assert run.state.name == "Paused"
    assert run.state.message == "The canary is not good enough: 4 images, 2 failed: 50 %. Resume makes the rest."
    parent = await last_run(dataset)
    assert parent.state is not None
    assert parent.state.is_running()
    shown = await artifacts_of(parent)
    assert {"variations-canary", "variations-gallery"} <= set(shown)
    assert f"the flow run `{run.name}`, among the subflows of this one" in str(shown["variations-canary"].data)
    assert len(read_dataset(dataset)) == 4

    await asyncio.sleep(5)
    seen = await look(open_storage(dataset))
    assert seen is not None
    assert seen.is_at_work
    with pytest.raises(DatasetBusy):
        async with at_work(dataset):
            pass
    assert sandbox.bill().accepted == 4
    async with get_client() as client:
        await client.resume_flow_run(run.id)
    receipt = await running
    assert (receipt["kept"], receipt["failed"], sandbox.bill().accepted) == (10, 2, IMAGES)
    assert receipt["canary"] == "4 images, 2 failed: 50 %; somebody let the rest be made, too"
    assert await state_of(run) == (StateType.COMPLETED, "Resumed")
    ended = await last_run(dataset)
    assert ended.state is not None
    assert (ended.state.type, ended.state.name) == (StateType.COMPLETED, "CompletedWithFailures")


async def test_a_deployed_run_waits_no_longer_than_it_may(
    photos: str, dataset: str, sandbox: Sandbox, deployed: Callable[[float], None]
) -> None:
    """Then it ends as if it had not waited, in its own words and not in Prefect's."""
    deployed(3.0)
    sandbox.set_faults("failed:1:2")
    began = time.monotonic()
    with pytest.raises(RunStopped, match=r"^paused: canary"):
        await augment(photos, dataset, **ASKED)
    assert time.monotonic() - began > 3
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.FAILED, "PausedCanary")
    assert sandbox.bill().accepted == 4
    seen = await look(open_storage(dataset))
    assert seen is not None
    assert seen.run.state == "closed"


async def test_a_run_that_waits_can_be_told_to_end(
    photos: str, dataset: str, sandbox: Sandbox, deployed: Callable[[float], None]
) -> None:
    """By SIGTERM, which a worker sends where it is cancelled: it ends at once, and nothing more is paid."""
    deployed(600.0)
    sandbox.set_faults("failed:1:2")
    running = asyncio.create_task(augment(photos, dataset, return_state=True, **ASKED))
    run = await until_paused(dataset)
    os.kill(os.getpid(), signal.SIGTERM)
    state = await asyncio.wait_for(running, 60)
    assert (state.type, state.name) == (StateType.CRASHED, "Interrupted")
    assert await state_of(run) == (StateType.COMPLETED, "NotResumed")
    assert sandbox.bill().accepted == 4
    assert len(read_dataset(dataset)) == 4


async def test_who_cancels_the_waiting_says_no(
    photos: str, dataset: str, sandbox: Sandbox, deployed: Callable[[float], None]
) -> None:
    """The run ends as paused at once, and the next one looks at the same images."""
    deployed(600.0)
    sandbox.set_faults("failed:1:2")
    running = asyncio.create_task(augment(photos, dataset, return_state=True, **ASKED))
    run = await until_paused(dataset)
    async with get_client() as client:
        await client.set_flow_run_state(run.id, Cancelling())
    state = await asyncio.wait_for(running, 60)
    assert (state.type, state.name) == (StateType.FAILED, "PausedCanary")
    deployed(0.0)
    with pytest.raises(RunStopped, match=r"^paused: canary"):
        await augment(photos, dataset, **ASKED)
    assert sandbox.bill().accepted == 4


def test_the_command_says_how_to_go_on(photos: str, dataset: str, sandbox: Sandbox, variations: Variations) -> None:
    """And ends with the code of a pause."""
    sandbox.set_faults("failed:1:2")
    ended = variations("run", photos, dataset, "--variations-per-source", "4", "--canary", "4")
    assert ended.code == 4, ended.err
    said = " ".join(ended.out.split())
    assert "canary 4 images, 2 failed: 50 %; the rest was not made" in said
    assert "with canary 0 (--canary 0) the same command makes the rest" in said
    ended = variations("run", photos, dataset, "--variations-per-source", "4", "--canary", "0", "--no-gallery")
    assert ended.code == 3, ended.err
    assert sandbox.bill().accepted == IMAGES
