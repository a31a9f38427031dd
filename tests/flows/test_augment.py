"""The flow on a real Prefect server, S3 to S3."""

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.events.worker import EventsWorker
from prefect.exceptions import ParameterTypeError
from prefect.logging.handlers import APILogWorker
from prefect.utilities.callables import parameter_schema

from flows.augment import augment
from variations import read_dataset
from variations.errors import BudgetReached, InsufficientCredits, ManifestError, Unauthorized
from variations.receipt import RunStopped
from variations.sandbox import Sandbox, sample_photos
from variations.storage import open_storage

PACE = {"requests_per_minute": 6000.0, "poll_interval_seconds": 0.1}


def fill(s3_url: str, bucket: str) -> str:
    """Put three photos and a manifest of them into a bucket, and return the manifest's URI."""
    photos = sample_photos()[:3]
    for photo in photos:
        httpx.put(f"{s3_url}/{bucket}/photos/{photo.name}", content=photo.read_bytes()).raise_for_status()
    manifest = pa.table(
        {
            "id": [photo.stem for photo in photos],
            "image_url": [f"s3://{bucket}/photos/{photo.name}" for photo in photos],
            "weight": [1.5, 2.5, 3.5],
        }
    )
    sink = io.BytesIO()
    pq.write_table(manifest, sink)
    httpx.put(f"{s3_url}/{bucket}/manifest.parquet", content=sink.getvalue()).raise_for_status()
    return f"s3://{bucket}/manifest.parquet"


async def told_to_the_server() -> tuple[set[str], str]:
    """Return the names of all task runs, and every log line and artifact the server holds, as text."""
    await asyncio.to_thread(APILogWorker.drain_all)
    await asyncio.to_thread(EventsWorker.drain_all)
    async with get_client() as client:
        tasks = {run.name for run in await client.read_task_runs()}
        artifacts = await client.read_artifacts()
        runs = await client.read_flow_runs(limit=50)
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id for run in runs])))
        states = [state for run in runs for state in [run.state]]
    return tasks, json.dumps([[str(a.data), a.description] for a in artifacts]) + str(
        [log.message for log in logs]
    ) + str(states)


async def test_a_manifest_becomes_a_dataset(
    environment: dict[str, str], sandbox: Sandbox, s3_url: str, bucket: str
) -> None:
    """Every image is made, paid once, stored and listed with its labels; a second run finds nothing to do."""
    source, destination = fill(s3_url, bucket), f"s3://{bucket}/dataset"
    receipt = await augment(source, destination, variations_per_source=2, **PACE)

    frame = read_dataset(destination)
    assert receipt["kept"] == receipt["paid"] == len(frame) == 6
    assert set(frame["status"]) == {"kept"}
    assert sorted(frame["weight"]) == [1.5, 1.5, 2.5, 2.5, 3.5, 3.5]
    assert sandbox.bill().paid == 6
    assert receipt["cost_usd"] == pytest.approx(sandbox.bill().total_usd)

    again = await augment(source, destination, variations_per_source=2, **PACE)
    assert (again["wanted"], again["already_done"], again["paid"]) == (0, 6, 0)
    assert sandbox.bill().paid == 6

    tasks, told = await told_to_the_server()
    assert {"check key", "recover", "plan", "shard 00000 of 6", "shard 00005 of 6", "publish"} <= tasks
    assert "Receipt of" in told
    assert "images to pay for" in told
    assert environment["SEGMIND_API_KEY"] not in told
    assert "X-Amz-" not in told


