"""Whole runs through the quality gate: what is flagged is kept, dropped or made again, and each of it is paid once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from variations.dataset import METADATA_KEY
from variations.estimate import estimate
from variations.explain import explain
from variations.gate import Gate
from variations.job import Job
from variations.receipt import RunStopped
from variations.status import read_status
from variations.storage import open_storage

from .scene import LIMITS, Scene, dead_writer, killed_in_flight, planned

PRICE_USD = 0.031
PHOTOS = [Path(__file__).parents[1] / "photos" / name for name in ("01_rocket_rgb.jpg", "10_chelsea.webp")]
# The scene's photos are gradients: what is near to what says nothing.
BLANKS = Gate(copy_bits=0, twin_bits=0)
DROP = replace(BLANKS, on_flagged="drop")
REROLL = replace(BLANKS, on_flagged="reroll", max_rolls=3)


class Judged(Scene):
    """A scene whose own job drops what is flagged."""

    @property
    def job(self) -> Job:
        """With that gate."""
        return gated(self, DROP, job=super().job)


class Rerolled(Scene):
    """A scene whose own job asks for two images a request, and makes again what is flagged."""

    @property
    def job(self) -> Job:
        """With that gate."""
        return several(gated(self, REROLL, job=super().job))


def gated(scene: Scene, gate: Gate, *, job: Job | None = None, **changes: Any) -> Job:
    """Return a job, the scene's if none is given, with a gate."""
    job = job or scene.job
    return replace(job, recipe=replace(job.recipe, gate=gate, **changes))


def several(job: Job) -> Job:
    """Return a job whose requests are for two images each."""
    parameters = job.recipe.parameters.model_copy(update={"num_outputs": 2})
    return replace(job, recipe=replace(job.recipe, parameters=parameters))


def statuses(rows: list[Mapping[str, Any]]) -> Counter[str]:
    """Count rows by status."""
    return Counter(row["status"] for row in rows)


async def test_every_image_is_measured(any_scene: Scene) -> None:
    """Against its source, where that can be fetched, and against the others of it; the verdict is a column."""
    await any_scene.furnish("a", "b")
    receipt = await any_scene.run(gated(any_scene, BLANKS, variations_per_source=2))
    rows = await any_scene.rows()
    assert {row["verdict"] for row in rows} == {"passed"}
    assert all(len(row["phash"]) == 16 and row["contrast"] > 50 for row in rows)
    assert all(row["source_distance"] is not None for row in rows)
    # The first one of a source has nobody beside it yet.
    assert sorted(row["sibling_distance"] is None for row in rows) == [False, False, True, True]
    assert (receipt.passed, receipt.flags, receipt.dropped) == (4, {}, 0)
    assert ("a passed image", f"{PRICE_USD:.4f} USD (4 passed)") in receipt.lines()


async def test_sources_are_not_looked_at_where_that_is_not_asked_for(scene: Scene) -> None:
    """Then no image is a copy."""
    await scene.furnish("a")
    scene.api.set_faults("output_copy:1:1")
    await scene.run(gated(scene, Gate(sources=False)))
    (row,) = await scene.rows()
    assert (row["source_distance"], row["verdict"]) == (None, "passed")


@pytest.mark.parametrize(("fault", "verdict"), [("output_blank", "flagged: blank"), ("output_copy", "flagged: copy")])
async def test_what_is_planted_is_flagged_and_kept(scene: Scene, fault: str, verdict: str) -> None:
    """By default: the row says it, the image is there, and the run has kept all that was wanted."""
    names = [path.name for path in PHOTOS]
    for path in PHOTOS:
        await open_storage(scene.place).put(f"photos/{path.name}", path.read_bytes())
    await scene.furnish(*({"id": name, "url": f"photos/{name}"} for name in names))
    scene.api.set_faults(f"{fault}:1:1")
    receipt = await scene.run(gated(scene, Gate()))
    rows = await scene.rows()
    assert Counter(row["verdict"] for row in rows) == {verdict: 1, "passed": 1}
    assert statuses(rows) == {"kept": 2}
    assert receipt.all_kept
    assert receipt.flags == {verdict.removeprefix("flagged: "): 1}
    assert ("a passed image", f"{2 * PRICE_USD:.4f} USD (1 passed)") in receipt.lines()


