"""The world does what it is there for: it loses, delays, repeats and kills, and the same seed does it again."""

import asyncio
import contextlib
import gc
import inspect
import json
import time
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.variations.engine.simulation import BASE_URL, EPOCH, PRICE_USD
from variations import errors
from variations.api.client import Client
from variations.images import inspect_image
from variations.models import Completed, Failed
from variations.storage import Storage

from .api import output_content
from .world import CALM, Event, Killed, Process, Rates, World

T = TypeVar("T")
Main = Callable[[World], Coroutine[Any, Any, T]]

# A second each way, so that a test can name the moments.
SLOW = replace(CALM, request_seconds=(1.0, 1.0), answer_seconds=(1.0, 1.0), skew_seconds=0.0, api_skew_seconds=0.0)
LANDS = replace(SLOW, kill_drops=0.0, kill_delays=0.0)
LATE = replace(SLOW, kill_drops=0.0, kill_delays=1.0)
DROPS = replace(SLOW, kill_drops=1.0)


def run(main: Main[T], *, rates: Rates = SLOW, seed: int = 1) -> T:
    """Run a world; the loop was left with no exception."""
    world = World(seed, rates=rates)
    found = world.run(main)
    assert world.complaints == []
    return found


def client(process: Process) -> Client:
    """Return the API's client of a process."""
    return Client(process.http, endpoint=process.world.endpoint)


