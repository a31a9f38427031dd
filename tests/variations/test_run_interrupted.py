"""Runs that are broken off, and jobs that would do harm: what is paid for has its row."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from variations.api.client import Endpoint
from variations.engine.clock import SystemClock
from variations.engine.limits import Limits
from variations.errors import BadInput, StoppedByUser
from variations.parameters import Parameters
from variations.plan import Recipe
from variations.publish import part_key
from variations.run import Job, Run, open_run
from variations.sandbox import Sandbox, sample_photos
from variations.storage import Entry, Storage, open_storage

LIMITS = Limits(max_in_flight=2, requests_per_minute=0, poll_interval_seconds=0.05, deadline_seconds=30)


class HurriedClock(SystemClock):
    """A minute is over at once; what is shorter takes its time."""

    async def sleep(self, seconds: float) -> None:
        """Wait, but not long."""
        await asyncio.sleep(seconds if seconds < 30 else 0.1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sorted(sample_photos())[:3]:
        shutil.copy(photo, folder)
    return folder


def job_of(photos: Path, *, each: int) -> Job:
    """Return a job over a folder, so many variations each, in few shards."""
    recipe = Recipe(parameters=Parameters(megapixels="0.25"), variations_per_source=each)
    return Job(str(photos), str(photos.parent / "dataset"), recipe)


def opened(job: Job, api: Sandbox) -> AbstractAsyncContextManager[Run]:
    """Open a run whose minutes are short."""
    root = api.base_url
    endpoint = Endpoint(api.api_key, root, f"{root}/inference-request/request-history", f"{root}/upload-asset")
    return open_run(job, endpoint=endpoint, limits=LIMITS, clock=HurriedClock())


def rows_of(run: Run, shard: int = 0) -> list[str]:
    """Return the status of each image that the parts of a shard have a row of."""
    parts = [Path(run.job.destination) / part_key(run.run_id, f"{shard:05d}{turn}") for turn in ("", "-b")]
    tables = [pq.read_table(part, columns=["variation_id", "status"]) for part in parts if part.exists()]
    return list({row["variation_id"]: row["status"] for table in tables for row in table.to_pylist()}.values())


async def until(happens: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""
    async with asyncio.timeout(30):
        while not happens():  # noqa: ASYNC110 - it is a file, or a counter, and knows no event
            await asyncio.sleep(0.02)


@pytest.fixture
def one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small run have one shard, as a large one has many variations in each."""
    monkeypatch.setattr("variations.plan.MAX_SHARDS", 1)


async def test_a_shards_rows_are_written_while_it_is_being_made(photos: Path, api: Sandbox, one_shard: None) -> None:
    """Who is killed loses the rows of a minute, not those of a shard."""
    del one_shard
    api.configure(latency_seconds=0.4)
    async with opened(job_of(photos, each=4), api) as run:
        assert (await run.plan()).shards == 1
        part = Path(run.job.destination) / part_key(run.run_id, "00000")
        making = asyncio.create_task(run.make(0))
        await until(part.exists)
        assert not making.done()
        assert 1 <= pq.read_metadata(part).num_rows < 12
        assert (await making).kept == 12
        assert rows_of(run) == ["kept"] * 12


async def test_a_shard_that_is_cancelled_writes_what_it_has(photos: Path, api: Sandbox, one_shard: None) -> None:
    """Those in flight are paid for too: they are unknown, and the next run pays for none of them again."""
    del one_shard
    api.configure(latency_seconds=0.3)
    job = job_of(photos, each=4)
    async with opened(job, api) as run:
        await run.plan()
        making = asyncio.create_task(run.make(0))
        await until(lambda: run.engine.progress.kept >= 4)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        rows = Counter(rows_of(run))
    assert rows["kept"] >= 4
    assert rows["unknown"] >= 1
    assert rows.total() == api.bill().accepted
    async with opened(job, api) as run:
        plan = await run.plan()
        assert (plan.already_done, plan.unknown_before, plan.new) == (rows["kept"], rows["unknown"], 12 - rows.total())


class SlowToLand:
    """A folder in which the first part takes a second to land, whether or not somebody still waits for it."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self._landing: asyncio.Task[Entry] | None = None

    def __getattr__(self, name: str) -> Any:
        """Be the folder in all else."""
        return getattr(self._inner, name)

    async def put(self, key: str, data: bytes | Path, **more: Any) -> Entry:
        """Write, later."""
        if "/metadata/" not in key or self._landing is not None:
            return await self._inner.put(key, data, **more)

        async def land() -> Entry:
            await asyncio.sleep(1)
            return await self._inner.put(key, data, **more)

        self._landing = asyncio.create_task(land())
        return await asyncio.shield(self._landing)


async def test_older_rows_do_not_land_on_newer_ones(photos: Path, api: Sandbox, one_shard: None) -> None:
    """A write that is broken off when the shard ends lands after the last one, and covers nothing."""
    del one_shard
    api.configure(latency_seconds=0.3)
    job = job_of(photos, each=1)
    async with opened(job, api) as model:
        storage: Any = SlowToLand(open_storage(job.destination, missing_ok=True))
        run = Run(job, storage=storage, engine=model.engine, limits=LIMITS, clock=HurriedClock())
        await run.plan()
        await run.make(0)
        await asyncio.sleep(1.2)
    assert rows_of(run) == ["kept"] * 3


async def test_a_shard_is_not_made_twice(photos: Path, api: Sandbox) -> None:
    """Whoever schedules shards may try one again; that would pay for it again."""
    async with opened(job_of(photos, each=1), api) as run:
        await run.plan()
        await run.make(0)
        with pytest.raises(RuntimeError, match="not made twice"):
            await run.make(0)
    assert api.bill().accepted == 1


async def test_a_stop_ends_the_planning(photos: Path, api: Sandbox) -> None:
    """Nothing is paid, and no shard is left behind that somebody could take."""
    async with opened(job_of(photos, each=1), api) as run:
        run.engine.stop(StoppedByUser("stopped"))
        with pytest.raises(StoppedByUser):
            await run.plan()
    assert not (photos.parent / "dataset").exists()


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
