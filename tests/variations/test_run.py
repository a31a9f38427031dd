"""Whole runs against the sandbox: what is paid is in the dataset, once, and a dataset is never paid for twice."""

import asyncio
import dataclasses
import io
import json
import logging
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from variations import errors
from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.clock import SystemClock
from variations.dataset import METADATA_KEY
from variations.engine.limits import Limits
from variations.estimate import estimate
from variations.job import Job
from variations.layout import OPEN_KEY, PROBE_KEY
from variations.ledger.records import Intended, Settled
from variations.models import ImageOutcome, Outcome, Variation
from variations.parameters import Parameters
from variations.plan import Recipe
from variations.receipt import Plan, Receipt, RunStopped
from variations.run import Run, open_run, running
from variations.sandbox import Sandbox
from variations.storage import Storage, open_storage

from .examples import SIGNATURE, outcome

LIMITS = Limits(max_in_flight=8, requests_per_minute=0, poll_interval_seconds=0.02, deadline_seconds=20)
SMALL = Recipe(parameters=Parameters(megapixels="0.25"))


def photo(name: str) -> bytes:
    """Return a small image, of its own shade: the same one for a name, whatever the manifest it is in."""
    shade = zlib.crc32(name.encode()) % 256
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize((64, 64))
    Image.merge("RGB", [image, image, Image.new("L", (64, 64), shade)]).save(buffer, "JPEG")
    return buffer.getvalue()


def endpoint_of(api: Sandbox, *, key: str | None = None) -> Endpoint:
    """Return the sandbox as the API."""
    root = api.base_url
    history, upload = f"{root}/inference-request/request-history", f"{root}/upload-asset"
    return Endpoint(key or api.api_key, root, history, upload)


@dataclass
class Scene:
    """A place with photos, a manifest and a destination, and the API."""

    place: str
    api: Sandbox

    @property
    def job(self) -> Job:
        """From the manifest to the destination."""
        return Job(f"{self.place}/manifest.jsonl", f"{self.place}/dataset", SMALL)

    @property
    def dataset(self) -> Storage:
        """The destination."""
        return open_storage(self.job.destination, missing_ok=True)

    async def furnish(self, *rows: str | Mapping[str, Any]) -> None:
        """Write photos, and the manifest that names them; a row that is no text is written as it is."""
        storage = open_storage(self.place, missing_ok=True)
        lines = []
        for row in rows:
            if isinstance(row, str):
                await storage.put(f"photos/{row}.jpg", photo(row))
                row = {"id": row, "url": f"photos/{row}.jpg"}  # noqa: PLW2901 - that is its row
            lines.append(json.dumps(row))
        await storage.put("manifest.jsonl", "\n".join(lines).encode())

    @asynccontextmanager
    async def opened(self, job: Job | None = None, *, limits: Limits = LIMITS, **changes: Any) -> AsyncIterator[Run]:
        """Open a run."""
        async with open_run(job or self.job, endpoint=endpoint_of(self.api, **changes), limits=limits) as run:
            yield run

    async def run(self, job: Job | None = None, *, limits: Limits = LIMITS) -> Receipt:
        """Run from beginning to end, as a flow does."""
        async with self.opened(job, limits=limits) as run:
            await run.check()
            plan = await planned(run)
            await asyncio.gather(*(run.make(shard) for shard in range(plan.shards)))
            return await run.publish()

    async def rows(self) -> list[dict[str, Any]]:
        """Read the metadata."""
        return pq.read_table(io.BytesIO(await self.dataset.get(METADATA_KEY))).to_pylist()

    async def keys(self, prefix: str = "") -> list[str]:
        """List the destination."""
        return [entry.key async for entry in self.dataset.list(prefix)]


async def planned(run: Run) -> Plan:
    """Take the dataset in hand, and plan."""
    await run.recover()
    return await run.plan()


@pytest.fixture
def scene(local_uri: str, api: Sandbox) -> Scene:
    """A folder."""
    return Scene(local_uri, api)