def inputs(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return what is sent for the number-th source."""
    return {"redux_image": f"https://photos.example/{number}.jpg", "seed": number, "num_outputs": 1, **fields}


async def make_an_image(process: Process, number: int) -> None:
    """Do what is done for one item: submit, four polls, result, output, four puts, come what may."""
    api = client(process)
    try:
        accepted = await api.submit(inputs(number))
        for _ in range(4):
            await process.clock.sleep(4 + process.random())
            await api.status(accepted.request_id)
        found = await api.result(accepted.request_id)
        if isinstance(found, Completed):
            answer = await process.http.get(found.outputs[0].url)
            await process.storage.put(f"images/{number}.jpg", answer.content)
    except (errors.VariationsError, httpx.TransportError) as error:
        await process.clock.sleep(1)
        number += 1000 * len(type(error).__name__)
    for part in range(3):
        with contextlib.suppress(errors.StorageError):
            await process.storage.put_if_absent(f"_runs/1/journal/{number}/{part}.jsonl", b"{}")


async def make_images(process: Process, count: int) -> None:
    """Make so many at once."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(make_an_image(process, number))


async def chaotic(world: World) -> list[Event]:
    """Let twins work, stall one, kill the other, and start a third."""
    first, second = Process(world, "first"), Process(world, "second")
    first.spawn(make_images(first, 20))
    second.spawn(make_images(second, 20))
    await asyncio.sleep(world.random.uniform(0, 10))
    first.stall(20)
    await asyncio.sleep(world.random.uniform(0, 10))
    second.kill()
    third = Process(world, "third")
    third.spawn(make_images(third, 20))
    assert (await first.wait()).how == "returned"
    assert (await third.wait()).how == "returned"
    await world.quiet()
    return world.trace


def test_the_same_seed_replays_event_by_event() -> None:
    """Two worlds of one seed have the same trace, to the last digit of a time; another seed has another."""
    bad = Rates().times(5)
    first, again, other = (run(chaotic, rates=bad, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert {event.process for event in first} == {"first", "second", "third"}


def test_a_task_group_that_aborts_replays_too() -> None:
    """The order in which a task group cancels its tasks is that of their making, wherever they lie in memory."""
    order: list[int] = []

    async def wait(process: Process, number: int) -> None:
        try:
            await process.clock.sleep(100)
        finally:
            order.append(number)

    async def work(process: Process) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(wait(process, number))
            await asyncio.sleep(1)
            raise ValueError

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(work(process))
        assert (await process.wait()).how == "raised"

    run(main)
    first, order[:] = order[:], []
    run(main)
    assert first == order


def test_the_storage_has_what_the_protocol_asks() -> None:
    """Every method of `Storage` is there, and takes the same arguments."""
    world = World(1)
    storage = Process(world, "one").storage
    for name, wanted in inspect.getmembers(Storage, inspect.isfunction):
        if name.startswith("_"):
            continue
        given = inspect.signature(getattr(storage, name))
        assert list(given.parameters) == list(inspect.signature(wanted).parameters)[1:], name
    assert storage.uri_of("a/b") == f"{storage.uri}/a/b"


def test_the_store_is_a_store(tmp_path: Path) -> None:
    """What is written is listed, read, replaced on condition, and removed."""

    async def main(world: World) -> None:
        storage = Process(world, "one").storage
        for key in ("b/2", "a-b/1", "a/1", "a/2", "b"):
            await storage.put(key, key.encode())
        assert [entry.key async for entry in storage.list()] == ["a-b/1", "a/1", "a/2", "b", "b/2"]
        assert [entry.key async for entry in storage.list("a/")] == ["a/1", "a/2"]
        assert [name async for name in storage.folders()] == ["a", "a-b", "b"]
        assert [name async for name in storage.folders("c/")] == []
        assert await storage.put_if_absent("b", b"other") is None
        entry = await storage.head("b")
        assert entry is not None
        replaced = await storage.replace("b", b"new", etag=entry.etag)
        with pytest.raises(errors.PreconditionFailed):
            await storage.replace("b", b"newer", etag=entry.etag)
        assert (await storage.get("b"), await storage.head("b")) == (b"new", replaced)
        await storage.get_to_file("b", tmp_path / "folder" / "b")
        assert (tmp_path / "folder" / "b").read_bytes() == b"new"
        await storage.delete("b")
        assert not await storage.exists("b")
        with pytest.raises(errors.ObjectNotFound):
            await storage.get("b")
        with pytest.raises(errors.BadInput):
            await storage.get("b/")
        with pytest.raises(errors.BadInput):
            storage.folders("b")

    run(main, rates=replace(SLOW, page_sizes=(2,)))


def test_the_stores_clock_is_cut_to_seconds() -> None:
    """`now` and `modified` are the store's time at the landing, a whole number of seconds."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.skew_seconds = 300.0
        await asyncio.sleep(0.6)
        entry = await process.storage.put("key", b"")
        assert entry.modified == EPOCH + timedelta(seconds=1001)
        assert await process.storage.now() == EPOCH + timedelta(seconds=1003)
        assert process.clock.now() == EPOCH + timedelta(seconds=1304.6)

    run(main)


def test_clocks_are_skewed_and_run_alike() -> None:
    """Each process's wall clock is off by up to ten minutes; their seconds are the same."""

    async def main(world: World) -> None:
        processes = [Process(world, f"process {number}") for number in range(50)]
        off = [(process.clock.now() - world.time_of_day()).total_seconds() for process in processes]
        assert len(set(off)) == 50
        assert -600 <= min(off) < -300 < 300 < max(off) <= 600
        assert {process.clock.monotonic() for process in processes} == {world.now}

    run(main, rates=CALM)


@pytest.mark.parametrize(("rates", "lands"), [(LANDS, 1.0), (LATE, 60.5), (DROPS, None)])
def test_a_put_on_the_wire_at_the_kill_lands_or_not(rates: Rates, lands: float | None) -> None:
    """A kill in the middle of a put lets it land in its time, up to a minute later, or never."""
    ran_on = []

    async def work(process: Process) -> None:
        try:
            await process.storage.put("key", b"x")
        except BaseException:
            ran_on.append("except")
            raise
        finally:
            ran_on.append("finally")
            await process.storage.put("other", b"x")

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(work(process))
        await asyncio.sleep(0.5)
        process.kill()
        assert (await process.wait()).how == "killed"
        assert "key" not in world.store.objects
        await world.quiet()
        assert ("key" in world.store.objects) is (lands is not None)
        landed = [event.at for event in world.trace if event.call == "put lands"]
        assert all(0.5 <= at - 1000 <= (lands or 0) for at in landed)
        assert "other" not in world.store.objects
        # Not a line of it runs, its handlers neither, for as long as the world is watched.
        assert ran_on == []

    run(main, rates=rates)


def test_a_landed_put_whose_process_dies_stays() -> None:
    """A kill between the landing and its answer leaves the object, and nobody who knows of it."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(process.storage.put("key", b"x"))
        await asyncio.sleep(1.5)
        process.kill()
        await world.quiet()
        assert process.exit is not None
        assert process.exit.result is None
        assert world.store.get("key") == b"x"

    run(main, rates=DROPS)


@pytest.mark.parametrize(("rates", "accepted"), [(LANDS, 1), (LATE, 1), (DROPS, 0)])
def test_a_submit_on_the_wire_at_the_kill_is_accepted_or_not(rates: Rates, accepted: int) -> None:
    """A dead process's POST is accepted in its time, late, or never."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(client(process).submit(inputs()))
        await asyncio.sleep(0.5)
        process.kill()
        assert world.bill() == []
        await world.quiet()
        assert len(world.bill()) == accepted

    run(main, rates=rates)


def test_a_kill_ends_every_task_and_leaves_no_warning() -> None:
    """Groups, gathers, locks, generators, handlers that do I/O, tasks not yet started: all of it goes silently."""
    ran_on = []

    async def stubborn(process: Process, lock: asyncio.Lock) -> None:
        try:
            async with lock, asyncio.timeout(1000):
                await process.clock.sleep(50)
        except asyncio.CancelledError:
            ran_on.append("cancelled")
            await process.storage.put("last words", b"")
        finally:
            await asyncio.shield(process.storage.put("more last words", b""))
            await process.clock.sleep(1)

    async def listing(process: Process) -> None:
        async def generate() -> Any:
            try:
                async for entry in process.storage.list():
                    yield entry
            finally:
                await process.storage.put("generated", b"")

        async for _ in generate():
            await process.clock.sleep(100)

    async def work(process: Process) -> None:
        lock = asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(stubborn(process, lock))
            group.create_task(listing(process))
            await asyncio.gather(*(stubborn(process, lock) for _ in range(2)), asyncio.to_thread(len, "x"))

    async def main(world: World) -> None:
        world.store.put("something", b"")
        process = Process(world, "one")
        process.spawn(work(process))
        unstarted = Process(world, "two")
        unstarted.spawn(work(unstarted))
        unstarted.kill()
        await asyncio.sleep(10)
        process.kill()
        await asyncio.sleep(10)
        assert ran_on == []
        assert world.store.keys() == ["something"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main, rates=DROPS)
        gc.collect()


def test_a_process_can_be_killed_just_before_any_call() -> None:
    """The hook on calls kills before the call leaves: nothing of it arrives, and nothing runs on."""
    ran_on = []

    async def work(process: Process) -> None:
        try:
            for number in range(10):
                await process.storage.put(f"key {number}", b"")
        except BaseException:
            ran_on.append("except")
            raise

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.on_call = lambda _, key: process.kill() if key == "key 3" else None
        process.spawn(work(process))
        await process.wait()
        await world.quiet()
        assert process.calls == 3
        assert world.store.keys() == ["key 0", "key 1", "key 2"]
        assert ran_on == []

    run(main)


def test_whoever_asks_a_dead_process_from_outside_is_told() -> None:
    """A driver that uses what is a dead process's gets `Killed`, during a call and after it."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        asyncio.get_running_loop().call_later(0.5, process.kill)
        with pytest.raises(Killed):
            await process.storage.put("key", b"")
        with pytest.raises(Killed):
            await process.http.get(BASE_URL)
        with pytest.raises(Killed):
            await process.clock.sleep(1)

    run(main)


def test_a_stalled_process_hears_nothing_until_the_pause_is_over() -> None:
    """In a pause what was on the wire lands, and its answer and all timers wait for the end of the pause."""
    times = {}

    async def put(process: Process) -> None:
        await process.storage.put("key", b"")
        times["put"] = process.clock.monotonic()

    async def work(process: Process) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(put(process))
            await process.clock.sleep(1.5)
            times["sleep"] = process.clock.monotonic()

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(work(process))
        await asyncio.sleep(0.5)
        process.stall(100)
        await asyncio.sleep(50)
        assert world.store.keys() == ["key"]
        assert times == {}
        await process.wait()
        assert times == {"put": 1100.5, "sleep": 1100.5}

    run(main)


def test_a_call_can_be_held_up_between_decision_and_departure() -> None:
    """A pause that the hook on calls begins comes before the call leaves, as a pause after a look at the clock does."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.on_call = lambda *_: process.stall(100) if world.now < 1050 else None
        process.spawn(process.storage.put("key", b""))
        await asyncio.sleep(99)
        assert world.store.keys() == []
        await process.wait()
        assert world.now == 1102
        assert world.store.keys() == ["key"]

    run(main)


def test_a_cancellation_in_a_pause_arrives_at_its_end() -> None:
    """Neither a timeout nor Ctrl-C makes a paused process run."""
    heard = []

    async def work(process: Process) -> None:
        try:
            async with asyncio.timeout(10):
                await process.clock.sleep(200)
        except TimeoutError:
            heard.append(process.clock.monotonic())
        try:
            await process.clock.sleep(200)
        except asyncio.CancelledError:
            heard.append(process.clock.monotonic())
            await process.storage.put("last words", b"")
            raise

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(work(process))
        await asyncio.sleep(5)
        process.stall(50)
        await asyncio.sleep(60)
        process.stall(50)
        process.interrupt()
        assert (await process.wait()).how == "interrupted"
        assert heard == [1055, 1115]
        assert world.store.keys() == ["last words"]

    run(main)


def test_a_process_ends_as_asyncio_run_does() -> None:
    """When the main coroutine ends its leftover tasks are cancelled, may say last words, and its end is told."""

    async def linger(process: Process) -> None:
        try:
            await process.clock.sleep(1000)
        finally:
            await process.storage.put("last words", b"")

    async def work(process: Process) -> str:
        process.left = asyncio.create_task(linger(process))  # type: ignore[attr-defined]
        await process.clock.sleep(1)
        return "done"

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(work(process))
        end = await process.wait()
        assert (end.how, end.result) == ("returned", "done")
        assert world.store.keys() == ["last words"]
        assert world.now == 1003
        failing = Process(world, "two")
        failing.spawn(failing.storage.get("nothing"))
        assert isinstance((await failing.wait()).error, errors.ObjectNotFound)

    run(main)


def test_a_write_whose_answer_is_lost_is_sent_again() -> None:
    """The store's client repeats it: the repeat finds its own object, and says that somebody was first."""

    async def main(world: World) -> None:
        storage = Process(world, "one").storage
        assert await storage.put_if_absent("0", b"mine") is None
        assert world.store.get("0") == b"mine"
        etag = world.store.objects["0"].etag
        with pytest.raises(errors.PreconditionFailed):
            await storage.replace("0", b"new", etag=etag)
        assert world.store.get("0") == b"new"
        await storage.put("0", b"newer")
        assert [event.call for event in world.trace].count("put lands") == 2

    run(main, rates=replace(SLOW, lost_reply=1.0))


@pytest.mark.parametrize(
    ("landed", "lands_late", "at_once", "later"),
    [(1.0, 0.0, True, True), (0.0, 1.0, False, True), (0.0, 0.0, False, False)],
)
def test_an_unavailable_store_has_taken_the_write_or_not(
    *, landed: float, lands_late: float, at_once: bool, later: bool
) -> None:
    """`StorageUnavailable` says nothing of the write: it landed, will land, or never does."""

    async def main(world: World) -> None:
        storage = Process(world, "one").storage
        with pytest.raises(errors.StorageUnavailable):
            await storage.put_if_absent("0", b"mine")
        assert bool(world.store.keys()) is at_once
        await world.quiet()
        assert bool(world.store.keys()) is later
        with pytest.raises(errors.StorageUnavailable):
            await storage.get("0")

    run(main, rates=replace(SLOW, unavailable=1.0, unavailable_landed=landed, unavailable_lands_late=lands_late))


def test_expired_credentials_are_refused_from_then_on() -> None:
    """A process whose credentials expire is refused whatever it asks; others are not."""

    async def main(world: World) -> None:
        process, other = Process(world, "one"), Process(world, "two")
        process.expire_credentials(3.0)
        await process.storage.put("before", b"")
        for call in (process.storage.get("before"), process.storage.put("after", b""), process.storage.now()):
            with pytest.raises(errors.CredentialsRefused):
                await call
        assert await other.storage.get("before") == b""
        assert world.store.keys() == ["before"]

    run(main)


def test_a_cancelled_write_still_lands() -> None:
    """A storage call that is cancelled goes on in its thread; of a cancelled POST nobody knows."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        for call in (process.storage.put("key", b""), client(process).submit(inputs())):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await call
        await world.quiet()
        assert world.store.keys() == ["key"]
        assert world.bill() == []

    run(main, rates=DROPS)


def test_an_image_is_made_paid_for_and_forgotten() -> None:
    """A request runs its course: accepted, done after a while, forgotten after an hour, its output after a week."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        api = client(process)
        source = await process.storage.presigned_url("photos/1.jpg", expires_seconds=60)
        accepted = await api.submit(inputs(redux_image=source))
        assert [billed.cost_usd for billed in world.bill()] == [0.0]
        await asyncio.sleep(60)
        found = await api.status(accepted.request_id)
        assert isinstance(found, Completed)
        assert (found.outputs, found.metrics.cost_usd) == ((), PRICE_USD)
        found = await api.result(accepted.request_id)
        assert isinstance(found, Completed)
        answer = await process.http.get(found.outputs[0].url)
        assert answer.content == output_content(accepted.request_id)
        assert inspect_image(answer.content).format == "jpg"
        assert (await api.credits()).total == 1000 - PRICE_USD
        await asyncio.sleep(3600)
        with pytest.raises(errors.RequestGone):
            await api.result(accepted.request_id)
        record = await api.history_record(accepted.request_id)
        assert record.output_urls == (found.outputs[0].url,)
        assert (await process.http.get(found.outputs[0].url)).is_success
        await asyncio.sleep(7 * 86400)
        assert (await process.http.get(found.outputs[0].url)).status_code == 404
        assert world.accepted() == {("https://store.example/dataset/photos/1.jpg", 1): [accepted.request_id]}
        assert [(billed.state, billed.cost_usd) for billed in world.bill()] == [("COMPLETED", PRICE_USD)]

    run(main)


def test_a_failed_request_costs_nothing() -> None:
    """It is told as failed, by the API and by the history, and the bill has no cost for it."""

    async def main(world: World) -> None:
        api = client(Process(world, "one"))
        accepted = await api.submit(inputs())
        await asyncio.sleep(100)
        assert isinstance(await api.status(accepted.request_id), Failed)
        record = await api.history_record(accepted.request_id)
        assert (record.status, record.cost_usd) == ("FAILED", 0.0)
        assert [(billed.state, billed.cost_usd) for billed in world.bill()] == [("FAILED", 0.0)]

    run(main, rates=replace(SLOW, inference_failed=1.0))


def test_the_history_lags() -> None:
    """A request shows in the history only a while after it was accepted, and as done a while after it was done."""

    async def main(world: World) -> None:
        api = client(Process(world, "one"))
        accepted = await api.submit(inputs())
        request = world.api.requests[accepted.request_id]
        assert await api.history() == []
        with pytest.raises(errors.RequestGone):
            await api.history_record(accepted.request_id)
        await asyncio.sleep(request.accepted_at + 40 - world.now)
        (record,) = await api.history()
        assert (record.status, record.inputs, record.output_urls) == ("PENDING", inputs(), ())
        assert record.created_at == EPOCH + timedelta(seconds=request.accepted_at)
        await asyncio.sleep(request.done_at + 40 - world.now)
        assert (await api.history_record(accepted.request_id)).status == "COMPLETED"

    run(main, rates=replace(SLOW, history_delay_seconds=(38.0, 40.0)))


def test_the_history_is_paged_newest_first() -> None:
    """Pages hold rows, one an output, within the days that are asked for."""

    async def main(world: World) -> None:
        api = client(Process(world, "one"))
        ids = [(await api.submit(inputs(number, num_outputs=2))).request_id for number in range(5)]
        await asyncio.sleep(100)
        pages = [[record.request_id for record in await api.history(page=page, per_page=4)] for page in (1, 2, 3, 4)]
        assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]], []]
        assert len((await api.history())[0].output_urls) == 2
        assert len(await api.history(from_date="2026-01-01", to_date="2026-01-01")) == 5
        assert await api.history(from_date="2026-01-02", to_date="2026-01-03") == []
        assert await api.history(status="FAILED") == []

    run(main)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("broken", errors.SubmitUnknown),
        ("bad_gateway", errors.SubmitUnknown),
        ("no_answer", errors.SubmitUnknown),
        ("refused", errors.Unreachable),
        ("limited", errors.RateLimited),
        ("submit_500", errors.ServiceUnavailable),
    ],
)
def test_a_submit_goes_wrong_in_every_way(fault: str, error: type[errors.VariationsError]) -> None:
    """Those whose answer is lost were accepted, will be, or never are; of the others none is."""

    async def submit(world: World) -> tuple[int, int]:
        with pytest.raises(error) as raised:
            await client(Process(world, "one")).submit(inputs())
        if isinstance(raised.value, errors.RateLimited):
            assert 1 <= (raised.value.wait_seconds or 0) <= 22
        if fault == "no_answer":
            assert world.now == 1060
        before = len(world.bill())
        await world.quiet()
        return before, len(world.bill())

    def outcome(**fields: float) -> tuple[int, int]:
        return run(submit, rates=replace(SLOW, **{fault: 1.0}, **fields))

    unknown = error is errors.SubmitUnknown
    assert outcome(lost_accepted=1.0) == ((1, 1) if unknown else (0, 0))
    assert outcome(lost_accepted=0.0, lost_accepted_late=1.0) == ((0, 1) if unknown else (0, 0))
    assert outcome(lost_accepted=0.0, lost_accepted_late=0.0) == (0, 0)


