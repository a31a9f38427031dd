"""Whole runs against the sandbox: what is paid is in the dataset, once, and a dataset is never paid for twice."""

import asyncio
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from variations.dataset import METADATA_KEY
from variations.estimate import estimate
from variations.layout import OPEN_KEY, PROBE_KEY
from variations.storage import open_storage

from .scene import LIMITS, SMALL, Scene, photo, planned, tried_again


async def test_a_run_makes_a_dataset(any_scene: Scene) -> None:
    """Local to local, and S3 to S3: an image and a row for each source, and a receipt that says what was paid."""
    await any_scene.furnish("a", "b", "c")
    receipt = await any_scene.run()
    assert receipt.all_kept
    assert (receipt.wanted, receipt.kept, receipt.paid, receipt.dataset_rows, receipt.left) == (3, 3, 3, 3, 0)
    bill = any_scene.api.bill()
    assert receipt.cost_usd == bill.total_usd == pytest.approx(0.093)
    assert (bill.accepted, bill.same_inputs_paid()) == (3, {})
    rows = await any_scene.rows()
    assert sorted(row["source_id"] for row in rows) == ["a", "b", "c"]
    for row in rows:
        content = await any_scene.dataset.get(row["file_name"])
        assert len(content) == row["bytes"]
        assert Image.open(io.BytesIO(content)).size == (row["width"], row["height"]) == (512, 512)
        assert bill.line(row["request_id"]).seed == row["seed"]


async def test_the_bill_shows_what_is_paid_twice(any_scene: Scene) -> None:
    """Two datasets of one manifest pay for the same inputs; a bill that could not tell would prove nothing."""
    await any_scene.furnish("a", "b")
    await any_scene.run()
    await any_scene.run(replace(any_scene.job, destination=f"{any_scene.place}/other"))
    assert sorted(any_scene.api.bill().same_inputs_paid().values()) == [2, 2]


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
    metadata = await any_scene.dataset.head(METADATA_KEY)
    receipt = await any_scene.run()
    assert receipt.all_kept
    assert (receipt.wanted, receipt.already_done, receipt.paid, receipt.dataset_rows) == (0, 2, 0, 2)
    after = any_scene.api.bill()
    assert after.accepted == before.accepted == 2
    assert receipt.requests == {"credits": 1}
    # A million rows are not written anew for the sake of none.
    assert await any_scene.dataset.head(METADATA_KEY) == metadata


async def test_metadata_that_is_gone_is_written_anew(any_scene: Scene) -> None:
    """From what the runs have written, though there is nothing to make."""
    await any_scene.furnish("a", "b")
    await any_scene.run()
    rows = await any_scene.rows()
    await any_scene.dataset.delete(METADATA_KEY)
    receipt = await any_scene.run()
    assert (receipt.wanted, receipt.already_done, receipt.dataset_rows) == (0, 2, 2)
    assert await any_scene.rows() == rows


async def test_a_manifest_that_grows_is_paid_for_what_is_new(scene: Scene) -> None:
    """Day by day, in whatever order it then is."""
    await scene.furnish("b")
    await scene.run()
    await scene.furnish("a", "b", "c")
    receipt = await scene.run()
    assert (receipt.already_done, receipt.paid, receipt.dataset_rows) == (1, 2, 3)
    assert scene.api.bill().same_inputs_paid() == {}


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
    assert scene.api.bill().same_inputs_paid() == {}


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


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_so_many_images_a_request_are_so_many_rows(scene: Scene, count: int) -> None:
    """Asked for of every source: the plan has their price, the receipt and the bill have it too, and what came short of
    one is a row that says so, near the others of its request.
    """
    await scene.furnish("a", "b")
    scene.api.set_faults("fewer_outputs:1:1")
    parameters = SMALL.parameters.model_copy(update={"num_outputs": count})
    job = replace(scene.job, recipe=replace(SMALL, parameters=parameters))
    expected = await estimate(job, limits=LIMITS)
    assert (expected.new, expected.images) == (2, 2 * count)
    assert expected.cost_usd == pytest.approx(2 * count * LIMITS.price_usd)
    receipt = await scene.run(job)
    rows = await scene.rows()
    assert receipt.wanted == len(rows) == 2 * count
    assert receipt.kept == receipt.paid == len(await scene.keys("images/")) < 2 * count
    assert receipt.cost_usd == scene.api.bill().total_usd == pytest.approx(receipt.kept * LIMITS.price_usd)
    assert sorted((row["source_id"], row["output_index"]) for row in rows) == sorted(
        (name, index) for name in "ab" for index in range(count)
    )
    for row in rows:
        if row["status"] == "kept":
            assert row["file_name"].endswith(f"{row['variation_id']}-{row['output_index']}.jpg")
        else:
            assert (row["error_code"], row["cost_usd"], row["file_name"]) == ("output_missing", 0, None)
            assert f"asked for {count}" in row["error"]
    again = await scene.run(job)
    assert (again.already_done, again.partly_there, again.wanted) == (2, 1, 0)


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
