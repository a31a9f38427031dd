"""Runs that are broken off, and jobs that would do harm: what is paid for has its row."""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from variations import read_dataset
from variations.api.client import Endpoint
from variations.clock import Clock, SystemClock
from variations.engine.limits import Limits
from variations.errors import BadInput, StoppedByUser
from variations.job import Job
from variations.layout import OPEN_KEY, journal_prefix
from variations.ledger.journal import Journal
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.recipe import Recipe
from variations.publish import part_keys
from variations.receipt import Receipt, RunStopped
from variations.run import Run, open_run
from variations.sandbox import Sandbox, sample_photos
from variations.storage import open_storage

LIMITS = Limits(max_in_flight=2, requests_per_minute=0, poll_interval_seconds=0.05, deadline_seconds=30)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sorted(sample_photos())[:3]:
        shutil.copy(photo, folder)
    return folder


def job_of(photos: Path, *, each: int, outputs: int = 1) -> Job:
    """Return a job over a folder, so many variations each, of so many images, in few shards."""
    recipe = Recipe(parameters=Parameters(megapixels="0.25", num_outputs=outputs), variations_per_source=each)
    return Job(str(photos), str(photos.parent / "dataset"), recipe)


class HurriedClock(SystemClock):
    """What is waited for takes its time, but not long."""

    async def sleep(self, seconds: float) -> None:
        """Wait, a tenth of a second at the most."""
        await asyncio.sleep(min(seconds, 0.1))


def opened(job: Job, api: Sandbox, *, clock: Clock | None = None, **limits: Any) -> AbstractAsyncContextManager[Run]:
    """Open a run."""
    root = api.base_url
    endpoint = Endpoint(api.api_key, root, f"{root}/inference-request/request-history", f"{root}/upload-asset")
    return open_run(job, endpoint=endpoint, limits=replace(LIMITS, **limits), clock=clock)


async def planned(run: Run) -> Plan:
    """Take the dataset in hand, and plan."""
    await run.recover()
    return await run.plan()


async def whole(job: Job, api: Sandbox, *, clock: Clock | None = None) -> Receipt:
    """Run from beginning to end."""
    async with opened(job, api, clock=clock) as run:
        plan = await planned(run)
        await asyncio.gather(*(run.make(shard) for shard in range(plan.shards)))
        return await run.publish()


async def open_items(run: Run) -> tuple[set[str], set[str]]:
    """Return the requests that the journals of a run name, and of them those that are open."""
    named: set[str] = set()
    unsettled: set[str] = set()
    storage = open_storage(run.job.destination)
    async for shard in storage.folders(journal_prefix(run.run_id)):
        journal = Journal(storage, run_id=run.run_id, shard=int(shard), writer="a reader")
        await journal.replay()
        for item in journal.story.items.values():
            named.update(item.request_ids)
            unsettled.update(item.request_ids if item.is_open else ())
    return named, unsettled


def rows_of(job: Job) -> pd.DataFrame:
    """Return the dataset, and check that no image has two rows."""
    frame = read_dataset(job.destination)
    assert not frame.duplicated(["variation_id", "output_index"]).any()
    return frame


def silence(job: Job, *, seconds: float) -> None:
    """Let the last sign of life of whoever works on the dataset be so old."""
    lock = Path(job.destination, OPEN_KEY)
    then = lock.stat().st_mtime - seconds
    os.utime(lock, (then, then))


