"""A canary: made before the rest, looked at by what is published of it, and waited for by every run until somebody
lets it go on.
"""

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.canary import Canary
from variations.canary_choice import Said, choose, spread
from variations.dataset import METADATA_KEY, parquet_bytes
from variations.errors import JournalDamaged
from variations.estimate import estimate
from variations.gate import Gate, OnFlagged
from variations.job import Job
from variations.layout import canary_key, canary_said_key
from variations.planning.plan_shards import cut
from variations.planning.sweep import parse_sweep
from variations.receipt import Receipt, RunStopped
from variations.run import Run
from variations.storage import open_storage

from .scene import LIMITS, SMALL, Scene, dead_writer, killed, photo, planned, tried_again

NAMES = tuple("abcdefghijkl")


def with_canary(job: Job, count: int = 4, **changes: Any) -> Job:
    """Return a job with a canary."""
    return replace(job, recipe=replace(job.recipe, canary=count, **changes))


async def make(run: Run) -> None:
    """Make what may be made now."""
    shards = []
    while (shard := await run.take()) is not None:
        shards.append(shard)
    await asyncio.gather(*(run.make(shard) for shard in shards))


async def decided(run: Run, *, said: Said | None = None) -> Canary | None:
    """Look at the canary, and go on if it is good enough, or somebody says so; as a flow does."""
    canary = await run.look_at_canary()
    assert canary is not None
    if canary.is_good:
        await run.go_on("passed")
    elif said is not None:
        await run.go_on(said)
    else:
        run.pause_after_canary()
    return canary


async def run_of(scene: Scene, job: Job, *, said: Said | None = None) -> Receipt:
    """Run a job from beginning to end, as a flow does; of one that pauses, the receipt too."""
    async with scene.opened(job) as run:
        plan = await planned(run)
        await make(run)
        if plan.canary and plan.canary_shards != plan.shards:
            await decided(run, said=said)
        await make(run)
        try:
            return await run.publish()
        except RunStopped as stopped:
            return stopped.receipt


def submits(scene: Scene) -> int:
    """Return how many submits were accepted, and so were paid, or failed."""
    return scene.api.bill().calls_of("submit")


@given(st.integers(0, 60), st.integers(0, 1000))
def test_so_many_are_spread_over_all(count: int, among: int) -> None:
    """One in each of so many equal parts, in their order; all where there are no more."""
    numbers = spread(count, among=among)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(count, among)
    for part, number in enumerate(numbers):
        assert part * among // len(numbers) <= number < (part + 1) * among // len(numbers)


@pytest.mark.parametrize("settings", [2, 3, 4, 6, 8, 10])
def test_it_meets_more_than_one_setting_of_a_sweep(settings: int) -> None:
    """Which lie side by side, in the same order for each source: equal steps would meet the same one each time."""
    met = {number % settings for number in spread(10, among=100 * settings)}
    assert len(met) >= min(settings, 4) - 1 > 0


@given(st.integers(1, 50), st.integers(1, 60), st.sets(st.integers(0, 60), max_size=20))
def test_those_that_wait_are_in_it(total: int, count: int, waiting: set[int]) -> None:
    """Be they there already or to be made; the others are as many as are asked for besides, or as there are."""
    ids = [f"{at:032x}" for at in range(total)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"variation_id": ids}), sink, row_group_size=7)
    spool = io.BytesIO(sink.getvalue().to_pybytes())
    first = [f"{at:032x}" for at in sorted(waiting)]
    chosen = choose(spool, count, first=first)  # type: ignore[arg-type]
    assert chosen.ids[: len(first)] == tuple(first)
    assert len(set(chosen.ids)) == len(chosen.ids) == max(len(first), min(count, len({*first, *ids})))
    assert {ids[row] for row in chosen.rows} == set(chosen.ids) & set(ids)
    assert list(chosen.rows) == sorted(set(chosen.rows))