@pytest.fixture
def any_scene(place: str, api: Sandbox) -> Scene:
    """A folder, then a bucket."""
    return Scene(place, api)


def tried_again(job: Job) -> Job:
    """Return a job that tries again what failed."""
    return replace(job, recipe=replace(job.recipe, retry_failed=True))


async def test_a_run_makes_a_dataset(any_scene: Scene) -> None:
    """Local to local, and S3 to S3: an image and a row for each source, and a receipt that says what was paid."""
    await any_scene.furnish("a", "b", "c")
    receipt = await any_scene.run()
    assert receipt.all_kept
    assert (receipt.wanted, receipt.kept, receipt.paid, receipt.dataset_rows, receipt.left) == (3, 3, 3, 3, 0)
    bill = any_scene.api.bill()
    assert receipt.cost_usd == bill.total_usd == pytest.approx(0.093)
    assert (bill.accepted, bill.paid_twice()) == (3, {})
    rows = await any_scene.rows()
    assert sorted(row["source_id"] for row in rows) == ["a", "b", "c"]
    for row in rows:
        content = await any_scene.dataset.get(row["file_name"])
        assert len(content) == row["bytes"]
        assert Image.open(io.BytesIO(content)).size == (row["width"], row["height"]) == (512, 512)
        assert bill.line(row["request_id"]).seed == row["seed"]


async def test_the_bill_shows_what_is_paid_twice(any_scene: Scene) -> None:
    """Two datasets of one manifest pay for it twice: a bill that could not tell would prove nothing in the others."""
    await any_scene.furnish("a", "b")
    await any_scene.run()
    await any_scene.run(replace(any_scene.job, destination=f"{any_scene.place}/other"))
    assert sorted(any_scene.api.bill().paid_twice().values()) == [2, 2]


async def test_what_lies_in_the_destination(scene: Scene) -> None:
    """Metadata, images, and of the run its plan, its journal, its parts and its receipt."""
    await scene.furnish("a", {"id": "b"})
    receipt = await scene.run()
    run = f"_runs/{receipt.run_id}"
    keys = await scene.keys()
    image = (await scene.rows())[0]["file_name"]
    assert re.fullmatch(r"images/([0-9a-f]{2})/\1[0-9a-f]{30}\.jpg", image)
    journal = [key for key in keys if "/journal/" in key]
    # Claimed, intended, accepted, settled and ended; the rows follow from all but the last.
    assert journal == [f"{run}/journal/00000/{number:08d}.jsonl" for number in range(5)]
    expected = [f"{run}/metadata/part-{part}.parquet" for part in ("00000-00000004", "rejected")]
    expected += [f"{run}/plan/plan.json", f"{run}/plan/shard-00000.parquet", f"{run}/receipt.json"]
    assert keys == [*journal, *expected, OPEN_KEY, PROBE_KEY, image, METADATA_KEY]
    assert json.loads(await scene.dataset.get(OPEN_KEY))["state"] == "closed"
    stored = json.loads(await scene.dataset.get(f"{run}/receipt.json"))
    assert stored["kept"] == stored["rejected"] == 1
    plan = json.loads(await scene.dataset.get(f"{run}/plan/plan.json"))
    assert (plan["new"], plan["recipe"]["parameters"]["megapixels"]) == (1, "0.25")
    assert "seed" not in plan["recipe"]["parameters"]


async def test_a_second_run_finds_nothing_to_do(any_scene: Scene) -> None:
    """And asks the API for nothing but the balance."""
    await any_scene.furnish("a", "b")
    await any_scene.run()
    before = any_scene.api.bill()
    receipt = await any_scene.run()
    assert receipt.all_kept
    assert (receipt.wanted, receipt.already_done, receipt.paid, receipt.dataset_rows) == (0, 2, 0, 2)
    after = any_scene.api.bill()
    assert after.accepted == before.accepted == 2
    assert receipt.requests == {"credits": 1}


