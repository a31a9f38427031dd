"""What people and automations see of a run in Prefect: names, states, artifacts and events, on a real server."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun, State, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.events.worker import EventsWorker
from prefect.exceptions import ParameterTypeError
from prefect.flow_engine import run_flow_async
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Scheduled

from flows.augment import augment
from flows.recover import recover
from tasks import finish, shown_progress
from tests.flows.conftest import at_work
from tests.flows.refusing_proxy import refusing_proxy
from variations import read_dataset
from variations.dataset import METADATA_KEY
from variations.ending import TooManyFailed
from variations.engine.progress import Progress
from variations.errors import (
    BadInput,
    BudgetReached,
    InsufficientCredits,
    ManifestError,
    SettingsError,
    StoppedByUser,
)
from variations.receipt import RunStopped
from variations.report.rows import read_shown
from variations.sandbox import Sandbox, sample_photos
from variations.storage import open_storage

PACE = {"requests_per_minute": 6000.0, "poll_interval_seconds": 0.1}
# The server writes events down every few seconds.
EVENT_SECONDS = 30

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """A folder of three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sample_photos()[:3]:
        shutil.copy(photo, folder)
    return str(folder)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Where the dataset is to lie."""
    return str(tmp_path / "dataset")


async def run_of(state: State[Any]) -> FlowRun:
    """Return the flow run that ended in a state, as the server has it."""
    assert state.state_details.flow_run_id is not None
    async with get_client() as client:
        return await client.read_flow_run(state.state_details.flow_run_id)


async def last_run(destination: str) -> FlowRun:
    """Return the last flow run with a destination."""
    async with get_client() as client:
        runs = await client.read_flow_runs(limit=200)
    mine = [run for run in runs if run.parameters.get("destination") == destination]
    return max(mine, key=lambda run: run.expected_start_time or datetime.min.replace(tzinfo=UTC))


async def artifacts_of(run: FlowRun) -> dict[str, Artifact]:
    """Return the artifacts of a flow run by their keys."""
    async with get_client() as client:
        found = await client.read_artifacts(limit=200)
    return {one.key: one for one in found if one.flow_run_id == run.id and one.key}


async def log_lines_of(run: FlowRun) -> list[str]:
    """Return what was logged in a flow run."""
    await asyncio.to_thread(APILogWorker.drain_all)
    async with get_client() as client:
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    return [log.message for log in logs]


async def events_of(run: FlowRun, *, until: str) -> list[dict[str, Any]]:
    """Return our events of a flow run, oldest first, once the server has one that is called `until`."""
    await asyncio.to_thread(EventsWorker.drain_all)
    related = {"id": [f"prefect.flow-run.{run.id}"]}
    wanted = {"event": {"prefix": ["variations."]}, "related": related, "order": "ASC"}
    give_up_at = time.monotonic() + EVENT_SECONDS
    async with httpx.AsyncClient(base_url=PREFECT_API_URL.value()) as http:
        while True:
            answer = await http.post("events/filter", json={"filter": wanted, "limit": 50})
            events: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
            if any(event["event"] == f"variations.{until}" for event in events):
                return events
            assert time.monotonic() < give_up_at, events
            await asyncio.sleep(0.5)


async def test_a_run_that_is_whole(photos: str, dataset: str, sandbox: Sandbox) -> None:
    """It is Completed, says what it made, and shows plan, receipt with links and a full bar; who called it gets the
    receipt.
    """
    receipt = await augment(photos, dataset, date="2026-11-02", **PACE)
    assert receipt["kept"] == 3
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name, run.state.message) == (StateType.COMPLETED, "Completed", "3 kept, 0.09 USD")
    assert run.name == f"augment {dataset} 2026-11-02"

    shown = await artifacts_of(run)
    assert set(shown) == {"variations-plan", "variations-progress", "variations-receipt", "variations-gallery"}
    assert receipt["gallery"] == f"file://{dataset}/report.html"
    assert str(shown["variations-gallery"].data) == f"[{receipt['gallery']}]({receipt['gallery']})"
    assert f"variations report {dataset} --open" in str(shown["variations-gallery"].description)
    assert (shown["variations-progress"].type, shown["variations-progress"].data) == ("progress", 100.0)
    assert str(shown["variations-progress"].description).startswith("3 of 3 images, 3 kept, 0 in flight")
    assert "images to pay for" in str(shown["variations-plan"].data)
    text = str(shown["variations-receipt"].data)
    assert f"- dataset: file://{dataset}\n- metadata: file://{dataset}/metadata.parquet\n" in text
    assert f"- receipt: file://{dataset}/_runs/{receipt['run_id']}/receipt.json" in text

    started, finished = await events_of(run, until="run.finished")
    assert (started["event"], finished["event"]) == ("variations.run.started", "variations.run.finished")
    assert started["payload"]["images"] == finished["payload"]["kept"] == 3
    assert started["resource"]["prefect.resource.id"] == f"variations.run.{receipt['run_id']}"
    assert finished["resource"]["variations.state"] == "Completed"
    assert finished["payload"]["cost_usd"] == pytest.approx(sandbox.bill().total_usd)
    roles = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in finished["related"]}
    assert roles["dataset"] == f"variations.dataset.{dataset}"


async def test_the_gallery_is_written_where_there_is_anything_new(photos: str, dataset: str) -> None:
    """Not where nothing was made, nor where it is not wanted."""
    await augment(photos, dataset, gallery=False, **PACE)
    assert gallery_of(dataset) is None
    assert (await augment(photos, dataset, **PACE))["gallery"] == ""
    assert gallery_of(dataset) is None
    receipt = await augment(photos, dataset, variations_per_source=2, **PACE)
    assert receipt["gallery"] == f"file://{dataset}/report.html"
    text, written = gallery_of(dataset) or ("", 0)
    assert f'"dataset":"file://{dataset}"' in text
    assert (await augment(photos, dataset, variations_per_source=2, **PACE))["gallery"] == ""
    assert gallery_of(dataset) == (text, written)


def gallery_of(dataset: str) -> tuple[str, int] | None:
    """Return a dataset's gallery, and when it was written."""
    path = Path(dataset, "report.html")
    return (path.read_text(encoding="utf-8"), path.stat().st_mtime_ns) if path.exists() else None


