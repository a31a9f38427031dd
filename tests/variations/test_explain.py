"""The story of a variation: each attempt, what was accepted, and what became of it."""

import datetime as dt
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variations import errors
from variations.dataset import METADATA_KEY, parquet_bytes
from variations.explain import Explanation, explain
from variations.gate import Gate
from variations.ledger.journal import Journal
from variations.ledger.records import Intended
from variations.publish import publish

from .examples import outcome, variation, write_part
from .scene import Scene, dead_writer, killed_in_flight, planned, tried_again

REROLL = Gate(on_flagged="reroll", copy_bits=0, twin_bits=0)
TAKEN_OVER = "another process took the journal over"


async def row_of(scene: Scene, name: str) -> dict[str, Any]:
    """Return the row of a source."""
    (row,) = [row for row in await scene.rows() if row["source_id"] == name]
    return row


def events(found: Explanation) -> list[str]:
    """Return what happened."""
    return [event.what for event in found.events]


def values(found: Explanation, name: str) -> list[str]:
    """Return the values of its lines of a name."""
    return [value for line, value in found.lines() if line == name]


def runs(found: Explanation) -> list[str]:
    """Return the runs of its events, in their order."""
    return list(dict.fromkeys(event.run_id for event in found.events))


async def test_a_kept_one_was_submitted_accepted_and_kept(any_scene: Scene) -> None:
    """Its row, its source, and in which run and shard each thing was written down, at what time."""
    await any_scene.furnish("a", "b")
    receipt = await any_scene.run()
    row = await row_of(any_scene, "b")
    found = await explain(any_scene.dataset, row["variation_id"])
    assert events(found) == [
        "about to be submitted, attempt 1",
        f"accepted as request {row['request_id']}",
        "kept, 0.031 USD",
    ]
    assert values(found, "variation") == [row["variation_id"]]
    assert values(found, "image 0") == [f"kept, {row['file_name']}, 0.031 USD"]
    assert values(found, "source") == [f"{row['source_id']}, {row['source_uri']}"]
    assert f"guidance {row['guidance']}" in values(found, "parameters")[0]
    assert f"seed {row['seed']}" in values(found, "parameters")[0]
    assert values(found, "request") == [row["request_id"]]
    assert values(found, "run") == [f"{receipt.run_id}, shard {row['shard']}"]
    times = [name for name, _ in found.lines()[-3:]]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", time) for time in times)


async def test_it_is_found_by_its_beginning_and_by_its_image(scene: Scene) -> None:
    """In capitals too; the name of an image may be a whole path, or that of one of several."""
    await scene.furnish("a")
    await scene.run()
    (row,) = await scene.rows()
    name = row["variation_id"]
    for asked in (name[:6], name[:6].upper(), row["file_name"], f"{name}.jpg", f"{scene.place}/images/{name}-1.webp"):
        assert (await explain(scene.dataset, asked)).variation_id == name


async def test_a_failed_one_that_was_retried_has_both_attempts(any_scene: Scene) -> None:
    """Each in its own run, the first one first, though the metadata names the second alone."""
    await any_scene.furnish("a")
    any_scene.api.set_faults("failed:1:1")
    first = await any_scene.run()
    before = (await any_scene.rows())[0]["request_id"]
    second = await any_scene.run(tried_again(any_scene.job))
    (row,) = await any_scene.rows()
    found = await explain(any_scene.dataset, row["variation_id"])
    assert runs(found) == [first.run_id, second.run_id]
    submitted, accepted, failed, *again = events(found)
    assert (submitted, accepted) == ("about to be submitted, attempt 1", f"accepted as request {before}")
    assert failed.startswith("failed inference_failed (")
    assert "USD" not in failed
    assert again == [
        "about to be submitted, attempt 2",
        f"accepted as request {row['request_id']}",
        "kept, 0.031 USD",
    ]
    assert len(values(found, "run")) == 2


async def test_a_failed_one_is_told_with_its_error(scene: Scene) -> None:
    """Nothing was paid for it."""
    await scene.furnish("a")
    scene.api.set_faults("failed:1:1")
    await scene.run()
    (row,) = await scene.rows()
    found = await explain(scene.dataset, row["variation_id"])
    assert values(found, "image 0") == [f"failed, {row['error']}, 0.000 USD"]


async def test_one_whose_answer_was_lost_was_found_in_the_history(scene: Scene) -> None:
    """That is where its request id is from."""
    await scene.furnish("a")
    scene.api.set_faults("accept_and_break:1:1")
    scene.api.configure(history_delay_seconds=0)
    await scene.run()
    (row,) = await scene.rows()
    assert events(await explain(scene.dataset, row["variation_id"])) == [
        "about to be submitted, attempt 1",
        f"accepted as request {row['request_id']}, found in the request history",
        "kept, 0.031 USD",
    ]