async def test_a_manifest_that_grows_is_paid_for_what_is_new(scene: Scene) -> None:
    """Day by day, in whatever order it then is."""
    await scene.furnish("b")
    await scene.run()
    await scene.furnish("a", "b", "c")
    receipt = await scene.run()
    assert (receipt.already_done, receipt.paid, receipt.dataset_rows) == (1, 2, 3)
    assert scene.api.bill().paid_twice() == {}


async def test_labels_go_through(scene: Scene) -> None:
    """From the manifest to the metadata, those of a refused row too."""
    storage = open_storage(scene.place)
    await scene.furnish("a")
    row = {"id": "a", "url": "photos/a.jpg", "class": "cat", "score": 0.5}
    await storage.put("manifest.jsonl", "\n".join(map(json.dumps, [row, {"id": "b", "class": "dog"}])).encode())
    await scene.run()
    rows = {row["source_id"]: (row["status"], row["class"], row["score"]) for row in await scene.rows()}
    assert rows == {"a": ("kept", "cat", 0.5), "b": ("rejected", "dog", None)}


async def test_what_failed_is_tried_again_by_request(scene: Scene) -> None:
    """Left alone by an ordinary run; tried again, its row is the new one."""
    await scene.furnish("a", "b")
    scene.api.set_faults("failed:1:1")
    first = await scene.run()
    assert (first.kept, first.failed, first.all_kept) == (1, 1, False)
    assert first.errors == {"inference_failed": 1}
    left_alone = await scene.run()
    assert (left_alone.failed_before, left_alone.wanted) == (1, 0)
    again = await scene.run(tried_again(scene.job))
    assert (again.kept, again.already_done, again.dataset_rows) == (1, 1, 2)
    assert {(row["status"], row["attempt"]) for row in await scene.rows()} == {("kept", 1), ("kept", 2)}
    assert scene.api.bill().paid_twice() == {}


async def test_refused_rows_are_rows_of_the_dataset(scene: Scene) -> None:
    """Each with its reason; nothing is paid for them, and once put right they are gone."""
    await scene.furnish("a", {"id": "b"}, {"id": "c", "url": "photos/a.jpg", "guidance": 99})
    receipt = await scene.run()
    assert (receipt.rejected, receipt.kept, receipt.all_kept) == (2, 1, False)
    assert len(receipt.rejected_rows) == 2
    rows = {row["source_id"]: row for row in await scene.rows()}
    assert rows["b"]["error"] == "row 2: no URI"
    assert "guidance is 99" in rows["c"]["error"]
    assert scene.api.bill().accepted == 1
    await scene.furnish("a", "b", {"id": "c", "url": "photos/a.jpg", "guidance": 9})
    assert (await scene.run()).all_kept
    assert {row["source_id"]: row["status"] for row in await scene.rows()} == dict.fromkeys("abc", "kept")


async def test_several_images_of_a_request_are_several_rows(scene: Scene) -> None:
    """Asked for by a row of the manifest: one id, an image and a row for each, all of them paid."""
    await scene.furnish("a")
    storage = open_storage(scene.place)
    await storage.put("manifest.jsonl", json.dumps({"id": "a", "url": "photos/a.jpg", "num_outputs": 2}).encode())
    receipt = await scene.run()
    assert (receipt.wanted, receipt.kept, receipt.paid) == (2, 2, 2)
    assert receipt.cost_usd == scene.api.bill().total_usd == pytest.approx(0.062)
    rows = await scene.rows()
    assert len({row["variation_id"] for row in rows}) == 1
    assert sorted(row["output_index"] for row in rows) == [0, 1]
    assert len({row["file_name"] for row in rows}) == len(await scene.keys("images/")) == 2
    assert (await scene.run()).already_done == 1