async def until(happens: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""
    async with asyncio.timeout(30):
        while not happens():  # noqa: ASYNC110 - it is a file, or a counter, and knows no event
            await asyncio.sleep(0.02)


@pytest.fixture
def one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small run have one shard, as a large one has many variations in each."""
    monkeypatch.setattr("variations.planning.planner.MAX_SHARDS", 1)


async def cancelled_after(run: Run, kept: int) -> None:
    """Make the first shard, and cancel that when so many images are kept and others are in flight."""
    making = asyncio.create_task(run.make(0))
    await until(lambda: run.engine.progress.kept >= kept and run.engine.progress.in_flight > 0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making


async def stopped_in_flight(job: Job, api: Sandbox, *, grace_seconds: float) -> Receipt:
    """Make the first shard, stop that when two requests are in flight and none is done, and return the receipt."""
    async with opened(job, api, grace_seconds=grace_seconds) as run:
        await planned(run)
        making = asyncio.create_task(run.make(0))
        await until(lambda: run.engine.progress.in_flight == 2)
        run.engine.stop(StoppedByUser("stopped by SIGINT"))
        await making
        with pytest.raises(RunStopped, match="stopped by SIGINT") as stopped:
            await run.publish()
    return stopped.value.receipt


async def test_a_journal_is_written_while_a_shard_is_being_made(photos: Path, api: Sandbox, one_shard: None) -> None:
    """Who is killed loses no row: what was accepted is named at once, and the rows follow from the journal alone."""
    del one_shard
    api.configure(speed=1, latency_seconds=0.2)
    job = job_of(photos, each=4)
    async with opened(job, api) as run:
        assert (await planned(run)).shards == 1
        making = asyncio.create_task(run.make(0))
        await until(lambda: run.engine.progress.kept >= 2)
        named, unsettled = await open_items(run)
        assert len(named) - len(unsettled) >= 2
        assert named <= {line.request_id for line in api.bill().lines}
        storage = open_storage(job.destination)
        assert await part_keys(storage, run.run_id) == []
        assert (await making).kept == 12
        assert (await run.publish()).all_kept
    assert len(rows_of(job)) == 12


async def test_what_a_cancelled_shard_had_in_flight_is_fetched_by_the_next_run(
    photos: Path, api: Sandbox, one_shard: None
) -> None:
    """It was paid for: the next run closes the one before, fetches it, and pays only for what was never submitted."""
    del one_shard
    api.configure(speed=1, latency_seconds=0.2)
    job = job_of(photos, each=4)
    async with opened(job, api) as run:
        await planned(run)
        await cancelled_after(run, kept=4)
    # What a thread was writing when the shard was cancelled is there by now.
    named, unsettled = await open_items(run)
    assert unsettled
    assert len(named) < 12
    bill = api.bill()
    receipt = await whole(job, api)
    assert receipt.recovery["closed_run"] == run.run_id
    assert receipt.recovery["kept"] == receipt.recovery["looked_for"] >= len(unsettled)
    assert receipt.all_kept
    frame = rows_of(job)
    assert list(frame["status"]) == ["kept"] * 12
    assert api.bill().same_inputs_accepted() == {}
    assert sorted(frame["request_id"]) == sorted(line.request_id for line in api.bill().lines)
    assert named <= set(frame.loc[frame["run_id"] == run.run_id, "request_id"])
    assert receipt.paid == 12 - bill.accepted


@pytest.mark.parametrize("later_seconds", [4000, 20 * 86400], ids=["after an hour", "after weeks"])
async def test_what_was_in_flight_long_ago_is_fetched_or_held(
    photos: Path, api: Sandbox, one_shard: None, later_seconds: int
) -> None:
    """The API forgets a request, and its history keeps it for the days that its output lives; nothing is paid again."""
    del one_shard
    api.configure(speed=1, latency_seconds=0.2)
    job = job_of(photos, each=2)
    async with opened(job, api) as run:
        await planned(run)
        await cancelled_after(run, kept=1)
    _, unsettled = await open_items(run)
    api.advance_clock(later_seconds)
    accepted = api.bill().accepted
    # An output that is gone is asked for again and again, for it may come back.
    receipt = await whole(job, api, clock=HurriedClock())
    frame = rows_of(job)
    assert len(frame) == 6
    assert api.bill().same_inputs_accepted() == {}
    assert api.bill().accepted == accepted + receipt.paid == 6
    if later_seconds < 86400:
        assert receipt.all_kept
    else:
        held = frame[frame["status"] == "unknown"]
        assert set(held["request_id"]) == unsettled
        assert (receipt.unknown_before, receipt.all_kept) == (len(held), False)
        assert {item["request_id"] for item in receipt.unknowns} == unsettled


async def test_all_images_of_requests_that_were_in_flight_an_hour_ago_are_fetched(
    photos: Path, api: Sandbox, one_shard: None
) -> None:
    """The history names one image where it is asked for a request, and all of them on its pages."""
    del one_shard
    api.configure(speed=1, latency_seconds=0.2)
    job = job_of(photos, each=2, outputs=4)
    async with opened(job, api) as run:
        await planned(run)
        await cancelled_after(run, kept=4)
    _, unsettled = await open_items(run)
    assert unsettled
    api.advance_clock(4000)
    receipt = await whole(job, api)
    assert (receipt.all_kept, receipt.unknown_before) == (True, 0)
    frame = rows_of(job)
    assert list(frame["status"]) == ["kept"] * 24
    assert frame["output_url"].nunique() == frame["sha256"].nunique() == 24
    assert frame["cost_usd"].sum() == pytest.approx(sum(line.cost_usd for line in api.bill().lines))


async def test_after_ctrl_c_there_is_a_period_of_grace(photos: Path, api: Sandbox, one_shard: None) -> None:
    """What is not done by its end is told to be unknown, and is fetched by the next run: the bill shows each once."""
    del one_shard
    api.configure(speed=1, latency_seconds=1.5)
    job = job_of(photos, each=2)
    told = await stopped_in_flight(job, api, grace_seconds=0.1)
    assert (told.kept, told.unknown, told.left, told.dataset_rows) == (0, 2, 4, 2)
    assert {item["request_id"] for item in told.unknowns} == {line.request_id for line in api.bill().lines}
    assert set(rows_of(job)["error_code"]) == {"interrupted"}
    api.configure(latency_seconds=0.05)
    receipt = await whole(job, api)
    # It was published, and had a receipt: there was nothing left to close.
    assert (receipt.recovery["closed_run"], receipt.recovery["kept"], receipt.paid) == (None, 2, 4)
    assert receipt.all_kept
    assert list(rows_of(job)["status"]) == ["kept"] * 6
    assert (api.bill().accepted, api.bill().same_inputs_accepted()) == (6, {})


async def test_what_is_done_within_the_period_of_grace_is_kept(photos: Path, api: Sandbox, one_shard: None) -> None:
    """Who waits a moment after Ctrl-C has all that was paid for."""
    del one_shard
    api.configure(speed=1, latency_seconds=0.2)
    told = await stopped_in_flight(job_of(photos, each=2), api, grace_seconds=20)
    assert (told.kept, told.unknown, told.left) == (2, 0, 4)
    assert api.bill().accepted == 2


async def test_a_run_whose_process_is_silent_is_taken_over(photos: Path, api: Sandbox) -> None:
    """Its lease runs out; and should it only have slept, it can write nothing and pay for nothing any more."""
    api.configure(speed=1, latency_seconds=0.2)
    job = job_of(photos, each=2)
    async with opened(job, api) as sleeper:
        await planned(sleeper)
        await sleeper.make(0)
        silence(job, seconds=3600)
        receipt = await whole(job, api)
        assert receipt.recovery["closed_run"] == sleeper.run_id
        assert (receipt.already_done, receipt.paid, receipt.all_kept) == (1, 5, True)
        assert (await sleeper.make(1)).kept == 0
        with pytest.raises(RunStopped) as stopped:
            await sleeper.publish()
        assert (stopped.value.receipt.stopped_by, stopped.value.receipt.kept) == ("replaced", 1)
    assert len(rows_of(job)) == 6
    assert (api.bill().accepted, api.bill().same_inputs_accepted()) == (6, {})


async def test_a_shard_is_not_made_twice(photos: Path, api: Sandbox) -> None:
    """Whoever schedules shards may try one again; that would pay for it again."""
    async with opened(job_of(photos, each=1), api) as run:
        await planned(run)
        await run.make(0)
        with pytest.raises(RuntimeError, match="not made twice"):
            await run.make(0)
    assert api.bill().accepted == 1


async def test_a_stop_ends_the_planning(photos: Path, api: Sandbox) -> None:
    """Nothing is paid, and no plan is left behind that somebody could take."""
    async with opened(job_of(photos, each=1), api) as run:
        await run.recover()
        run.engine.stop(StoppedByUser("stopped"))
        with pytest.raises(StoppedByUser):
            await run.plan()
    assert not list((photos.parent / "dataset").glob("_runs/*/plan/plan.json"))
    assert api.bill().accepted == 0


async def test_a_stop_ends_the_recovery(photos: Path, api: Sandbox) -> None:
    """Before anything is planned; the dataset is given back."""
    async with opened(job_of(photos, each=1), api) as run:
        run.engine.stop(StoppedByUser("stopped"))
        with pytest.raises(StoppedByUser):
            await run.recover()
    assert (await whole(job_of(photos, each=1), api)).all_kept


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("s3://bucket/photos", "s3://bucket/photos"),
        ("s3://bucket/photos/", "s3://bucket/photos/varied"),
        ("s3://bucket", "s3://bucket/dataset"),
        ("photos", "./photos/varied"),
    ],
)
def test_a_dataset_does_not_lie_among_its_sources(source: str, destination: str) -> None:
    """The next run would take its images for sources, and pay for variations of variations."""
    with pytest.raises(BadInput, match="lies within the source"):
        Job(source, destination)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("s3://bucket/photos", "s3://bucket/photos-varied"),
        ("s3://bucket/manifest.csv", "s3://bucket/dataset"),
        ("s3://bucket/dataset/images", "s3://bucket/dataset"),
    ],
)
def test_a_dataset_may_lie_beside_its_sources(source: str, destination: str) -> None:
    """What only looks alike is let through."""
    assert Job(source, destination).destination == destination