async def test_one_that_was_taken_over_after_a_kill_says_so(any_scene: Scene) -> None:
    """It was accepted in the run that died, and kept there by the next one."""
    await any_scene.furnish("a", "b")
    run_id = await killed_in_flight(any_scene, writer=dead_writer())
    await any_scene.run()
    row = await row_of(any_scene, "a")
    found = await explain(any_scene.dataset, row["variation_id"])
    assert runs(found) == [run_id]
    assert events(found) == [
        "about to be submitted, attempt 1",
        f"accepted as request {row['request_id']}",
        TAKEN_OVER,
        "kept, 0.031 USD",
    ]


async def test_what_was_settled_before_a_kill_is_not_called_taken_over(scene: Scene) -> None:
    """Who closed the run had nothing to do with it."""
    await scene.furnish("a", "b")
    async with scene.opened() as run:
        await planned(run)
        await run.make(0)
    await scene.run()
    (row,) = [row for row in await scene.rows() if row["run_id"] == run.run_id]
    assert TAKEN_OVER not in events(await explain(scene.dataset, row["variation_id"]))


async def test_one_process_that_writes_twice_has_not_taken_over(scene: Scene) -> None:
    """The end of a run opens a journal anew, where the rows of a shard could not be written."""
    await scene.furnish("a")
    async with scene.opened() as run:
        await planned(run)
        await run.make(0)
        (image,) = await scene.keys("images/")
        name, intent = Path(image).stem, "about to be submitted, attempt 1"
        for _ in range(2):
            journal = Journal(scene.dataset, run_id=run.run_id, shard=7, writer="token")
            await journal.replay()
            await journal.append(Intended(variation_id=name, attempt=1))
        found = await explain(scene.dataset, name)
    assert [event.what for event in found.events if event.shard == 7] == [intent, intent]


async def test_one_of_a_run_that_works_is_told_though_it_has_no_row(any_scene: Scene) -> None:
    """From the journal of the run that is open; there is no metadata yet."""
    await any_scene.furnish("a", "b")
    async with any_scene.opened() as run:
        await planned(run)
        await run.make(0)
        (image,) = await any_scene.keys("images/")
        found = await explain(any_scene.dataset, image)
    assert found.rows == ()
    assert [what.partition(" as ")[0] for what in events(found)] == [
        "about to be submitted, attempt 1",
        "accepted",
        "kept, 0.031 USD",
    ]
    assert values(found, "run") == [f"{run.run_id}, shard 0"]


async def test_one_that_is_in_flight_ends_with_its_acceptance(scene: Scene) -> None:
    """What a killed run had in flight is told before the next one has looked for it."""
    await scene.furnish("a")
    await killed_in_flight(scene, writer=dead_writer())
    (line,) = scene.api.bill().lines
    name = await in_journal(scene)
    assert events(await explain(scene.dataset, name[:8])) == [
        "about to be submitted, attempt 1",
        f"accepted as request {line.request_id}",
    ]


async def in_journal(scene: Scene) -> str:
    """Return the one variation of all journals."""
    content = [await scene.dataset.get(key) for key in await scene.keys("_runs/") if "/journal/" in key]
    records = [json.loads(line) for part in content for line in part.splitlines()]
    (name,) = {record["variation_id"] for record in records if "variation_id" in record}
    return str(name)


async def publish_made_up(scene: Scene, names: Iterable[str]) -> None:
    """Publish rows of such ids."""
    run_id = "20250101T000000Z-aaaaaa"
    rows = [outcome("failed", of=variation(name, variation_id=name)) for name in names]
    await write_part(scene.dataset, run_id, rows)
    await publish(scene.dataset, [run_id])


async def test_a_beginning_that_several_share_is_refused_with_some_of_them(any_scene: Scene) -> None:
    """Enough to write one more digit; ids that only come near are none of them."""
    made_up = [f"{number:02x}".ljust(32, "0") for number in (0xA0, 0xA1, 0xA2, 0xAF, 0xB0)]
    await publish_made_up(any_scene, made_up)
    with pytest.raises(errors.BadInput, match=f"4 variations begin with 'a', such as {', '.join(made_up[:3])}$"):
        await explain(any_scene.dataset, "a")
    assert (await explain(any_scene.dataset, "b")).variation_id == made_up[-1]
    assert (await explain(any_scene.dataset, "af")).variation_id == made_up[-2]