async def test_a_run_that_is_stopped_publishes_what_is_there(any_scene: Scene) -> None:
    """What is left is told, and the next run makes it: what was billed is what is in the rows."""
    names = [f"s{number}" for number in range(6)]
    await any_scene.furnish(*names)
    async with any_scene.opened(limits=replace(LIMITS, max_in_flight=2)) as run:
        plan = await planned(run)
        await run.make(0)
        await run.make(1)
        run.engine.stop(errors.StoppedByUser("stopped by SIGINT"))
        await asyncio.gather(*(run.make(shard) for shard in range(2, plan.shards)))
        with pytest.raises(RunStopped, match="stopped by SIGINT") as stopped:
            await run.publish()
    receipt = stopped.value.receipt
    assert (receipt.kept, receipt.left, receipt.stopped_by) == (2, 4, "stopped_by_user")
    assert (receipt.dataset_rows, len(await any_scene.rows())) == (2, 2)
    assert any_scene.api.bill().accepted == 2
    rest = await any_scene.run()
    assert (rest.already_done, rest.kept, rest.left, rest.all_kept) == (2, 4, 0, True)
    rows, bill = await any_scene.rows(), any_scene.api.bill()
    assert sorted(row["request_id"] for row in rows) == sorted(line.request_id for line in bill.lines)
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(bill.total_usd)
    assert bill.paid_twice() == {}


async def test_a_stop_in_the_middle_of_a_shard_loses_nothing(scene: Scene) -> None:
    """What is in flight is finished: it is paid for."""
    await scene.furnish(*(f"s{number}" for number in range(8)))
    async with scene.opened(limits=replace(LIMITS, max_in_flight=3)) as run:
        plan = await planned(run)
        making = asyncio.gather(*(run.make(shard) for shard in range(plan.shards)))
        while not run.engine.progress.in_flight:  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0)
        run.engine.stop(errors.StoppedByUser("stopped"))
        await making
        with pytest.raises(RunStopped) as stopped:
            await run.publish()
    receipt, bill = stopped.value.receipt, scene.api.bill()
    assert 0 < receipt.kept < 8
    assert receipt.kept + receipt.left == 8
    assert receipt.kept == bill.accepted == len(await scene.rows())
    assert (await scene.run()).dataset_rows == 8
    assert scene.api.bill().accepted == 8


async def test_a_killed_run_is_picked_up(scene: Scene) -> None:
    """It made a shard and never came to its publish: the next one closes it, and pays for nothing twice."""
    await scene.furnish("a", "b")
    async with scene.opened() as run:
        await planned(run)
        await run.make(0)
    assert METADATA_KEY not in await scene.keys()
    receipt = await scene.run()
    assert receipt.recovery["closed_run"] == run.run_id
    killed = json.loads(await scene.dataset.get(f"_runs/{run.run_id}/receipt.json"))
    assert (killed["stopped_by"], killed["kept"], killed["left"]) == ("crashed", 1, 1)
    assert (receipt.already_done, receipt.kept, receipt.dataset_rows) == (1, 1, 2)
    assert scene.api.bill().accepted == 2


async def test_a_wrong_key_is_found_before_anything_is_written(any_scene: Scene) -> None:
    """Nothing planned, nothing in the destination, no line on the bill."""
    await any_scene.furnish("a")
    async with any_scene.opened(key="SG_ffffffffffffffff") as run:
        with pytest.raises(errors.Unauthorized) as caught:
            await run.check()
    assert "SG_ffffffffffffffff" not in str(caught.value)
    assert await any_scene.keys() == []
    assert any_scene.api.bill().accepted == 0


async def test_a_bucket_that_is_not_there_stops_a_run_before_it_pays(s3_uri: str, local_uri: str, api: Sandbox) -> None:
    """It is named."""
    scene = Scene(local_uri, api)
    await scene.furnish("a")
    missing = s3_uri.replace("bucket", "no-bucket")
    async with scene.opened(replace(scene.job, destination=f"{missing}/dataset")) as run:
        with pytest.raises(errors.BucketNotFound, match=missing.removeprefix("s3://")):
            await run.recover()
    assert api.bill().accepted == 0