async def test_a_stopped_run_says_how_to_go_on(
    environment: dict[str, str], sandbox: Sandbox, s3_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When credits run out, for an image costs more than was thought, what is in flight is finished and kept, the flow
    fails with the reason, and a later run goes on.
    """
    del environment
    source, destination = fill(s3_url, bucket), f"s3://{bucket}/dataset"
    monkeypatch.setenv("VARIATIONS_PRICE_USD", "0.001")
    sandbox.configure(credits=0.07, free_credits=0.0)
    with pytest.raises(RunStopped) as stopped:
        await augment(source, destination, variations_per_source=2, **PACE)
    receipt = stopped.value.receipt
    assert receipt.stopped_by == "insufficient_credits"
    assert receipt.kept == sandbox.bill().paid == 2
    assert receipt.left == 4
    assert "run the same command again" in str(stopped.value)

    sandbox.configure(credits=10.0)
    assert (await augment(source, destination, variations_per_source=2, **PACE))["kept"] == 4
    assert len(read_dataset(destination)) == sandbox.bill().paid == 6


async def test_too_little_money_is_said_before_anything_is_paid(
    environment: dict[str, str], sandbox: Sandbox, s3_url: str, bucket: str
) -> None:
    """Neither a run that the balance does not cover begins, nor one that would cost more than it may."""
    del environment
    source, destination = fill(s3_url, bucket), f"s3://{bucket}/dataset"
    with pytest.raises(BudgetReached, match=r"more than max_cost_usd 0\.1"):
        await augment(source, destination, variations_per_source=2, max_cost_usd=0.1, **PACE)
    sandbox.configure(credits=0.07, free_credits=0.0)
    with pytest.raises(InsufficientCredits, match=r"the balance is 0\.07 USD"):
        await augment(source, destination, variations_per_source=2, **PACE)
    assert sandbox.bill().accepted == 0


async def test_a_machine_may_limit_what_runs_cost_that_say_nothing_of_it(
    environment: dict[str, str], sandbox: Sandbox, s3_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form that was not filled in asks for no limit; one that was says what holds."""
    del environment
    source, destination = fill(s3_url, bucket), f"s3://{bucket}/dataset"
    monkeypatch.setenv("VARIATIONS_MAX_COST_USD", "0.05")
    with pytest.raises(BudgetReached, match=r"more than max_cost_usd 0\.05"):
        await augment(source, destination, **PACE)
    assert sandbox.bill().accepted == 0
    assert (await augment(source, destination, max_cost_usd=1.0, **PACE))["kept"] == 3


async def test_a_wrong_key_pays_and_writes_nothing(
    environment: dict[str, str], sandbox: Sandbox, bucket: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused key ends the run before anything is planned."""
    del environment
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_ffffffffffffffff")
    source = fill(s3_url, bucket)
    with pytest.raises(Unauthorized):
        await augment(source, f"s3://{bucket}/dataset", **PACE)
    assert sandbox.bill().accepted == 0
    assert not await anext(aiter(open_storage(f"s3://{bucket}/dataset").list()), None)


async def test_a_missing_manifest_is_one_line(environment: dict[str, str], bucket: str) -> None:
    """A manifest that is not there fails the run with its URI."""
    del environment
    with pytest.raises(ManifestError, match=f"s3://{bucket}/nothing.csv"):
        await augment(f"s3://{bucket}/nothing.csv", f"s3://{bucket}/dataset", **PACE)


async def test_from_folder_to_folder(environment: dict[str, str], sandbox: Sandbox, tmp_path: Path) -> None:
    """A local folder of photos becomes a local dataset; a photo that is broken is a row, not the end."""
    del environment
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo in sample_photos()[:2]:
        shutil.copy(photo, photos)
    (photos / "broken.jpg").write_text("no image")
    receipt = await augment(str(photos), str(tmp_path / "dataset"), max_failed_percent=50.0, **PACE)
    frame = read_dataset(str(tmp_path / "dataset"))
    assert (receipt["kept"], receipt["failed"]) == (2, 1)
    assert frame.set_index("status").loc["failed", "error_code"] == "inference_failed"
    assert sandbox.bill().paid == 2
    kept = frame[frame["status"] == "kept"]
    assert all((tmp_path / "dataset" / name).is_file() for name in kept["file_name"])


async def test_failed_ones_are_left_alone_until_asked_for(
    environment: dict[str, str], sandbox: Sandbox, s3_url: str, bucket: str
) -> None:
    """A second run tells of failures and leaves them; with `retry` it makes them, as a second attempt."""
    del environment
    source, destination = fill(s3_url, bucket), f"s3://{bucket}/dataset"
    sandbox.set_faults("failed:1:1")
    assert (await augment(source, destination, max_failed_percent=50.0, **PACE))["failed"] == 1
    again = await augment(source, destination, **PACE)
    assert (again["failed_before"], again["wanted"]) == (1, 0)
    assert (await augment(source, destination, retry="failed", **PACE))["kept"] == 1
    frame = read_dataset(destination)
    assert frame["status"].tolist() == ["kept"] * 3
    assert sorted(frame["attempt"]) == [1, 1, 2]
    assert sandbox.bill().paid == 3


@pytest.mark.parametrize(
    ("name", "value"), [("guidance", 12.0), ("aspect_ratio", "7:5"), ("variations_per_source", 0), ("seed", -1)]
)
async def test_a_value_out_of_bounds_is_refused_before_anything_is_paid(
    environment: dict[str, str], sandbox: Sandbox, name: str, value: Any
) -> None:
    """The flow's parameters carry the API's bounds, and the refusal names the field."""
    del environment
    with pytest.raises(ParameterTypeError, match=name):
        await augment("photos", "dataset", **{name: value})
    assert sandbox.bill().accepted == 0


def test_prefects_defaults_retry_nothing() -> None:
    """Whatever retries a user has set for all tasks and flows, a shard is not made, and paid, again."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import tasks, flows.augment as f\n"
            "of = (tasks.check_key, tasks.recover_earlier, tasks.make_plan, tasks.make_shard, tasks.publish)\n"
            "print({one.retries for one in (*of, f.augment)})",
        ],
        env={**os.environ, "PREFECT_TASKS_DEFAULT_RETRIES": "3", "PREFECT_FLOWS_DEFAULT_RETRIES": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "{0}"


def test_every_parameter_is_typed_described_and_bounded() -> None:
    """The form shows a description and bounds or choices for each field, and no union."""
    properties = parameter_schema(augment).properties
    for name, field in properties.items():
        assert field.get("description"), name
        assert "anyOf" not in field, name
        if field["type"] in {"integer", "number"}:
            assert "maximum" in field, name
            assert "minimum" in field or "exclusiveMinimum" in field, name
        if name not in {"source", "destination"}:
            assert "default" in field, name
    assert len(properties["aspect_ratio"]["enum"]) == 11


def test_parameters_are_the_settings() -> None:
    """The flow, the command line and the settings call an option the same, with the same default."""
    from config import Settings  # noqa: PLC0415
    from flows.commands.options import RUN_OPTIONS  # noqa: PLC0415

    properties = parameter_schema(augment).properties
    assert set(properties) - {"source", "destination", "dry_run", "date", "profile"} == set(RUN_OPTIONS)
    assert [name for name in properties if name in RUN_OPTIONS] == list(RUN_OPTIONS)
    assert {name: properties[name]["default"] for name in RUN_OPTIONS} == {
        name: Settings.model_fields[name].default for name in RUN_OPTIONS
    }