async def test_what_is_dropped_is_paid_and_not_stored(any_scene: Scene) -> None:
    """It has not failed, and the next run leaves it alone."""
    await any_scene.furnish("a", "b", "c")
    any_scene.api.set_faults("output_blank:1:1")
    receipt = await any_scene.run(gated(any_scene, DROP))
    assert (receipt.kept, receipt.dropped, receipt.failed, receipt.left, receipt.paid) == (2, 1, 0, 0, 3)
    assert receipt.all_kept
    assert receipt.failed_percent == 0
    assert receipt.cost_usd == any_scene.api.bill().total_usd
    rows = await any_scene.rows()
    assert statuses(rows) == {"kept": 2, "rejected": 1}
    (dropped,) = (row for row in rows if row["status"] == "rejected")
    assert (dropped["error_code"], dropped["verdict"], dropped["file_name"]) == ("flagged", "flagged: blank", None)
    assert dropped["output_url"].startswith("http")
    assert len(await any_scene.keys("images/")) == 2
    again = await any_scene.run(gated(any_scene, DROP))
    assert (again.wanted, again.already_done, again.flagged_before) == (0, 2, 1)
    assert any_scene.api.bill().accepted == 3


async def test_what_was_dropped_stays_a_row_as_the_dataset_grows(scene: Scene) -> None:
    """Its source is no row that was refused and then put right."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank:1:1")
    await scene.run(gated(scene, DROP))
    await scene.run(gated(scene, DROP, variations_per_source=3))
    assert statuses(await scene.rows()) == {"kept": 2, "rejected": 1}


async def test_what_was_dropped_is_made_again_as_it_is_by_request(scene: Scene) -> None:
    """Which pays for it a second time."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank:1:1")
    await scene.run(gated(scene, DROP))
    receipt = await scene.run(gated(scene, DROP, retry_flagged=True))
    assert (receipt.kept, receipt.flagged_before) == (1, 0)
    (row,) = await scene.rows()
    assert (row["status"], row["attempt"], row["roll"]) == ("kept", 2, 0)
    assert scene.api.bill().accepted == 2
    assert receipt.cost_usd == pytest.approx(PRICE_USD)


@pytest.mark.parametrize("outputs", [1, 2])
async def test_rows_add_up_to_the_bill_however_often_something_was_tried(scene: Scene, outputs: int) -> None:
    """The row of an attempt takes the place of the last one, and counts it, too; so it does in rows written anew."""
    await scene.furnish("a", "b")
    parameters = scene.job.recipe.parameters.model_copy(update={"num_outputs": outputs})
    job = gated(scene, DROP, retry_flagged=True, parameters=parameters)
    scene.api.set_faults("output_blank:1:3")
    costs = [(await scene.run(job)).cost_usd for _ in range(3)]
    assert costs == pytest.approx([2 * outputs * PRICE_USD, 2 * outputs * PRICE_USD, outputs * PRICE_USD])
    rows = await scene.rows()
    assert statuses(rows) == {"kept": 2 * outputs}
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(scene.api.bill().total_usd)
    await scene.dataset.delete(METADATA_KEY)
    await scene.run(job)
    assert sum(row["cost_usd"] for row in await scene.rows()) == pytest.approx(scene.api.bill().total_usd)


async def test_what_takes_the_place_of_a_second_attempt_does_not_cost_what_the_first_did(scene: Scene) -> None:
    """That is in the row of what was flagged, and would be in both."""
    await scene.furnish("a")
    scene.api.set_faults("output_damaged")
    await scene.run(gated(scene, REROLL))
    scene.api.set_faults("output_blank:1:1")
    await scene.run(gated(scene, REROLL, retry_failed=True))
    rows = sorted(await scene.rows(), key=lambda row: row["roll"])
    assert [(row["status"], row["attempt"], row["roll"]) for row in rows] == [("rejected", 2, 0), ("kept", 1, 1)]
    assert [row["cost_usd"] for row in rows] == pytest.approx([2 * PRICE_USD, PRICE_USD])
    assert scene.api.bill().total_usd == pytest.approx(3 * PRICE_USD)