async def test_a_manifest_that_is_not_there_is_one_clear_error(scene: Scene) -> None:
    """Nothing is planned or paid, and the dataset is free for the next run."""
    async with scene.opened() as run:
        with pytest.raises(errors.ManifestError, match=r"manifest\.jsonl: nothing is there"):
            await planned(run)
    assert await scene.keys() == [OPEN_KEY, PROBE_KEY]
    await scene.furnish("a")
    receipt = await scene.run()
    assert (receipt.kept, receipt.recovery["closed_run"]) == (1, None)


async def test_a_destination_that_is_a_file_stops_a_run_before_it_pays(scene: Scene) -> None:
    """Nobody's rights are needed to find that out."""
    await scene.furnish("a")
    await open_storage(scene.place).put("taken", b"a file")
    async with scene.opened(replace(scene.job, destination=f"{scene.place}/taken/dataset")) as run:
        with pytest.raises(errors.StorageError):
            await run.recover()
    assert scene.api.bill().accepted == 0


class Refusing:
    """A storage that refuses to write some keys."""

    def __init__(self, storage: Storage, *, refuses: Callable[[str], bool]) -> None:
        self._storage = storage
        self.refuses = refuses

    def __getattr__(self, name: str) -> Any:
        """Hand out all but what is refused."""
        return getattr(self._storage, name)

    async def put(self, key: str, data: Any, **options: Any) -> Any:
        """Write, or not."""
        return await self._write(self._storage.put, key, data, options)

    async def put_if_absent(self, key: str, data: Any, **options: Any) -> Any:
        """Write, or not."""
        return await self._write(self._storage.put_if_absent, key, data, options)

    async def replace(self, key: str, data: Any, **options: Any) -> Any:
        """Write, or not."""
        return await self._write(self._storage.replace, key, data, options)

    async def _write(self, write: Callable[..., Awaitable[Any]], key: str, data: Any, options: dict[str, Any]) -> Any:
        if self.refuses(key):
            raise errors.AccessDenied(f"{key}: access denied")
        return await write(key, data, **options)


@asynccontextmanager
async def refusing_run(scene: Scene, refuses: Callable[[str], bool]) -> AsyncIterator[tuple[Run, Any]]:
    """Open a run whose destination refuses keys."""
    storage: Any = Refusing(scene.dataset, refuses=refuses)
    async with default_http_client(max_connections=8) as http:
        client = Client(http, endpoint=endpoint_of(scene.api))
        async with running(scene.job, storage=storage, client=client, limits=LIMITS, clock=SystemClock()) as run:
            yield run, storage


async def test_a_destination_that_refuses_to_be_written_is_found_before_it_is_paid(scene: Scene) -> None:
    """Whether nothing can be written there or, once the dataset is taken in hand, no plan."""
    await scene.furnish("a")
    async with refusing_run(scene, lambda _: True) as (run, _):
        with pytest.raises(errors.AccessDenied):
            await run.recover()
    async with refusing_run(scene, lambda key: "/plan/" in key) as (run, _):
        await run.recover()
        with pytest.raises(errors.AccessDenied):
            await run.plan()
    assert scene.api.bill().accepted == 0


async def test_a_journal_that_cannot_be_written_stops_a_run_before_it_pays(scene: Scene) -> None:
    """Nothing is submitted that is not written down before."""
    await scene.furnish("a", "b")
    async with refusing_run(scene, lambda key: "/journal/" in key) as (run, _):
        await planned(run)
        await asyncio.gather(run.make(0), run.make(1))
        with pytest.raises(RunStopped, match="access denied"):
            await run.publish()
    assert scene.api.bill().accepted == 0
    assert (await scene.run()).kept == 2


