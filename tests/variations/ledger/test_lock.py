"""The lock of a dataset: who gets it, who waits, and who is gone."""

import asyncio
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.variations.chaos.store import Store
from variations import errors
from variations.layout import OPEN_KEY
from variations.ledger.lock import LEASE_SECONDS, check_is_free, look
from variations.ledger.writer import Writer
from variations.storage import Storage

from .locks import BEAT_SECONDS, content, holder, in_memory, writer
from .stores import View, unavailable


async def test_the_first_gets_it_and_nothing_has_to_be_closed(any_dataset: Storage) -> None:
    """On an empty dataset the run is named at once, with its process; given back closed, nobody holds it."""
    assert await look(any_dataset) is None
    made = holder(any_dataset)
    assert await made.lock.acquire("run-1") is None
    seen = await look(any_dataset)
    assert seen is not None
    assert (seen.run.run_id, seen.run.state, seen.run.writer) == ("run-1", "open", writer("a"))
    assert 0 <= seen.age_seconds < 5
    await made.lock.begin("run-1")
    await made.lock.release(is_closed=True)
    seen = await look(any_dataset)
    assert seen is not None
    assert (seen.run.run_id, seen.run.state, seen.run.writer) == ("run-1", "closed", None)
    assert await holder(any_dataset, "b").lock.acquire("run-2") is None


async def test_who_comes_second_is_told_who_is_there(any_dataset: Storage) -> None:
    """The error names the run, the dataset, the process, its last sign of life and what to do."""
    first = holder(any_dataset)
    await first.lock.acquire("run-1")
    with pytest.raises(errors.DatasetBusy) as caught:
        await holder(any_dataset, "b").lock.acquire("run-2")
    for words in ("run-1", any_dataset.uri, "process 1 on host-a", "--wait"):
        assert words in str(caught.value)
    await first.lock.release(is_closed=True)


async def test_it_can_be_asked_for_without_being_taken(any_dataset: Storage) -> None:
    """Who only asks is refused in the same words, and only while somebody works; nothing is written."""
    await check_is_free(any_dataset)
    assert await look(any_dataset) is None
    first = holder(any_dataset)
    await first.lock.acquire("run-1")
    before = await any_dataset.get(OPEN_KEY)
    refusals = []
    for ask in (check_is_free(any_dataset), holder(any_dataset, "b").lock.acquire("run-2")):
        with pytest.raises(errors.DatasetBusy) as caught:
            await ask
        refusals.append(re.sub(r"\d+ s", "some s", str(caught.value)))
    assert refusals[0] == refusals[1]
    assert await any_dataset.get(OPEN_KEY) == before
    await first.lock.release(is_closed=False)
    await check_is_free(any_dataset)


async def test_of_many_one_gets_it(any_dataset: Storage) -> None:
    """Whoever comes at the same moment, one gets it and the others are told that it is busy."""
    for run in ("fresh", "given back"):
        made = [holder(any_dataset, f"{run} {number}") for number in range(5)]
        results = await asyncio.gather(
            *(one.lock.acquire(f"run-{number}") for number, one in enumerate(made)), return_exceptions=True
        )
        assert sum(result is None for result in results) == 1, run
        assert sum(isinstance(result, errors.DatasetBusy) for result in results) == 4, run
        await asyncio.gather(*(one.lock.release(is_closed=True) for one in made))


async def test_what_is_not_ours_is_damage(dataset: Storage) -> None:
    """Something else in the lock's place is named, and left alone."""
    await dataset.put(OPEN_KEY, b"locked")
    with pytest.raises(errors.JournalDamaged, match=dataset.uri_of(OPEN_KEY)):
        await holder(dataset).lock.acquire("run-1")
    assert await dataset.get(OPEN_KEY) == b"locked"


async def test_a_process_that_is_certainly_dead_is_not_waited_for(any_dataset: Storage) -> None:
    """On the machine where it ran its end is known: the next run takes over at once."""
    gone = replace(Writer.this_process(since=datetime(2026, 1, 1, tzinfo=UTC)), started="1")
    assert gone.is_certainly_dead()
    crashed = holder(any_dataset, who=gone)
    await crashed.lock.acquire("run-1")
    second = holder(any_dataset, "b")
    assert await second.lock.acquire("run-2") == "run-1"
    await second.lock.release(is_closed=True)
    await crashed.lock.release(is_closed=False)
    assert len(crashed.lost) == 1


async def test_a_living_process_of_this_machine_is_busy(dataset: Storage) -> None:
    """A process that lives, as this one does, keeps what it has."""
    me = Writer.this_process(since=datetime(2026, 1, 1, tzinfo=UTC))
    assert me.pid == os.getpid()
    first = holder(dataset, who=me)
    await first.lock.acquire("run-1")
    with pytest.raises(errors.DatasetBusy):
        await holder(dataset, "b").lock.acquire("run-2")
    await first.lock.release(is_closed=True)