@pytest.mark.parametrize("asked", ["f" * 32, "f" * 40, "nothing", "", ".", "images/", "a/b.jpg"])
async def test_one_that_is_not_there_is_refused(scene: Scene, asked: str) -> None:
    """With where ids are to be found; also where there is no dataset at all."""
    for _ in range(2):
        with pytest.raises(errors.BadInput, match=f"has no variation {asked!r}: .* column variation_id"):
            await explain(scene.dataset, asked)
        await publish_made_up(scene, ["e" * 32, "0" * 32])


async def test_a_refused_row_is_told_with_its_reason(scene: Scene) -> None:
    """It was never submitted."""
    await scene.furnish("a", {"id": "b"})
    await scene.run()
    row = await row_of(scene, "b")
    found = await explain(scene.dataset, row["variation_id"])
    assert found.events == ()
    assert found.lines() == [
        ("variation", row["variation_id"]),
        ("image 0", "rejected, row 2: no URI, 0.000 USD"),
        ("source", "b"),
    ]


async def test_several_images_of_a_request_are_told_in_their_order(scene: Scene) -> None:
    """A line for each."""
    await scene.furnish("a", {"id": "two", "url": "photos/a.jpg", "num_outputs": 2})
    await scene.run()
    name = next(row["variation_id"] for row in await scene.rows() if row["num_outputs"] == 2)
    found = await explain(scene.dataset, name)
    assert [line for line, _ in found.lines() if line.startswith("image ")] == ["image 0", "image 1"]
    assert events(found)[-1] == "kept, 0.031 USD; kept, 0.031 USD"


async def test_it_can_be_told_as_json(scene: Scene) -> None:
    """Times as ISO 8601, all of them."""
    await scene.furnish("a")
    await scene.run()
    (row,) = await scene.rows()
    found = (await explain(scene.dataset, row["variation_id"])).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["rows"][0]["submitted_at"] == row["submitted_at"].isoformat()
    assert [set(event) for event in found["events"]] == [{"at", "run_id", "shard", "what"}] * 3


async def test_any_label_can_be_told_as_json(scene: Scene) -> None:
    """A number that is none is null, as no reader of JSON knows another word for it; bytes and times are text."""
    await scene.furnish("a")
    await scene.run()
    table = pq.read_table(pa.BufferReader(await scene.dataset.get(METADATA_KEY)))
    labels = {"weight": float("nan"), "boxes": [{"x": float("inf")}], "raw": b"\xff", "at": [dt.time(1, 2)]}
    for name, value in labels.items():
        table = table.append_column(name, pa.array([value]))
    await scene.dataset.put(METADATA_KEY, parquet_bytes(table))
    (row,) = await scene.rows()
    (told,) = (await explain(scene.dataset, row["variation_id"])).as_dict()["rows"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert [told[name] for name in labels] == [None, [{"x": None}], "/w==", ["01:02:00"]]


async def test_rows_of_before_there_were_journals_are_told(scene: Scene) -> None:
    """They name no shard."""
    await publish_made_up(scene, ["e" * 32])
    table = pq.read_table(pa.BufferReader(await scene.dataset.get(METADATA_KEY)))
    await scene.dataset.put(METADATA_KEY, parquet_bytes(table.drop_columns(["shard"])))
    found = await explain(scene.dataset, "e")
    assert (len(found.rows), found.events) == (1, ())


async def test_metadata_that_is_none_is_named(scene: Scene) -> None:
    """With what to do about it."""
    await scene.dataset.put(METADATA_KEY, b"<html>")
    with pytest.raises(errors.StorageError, match=r"metadata\.parquet is damaged, .* Move it away"):
        await explain(scene.dataset, "e")


async def test_one_that_was_dropped_leads_to_what_took_its_place(scene: Scene) -> None:
    """And that back to it; of one that was kept nothing of the sort is said."""
    await scene.furnish("a")
    scene.api.set_faults("output_blank:1:1")
    await scene.run(replace(scene.job, recipe=replace(scene.job.recipe, gate=REROLL)))
    dropped, kept = sorted(await scene.rows(), key=lambda row: row["roll"])
    found = await explain(scene.dataset, dropped["variation_id"])
    assert found.made_again_as == kept["variation_id"]
    assert found.lines()[-1] == ("made again", f"as {kept['variation_id']}")
    last = await explain(scene.dataset, kept["file_name"])
    assert last.made_again_as is None
    assert f"in the place of {dropped['variation_id']}, which was flagged" in events(last)[0]