async def test_rows_that_could_not_be_written_are_written_at_the_end(scene: Scene) -> None:
    """The run stops, for it cannot keep what it pays; what it has paid is tried once more."""
    await scene.furnish("a", "b")
    async with refusing_run(scene, lambda key: "part-00000" in key) as (run, storage):
        await planned(run)
        await run.make(0)
        assert isinstance(run.engine.stopped_by, errors.AccessDenied)
        storage.refuses = lambda _: False
        with pytest.raises(RunStopped, match="access denied") as stopped:
            await run.publish()
    assert (stopped.value.receipt.kept, stopped.value.receipt.dataset_rows) == (1, 1)
    assert (await scene.run()).already_done == 1
    assert scene.api.bill().paid_twice() == {}


async def test_a_dataset_that_cannot_be_published_says_so(scene: Scene) -> None:
    """Its receipt counts all the same what was paid, and is not written: the next run publishes the parts."""
    await scene.furnish("a")
    async with refusing_run(scene, lambda key: "part-" in key) as (run, _):
        await planned(run)
        await run.make(0)
        with pytest.raises(RunStopped) as stopped:
            await run.publish()
    receipt = stopped.value.receipt
    assert (receipt.kept, receipt.paid, receipt.dataset_rows, receipt.stopped_by) == (1, 1, None, "access_denied")
    assert not [key for key in await scene.keys() if key.endswith("receipt.json")]


async def everything_in(storage: Storage) -> bytes:
    """Return every object, parquet files read: compressed pages would hide what they hold."""
    found = []
    async for entry in storage.list():
        content = await storage.get(entry.key)
        found += [entry.key.encode(), content]
        if entry.key.endswith(".parquet"):
            found.append(str(pq.read_table(pa.BufferReader(content)).to_pylist()).encode())
    return b"\n".join(found)


async def test_a_signature_reaches_the_api_and_nothing_else(
    s3_uri: str, api: Sandbox, moto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether we sign or the manifest's author did: no object of the destination and no log record has it."""
    caplog.set_level(logging.DEBUG, logger="variations")
    scene = Scene(s3_uri, api)
    await scene.furnish("ours", "theirs", "again")
    storage = open_storage(s3_uri)
    signed = await storage.presigned_url("photos/theirs.jpg", expires_seconds=600)
    rows: list[dict[str, Any]] = [
        {"url": "photos/ours.jpg", "label": signed},
        {"url": signed},
        {"url": f"{moto_url}/{s3_uri[5:]}/photos/gone.jpg?X-Amz-Signature={SIGNATURE}"},
        {"url": f"ftp://h/a.jpg?X-Amz-Signature={SIGNATURE}"},
    ]
    await storage.put("manifest.jsonl", "\n".join(map(json.dumps, rows)).encode())
    receipt = await scene.run()
    assert (receipt.kept, receipt.failed, receipt.rejected) == (2, 1, 1)
    api.advance_clock(10)
    async with httpx.AsyncClient(base_url=api.base_url, headers={"x-api-key": api.api_key}) as http:
        history = await http.get("/inference-request/request-history?per_page=100&page=1")
    assert history.text.count("X-Amz-Signature") >= 3
    secrets = [SIGNATURE, "X-Amz-Signature", "X-Amz-Credential", "AKIA"]
    content = await everything_in(scene.dataset)
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("variations"))
    told = json.dumps(receipt.as_dict()) + receipt.markdown()
    for secret in secrets:
        assert secret.encode() not in content
        assert secret not in logged
        assert secret not in told


@pytest.mark.parametrize(
    "uri",
    [
        f"https://bucket.example.com/m.csv?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}",
        f"s3://bucket/m.csv?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}",
        f"s3://bucket/m.csv?AWSAccessKeyId=AKIA&Signature={SIGNATURE}&Expires=1",
        f"s3://AKIA:{SIGNATURE}@bucket/m.csv",
        f"https://me:{SIGNATURE}@example.com/m.csv",
    ],
)
def test_a_place_that_carries_a_secret_is_refused(uri: str) -> None:
    """It would show in plans, receipts and logs; the refusal does not repeat it."""
    for source, destination in ((uri, "out"), ("m.csv", uri)):
        with pytest.raises(errors.BadInput) as caught:
            Job(source, destination)
        assert SIGNATURE not in str(caught.value)
        assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a?b=c/m.csv", "s3://bucket/me@example.com/m.csv", "m.csv?Signature=1", "file:///a@b/m.csv"]
)
def test_a_place_with_odd_letters_is_none(uri: str) -> None:
    """In a key and in a file's name they are letters."""
    assert Job(uri, "out").source == uri
    assert Job("m.csv", uri).destination == uri