async def test_what_is_flagged_is_made_again_with_another_seed(any_scene: Scene) -> None:
    """In the same run; both have a row, and the receipt says what a passed image has cost."""
    await any_scene.furnish("a", "b")
    any_scene.api.set_faults("output_blank:1:1")
    receipt = await any_scene.run(gated(any_scene, REROLL))
    assert (receipt.kept, receipt.dropped, receipt.rerolled, receipt.left, receipt.passed) == (2, 1, 1, 0, 2)
    assert receipt.all_kept
    assert receipt.cost_usd == any_scene.api.bill().total_usd == pytest.approx(3 * PRICE_USD)
    lines = dict(receipt.lines())
    assert lines["flagged"] == "1 blank; 2 passed"
    assert lines["a passed image"] == "0.0465 USD (2 passed)"
    rows = await any_scene.rows()
    assert sorted((row["status"], row["roll"]) for row in rows) == [("kept", 0), ("kept", 1), ("rejected", 0)]
    assert len({row["seed"] for row in rows}) == len({row["variation_id"] for row in rows}) == 3
    again = await any_scene.run(gated(any_scene, REROLL))
    assert (again.wanted, again.already_done) == (0, 2)
    assert any_scene.api.bill().same_inputs_paid() == {}


async def test_a_place_is_given_up_after_so_many_rolls(scene: Scene) -> None:
    """The next run leaves it alone, and one that allows more goes on where that ended."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank")
    receipt = await scene.run(gated(scene, REROLL))
    assert (receipt.kept, receipt.dropped, receipt.left) == (0, 3, 0)
    again = await scene.run(gated(scene, REROLL))
    assert (again.wanted, again.flagged_before, again.all_kept) == (0, 1, True)
    scene.api.set_faults()
    more = await scene.run(gated(scene, replace(REROLL, max_rolls=4)))
    assert (more.wanted, more.kept, more.rerolled) == (1, 1, 1)
    assert sorted(row["roll"] for row in await scene.rows()) == [0, 1, 2, 3]
    # Who no longer makes anything again still knows that the place is filled.
    kept = await scene.run(gated(scene, BLANKS))
    assert (kept.wanted, kept.already_done, kept.flagged_before) == (0, 1, 0)


async def test_a_reroll_that_the_budget_has_no_room_for_is_left_to_the_next_run(scene: Scene) -> None:
    """The run is paused; nothing is lost, and nothing is paid twice."""
    await scene.furnish("a", "b")
    scene.api.set_faults("output_blank:1:2")
    job = gated(scene, REROLL)
    with pytest.raises(RunStopped) as stopped:
        await scene.run(job, limits=replace(LIMITS, max_cost_usd=2 * PRICE_USD))
    receipt = stopped.value.receipt
    assert receipt.stopped_by == "budget"
    assert receipt.cost_usd == scene.api.bill().total_usd == pytest.approx(2 * PRICE_USD)
    assert (receipt.dropped, receipt.left) == (2, 2)
    plan = await estimate(job, limits=LIMITS)
    assert (plan.new, plan.flagged_before) == (2, 0)
    assert plan.rerolls > 0
    assert dict(plan.lines())["new"].endswith(f"{plan.rerolls} of them in the place of flagged ones")
    more = await scene.run(job, limits=replace(LIMITS, max_cost_usd=2 * PRICE_USD))
    assert (more.kept, more.left, more.all_kept) == (2, 0, True)
    assert scene.api.bill().same_inputs_paid() == {}
    assert statuses(await scene.rows()) == {"kept": 2, "rejected": 2}


async def test_the_plan_says_what_may_be_paid_again(scene: Scene) -> None:
    """The check of the budget is on what is paid for certain."""
    await scene.furnish("a", "b")
    plan = await estimate(gated(scene, REROLL), limits=replace(LIMITS, max_cost_usd=0.07))
    assert plan.cost_usd == pytest.approx(2 * PRICE_USD)
    told = dict(plan.lines())["re-rolls"]
    assert told == "what is flagged is made again, 3 times in all: up to 0.12 USD more, within the limit"
    assert "re-rolls" not in dict((await estimate(gated(scene, DROP), limits=LIMITS)).lines())


async def test_the_plan_counts_only_the_rolls_that_are_left(scene: Scene) -> None:
    """Of a place that was filled before, some are used; where all are, nothing more is made than is asked for."""
    await scene.furnish("a", "b")
    scene.api.set_faults("output_blank")
    await scene.run(gated(scene, replace(REROLL, max_rolls=2)))
    scene.api.set_faults()
    # The last one of each place again, which is its second: a third may follow, or none.
    of_two = await estimate(gated(scene, replace(REROLL, max_rolls=2), retry_flagged=True), limits=LIMITS)
    assert (of_two.new, of_two.most_rerolled) == (2, 0)
    assert "re-rolls" not in dict(of_two.lines())
    of_four = await estimate(gated(scene, replace(REROLL, max_rolls=4)), limits=LIMITS)
    assert (of_four.new, of_four.rerolls, of_four.most_rerolled) == (2, 2, 2)
    assert "up to 0.06 USD more" in dict(of_four.lines())["re-rolls"]


async def test_a_place_that_was_filled_more_often_than_is_allowed_now_leaves_the_others_their_rolls(
    scene: Scene,
) -> None:
    """The bound of what they may cost is not lower for it; each roll is for as many images as a request."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank")
    await scene.run(several(gated(scene, REROLL)))
    await scene.furnish("a", "b")
    job = several(gated(scene, replace(REROLL, max_rolls=2), retry_flagged=True))
    plan = await estimate(job, limits=LIMITS)
    assert (plan.new, plan.images, plan.rerolls, plan.most_rerolled) == (2, 4, 1, 2)
    assert "up to 0.06 USD more" in dict(plan.lines())["re-rolls"]


