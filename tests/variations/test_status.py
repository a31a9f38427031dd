"""How a dataset stands: who works on it, what its runs came to, and for how long the API still knows what is open."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from variations import errors
from variations.dataset import METADATA_KEY
from variations.layout import OPEN_KEY
from variations.ledger.writer import Writer
from variations.publish import publish
from variations.status import DatasetStatus, OpenRequest, read_status
from variations.storage import Storage
from variations.workers.roster import Roster, Sign

from .examples import outcome, variation, write_part
from .scene import Scene, dead_writer, killed_in_flight, planned, tried_again

HOUR, DAY = 3600.0, 86400.0


class Later:
    """A storage by whose clock it is later."""

    def __init__(self, storage: Storage, *, seconds: float) -> None:
        self._storage = storage
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        """Hand out all but the time."""
        return getattr(self._storage, name)

    async def now(self) -> datetime:
        """Return the time."""
        return await self._storage.now() + timedelta(seconds=self._seconds)


async def status_of(scene: Scene, *, later_seconds: float = 0.0, runs: int = 5) -> DatasetStatus:
    """Look at the dataset, some time later."""
    storage: Any = Later(scene.dataset, seconds=later_seconds)
    return await read_status(storage, runs=runs)


def told(status: DatasetStatus, *, most: int = 20) -> dict[str, str]:
    """Return its lines, by their names."""
    return dict(status.lines(most=most))


async def hold(scene: Scene, *, age: timedelta, request_id: str | None, name: str = "cat", **changes: Any) -> str:
    """Let the metadata have an unknown row of such an age; return the id of its variation."""
    held = variation(name, **changes)
    submitted_at = await scene.dataset.now() - age
    made = outcome("unknown", of=held, request_id=request_id, submitted_at=submitted_at)
    run_id = f"20250101T000000Z-{name:a<6}"
    await write_part(scene.dataset, run_id, [made])
    await publish(scene.dataset, [run_id])
    return held.variation_id


async def test_where_no_run_was_there_is_nothing_to_say(any_scene: Scene) -> None:
    """The place is named, and nothing is made there: not even the folder."""
    with pytest.raises(errors.BadInput, match=f"no dataset at {any_scene.dataset.uri}: no run has written there yet"):
        await status_of(any_scene)
    assert await any_scene.keys() == []


async def test_a_finished_run_is_told_and_nobody_is_at_work(any_scene: Scene) -> None:
    """Its images, what it came to and what it cost; nothing is open, and looking at it writes nothing."""
    await any_scene.furnish("a", "b", {"id": "c"})
    receipt = await any_scene.run()
    keys = await any_scene.keys()
    status = await status_of(any_scene)
    lines = told(status)
    assert lines["dataset"] == any_scene.dataset.uri
    assert lines["images"] == "2 kept, 1 rejected"
    assert lines["at work"] == "nobody; every run is closed"
    assert lines[f"run {receipt.run_id}"] == "2 of 2 kept, 0.062 USD"
    assert lines["open requests"] == "0"
    assert await any_scene.keys() == keys


async def test_a_run_that_had_nothing_to_do_is_told(scene: Scene) -> None:
    """It wanted no image, and made none."""
    await scene.furnish("a")
    await scene.run()
    nothing = await scene.run()
    assert told(await status_of(scene))[f"run {nothing.run_id}"] == "0 of 0 kept, 0.000 USD"


async def test_a_dataset_without_an_image_yet_says_so(scene: Scene) -> None:
    """Its only run found no manifest."""
    with pytest.raises(errors.ManifestError):
        await scene.run()
    lines = told(await status_of(scene))
    assert (lines["images"], lines["at work"]) == ("none yet", "nobody; every run is closed")


async def test_a_run_that_works_is_named_with_its_sign_of_life(any_scene: Scene) -> None:
    """Which process on which machine, at which run, and how fresh that is."""
    await any_scene.furnish("a", "b")
    async with any_scene.opened() as run:
        await planned(run)
        await run.make(0)
        status = await status_of(any_scene)
        me = str(Writer.this_process(since=datetime.now(UTC)))
        at_work = told(status)["at work"]
        assert at_work.startswith(f"{me}, at the run {run.run_id}; its last sign of life was ")
        assert at_work.endswith(" s ago")
        assert told(status)[f"run {run.run_id}"] == "it is open: 1 of 2 kept, 0 in flight, 0.031 USD so far"
        found = status.as_dict()
        assert (found["open_run"], found["works_on_it"]) == (run.run_id, me)
        assert 0 <= found["sign_of_life_seconds"] < 10
        # What it has settled is not open, though the metadata does not have it yet.
        assert (status.rows, status.open_requests) == ({}, ())


async def test_a_run_that_is_open_is_told_with_what_it_has_done(any_scene: Scene) -> None:
    """By its journals, while it is at work in one process; before it is planned there is nothing to count."""
    await any_scene.furnish("a", "b", "c")
    any_scene.api.set_faults("failed:1:1")
    async with any_scene.opened() as run:
        await run.recover()
        assert told(await status_of(any_scene))[f"run {run.run_id}"] == "it is open, and nothing is planned yet"
        plan = await run.plan()
        await run.make(0)
        left = plan.images - 1
        said = told(await status_of(any_scene))[f"run {run.run_id}"]
        assert said == f"it is open: 0 of {plan.images} kept, 1 failed, 0 in flight, 0.000 USD so far"
        await asyncio.gather(*(run.make(shard) for shard in range(1, plan.shards)))
        said = told(await status_of(any_scene))[f"run {run.run_id}"]
        cost_usd = left * any_scene.api.settings.price_usd
        assert said == f"it is open: {left} of {plan.images} kept, 1 failed, 0 in flight, {cost_usd:.3f} USD so far"


async def test_workers_are_told_with_what_they_have_done_and_whether_they_live(any_scene: Scene) -> None:
    """After its lease one is most likely gone, one that is known to have died is at once; who left is not told."""
    await any_scene.furnish("a")
    here = Writer.this_process(since=datetime.now(UTC))
    elsewhere, gone = replace(here, token="b", place="", pid=7), replace(dead_writer(), token="c")
    async with any_scene.opened() as run:
        await planned(run)
        roster = Roster(any_scene.dataset, run.run_id, lease_seconds=60.0)
        await roster.leave(Sign(writer=replace(here, token="a"), kept=9))
        await roster.sign(Sign(writer=elsewhere, kept=1234, in_flight=3))
        await roster.sign(Sign(writer=gone, kept=2, failed=1, in_flight=4))
        soon, later = await status_of(any_scene), await status_of(any_scene, later_seconds=80.0)

    def workers(status: DatasetStatus) -> list[str]:
        return sorted(value for name, value in status.lines(most=0) if name == "worker")

    lives = f"{elsewhere}: 1,234 kept, 3 in flight"
    died = f"{gone}: 2 kept, 1 failed, 4 in flight at its last sign of life; it has died"
    assert workers(soon) == sorted([lives, f"{died}, and soon another one takes it over"])
    silent, dead = sorted(workers(later), key=lambda said: "died" in said)
    assert silent.startswith(f"{lives}; its last sign of life was 1 min 2")
    assert silent.endswith(" ago: it is most likely gone, and another one takes it over")
    assert dead == f"{died}, and another one takes it over"
    assert {one["works"]: one["is_gone"] for one in soon.as_dict()["workers"]} == {
        str(elsewhere): False,
        str(gone): True,
    }


async def test_a_run_that_has_been_silent_for_long_is_most_likely_gone(scene: Scene) -> None:
    """Whether a process on another machine lives cannot be seen; its silence can."""
    await scene.furnish("a")
    async with scene.opened() as run:
        await planned(run)
        at_work = told(await status_of(scene, later_seconds=HOUR))["at work"]
    assert "its last sign of life was 1 h ago: it is most likely gone" in at_work


@pytest.mark.parametrize(
    ("lease", "lease_seconds"), [({}, 60.0), ({"lease_seconds": 600.0}, 600.0)], ids=["not told", "told"]
)
async def test_a_run_is_most_likely_gone_after_its_own_lease(
    scene: Scene, lease: dict[str, float], lease_seconds: float
) -> None:
    """As long as it wrote down that it may be silent; one that did not, a minute."""
    writer = {"token": "t", "host": "elsewhere", "pid": 1}
    lock = {"run_id": "20250101T000000Z-aaaaaa", "state": "open", "writer": writer, **lease}
    await scene.dataset.put(OPEN_KEY, json.dumps(lock).encode())
    for later_seconds, is_gone in ((-10.0, False), (10.0, True)):
        at_work = told(await status_of(scene, later_seconds=lease_seconds + later_seconds))["at work"]
        assert ("it is most likely gone" in at_work) is is_gone


async def test_a_run_whose_process_was_killed_is_told_dead(any_scene: Scene) -> None:
    """At once, where that can be seen; with what it had in flight, which the next run fetches."""
    await any_scene.furnish("a", "b")
    writer = dead_writer()
    run_id = await killed_in_flight(any_scene, writer=writer)
    status = await status_of(any_scene)
    assert told(status)["at work"] == f"nobody; the run {run_id} died ({writer}), and the next one takes it in hand"
    assert (status.as_dict()["open_run"], status.as_dict()["works_on_it"]) == (run_id, None)
    lines = {line.request_id for line in any_scene.api.bill().lines}
    assert {one.request_id for one in status.open_requests} == lines
    assert len(lines) == 2
    assert (await any_scene.run()).recovery["kept"] == 2
    after = await status_of(any_scene)
    assert (after.open_requests, after.rows) == ((), {"kept": 2})
    assert told(after)[f"run {run_id}"].endswith("0.062 at risk; stopped: crashed")


@pytest.mark.parametrize(
    ("later_seconds", "what"),
    [
        (60.0, "; the API forgets it in 5"),
        (2 * HOUR, "; forgotten by the API; its image can be had for about 6 d 2"),
        (8 * DAY, "; its image is not to be had any more"),
    ],
)
async def test_an_open_request_is_told_with_the_time_that_is_left(
    scene: Scene, later_seconds: float, what: str
) -> None:
    """For an hour the API knows it, for seven days its image can be had; by the store's clock."""
    await scene.furnish("a")
    await killed_in_flight(scene, writer=dead_writer())
    status = await status_of(scene, later_seconds=later_seconds)
    (only,) = status.open_requests
    assert only.age_seconds == pytest.approx(later_seconds, abs=10)
    (line,) = scene.api.bill().lines
    assert told(status)[only.variation_id].startswith(f"accepted as {line.request_id}{what}")


