"""The lock of a dataset: who gets it, who waits, who is gone, and what lost answers and slow stores do to it."""

import asyncio
import gc
import json
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.variations.chaos.store import Store
from tests.variations.chaos.world import Process, Rates, World
from tests.variations.engine.simulation import LoopClock, simulate
from variations import errors
from variations.layout import OPEN_KEY
from variations.ledger.lock import LEASE_SECONDS, DatasetLock, look
from variations.ledger.writer import Writer
from variations.storage import Storage

from .stores import Complaints, View, memory, unavailable

BEAT_SECONDS = LEASE_SECONDS / 4


def writer(name: str) -> Writer:
    """Return a process on another machine."""
    return Writer(token=name, host=f"host-{name}", pid=1)


class WrongClock(LoopClock):
    """A machine's clock that is off by years; its seconds are right."""

    def now(self) -> datetime:
        """Return what this machine takes for the time of day."""
        return super().now() - timedelta(days=4000)


@dataclass
class Holder:
    """A process that wants the lock; `lost` and `said` are what it is told."""

    lock: DatasetLock
    lost: list[errors.Replaced] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def holder(storage: Any, name: str = "a", *, who: Writer | None = None) -> Holder:
    """Return a process on a machine of its own."""
    lost: list[errors.Replaced] = []
    said: list[str] = []
    lock = DatasetLock(storage, writer=who or writer(name), clock=WrongClock(), lost=lost.append, waiting=said.append)
    return Holder(lock, lost, said)


def content(store: Store) -> dict[str, Any]:
    """Return what the lock says."""
    found: dict[str, Any] = json.loads(store.get(OPEN_KEY))
    return found