def test_a_manifest_in_the_web_is_one_clear_error(scene: Scene) -> None:
    """It is read from S3 or from a file."""
    with pytest.raises(errors.BadInput, match="https:// is not supported here"):
        replace(scene.job, source="https://example.com/m.csv")


async def test_an_estimate_is_the_plan_and_writes_nothing(any_scene: Scene) -> None:
    """The same numbers, before anything is paid."""
    await any_scene.furnish("a", "b", "b", {"id": "c"})
    found = await estimate(any_scene.job, limits=LIMITS)
    assert await any_scene.keys() == []
    assert any_scene.api.bill().accepted == 0
    async with any_scene.opened() as run:
        plan = await planned(run)
    assert found == replace(plan, run_id="")
    assert (found.sources, found.duplicates, found.rejected, found.new) == (3, 1, 1, 2)
    assert (found.images, found.shards, found.cost_usd) == (2, 2, pytest.approx(0.062))
    assert found.rejected_rows == ("row 4: no URI",)


async def test_text_that_is_no_unicode_stops_no_run(scene: Scene) -> None:
    """JSON can spell half a surrogate pair in a label, an id or a URI."""
    await scene.furnish("a", "b")
    rows = [r'{"id": "a", "url": "photos/a.jpg"}', r'{"id": "b", "url": "photos/b.jpg", "label": "\ud800"}']
    rows += [r'{"id": "\ud800", "url": "photos/b.jpg"}', r'{"id": "c", "url": "photos/\ud800.jpg"}']
    await open_storage(scene.place).put("manifest.jsonl", "\n".join(rows).encode())
    receipt = await scene.run()
    assert (receipt.kept, receipt.rejected, receipt.dataset_rows) == (1, 3, 4)