async def test_what_is_planned_for_workers_has_the_gate(scene: Scene) -> None:
    """It is of the run, and not of the machine."""
    from variations.planned import read_planned  # noqa: PLC0415 - here alone

    await scene.furnish("a")
    job = gated(scene, replace(REROLL, lost_bits=33))
    async with scene.opened(job) as run:
        await planned(run)
        read = await read_planned(scene.dataset, run.run_id)
        assert read is not None
        assert read.job().recipe.gate == job.recipe.gate


async def test_of_several_images_those_that_are_flagged_are_dropped(scene: Scene) -> None:
    """What was dropped by order is not missing: the next run has nothing to say of it."""
    await scene.furnish("a")
    recipe = replace(scene.job.recipe, parameters=scene.job.recipe.parameters.model_copy(update={"num_outputs": 2}))
    # Two images of one gradient are nearly the same.
    gate = Gate(on_flagged="drop", copy_bits=0, twin_bits=64)
    job = replace(scene.job, recipe=replace(recipe, gate=gate))
    scene.api.set_faults("output_copy")
    receipt = await scene.run(job)
    assert (receipt.kept, receipt.dropped, receipt.flags) == (1, 1, {"twin": 1})
    again = await scene.run(job)
    assert (again.already_done, again.partly_there, again.all_kept) == (1, 0, True)