async def test_the_gallery_of_a_run_stays_light(photos: str, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run writes it anew: of a larger dataset it shows some sources, and says of how many rows."""
    monkeypatch.setattr("variations.report.after_run.MOST_ROWS", 1)
    await augment(photos, dataset, variations_per_source=2, **PACE)
    # Which sources are drawn depends on their names, and those on the folder of this test.
    shown = read_shown(Path(dataset, METADATA_KEY), most=1).table.num_rows
    assert any(f"report.html, {shown} of 6 rows" in line for line in await log_lines_of(await last_run(dataset)))
    assert '"total":6' in (gallery_of(dataset) or ("", 0))[0]


async def test_a_gallery_that_cannot_be_written_harms_no_run(photos: str, dataset: str) -> None:
    """A warning says why; the run is whole, and shows all else."""
    os.makedirs(f"{dataset}/report.html")  # noqa: PTH103 - Path's would be said to block
    receipt = await augment(photos, dataset, **PACE)
    assert (receipt["kept"], receipt["gallery"]) == (3, "")
    run = await last_run(dataset)
    assert run.state is not None
    assert run.state.name == "Completed"
    assert "variations-gallery" not in await artifacts_of(run)
    assert any("The gallery was not written" in line for line in await log_lines_of(run))


async def test_the_gallery_in_a_bucket_is_shown_unsigned(photos: str, bucket: str) -> None:
    """A signature would let in whoever sees the artifact."""
    receipt = await augment(photos, f"s3://{bucket}/dataset", **PACE)
    assert receipt["gallery"] == f"s3://{bucket}/dataset/report.html"
    shown = (await artifacts_of(await last_run(f"s3://{bucket}/dataset")))["variations-gallery"]
    assert str(shown.data) == f"[{receipt['gallery']}]({receipt['gallery']})"
    assert "Signature" not in str(shown.description)
    # The run read its sources here, so the gallery has pictures of them.
    page = open_storage(f"s3://{bucket}/dataset")
    assert b"--local-sources" not in await page.get("report.html")
    await page.aclose()


async def test_failures_that_are_allowed(photos: str, dataset: str, sandbox: Sandbox) -> None:
    """Its name says that there are some, and a table which, and what to do; the caller gets the receipt."""
    sandbox.set_faults("failed:1:1")
    state = await augment(photos, dataset, max_failed_percent=34.0, return_state=True, **PACE)
    run = await run_of(state)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.COMPLETED, "CompletedWithFailures")
    assert run.state.message == "2 kept, 1 failed, 0.06 USD"
    assert (await state.aresult())["failed"] == 1

    table = json.loads(str((await artifacts_of(run))["variations-failures"].data))
    assert [(row["reason"], row["images"], row["again?"]) for row in table] == [("failed: inference_failed", 1, "yes")]
    assert photos in table[0]["samples"]
    (failed,) = [event for event in await events_of(run, until="run.finished") if "item" in event["event"]]
    assert failed["resource"]["variations.error_code"] == "inference_failed"
    assert failed["payload"]["source_uri"].startswith(f"file://{photos}/")
    assert failed["payload"]["variation_id"] in set(read_dataset(dataset)["variation_id"])


async def test_more_failures_than_allowed(photos: str, dataset: str, sandbox: Sandbox) -> None:
    """It is Failed, and says why; what was made is published all the same. Each of the first twenty failures is an
    event, and one more tells of the others.
    """
    sandbox.set_faults("failed:1:24")
    with pytest.raises(TooManyFailed, match=r"^89 % of the images failed, and max_failed_percent is 20") as failed:
        await augment(photos, dataset, variations_per_source=9, **PACE)
    assert (failed.value.receipt.kept, failed.value.receipt.failed) == (3, 24)
    assert read_dataset(dataset)["status"].value_counts().to_dict() == {"failed": 24, "kept": 3}
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name, run.state.message) == (StateType.FAILED, "Failed", str(failed.value))

    shown = await artifacts_of(run)
    assert "## Receipt of" in str(shown["variations-receipt"].data)
    assert len(str(shown["variations-failures"].data)) < 2000
    events = await events_of(run, until="run.finished")
    assert events[-1]["resource"]["variations.reason"] == "too_many_failed"
    items = [event["payload"] for event in events if event["event"] == "variations.item.failed"]
    assert len({item["variation_id"] for item in items[:-1]}) == len(items) - 1 == 20
    assert items[-1] == {"more": 4, "failed": 24}


async def test_a_budget_that_is_used_up(
    photos: str, dataset: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as paused, and as no success; the event that tells of it can be told from others by its labels."""
    monkeypatch.setenv("VARIATIONS_PRICE_USD", "0.001")
    with pytest.raises(RunStopped, match=r"^paused: budget"):
        await augment(photos, dataset, max_cost_usd=0.04, **PACE)
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.FAILED, "PausedBudget")
    assert str(run.state.message).endswith("(1 kept, 2 left for the next run, 0.03 USD)")
    # Who has to decide whether it goes on may want to see what there is.
    assert "variations-gallery" in await artifacts_of(run)
    assert sandbox.bill().paid == 1
    events = await events_of(run, until="run.paused")
    assert [event["event"] for event in events] == ["variations.run.started", "variations.run.paused"]
    assert events[-1]["resource"]["variations.state"] == "PausedBudget"
    assert events[-1]["resource"]["variations.reason"] == "budget"
    assert (events[-1]["payload"]["kept"], events[-1]["payload"]["left"]) == (1, 2)