def test_gets_fail_and_outputs_come_late() -> None:
    """GETs end in errors that are worth a repeat, and an output is a 404 for its first few fetches."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        api = client(process)
        accepted = await api.submit(inputs())
        seen = set()
        for _ in range(50):
            with pytest.raises(errors.Repeatable) as raised:
                await api.status(accepted.request_id)
            seen.add(type(raised.value))
        assert seen == {errors.ServiceUnavailable, errors.RateLimited, errors.Unreachable}
        world.rates = replace(world.rates, get_fails=0.0)
        found = await api.result(accepted.request_id)
        assert isinstance(found, Completed)
        codes = [(await process.http.get(found.outputs[0].url)).status_code for _ in range(5)]
        assert codes[0] == 404
        assert codes[3:] == [200, 200]

    run(main, rates=replace(SLOW, get_fails=1.0, output_missing=1.0))


def test_an_answer_that_takes_too_long_is_a_read_timeout() -> None:
    """A POST that is slower than the client's patience is accepted nevertheless."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        with pytest.raises(httpx.ReadTimeout):
            await process.http.post(f"{BASE_URL}/v2/flux-redux-dev", json=inputs(), timeout=1.5)
        assert world.now == 1001.5
        assert len(world.bill()) == 1
        with pytest.raises(errors.ServiceUnavailable):
            await asyncio.wait_for(client(process).upload_asset([(b"", "image/jpeg")]), 1000)

    run(main, rates=replace(SLOW, answer_seconds=(90.0, 90.0)))