@pytest.mark.parametrize(
    ("age_seconds", "what"),
    [
        (0.0, "; the API forgets it in 1 h"),
        (HOUR - 1, "; the API forgets it in 1.0 s"),
        (HOUR, "; forgotten by the API; its image can be had for about 6 d 23 h yet"),
        (7 * DAY, "; its image is not to be had any more"),
        (None, ""),
    ],
)
def test_the_time_that_is_left_of_an_accepted_request(age_seconds: float | None, what: str) -> None:
    """Counted from its submit; of one whose submit is not dated, nothing is said of it."""
    asked = OpenRequest(variation_id="v", run_id="r", request_id="q", age_seconds=age_seconds)
    assert asked.told() == f"accepted as q{what}"


@pytest.mark.parametrize(
    ("age_seconds", "what"),
    [
        (5.0, "the next run looks for it in the request history"),
        (None, "the next run looks for it in the request history"),
        (31 * DAY, "the request history does not reach back so far"),
    ],
)
def test_what_may_never_have_been_accepted_is_looked_for(age_seconds: float | None, what: str) -> None:
    """For as long as the request history reaches back."""
    asked = OpenRequest(variation_id="v", run_id="r", request_id=None, age_seconds=age_seconds)
    assert asked.told() == f"it is not known whether it was accepted; {what}"