@pytest.mark.parametrize(
    ("balance", "asked", "error", "name"),
    [
        (0.05, {}, InsufficientCredits, "PausedCredits"),
        (50.0, {"max_cost_usd": 0.05}, BudgetReached, "PausedBudget"),
    ],
)
async def test_too_little_money_from_the_start_is_a_pause_too(
    photos: str,
    dataset: str,
    sandbox: Sandbox,
    balance: float,
    asked: dict[str, Any],
    error: type[Exception],
    name: str,
) -> None:
    """Whoever asked for it has to do something, and nothing was paid."""
    sandbox.configure(credits=balance, free_credits=0.0)
    with pytest.raises(error):
        await augment(photos, dataset, **asked, **PACE)
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.FAILED, name)
    (paused,) = await events_of(run, until="run.paused")
    assert paused["resource"]["variations.state"] == name
    assert sandbox.bill().accepted == 0


async def test_a_dataset_that_is_worked_on(photos: str, dataset: str) -> None:
    """It is named so; a dry run works beside it, and needs no lock."""
    async with at_work(dataset):
        state = await augment(photos, dataset, return_state=True, **PACE)
        assert (state.type, state.name) == (StateType.FAILED, "PausedBusy")
        plan = await augment(photos, dataset, dry_run=True, **PACE)
    assert plan["new"] == 3


