"""A process is killed, stalled, interrupted or ends, and nothing of it runs on."""

import asyncio
import gc
import warnings
from typing import Any

import pytest

from tests.variations.engine.simulation import BASE_URL
from variations import errors

from .slow_world import DROPS, run
from .world import CALM, Killed, Process, World


def test_clocks_are_skewed_and_run_alike() -> None:
    """Each process's wall clock is off by up to ten minutes; their seconds are the same."""

    async def main(world: World) -> None:
        processes = [Process(world, f"process {number}") for number in range(50)]
        off = [(process.clock.now() - world.time_of_day()).total_seconds() for process in processes]
        assert len(set(off)) == 50
        assert -600 <= min(off) < -300 < 300 < max(off) <= 600
        assert {process.clock.monotonic() for process in processes} == {world.now}

    run(main, rates=CALM)


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