def test_shards_are_cut_around_the_first_ones(tmp_path: Path) -> None:
    """Whatever the batches that they are read in: each once, the first ones before all others."""
    ids = [f"{at:032x}" for at in range(23)]
    spool = tmp_path / "spool.parquet"
    pq.write_table(pa.table({"variation_id": ids}), spool, row_group_size=5)
    for size in range(1, 25):
        first = (0, 4, 5, 11, 22)
        shards = [table.column("variation_id").to_pylist() for table in cut(spool, size, first=first)]
        of_first = -(-len(first) // size)
        assert [one for shard in shards[:of_first] for one in shard] == [ids[at] for at in first]
        rest = [one for at, one in enumerate(ids) if at not in first]
        assert [one for shard in shards[of_first:] for one in shard] == rest
        assert all(len(shard) == size for shard in (*shards[: of_first - 1], *shards[of_first:-1]))


async def test_one_that_is_good_enough_goes_on(any_scene: Scene) -> None:
    """By itself; the receipt tells of it, all is there, and nothing was paid twice."""
    await any_scene.furnish(*NAMES)
    job = with_canary(any_scene.job)
    async with any_scene.opened(job) as run:
        plan = await planned(run)
        assert (plan.canary, plan.canary_shards, plan.shards) == (4, 4, 12)
        await make(run)
        assert any_scene.api.bill().accepted == 4
        canary = await decided(run)
        assert canary is not None
        assert (canary.images, canary.passed, canary.percent) == (4, 4, 0)
        assert len({row["source_id"] for row in await any_scene.rows()}) == 4
        await make(run)
        receipt = await run.publish()
    assert receipt.all_kept
    assert receipt.canary == "4 images, none failed: 0 %; the rest was made, too"
    bill = any_scene.api.bill()
    assert (bill.accepted, bill.same_inputs_paid(), receipt.dataset_rows) == (12, {}, 12)


async def test_one_that_is_not_pauses_and_so_does_the_next_run_unpaid(scene: Scene) -> None:
    """Day after day, as the manifest grows, until a run without a canary goes on; then there is a new one."""
    await scene.furnish(*NAMES)
    job = with_canary(scene.job)
    scene.api.set_faults("failed:1:2")
    first = await run_of(scene, job)
    assert (first.stopped_by, first.kept, first.failed, first.left) == ("canary", 2, 2, 8)
    assert "50 % failed, are unknown or flagged, and max_canary_percent is 20" in str(first.stopped_because)
    assert "inference_failed 2×" in str(first.stopped_because)
    paid = submits(scene)
    plan = await estimate(job, limits=LIMITS)
    assert dict(plan.lines())["canary"].startswith("4 variations first, 4 of them there already; the rest if")
    for name in ("m", "n"):
        await scene.furnish(name, *NAMES)
        again = await run_of(scene, job)
        assert (again.stopped_by, again.kept, again.failed, submits(scene)) == ("canary", 0, 0, paid)
        assert again.canary == "4 images, 2 failed: 50 %; the rest was not made"
    rest = await run_of(scene, with_canary(scene.job, 0))
    assert (rest.stopped_by, rest.kept, rest.failed_before) == (None, 9, 2)
    await scene.furnish(*NAMES, "n", *"opqrstuv")
    new = await run_of(scene, job)
    assert (new.kept, new.canary) == (8, "4 images, none failed: 0 %; the rest was made, too")
    assert scene.api.bill().same_inputs_paid() == {}


async def test_who_allows_more_goes_on(scene: Scene) -> None:
    """The same images are looked at by another measure; nothing is paid for them again."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("failed:1:2")
    assert (await run_of(scene, with_canary(scene.job))).stopped_by == "canary"
    receipt = await run_of(scene, with_canary(scene.job, max_canary_percent=50.0))
    assert (receipt.stopped_by, receipt.kept, receipt.failed_before) == (None, 8, 2)
    assert submits(scene) == 12


async def test_who_tries_again_what_failed_makes_the_same_ones(scene: Scene) -> None:
    """They are looked at as they are then."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("failed:1:2")
    job = with_canary(scene.job)
    assert (await run_of(scene, job)).stopped_by == "canary"
    expected = await estimate(tried_again(job), limits=LIMITS)
    async with scene.opened(tried_again(job)) as run:
        plan = await planned(run)
        assert (plan.canary, plan.canary_there, plan.canary_shards, plan.new) == (4, 2, 2, 10)
        assert expected == replace(plan, run_id="")
    receipt = await run_of(scene, tried_again(job))
    assert (receipt.stopped_by, receipt.kept, receipt.already_done) == (None, 10, 2)
    assert {row["status"] for row in await scene.rows()} == {"kept"}


async def test_other_parameters_have_a_canary_of_their_own(scene: Scene) -> None:
    """What the earlier one was is not wanted any more, and says nothing of what is."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("failed:1:2")
    assert (await run_of(scene, with_canary(scene.job))).stopped_by == "canary"
    other = with_canary(scene.job, parameters=SMALL.parameters.model_copy(update={"guidance": 4.0}))
    receipt = await run_of(scene, other)
    assert (receipt.stopped_by, receipt.kept) == (None, 12)
    assert receipt.canary.startswith("4 images, none failed")


async def test_a_run_of_another_manifest_lets_nothing_go_on(scene: Scene) -> None:
    """Though it comes in between, and has no canary."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("failed:1:2")
    job = with_canary(scene.job)
    assert (await run_of(scene, job)).stopped_by == "canary"
    storage = open_storage(scene.place)
    await storage.put("photos/z.jpg", photo("z"))
    await storage.put("other.jsonl", json.dumps({"id": "z", "url": "photos/z.jpg"}).encode())
    assert (await run_of(scene, replace(scene.job, source=f"{scene.place}/other.jsonl"))).kept == 1
    paid = submits(scene)
    assert (await run_of(scene, job)).stopped_by == "canary"
    assert submits(scene) == paid


async def test_what_a_person_lets_go_on_does_not_wait_any_more(scene: Scene) -> None:
    """Not even where the rest was broken off: the next run has a canary of what is left."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("failed:1:2")
    job = with_canary(scene.job)
    writer = dead_writer()
    async with killed(replace(scene, changed=job), writer=writer) as run:
        await planned(run)
        await make(run)
        await decided(run, said="allowed")
        assert await run.take() is not None
    receipt = await run_of(scene, job)
    assert receipt.stopped_by is None
    assert (receipt.kept, receipt.canary) == (8, "4 images, none failed: 0 %; the rest was made, too")


async def test_a_run_that_is_killed_between_canary_and_rest_has_lost_nothing(scene: Scene) -> None:
    """The next one looks at the same images, pays for none of them, and makes the rest or waits, as they are."""
    await scene.furnish(*NAMES)
    job = with_canary(scene.job)
    async with killed(replace(scene, changed=job), writer=dead_writer()) as run:
        await planned(run)
        await make(run)
    assert scene.api.bill().accepted == 4
    async with scene.opened(job) as run:
        plan = await planned(run)
        assert (plan.canary, plan.canary_shards, plan.already_done) == (4, 0, 4)
        assert await run.take() is None
    receipt = await run_of(scene, job)
    bill = scene.api.bill()
    assert (receipt.kept, receipt.dataset_rows, bill.accepted, bill.same_inputs_paid()) == (8, 12, 12, {})
    assert receipt.canary == "4 images, none failed: 0 %; the rest was made, too"


async def test_a_run_that_is_killed_within_its_canary_goes_on_with_it(scene: Scene) -> None:
    """What was in flight is fetched, what was not begun is made, and then it is looked at."""
    await scene.furnish(*NAMES)
    job = with_canary(scene.job)
    scene.api.configure(speed=1, latency_seconds=30.0)
    async with killed(replace(scene, changed=job), writer=dead_writer()) as run:
        await planned(run)
        shard = await run.take()
        assert shard is not None
        making = asyncio.create_task(run.make(shard))
        async with asyncio.timeout(30):
            while not run.engine.progress.in_flight:  # noqa: ASYNC110 - a counter knows no event
                await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    scene.api.configure(speed=1000)
    scene.api.advance_clock(31)
    async with scene.opened(job) as run:
        plan = await planned(run)
        assert (plan.canary, plan.canary_shards, plan.already_done) == (4, 3, 1)
    receipt = await run_of(scene, job)
    bill = scene.api.bill()
    assert (receipt.kept, receipt.dataset_rows, bill.accepted, bill.same_inputs_paid()) == (11, 12, 12, {})


async def test_where_nothing_is_left_there_is_nothing_to_decide(scene: Scene) -> None:
    """All are the canary; how many failed is said by the run's end."""
    await scene.furnish("a", "b")
    scene.api.set_faults("failed:1:2")
    receipt = await run_of(scene, with_canary(scene.job))
    assert (receipt.stopped_by, receipt.failed, receipt.canary) == (None, 2, "")


async def test_a_plan_tells_of_it(scene: Scene) -> None:
    """Before anything is paid; no more than there is to make, and nothing where there is nothing."""
    await scene.furnish(*NAMES)
    plan = await estimate(with_canary(scene.job, max_canary_percent=12.5), limits=LIMITS)
    assert dict(plan.lines())["canary"] == "4 variations first; the rest if no more than 12.5 % of them are bad"
    assert (await estimate(with_canary(scene.job, 100), limits=LIMITS)).canary == 12
    assert "canary" not in dict((await estimate(scene.job, limits=LIMITS)).lines())
    await scene.run()
    assert (await estimate(with_canary(scene.job), limits=LIMITS)).canary == 0


async def test_it_has_images_of_all_settings(scene: Scene) -> None:
    """Of a sweep, and of a request for several each image counts."""
    await scene.furnish(*NAMES)
    sweep = {"sweep": parse_sweep("guidance=2,3"), "parameters": SMALL.parameters.model_copy(update={"num_outputs": 2})}
    async with scene.opened(with_canary(scene.job, 6, **sweep)) as run:
        await planned(run)
        await make(run)
        canary = await decided(run)
        assert canary is not None
        assert canary.images == 12
    assert {row["guidance"] for row in await scene.rows()} == {2.0, 3.0}


async def test_what_is_flagged_is_not_good(scene: Scene) -> None:
    """By the metadata's verdicts, where a gate has written any."""
    await scene.furnish(*NAMES)
    job = with_canary(scene.job)
    async with scene.opened(job) as run:
        await planned(run)
        await make(run)
        await run.look_at_canary()
        run.pause_after_canary()
        with pytest.raises(RunStopped):
            await run.publish()
    table = pq.read_table(io.BytesIO(await scene.dataset.get(METADATA_KEY)))
    verdicts = ["flagged: blank", "passed", "passed", "passed"]
    table = table.append_column("verdict", pa.array(verdicts))
    await scene.dataset.put(METADATA_KEY, parquet_bytes(table))
    async with scene.opened(job) as run:
        await planned(run)
        canary = await run.look_at_canary()
        assert canary is not None
        assert (canary.flagged, canary.passed, canary.is_good) == (1, 3, False)
        assert canary.reasons == {"flagged: blank": 1}


def test_images_are_counted_once_each() -> None:
    """By what is worst about them; what was flagged and dropped is flagged, and one of none is no good one."""
    canary = Canary(40.0)
    assert (canary.images, canary.percent, canary.is_good) == (0, 100.0, False)
    canary.add("kept", verdict=None, error_code=None, cost_usd=0.031)
    canary.add("kept", verdict="passed", error_code=None, cost_usd=0.031)
    canary.add("kept", verdict="flagged: copy", error_code=None, cost_usd=0.031)
    canary.add("rejected", verdict="flagged: blank", error_code="flagged", cost_usd=0.031)
    assert (canary.passed, canary.flagged, canary.percent, canary.is_good) == (2, 2, 50.0, False)
    canary.add("failed", verdict=None, error_code="inference_failed")
    canary.add("unknown", verdict=None, error_code="timeout", cost_usd=0.031)
    assert (canary.images, canary.bad, canary.cost_usd) == (6, 4, pytest.approx(0.155))
    assert canary.summary() == "6 images, 1 failed, 1 unknown, 2 flagged: 67 %"
    assert dict(canary.lines())["not good"] == "67 %, of 40 % at most"
    assert canary.reasons == {"flagged: copy": 1, "flagged": 1, "inference_failed": 1, "timeout": 1}


async def test_one_that_is_damaged_is_one_clear_error(scene: Scene) -> None:
    """Before anything is paid."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("failed:1:2")
    job = with_canary(scene.job)
    run_id = (await run_of(scene, job)).run_id
    assert not await scene.dataset.exists(canary_said_key(run_id))
    await scene.dataset.put(canary_key(run_id), b"{no")
    paid = submits(scene)
    with pytest.raises(JournalDamaged, match=r"canary\.json: it is no part of a plan"):
        await run_of(scene, job)
    assert submits(scene) == paid


async def test_one_in_the_places_of_flagged_images_pauses_the_next_run_too(scene: Scene) -> None:
    """What it made again there is what it is judged by, and the next run pays for no other ones."""
    await scene.furnish(*NAMES)
    scene.api.set_faults("output_blank:1")
    dropped = await scene.run(with_gate(scene.job, on_flagged="drop"))
    assert dropped.dropped == 12
    job = with_canary(with_gate(scene.job, on_flagged="reroll"))
    first = await run_of(scene, job)
    # Twice in each of four places, which then have had their three rolls.
    assert (first.stopped_by, first.dropped, submits(scene)) == ("canary", 8, 20)
    again = await run_of(scene, job)
    assert (again.stopped_by, submits(scene)) == ("canary", 20)
    scene.api.set_faults()
    rest = await run_of(scene, with_canary(with_gate(scene.job, on_flagged="reroll"), 0))
    assert (rest.stopped_by, rest.kept, rest.flagged_before, submits(scene)) == (None, 8, 4, 28)


@pytest.mark.parametrize(("fault", "rerolled"), [("output_blank:1:2", 2), ("output_blank", 8)])
async def test_what_a_canary_cost_has_its_rerolls_in_it(scene: Scene, fault: str, rerolled: int) -> None:
    """They are paid for it, however often a place is filled; how good it is, its first images tell alone."""
    await scene.furnish(*NAMES)
    scene.api.set_faults(fault)
    async with scene.opened(with_canary(with_gate(scene.job, on_flagged="reroll"))) as run:
        await planned(run)
        await make(run)
        canary = await run.look_at_canary()
        assert canary is not None
        run.pause_after_canary()
        with pytest.raises(RunStopped):
            await run.publish()
    bill = scene.api.bill()
    assert canary.cost_usd == pytest.approx(bill.total_usd)
    assert canary.images == 4
    lines = dict(canary.lines())
    assert lines["cost"] == f"{bill.total_usd:.3f} USD"
    assert lines["made again"] == str(bill.accepted - 4) == str(rerolled)


def with_gate(job: Job, *, on_flagged: OnFlagged) -> Job:
    """Return a job that looks for blank images alone: the photos are gradients, which are near to each other."""
    gate = Gate(copy_bits=0, twin_bits=0, on_flagged=on_flagged, max_rolls=3)
    return replace(job, recipe=replace(job.recipe, gate=gate))