async def test_what_it_waits_for_stands_in_the_log_of_the_run(photos: str, dataset: str) -> None:
    """The library says it, which knows no Prefect; whoever looks at the run sees why it does nothing."""
    async with at_work(dataset) as other:
        waiting = asyncio.create_task(augment(photos, dataset, wait=True, **PACE))
        give_up_at = time.monotonic() + 60
        said: list[str] = []
        async with get_client() as client:
            while not said:
                assert time.monotonic() < give_up_at
                await asyncio.sleep(0.5)
                logs = await client.read_logs(limit=200, sort=LogSort.TIMESTAMP_DESC)
                said = [log.message for log in logs if f"Waiting: the run {other.run_id} works on" in log.message]
    assert (await waiting)["kept"] == 3


async def test_a_dry_run_shows_the_plan(photos: str, dataset: str, sandbox: Sandbox) -> None:
    """With the balance, as the result and as an artifact; nothing is paid or written, and no run is completed."""
    sandbox.configure(credits=0.04, free_credits=0.0)
    state = await augment(photos, dataset, dry_run=True, variations_per_source=2, date="2026-11-02", return_state=True)
    plan = await state.aresult()
    assert (plan["images"], plan["cost_usd"], plan["balance_usd"]) == (6, pytest.approx(0.186), pytest.approx(0.04))
    run = await run_of(state)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.COMPLETED, "Planned")
    assert str(run.state.message).startswith("6 images to make for about 0.19 USD in about ")
    assert run.name == f"plan {dataset} 2026-11-02"
    shown = await artifacts_of(run)
    assert set(shown) == {"variations-plan"}
    assert "| balance | 0.04 USD: a run refuses |" in str(shown["variations-plan"].data)
    assert await anext(aiter(open_storage(dataset, missing_ok=True).list()), None) is None
    assert sandbox.bill().calls == {"credits": {"200": 1}}