async def test_unknown_rows_of_earlier_runs_are_open_requests(any_scene: Scene) -> None:
    """Those of the metadata, though no run is open; more than are asked for are counted."""
    accepted = await hold(any_scene, age=timedelta(days=2), request_id="r-1")
    lost = await hold(any_scene, age=timedelta(minutes=1), request_id=None, name="dog")
    status = await status_of(any_scene)
    lines = told(status)
    assert (lines["images"], lines["open requests"]) == ("2 unknown", "2")
    # Whole seconds have passed since, by the store's clock.
    assert lines[accepted].startswith("accepted as r-1; forgotten by the API; its image can be had for about ")
    assert lines[lost].startswith("it is not known whether it was accepted")
    assert told(status, most=1)[""] == "… and 1 more"


async def test_what_an_open_run_has_settled_is_not_open(scene: Scene) -> None:
    """Its journal is newer than the row of the metadata, which says that an earlier run left it unknown."""
    await scene.furnish("a")
    other = await hold(scene, age=timedelta(days=1), request_id="r-2", name="dog")
    async with scene.opened() as run:
        await planned(run)
        await run.make(0)
        (image,) = await scene.keys("images/")
        await hold(scene, age=timedelta(days=1), request_id="r-1", variation_id=Path(image).stem)
        status = await status_of(scene)
    assert status.rows == {"unknown": 2}
    assert [one.variation_id for one in status.open_requests] == [other]