async def test_a_bug_of_ours_does_not_lose_the_rows_of_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is published with what there is, whatever one item came to."""
    await scene.furnish("a", "b")
    async with scene.opened() as run:
        await planned(run)
        real = run.engine.run

        async def odd(variations: Any, log: Any) -> list[Outcome]:
            found: list[Variation] = list(variations)
            if found[0].source.source_id != "a":
                return await real(found, log)
            name, made = found[0].variation_id, outcome("failed", of=found[0], error="\ud800 | <b>")
            fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(ImageOutcome)}
            await log.append(Intended(variation_id=name, attempt=1, redux_image=None))
            await log.append(Settled(variation_id=name, images=(ImageOutcome(**fields),)))
            return [made]

        monkeypatch.setattr(run.engine, "run", odd)
        await asyncio.gather(run.make(0), run.make(1))
        receipt = await run.publish()
    assert (receipt.kept, receipt.failed) == (1, 1)
    stored = json.loads(await scene.dataset.get(f"_runs/{receipt.run_id}/receipt.json"))
    assert stored["error_samples"] == {"failed": "\ud800 | <b>"}


async def test_a_run_has_to_recover_before_it_plans(scene: Scene) -> None:
    """Whoever calls the steps in another order is told: what was paid for before has to be known first."""
    await scene.furnish("a")
    async with scene.opened() as run:
        with pytest.raises(RuntimeError, match="before it plans"):
            await run.plan()
    assert await scene.keys() == []


async def test_two_runs_at_once_pay_once(any_scene: Scene) -> None:
    """The second is told who works there, and pays nothing; or it waits, and finds all done."""
    await any_scene.furnish("a", "b")
    async with any_scene.opened() as first, any_scene.opened() as second, any_scene.opened() as third:
        plan = await planned(first)
        with pytest.raises(errors.DatasetBusy, match=f"the run {first.run_id} works on"):
            await second.recover()
        waiting = asyncio.create_task(third.recover(wait=True))
        await asyncio.gather(*(first.make(shard) for shard in range(plan.shards)))
        await first.publish()
        assert not waiting.done()
        await first.aclose()
        await waiting
        assert (await third.plan()).already_done == 2
    assert any_scene.api.bill().accepted == 2


async def test_more_than_a_run_may_cost_is_said_before_anything_is_paid(scene: Scene) -> None:
    """Whether it is the setting or the balance that does not cover it; the next run is free to begin."""
    await scene.furnish("a", "b", "c")
    with pytest.raises(errors.BudgetReached, match=r"0\.09 USD, more than max_cost_usd 0\.07"):
        await scene.run(limits=replace(LIMITS, max_cost_usd=0.07))
    scene.api.configure(credits=0.05, free_credits=0.0)
    with pytest.raises(errors.InsufficientCredits, match=r"the balance is 0\.05 USD"):
        await scene.run()
    assert scene.api.bill().accepted == 0
    scene.api.configure(credits=1.0)
    assert (await scene.run(limits=replace(LIMITS, max_cost_usd=0.093))).all_kept


@pytest.mark.parametrize("fault", ["accept_and_break", "accept_502"])
async def test_a_submit_whose_answer_is_lost_is_found_and_kept(scene: Scene, fault: str) -> None:
    """In the account's history, by its inputs: it is paid for once, and its image is in the dataset."""
    await scene.furnish("a", "b")
    scene.api.set_faults(f"{fault}:1:1")
    scene.api.configure(history_delay_seconds=0)
    receipt = await scene.run()
    assert (receipt.kept, receipt.all_kept, receipt.accepted_twice) == (2, True, 0)
    assert scene.api.bill().accepted == 2


async def test_the_folder_of_a_dataset_need_not_be_there(scene: Scene, tmp_path: Path) -> None:
    """Its first run makes it."""
    await scene.furnish("a")
    await scene.run(replace(scene.job, destination=str(tmp_path / "not" / "yet")))
    assert (tmp_path / "not" / "yet" / METADATA_KEY).is_file()


async def test_a_variation_that_lacks_images_is_told_in_every_later_run(scene: Scene) -> None:
    """Of a request for three images fewer came: the others were paid for, so it is not made again, nor called whole."""
    await scene.furnish({"id": "a", "url": "photos/a.jpg", "num_outputs": 3}, "b")
    await open_storage(scene.place).put("photos/a.jpg", photo("a"))
    scene.api.set_faults("fewer_outputs:1:1")
    assert (await scene.run()).failed >= 1
    again = await scene.run()
    assert (again.already_done, again.partly_there, again.wanted, again.all_kept) == (2, 1, 0, False)
    assert scene.api.bill().accepted == 2


async def test_a_lost_submit_is_not_taken_for_that_of_another_dataset(scene: Scene) -> None:
    """Two datasets of one manifest ask for the same images: what shows first in the history may be the other's."""
    await scene.furnish("a")
    await scene.run()
    await asyncio.to_thread(scene.api.advance_clock, 10)
    scene.api.configure(history_delay_seconds=1.0)
    scene.api.set_faults("accept_and_break:1:1")
    other = replace(scene.job, destination=f"{scene.place}/other")
    receipt = await scene.run(other)
    assert (receipt.kept, receipt.unknown) == (1, 0)
    first, second = scene.api.bill().lines
    rows = pq.read_table(io.BytesIO(await open_storage(other.destination).get(METADATA_KEY))).to_pylist()
    assert [row["request_id"] for row in rows] == [second.request_id]
    assert [row["request_id"] for row in await scene.rows()] == [first.request_id]