async def test_a_dry_run_needs_no_key(
    photos: str, dataset: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it ask anything of the API without one."""
    monkeypatch.delenv("SEGMIND_API_KEY")
    assert (await augment(photos, dataset, dry_run=True))["images"] == 3
    assert sandbox.bill().calls == {}
    with pytest.raises(SettingsError, match="SEGMIND_API_KEY"):
        await augment(photos, dataset)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"date": "2026-02-30"}, BadInput, "date is '2026-02-30': no day"),
        ({"date": "today"}, ParameterTypeError, "date"),
        ({"source": "photos/{hour}"}, BadInput, r"source: \{hour\} is no placeholder; known are \{date\}, \{year\}"),
        ({"destination": "dataset/{days}"}, BadInput, r"destination: \{days\} is no placeholder"),
        ({"source": "s3://b/{date}", "destination": "s3://b/{date}/d"}, BadInput, "lies within the source s3://b/"),
        ({"source": "nothing/{date}.csv"}, ManifestError, r"nothing/20\d\d-\d\d-\d\d\.csv"),
        ({"profile": "none"}, SettingsError, "profile"),
        ({"workers": 65}, ParameterTypeError, "workers"),
        ({"max_failed_percent": -1.0}, ParameterTypeError, "max_failed_percent"),
    ],
)
async def test_what_cannot_be_used_is_named_before_anything_is_paid(
    sandbox: Sandbox, asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The flow run is there, has a name, and has failed with the reason."""
    with pytest.raises(error, match=message):
        await augment(**{"source": "photos", "destination": "dataset", **asked})
    run = await last_run(asked.get("destination", "dataset"))
    assert run.state is not None
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Failed")
    assert sandbox.bill().accepted == 0


async def test_no_name_tells_a_secret() -> None:
    """Credentials that somebody put into a place are refused, and stand in no name and no state."""
    destination = "s3://AKIAKEY:topsecret@bucket/dataset?X-Amz-Signature=0123abcd"
    with pytest.raises(BadInput):
        await augment("photos", destination)
    run = await last_run(destination)
    assert run.state is not None
    for text in (run.name, run.state.message):
        assert not {"AKIAKEY", "topsecret", "0123abcd"} & set(str(text).replace("@", ":").replace("=", ":").split(":"))
        assert "topsecret" not in str(text)


async def test_the_day_is_that_of_the_schedule(photos: str, tmp_path: Path) -> None:
    """In UTC, and not the day on which it comes to run; source and destination are filled in, and so is the name."""
    day = tmp_path / "in" / "2026" / "11" / "03"
    day.parent.mkdir(parents=True)
    shutil.move(photos, day)
    asked = {"source": f"{tmp_path}/in/{{year}}/{{month}}/{{day}}", "destination": f"{tmp_path}/out/{{date}}", **PACE}
    scheduled = datetime.fromisoformat("2026-11-02T22:30:00-05:00")
    async with get_client() as client:
        run = await client.create_flow_run(augment, parameters=asked, state=Scheduled(scheduled_time=scheduled))
    receipt = await run_flow_async(augment, flow_run=run, parameters=asked)
    assert receipt["destination"] == f"{tmp_path}/out/2026-11-03"
    assert len(read_dataset(f"{tmp_path}/out/2026-11-03")) == 3
    assert (await last_run(asked["destination"])).name == f"augment {tmp_path}/out/2026-11-03"

    # One that was asked for wins.
    assert (await recover(asked["destination"], date="2026-11-03"))["destination"] == receipt["destination"]
    assert (await last_run(asked["destination"])).name == f"recover {tmp_path}/out/2026-11-03"


async def test_a_recovery_says_what_it_found(photos: str, dataset: str) -> None:
    """In its state, and as a run that has started and finished."""
    await augment(photos, dataset, **PACE)
    state = await recover(dataset, return_state=True)
    run = await run_of(state)
    assert run.state is not None
    assert (run.state.name, run.state.message) == ("Completed", "nothing was open, 0.00 USD")
    events = await events_of(run, until="run.finished")
    assert [event["event"] for event in events] == ["variations.run.started", "variations.run.finished"]


@pytest.mark.parametrize(
    ("is_cancelled", "kind", "name"),
    [(True, StateType.CANCELLED, "Cancelled"), (False, StateType.CRASHED, "Interrupted")],
)
async def test_a_process_that_is_told_to_end(
    photos: str, dataset: str, sandbox: Sandbox, is_cancelled: bool, kind: StateType, name: str
) -> None:
    """By SIGTERM, which a worker sends where somebody has cancelled the flow run, and a machine that is taken away by
    itself: what is in flight is finished, and the state tells the one from the other.
    """
    sandbox.configure(latency_seconds=2.0)
    command = [
        sys.executable,
        "-m",
        "flows",
        "run",
        photos,
        dataset,
        "--variations-per-source",
        "4",
        "--max-in-flight",
        "3",
    ]
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - what is under test
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    try:
        give_up_at = time.monotonic() + 60
        while not sandbox.bill().accepted:
            assert time.monotonic() < give_up_at
            await asyncio.sleep(0.05)
        run = await last_run(dataset)
        if is_cancelled:
            async with get_client() as client:
                await client.set_flow_run_state(run.id, Cancelling())
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 4
    finally:
        process.kill()
        process.wait()
    run = await last_run(dataset)
    assert run.state is not None
    assert (run.state.type, run.state.name) == (kind, name)
    kept = len(read_dataset(dataset))
    assert f"({kept} kept, {12 - kept} left for the next run, " in str(run.state.message)
    assert 0 < kept == sandbox.bill().paid < 12
    # What was made by then can be loaded.
    card = await asyncio.to_thread(Path(dataset, "README.md").read_text, encoding="utf-8")
    assert f"{kept} image variations" in card
    (finished,) = [event for event in await events_of(run, until="run.finished") if "finished" in event["event"]]
    assert finished["resource"]["variations.state"] == name


async def test_a_run_that_is_told_to_end_and_has_no_time_for_the_card_says_so(
    photos: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed before long: what is paid for is published, and the card is left, by a line in its log."""
    shutil.move(photos, f"{dataset}-sources")
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["tasks.finish"], "HASTE_SECONDS", 0.0)

    @flow(persist_result=False)
    async def told_to_end(destination: str) -> None:
        async with at_work(destination) as run:
            plan = await run.plan()
            await run.make(0)
            run.engine.stop(StoppedByUser("stopped by SIGTERM"))
            with pytest.raises(RunStopped, match="stopped by SIGTERM"):
                await finish(run, plan, gallery=False)

    await told_to_end(dataset)
    assert list(read_dataset(dataset)["status"]) == ["kept"]
    assert "The dataset's card was not written: there was no time" in await log_lines_of(await last_run(dataset))
    assert not await asyncio.to_thread(Path(dataset, "README.md").exists)


async def test_progress_moves(dataset: str) -> None:
    """The bar follows the run, with a line that says more, and about how long it takes; unmoved, it is left alone."""
    progress = Progress(total=8)

    async def bar() -> Artifact:
        return (await artifacts_of(await last_run(dataset)))["variations-progress"]

    @flow(persist_result=False)
    async def watched(destination: str) -> None:
        del destination
        async with shown_progress(progress, log_seconds=60, show_seconds=0.05):
            assert (await bar()).data == 0.0
            progress.kept, progress.in_flight = 2, 3
            give_up_at = time.monotonic() + 20
            while (await bar()).data != 25.0:
                assert time.monotonic() < give_up_at
            moved = await bar()
            assert str(moved.description).startswith("2 of 8 images, 2 kept, 3 in flight, 0.00 USD; about ")
            for _ in range(5):
                assert (await bar()).updated == moved.updated
            progress.kept, progress.in_flight, progress.failed = 7, 0, 1

    await watched(dataset)
    ended = await bar()
    assert (ended.data, ended.description) == (100.0, "8 of 8 images, 7 kept, 1 failed, 0 in flight, 0.00 USD")


async def test_what_prefect_does_not_take_harms_no_run(
    photos: str, dataset: str, environment: dict[str, str], sandbox: Sandbox
) -> None:
    """Artifacts are refused and events do not arrive: the images are made, paid once and published."""
    refused: list[str] = []
    with (
        refusing_proxy(environment["PREFECT_API_URL"], "/artifacts", refused) as url,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        receipt = await augment(photos, dataset, **PACE)
    assert receipt["kept"] == sandbox.bill().paid == len(read_dataset(dataset)) == 3
    assert len(refused) >= 3
    run = await last_run(dataset)
    assert run.state is not None
    assert run.state.name == "Completed"
    assert isinstance(run.id, UUID)
    assert await artifacts_of(run) == {}