@pytest.mark.parametrize(("is_closed", "unfinished"), [(True, None), (False, "run-1")])
def test_what_is_given_back_open_has_to_be_closed(*, is_closed: bool, unfinished: str | None) -> None:
    """The next one is told of a run that was given back with something left to do, and of no other."""

    async def test(store: Store) -> None:
        first, second = holder(View(store)), holder(View(store), "b")
        await first.lock.acquire("run-1")
        await first.lock.begin("run-1")
        await first.lock.release(is_closed=is_closed)
        assert await second.lock.acquire("run-2") == unfinished
        # Until it begins its own, the run that has to be closed stays the open one.
        assert content(store)["run_id"] == (unfinished or "run-2")
        await second.lock.begin("run-2")
        assert content(store)["run_id"] == "run-2"
        await second.lock.release(is_closed=True)
        assert first.lost == second.lost == []

    in_memory(test)


def test_a_run_that_is_not_closed_is_handed_on() -> None:
    """Who dies, or gives back, before the unfinished run is closed leaves it to the next one, and that to the next."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        await first.lock.release(is_closed=False)
        for name in "bcd":
            one = holder(View(store), name)
            assert await one.lock.acquire(f"run-{name}") == "run-1"
            await one.lock.release(is_closed=False)

    in_memory(test)


def test_waiting_ends_when_the_other_ends() -> None:
    """Who waits says so once, and has it within seconds of its being given back."""

    async def test(store: Store) -> None:
        first, second = holder(View(store)), holder(View(store), "b")
        await first.lock.acquire("run-1")
        waits = asyncio.create_task(second.lock.acquire("run-2", wait=True))
        await asyncio.sleep(1000)
        assert not waits.done()
        await first.lock.release(is_closed=True)
        given_back = asyncio.get_running_loop().time()
        assert await waits is None
        assert asyncio.get_running_loop().time() - given_back < 5
        assert len(second.said) == 1
        assert "run-1" in second.said[0]
        await second.lock.release(is_closed=True)
        assert first.lost == []

    in_memory(test)


def test_waiting_ends_when_the_other_dies() -> None:
    """Who shows no sign of life for the lease is gone, by the store's clock, however wrong the machines' are."""

    async def test(store: Store) -> None:
        loop = asyncio.get_running_loop()
        dead = View(store)
        first, second = holder(dead), holder(View(store), "b")
        await first.lock.acquire("run-1")
        await asyncio.sleep(100)

        async def never(*_: str) -> None:
            await asyncio.sleep(1e9)

        dead.before = never
        died = loop.time()
        assert await second.lock.acquire("run-2", wait=True) == "run-1"
        assert LEASE_SECONDS - BEAT_SECONDS - 1 <= loop.time() - died <= LEASE_SECONDS + 6
        await second.lock.release(is_closed=True)

    in_memory(test)


def test_who_waits_for_the_dead_alone_ends_at_a_sign_of_life() -> None:
    """And takes over from the one that gives none."""

    async def test(store: Store) -> None:
        living = View(store)
        first, second = holder(living), holder(View(store), "b")
        await first.lock.acquire("run-1")
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.LookedAfter, match=r"run-1 works on .* it lives"):
            await second.lock.acquire("run-2", wait=True, waits_for_living=False)
        assert asyncio.get_running_loop().time() - began <= BEAT_SECONDS + 6

        async def never(*_: str) -> None:
            await asyncio.sleep(1e9)

        living.before = never
        assert await second.lock.acquire("run-2", wait=True, waits_for_living=False) == "run-1"
        await second.lock.release(is_closed=True)

    in_memory(test)


@pytest.mark.parametrize("lease_seconds", [5.0, 600.0])
def test_the_lease_is_that_of_who_works(lease_seconds: float) -> None:
    """Whatever the lease of who waits: it is written down, and counts for who asks as for who wants it."""

    async def test(store: Store) -> None:
        loop = asyncio.get_running_loop()
        dead = View(store)
        await holder(dead, lease_seconds=lease_seconds).lock.acquire("run-1")
        assert content(store)["lease_seconds"] == lease_seconds

        async def never(*_: str) -> None:
            await asyncio.sleep(1e9)

        dead.before = never
        died = loop.time()
        await asyncio.sleep(0.5 * lease_seconds)
        with pytest.raises(errors.DatasetBusy):
            await check_is_free(View(store))
        second = holder(View(store), "b", lease_seconds=60.0)
        assert await second.lock.acquire("run-2", wait=True) == "run-1"
        assert lease_seconds - 1 <= loop.time() - died <= lease_seconds + 6
        assert content(store)["lease_seconds"] == 60.0
        await second.lock.release(is_closed=True)

    in_memory(test)


async def test_a_lock_that_tells_no_lease_has_the_usual_one(dataset: Storage) -> None:
    """As an older version wrote it."""
    first = holder(dataset, lease_seconds=600.0)
    await first.lock.acquire("run-1")
    found = json.loads(await dataset.get(OPEN_KEY))
    del found["lease_seconds"]
    await dataset.put(OPEN_KEY, json.dumps(found).encode())
    seen = await look(dataset)
    assert seen is not None
    assert (seen.run.lease_seconds, seen.run.writer) == (LEASE_SECONDS, writer("a"))
    await first.lock.release(is_closed=True)


def test_signs_of_life_keep_it_for_ever() -> None:
    """A run of a day keeps the lock, and its age never comes near the lease."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        for _ in range(500):
            await asyncio.sleep(173)
            seen = await look(View(store))
            assert seen is not None
            assert seen.age_seconds <= BEAT_SECONDS + 3
        assert seen.run.beat > 5000
        with pytest.raises(errors.DatasetBusy):
            await holder(View(store), "b").lock.acquire("run-2")
        await first.lock.release(is_closed=True)
        assert first.lost == []

    in_memory(test)