async def test_what_a_request_lacks_is_made_again_with_what_was_flagged(scene: Scene) -> None:
    """Its place has its images then: the run, its status, the plan and the next run know of no failure."""
    await scene.furnish("a")
    job = several(gated(scene, replace(REROLL, twin_bits=0)))
    scene.api.set_faults("output_blank:1:1", "fewer_outputs:1:1")
    receipt = await scene.run(job)
    assert (receipt.kept, receipt.dropped, receipt.failed, receipt.rerolled) == (2, 1, 0, 2)
    assert (receipt.all_kept, receipt.failed_percent, receipt.errors) == (True, 0, {})
    assert receipt.cost_usd == scene.api.bill().total_usd
    assert statuses(await scene.rows()) == {"kept": 2, "rejected": 2}
    (lacking,) = (row for row in await scene.rows() if row["error_code"] == "output_missing")
    assert lacking["error"] == "asked for 2, the API made 1; made again with what was flagged"
    status = await read_status(scene.dataset, runs=1)
    assert (status.rows, status.runs[0]["failed"]) == ({"kept": 2, "rejected": 2}, 0)
    again = await scene.run(job)
    assert (again.wanted, again.already_done, again.all_kept) == (0, 1, True)


async def test_what_lacks_beside_what_was_dropped_for_good_has_failed(scene: Scene) -> None:
    """Where nothing takes its place: the run says so, and so does the next one."""
    await scene.furnish("a")
    job = several(gated(scene, DROP))
    scene.api.set_faults("output_blank", "fewer_outputs")
    receipt = await scene.run(job)
    assert (receipt.dropped, receipt.failed, receipt.all_kept) == (1, 1, False)
    again = await scene.run(job)
    assert (again.wanted, again.flagged_before, again.partly_there, again.all_kept) == (0, 1, 1, False)


async def test_what_is_lacking_in_the_last_roll_has_failed(scene: Scene) -> None:
    """And what was lacking in those before has not."""
    await scene.furnish("a")
    job = several(gated(scene, replace(REROLL, max_rolls=2)))
    scene.api.set_faults("output_blank", "fewer_outputs")
    receipt = await scene.run(job)
    assert (receipt.dropped, receipt.failed, receipt.all_kept) == (2, 1, False)
    again = await scene.run(job)
    assert (again.flagged_before, again.partly_there, again.all_kept) == (1, 1, False)


async def test_what_a_dead_run_left_is_judged_by_its_own_gate(scene: Scene) -> None:
    """Whoever fetches it, with whatever settings: what was to be dropped is not kept."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank")
    writer = dead_writer()
    await killed_in_flight(Judged(scene.place, scene.api), writer=writer)
    receipt = await scene.run(gated(scene, BLANKS))
    assert (receipt.recovery["dropped"], receipt.recovery["kept"], receipt.wanted) == (1, 0, 0)
    (row,) = await scene.rows()
    assert (row["status"], row["verdict"], row["can_retry"]) == ("rejected", "flagged: blank", False)


async def test_what_a_dead_runs_request_lacks_beside_what_was_flagged_was_not_dropped(scene: Scene) -> None:
    """Nor has it failed: its place is filled anew. Only what was made was dropped."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank", "fewer_outputs")
    await killed_in_flight(Rerolled(scene.place, scene.api), writer=dead_writer())
    scene.api.set_faults()
    receipt = await scene.run(several(gated(scene, REROLL)))
    assert (receipt.recovery["dropped"], receipt.recovery["failed"], receipt.recovery["kept"]) == (1, 0, 0)
    assert (receipt.kept, receipt.rerolled, receipt.failed) == (2, 2, 0)
    assert statuses(await scene.rows()) == {"kept": 2, "rejected": 2}


async def test_the_story_of_a_reroll_names_what_it_took_the_place_of(scene: Scene) -> None:
    """And that of the other one, why it was dropped."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank:1:1")
    await scene.run(gated(scene, REROLL))
    first, second = sorted(await scene.rows(), key=lambda row: row["roll"])
    story = [event.what for event in (await explain(scene.dataset, second["variation_id"])).events]
    assert story[0] == f"about to be submitted, in the place of {first['variation_id']}, which was flagged"
    story = [event.what for event in (await explain(scene.dataset, first["variation_id"])).events]
    assert story[-1] == ("rejected flagged (blank: its contrast is 0 of 255, and gate_blank 8), 0.031 USD")