async def test_an_open_request_is_told_once(scene: Scene) -> None:
    """Also where both the journal of the run that is open and the metadata know of it."""
    await scene.furnish("a")
    run_id = await killed_in_flight(scene, writer=dead_writer())
    (asked,) = (await status_of(scene)).open_requests
    row = outcome("unknown", of=variation("a", variation_id=asked.variation_id), request_id=asked.request_id)
    await write_part(scene.dataset, run_id, [row])
    await publish(scene.dataset, [run_id])
    status = await status_of(scene)
    assert status.rows == {"unknown": 1}
    assert [one.variation_id for one in status.open_requests] == [asked.variation_id]


async def test_runs_are_told_newest_first_and_as_many_as_asked_for(scene: Scene) -> None:
    """With what each one came to: failures, and why it stopped."""
    await scene.furnish("a", "b")
    scene.api.set_faults("failed:1:1")
    first = await scene.run()
    second = await scene.run(tried_again(scene.job))
    lines = [(name, value) for name, value in (await status_of(scene)).lines(most=0) if name.startswith("run ")]
    assert sorted(lines, reverse=True) == lines
    assert dict(lines) == {
        f"run {first.run_id}": "1 of 2 kept, 1 failed, 0.031 USD",
        f"run {second.run_id}": "1 of 1 kept, 0.031 USD",
    }
    newest = max(first.run_id, second.run_id)
    assert [receipt["run_id"] for receipt in (await status_of(scene, runs=1)).runs] == [newest]


async def test_a_run_that_only_looked_after_what_was_open_says_so(scene: Scene) -> None:
    """It wanted no images; it fetched what another one had paid for."""
    await scene.furnish("a", "b")
    killed_id = await killed_in_flight(scene, writer=dead_writer())
    async with scene.opened(replace(scene.job, source=None)) as run:
        await run.check()
        await run.recover()
        await run.publish()
    lines = told(await status_of(scene))
    assert lines[f"run {run.run_id}"] == "looked after what was open: 2 kept, 0 unknown"
    assert lines[f"run {killed_id}"].endswith("stopped: crashed")


async def test_a_run_without_a_receipt_that_is_not_open_paid_for_nothing(scene: Scene) -> None:
    """It ended while it planned."""
    await scene.furnish("a")
    await scene.run()
    await scene.dataset.put("_runs/20200101T000000Z-aaaaaa/plan/shard-00000.parquet", b"")
    lines = told(await status_of(scene))
    assert lines["run 20200101T000000Z-aaaaaa"] == "it ended before it paid for anything"


async def test_it_can_be_told_as_json(scene: Scene) -> None:
    """With the names of what is open, how old it is, and the receipts."""
    await scene.furnish("a")
    run_id = await killed_in_flight(scene, writer=dead_writer())
    found = json.loads(json.dumps((await status_of(scene)).as_dict()))
    (asked,) = found["open_requests"]
    assert set(asked) == {"variation_id", "run_id", "request_id", "age_seconds", "told"}
    assert (asked["run_id"], found["open_run"]) == (run_id, run_id)
    counts = {"wanted": 1, "kept": 0, "failed": 0, "unknown": 0, "in_flight": 1, "cost_usd": 0.0}
    assert found["runs"] == [{"run_id": run_id, "is_open": True, **counts}]
    assert found["workers"] == []
    assert found["at_work"].startswith(f"nobody; the run {run_id} died")


@pytest.mark.parametrize("content", [b"", b"<html>", b"PAR1"])
async def test_metadata_that_is_none_is_named(scene: Scene, content: bytes) -> None:
    """With what to do about it."""
    await scene.dataset.put(METADATA_KEY, content)
    with pytest.raises(errors.StorageError, match=r"metadata\.parquet is damaged, .* Move it away"):
        await status_of(scene)


async def test_a_lock_that_is_none_is_named(scene: Scene) -> None:
    """It is not ours."""
    await scene.dataset.put(OPEN_KEY, b"{}")
    with pytest.raises(errors.JournalDamaged, match=OPEN_KEY):
        await status_of(scene)