def test_a_sleeper_learns_that_it_was_replaced() -> None:
    """Who slept through its lease is told so once, at its next sign of life, and can neither begin nor close a run."""

    async def test(store: Store) -> None:
        sleeper = View(store)
        first, second = holder(sleeper), holder(View(store), "b")
        await first.lock.acquire("run-1")

        loop = asyncio.get_running_loop()
        awake_at = loop.time() + 200

        async def sleep(_: str, key: str) -> None:
            if loop.time() < awake_at:
                raise unavailable(key)

        sleeper.before = sleep
        assert await second.lock.acquire("run-2", wait=True) == "run-1"
        await second.lock.begin("run-2")
        await asyncio.sleep(400)
        assert [isinstance(error, errors.Replaced) for error in first.lost] == [True]
        assert OPEN_KEY in str(first.lost[0])
        sleeper.before = View(store).before
        calls = len(sleeper.calls)
        with pytest.raises(errors.Replaced):
            await first.lock.begin("run-3")
        await first.lock.release(is_closed=True)
        assert len(sleeper.calls) == calls
        assert len(first.lost) == 1
        assert (content(store)["run_id"], content(store)["state"]) == ("run-2", "open")
        await second.lock.release(is_closed=True)
        assert second.lost == []

    in_memory(test)


def test_two_that_find_it_stale_race_and_one_gets_it() -> None:
    """Both look, both find that its process is gone, one replaces it; the other finds a living one."""

    async def test(store: Store) -> None:
        dead = View(store)
        first = holder(dead)
        await first.lock.acquire("run-1")

        async def never(*_: str) -> None:
            await asyncio.sleep(1e9)

        dead.before = never
        await asyncio.sleep(100)
        others = [holder(View(store, seconds=0.01), name) for name in "bcd"]
        results = await asyncio.gather(
            *(one.lock.acquire(f"run-{number}") for number, one in enumerate(others)), return_exceptions=True
        )
        assert sum(result == "run-1" for result in results) == 1
        assert sum(isinstance(result, errors.DatasetBusy) for result in results) == 2
        await asyncio.gather(*(one.lock.release(is_closed=True) for one in others))

    in_memory(test)


def test_looking_writes_nothing_and_sees_one_moment() -> None:
    """What is looked at is replaced meanwhile: content and age are of the same object."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        await asyncio.sleep(100)
        view = View(store)
        changes = 3

        async def change(call: str, _: str) -> None:
            nonlocal changes
            if call == "get" and changes:
                changes -= 1
                await first.lock.begin(f"run-{changes + 10}")

        view.before = change
        seen = await look(view)
        assert seen is not None
        assert seen.entry.etag == store.objects[OPEN_KEY].etag
        assert (seen.run.run_id, changes) == ("run-10", 0)
        assert {call for call, _ in view.calls} == {"head", "get", "now"}
        await first.lock.release(is_closed=True)

    in_memory(test)


def test_giving_back_what_was_never_had_is_nothing() -> None:
    """A run that could not get the lock closes as any other, and writes nothing."""

    async def test(store: Store) -> None:
        first, second = holder(View(store)), holder(View(store), "b")
        await first.lock.acquire("run-1")
        with pytest.raises(errors.DatasetBusy):
            await second.lock.acquire("run-2")
        await second.lock.release(is_closed=True)
        with pytest.raises(errors.Replaced):
            await second.lock.begin("run-2")
        assert second.lost == []
        assert content(store)["run_id"] == "run-1"
        await first.lock.release(is_closed=True)
        await first.lock.release(is_closed=True)

    in_memory(test)