def test_what_never_ends_is_ended() -> None:
    """A run that waits for nothing, for ever, or without time passing fails instead of hanging."""

    async def wait_for_nothing(_: World) -> None:
        await asyncio.get_running_loop().create_future()

    async def poll_for_ever(world: World) -> None:
        process = Process(world, "one")
        process.spawn(forever(process))
        await process.wait()

    async def forever(process: Process) -> None:
        while True:
            try:
                await process.clock.sleep(3600)
            except asyncio.CancelledError:
                await process.clock.sleep(3600)

    for main, text in ((wait_for_nothing, "never comes"), (poll_for_ever, "does not end")):
        with pytest.raises(RuntimeError, match=text):
            run(main)


def test_the_trace_tells_a_story() -> None:
    """Every call and its landing are in the trace, with their times and keys."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        await process.storage.put("key", b"")
        await process.storage.get("other/../key".replace("/../", "-"))

    world = World(1, rates=SLOW)
    with pytest.raises(errors.ObjectNotFound):
        world.run(main)
    assert world.trace[:2] == [Event(1000.0, "one", "put", "key"), Event(1001.0, "one", "put lands", "key")]
    assert world.story("other").count("\n") == 1
    assert json.dumps(world.trace)


def test_fifty_items_are_cheap() -> None:
    """Fifty items take far less than this bound, which leaves room for busy machines."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(make_images(process, 50))
        await process.wait()

    run(main, rates=Rates())
    started = time.process_time()
    run(main, rates=Rates())
    assert time.process_time() - started < 0.5
