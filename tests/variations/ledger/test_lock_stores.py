"""The lock of a dataset on stores that lose answers, are slow or away, or refuse."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.variations.chaos.store import Store
from tests.variations.chaos.world import Process, Rates, World
from variations import errors
from variations.layout import OPEN_KEY
from variations.ledger.lock import DatasetLock, look

from .locks import BEAT_SECONDS, content, holder, in_memory, writer
from .stores import View, unavailable


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