def in_memory(test: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    """Run a test on simulated time, with a store; the loop is left with nothing to complain of, and no tasks."""

    async def main() -> None:
        complaints = Complaints()
        # Its clock is years ahead of the machines', too.
        store = memory(behind_seconds=-1e8)
        await test(store)
        gc.collect()
        await asyncio.sleep(0)
        assert [(found["message"], found.get("exception")) for found in complaints] == []

    simulate(main())


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


def loses(*calls: str, times: int = 1, error: bool = False) -> Callable[[View], None]:
    """Return what makes a view lose the answers to the first calls of a kind, after they took effect."""

    def apply(view: View) -> None:
        left = times
        inner_replace, inner_put = view.replace, view.put_if_absent

        async def replace_(key: str, data: bytes, *, etag: str, **options: Any) -> Any:
            nonlocal left
            found = await inner_replace(key, data, etag=etag, **options)
            left -= 1
            if left < 0:
                return found
            if error:
                raise unavailable(key)
            raise errors.PreconditionFailed(key)

        async def put_(key: str, data: bytes, **options: Any) -> Any:
            nonlocal left
            found = await inner_put(key, data, **options)
            left -= 1
            if left < 0:
                return found
            if error:
                raise unavailable(key)
            return None

        if "replace" in calls:
            view.replace = replace_  # type: ignore[method-assign]
        if "put_if_absent" in calls:
            view.put_if_absent = put_  # type: ignore[method-assign]

    return apply


def test_a_lost_answer_to_ones_own_write_is_no_loss() -> None:
    """Where the store says that somebody was first, and it was this process itself, it has the lock."""

    async def test(store: Store) -> None:
        view = View(store)
        loses("put_if_absent", "replace", times=4)(view)
        first = holder(view)
        assert await first.lock.acquire("run-1") is None
        await first.lock.begin("run-1")
        await asyncio.sleep(3 * BEAT_SECONDS)
        await first.lock.release(is_closed=True)
        assert first.lost == []
        assert content(store)["state"] == "closed"
        loses("replace", times=1)(view)
        second = holder(view, "b")
        assert await second.lock.acquire("run-2") is None
        await second.lock.release(is_closed=True)

    in_memory(test)


def test_a_sign_of_life_whose_answer_was_lost_is_no_loss() -> None:
    """A beat that was written, and of which the store said nothing, is followed by the next one."""

    async def test(store: Store) -> None:
        view = View(store)
        first = holder(view)
        await first.lock.acquire("run-1")
        loses("replace", times=2, error=True)(view)
        await asyncio.sleep(10 * BEAT_SECONDS)
        assert first.lost == []
        await first.lock.release(is_closed=True)
        assert content(store)["state"] == "closed"

    in_memory(test)


@pytest.mark.parametrize("then", ["begin", "release"])
def test_what_follows_a_sign_of_life_whose_answer_was_lost_is_no_loss(then: str) -> None:
    """The last beat was written, and its answer was lost: nobody else has the lock, and nobody may say so."""

    async def test(store: Store) -> None:
        view = View(store)
        first = holder(view)
        await first.lock.acquire("run-1")
        loses("replace", times=1, error=True)(view)
        await asyncio.sleep(BEAT_SECONDS + 1)
        assert content(store)["beat"] == 1
        if then == "begin":
            await first.lock.begin("run-2")
            assert content(store)["run_id"] == "run-2"
        await first.lock.release(is_closed=True)
        assert first.lost == []
        assert (content(store)["state"], content(store)["writer"]) == ("closed", None)

    in_memory(test)


@pytest.mark.parametrize("before_seconds", [0.0, 0.005, 0.012, 0.019])
def test_a_release_in_the_middle_of_a_sign_of_life_is_a_release(before_seconds: float) -> None:
    """A beat that is on its way when the lock is given back changes nothing of that, and nobody was lost."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        view = first.lock._storage
        assert isinstance(view, View)
        calls = len(view.calls)
        while len(view.calls) == calls:  # noqa: ASYNC110 - it is simulated
            await asyncio.sleep(0.001)
        await asyncio.sleep(before_seconds)
        await first.lock.release(is_closed=True)
        await asyncio.sleep(100)
        assert first.lost == []
        assert (content(store)["state"], content(store)["writer"]) == ("closed", None)

    in_memory(test)


def test_a_store_that_is_away_for_a_beat_does_no_harm() -> None:
    """Three beats may be lost, each with an error; then comes the next, and nobody took over."""

    async def test(store: Store) -> None:
        view = View(store)
        first = holder(view)
        await first.lock.acquire("run-1")
        away = False

        async def fail(call: str, key: str) -> None:
            if away and call == "replace":
                raise unavailable(key)

        view.before = fail
        for _ in range(20):
            away = True
            await asyncio.sleep(2 * BEAT_SECONDS)
            away = False
            await asyncio.sleep(2 * BEAT_SECONDS)
        with pytest.raises(errors.DatasetBusy):
            await holder(View(store), "b").lock.acquire("run-2")
        await first.lock.release(is_closed=True)
        assert first.lost == []

    in_memory(test)


def test_a_beat_that_hangs_does_not_cost_the_lock() -> None:
    """One write that takes a minute to fail is one lost beat: the next one is not late by it."""

    async def test(store: Store) -> None:
        view = View(store)
        first = holder(view)
        await first.lock.acquire("run-1")
        hangs = True

        async def hang(call: str, key: str) -> None:
            nonlocal hangs
            if call == "replace" and hangs:
                hangs = False
                await asyncio.sleep(60)
                raise unavailable(key)

        view.before = hang
        assert_busy = holder(View(store), "b")
        for _ in range(20):
            await asyncio.sleep(5)
            with pytest.raises(errors.DatasetBusy):
                await assert_busy.lock.acquire("run-2")
        await first.lock.release(is_closed=True)
        assert first.lost == []

    in_memory(test)


def test_a_beat_goes_on_whatever_the_store_raises() -> None:
    """An error that no store should raise costs one beat, not all that follow."""

    async def test(store: Store) -> None:
        view = View(store)
        first = holder(view)
        await first.lock.acquire("run-1")
        wrong = [RuntimeError("a bug"), errors.BadInput("a bug")]

        async def fail(call: str, _: str) -> None:
            if call == "replace" and wrong:
                raise wrong.pop()

        view.before = fail
        await asyncio.sleep(10 * BEAT_SECONDS)
        seen = await look(View(store))
        assert seen is not None
        assert seen.age_seconds <= BEAT_SECONDS + 3
        await first.lock.release(is_closed=True)

    in_memory(test)


def test_who_waits_lives_through_a_store_that_is_away() -> None:
    """A wait of hours does not end because the store did not answer once."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        view = View(store)
        second = holder(view, "b")
        waits = asyncio.create_task(second.lock.acquire("run-2", wait=True))
        await asyncio.sleep(10)
        away = True

        async def fail(_: str, key: str) -> None:
            if away:
                raise unavailable(key)

        view.before = fail
        await asyncio.sleep(10)
        away = False
        await asyncio.sleep(100)
        await first.lock.release(is_closed=True)
        assert await waits is None
        await second.lock.release(is_closed=True)

    in_memory(test)


def test_a_store_that_refuses_every_replacement_is_not_asked_for_ever() -> None:
    """Where no ETag is ever the right one, taking over ends in an error, and does not spin."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        await first.lock.release(is_closed=True)
        asked = 0

        async def refuse(call: str, key: str) -> None:
            nonlocal asked
            if call == "replace":
                asked += 1
                assert asked < 1000, "it spins"
                raise errors.PreconditionFailed(key)

        begun = asyncio.get_running_loop().time()
        with pytest.raises((errors.RunError, errors.RunPaused)):
            await holder(View(store, before=refuse), "b").lock.acquire("run-2")
        assert asyncio.get_running_loop().time() - begun < 600

    in_memory(test)


def test_a_lock_that_goes_away_while_it_is_looked_at_is_none() -> None:
    """Between the look at it and its reading somebody may remove it: then nobody works on the dataset."""

    async def test(store: Store) -> None:
        first = holder(View(store))
        await first.lock.acquire("run-1")
        await first.lock.release(is_closed=True)

        async def remove(call: str, key: str) -> None:
            if call == "get":
                store.delete(key)

        assert await look(View(store, before=remove)) is None

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


def test_a_store_that_is_away_at_the_end_leaves_it_to_the_lease() -> None:
    """Who cannot give it back says so, and the next one has it when the lease has run out, and closes the run."""

    async def test(store: Store) -> None:
        view = View(store)
        first = holder(view)
        await first.lock.acquire("run-1")

        async def fail(_: str, key: str) -> None:
            raise unavailable(key)

        view.before = fail
        await first.lock.release(is_closed=True)
        assert first.lost == []
        assert await holder(View(store), "b").lock.acquire("run-2", wait=True) == "run-1"

    in_memory(test)


# Whatever happens.


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_nobody_is_told_that_it_was_replaced_unless_it_was(seed: int) -> None:  # noqa: C901 - it is a world
    """With lost answers, late landings and pauses: who is told so finds another one's name in the lock's past."""
    owners: list[str | None] = []

    async def work(process: Process, lost: list[str]) -> None:
        lock = DatasetLock(
            process.storage,
            writer=writer(process.name),
            clock=process.clock,
            lost=lambda _: lost.append(process.name),
            waiting=lambda _: None,
        )
        await lock.acquire(f"run-{process.name}", wait=True)
        try:
            await process.clock.sleep(10 * process.random())
            await lock.begin(f"run-{process.name}")
            await process.clock.sleep(100 * process.random())
        finally:
            await lock.release(is_closed=True)

    async def main(world: World) -> None:
        inner = world.store.put

        def put(key: str, data: bytes) -> Any:
            if key == OPEN_KEY:
                found = json.loads(data)["writer"]
                owners.append(found["token"] if found else None)
            return inner(key, data)

        world.store.put = put  # type: ignore[method-assign]
        owners.clear()
        lost: list[str] = []
        processes = []
        for number in range(3):
            process = Process(world, f"p{number}")
            process.spawn(work(process, lost))
            processes.append(process)
            await asyncio.sleep(world.random.uniform(0, 60))
            if world.random.random() < 0.4:
                process.stall(world.random.uniform(0, 150))
        for process in processes:
            found = await process.wait()
            if isinstance(found.error, errors.Replaced):
                lost.append(process.name)
            elif found.how == "raised":
                assert isinstance(found.error, errors.StorageUnavailable), found.error
        for name in set(lost):
            first = owners.index(name)
            assert any(owner not in {name, None} for owner in owners[first:]), (name, owners)
        assert world.complaints == []

    World(seed, rates=Rates().times(3)).run(main)
