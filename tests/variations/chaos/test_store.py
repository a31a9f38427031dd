"""The world's store is one, and loses, delays and refuses what is asked of it."""

import asyncio
import inspect
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.variations.engine.simulation import EPOCH
from variations import errors
from variations.storage import Storage

from .slow_world import DROPS, LANDS, LATE, SLOW, client, inputs, run
from .world import Process, Rates, World


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
