"""Runs that are stopped, on the way or before they pay: what is paid for is kept, and the next run goes on."""

import asyncio
import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from variations import errors
from variations.dataset import METADATA_KEY
from variations.layout import OPEN_KEY, PROBE_KEY
from variations.ledger.records import Intended, Settled
from variations.models import ImageOutcome, Outcome, Variation
from variations.receipt import RunStopped
from variations.sandbox import Sandbox
from variations.storage import open_storage

from .examples import outcome
from .scene import LIMITS, Scene, planned, refusing_run


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
    assert bill.same_inputs_paid() == {}


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


def test_a_manifest_in_the_web_is_one_clear_error(scene: Scene) -> None:
    """It is read from S3 or from a file."""
    with pytest.raises(errors.BadInput, match="https:// is not supported here"):
        replace(scene.job, source="https://example.com/m.csv")


async def test_a_destination_that_is_a_file_stops_a_run_before_it_pays(scene: Scene) -> None:
    """Nobody's rights are needed to find that out."""
    await scene.furnish("a")
    await open_storage(scene.place).put("taken", b"a file")
    async with scene.opened(replace(scene.job, destination=f"{scene.place}/taken/dataset")) as run:
        with pytest.raises(errors.StorageError):
            await run.recover()
    assert scene.api.bill().accepted == 0


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
    assert scene.api.bill().same_inputs_paid() == {}


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
