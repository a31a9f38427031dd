"""A journal on stores that lose answers, are busy or away, refuse, or lie."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.variations.chaos.store import Store
from variations import errors
from variations.ledger.journal import PATIENCE_SECONDS
from variations.storage import Entry, Storage

from .journals import claimed, journal, key, replayed
from .stores import Sleeps, View, Wrapped, in_memory, intended, name, unavailable


class LosesAnswers(Wrapped):
    """A store whose answers to the first PUTs are lost: they are repeated below, and find their own objects."""

    lost = 3

    async def put_if_absent(self, key: str, data: bytes, **options: Any) -> Entry | None:
        """Write it, and say that it was there."""
        found = await self.inner.put_if_absent(key, data, **options)
        self.lost -= 1
        return None if self.lost >= 0 else found


class BreaksOff(LosesAnswers):
    """A store that is away, by its word, though it wrote."""

    async def put_if_absent(self, key: str, data: bytes, **options: Any) -> Entry | None:
        """Write it, and say nothing."""
        found = await self.inner.put_if_absent(key, data, **options)
        self.lost -= 1
        if self.lost >= 0:
            raise unavailable(key)
        return found


@pytest.mark.parametrize("kind", [LosesAnswers, BreaksOff])
async def test_ones_own_object_is_known(any_dataset: Storage, kind: type[LosesAnswers]) -> None:
    """A PUT whose answer is lost finds its own object the next time: nobody was replaced, nothing is written twice."""
    sleeps = Sleeps()
    written = await claimed(kind(any_dataset), sleep=sleeps)
    await written.append(intended(1))
    await written.append(intended(2))
    await written.append(intended(3))
    found = await replayed(any_dataset)
    assert found.next_number == written.next_number == 4
    assert list(found.story.items) == [name(number) for number in (1, 2, 3)]


async def test_a_take_over_knows_its_own_object(any_dataset: Storage) -> None:
    """A lost answer to a take-over is no second one."""
    await claimed(any_dataset, "old")
    new = journal(LosesAnswers(any_dataset), "new")
    await new.take_over()
    assert new.next_number == 2
    assert (await replayed(any_dataset)).next_number == 2


async def test_a_stranger_in_ones_place_is_not_oneself(any_dataset: Storage) -> None:
    """Where another writer's object lies, a lost answer changes nothing: it is not ours."""
    old = await claimed(BreaksOff(any_dataset), "old", sleep=Sleeps())
    await journal(any_dataset, "new").take_over()
    with pytest.raises(errors.Replaced):
        await old.append(intended(1))


def test_a_busy_store_is_waited_for() -> None:
    """While the store is busy nothing is lost: the same object is tried again, ever less often, through the sleep."""

    async def test(store: Store, view: View) -> None:
        sleeps = Sleeps()
        written = await claimed(view, sleep=sleeps)
        tries = 0

        async def before(call: str, found: str) -> None:
            nonlocal tries
            tries += call == "put_if_absent"
            if call == "put_if_absent" and tries <= 8:
                raise unavailable(found)

        view.before = before
        await asyncio.gather(*(written.append(intended(number)) for number in range(3)))
        assert sleeps.seconds == [0.5, 1, 2, 4, 8, 15, 15, 15]
        assert list(written.story.items) == [name(number) for number in range(3)]
        assert set(view.puts()) == {key(0), key(1)}
        assert len(store.keys()) == 2

    in_memory(test)


@pytest.mark.parametrize("lands", [False, True])
def test_patience_has_an_end(*, lands: bool) -> None:
    """After three minutes of waiting the writer gives up, everybody who waits is told, and nothing more is written."""

    async def test(store: Store, view: View) -> None:
        loop = asyncio.get_running_loop()
        written = await claimed(view)

        async def fail(call: str, found: str) -> None:
            if call != "now":
                raise unavailable(found)

        setattr(view, "after" if lands else "before", fail)
        begun = loop.time()
        results = await asyncio.gather(
            *(written.append(intended(number)) for number in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, errors.StorageUnavailable) for result in results)
        assert PATIENCE_SECONDS <= loop.time() - begun <= PATIENCE_SECONDS + 20
        calls = len(view.calls)
        with pytest.raises(errors.StorageUnavailable):
            await written.append(intended(4))
        assert len(view.calls) == calls
        assert written.next_number == 1
        assert len(store.keys()) == 1 + lands

    in_memory(test)


def test_patience_counts_the_time_that_the_store_takes() -> None:
    """A store whose every answer takes a minute of tries below is away as long as any other: minutes, not hours."""

    async def test(_: Store, view: View) -> None:
        loop = asyncio.get_running_loop()
        written = await claimed(view)

        async def fail(call: str, found: str) -> None:
            if call == "put_if_absent":
                await asyncio.sleep(60)
                raise unavailable(found)

        view.before = fail
        begun = loop.time()
        with pytest.raises(errors.StorageUnavailable):
            await written.append(intended(1))
        assert loop.time() - begun <= PATIENCE_SECONDS + 2 * 60 + 15

    in_memory(test)


def test_refused_credentials_end_it_at_once() -> None:
    """What waiting does not mend is not waited for: those under way and those gathered are told, and it is over."""

    async def test(store: Store, view: View) -> None:
        sleeps = Sleeps()
        written = await claimed(view, sleep=sleeps)

        async def refuse(call: str, found: str) -> None:
            del call
            raise errors.CredentialsRefused(f"{found}: ExpiredToken")

        view.before = refuse
        first = asyncio.create_task(written.append(intended(1)))
        await asyncio.sleep(0.001)
        second = asyncio.create_task(written.append(intended(2)))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(result, errors.CredentialsRefused) for result in results)
        view.before = View(store).before
        with pytest.raises(errors.CredentialsRefused):
            await written.append(intended(3))
        assert sleeps.seconds == []
        assert len(store.keys()) == 1
        assert written.story.items == {}
        await written.aclose()

    in_memory(test)


@pytest.mark.parametrize("error", [RuntimeError("cannot schedule new futures after shutdown"), MemoryError()])
def test_what_nobody_expected_breaks_the_journal_in_order(error: Exception) -> None:
    """An error that no store should raise is the appender's, as a StorageError; the loop is left with none."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)

        async def fail(*_: str) -> None:
            raise error

        view.before = fail
        with pytest.raises(errors.StorageError, match=type(error).__name__):
            await written.append(intended(1))
        await written.aclose()
        view.before = View(store).before
        with pytest.raises(errors.StorageError):
            await written.append(intended(2))
        assert len(store.keys()) == 1

    in_memory(test)


def test_an_object_that_goes_away_is_damage() -> None:
    """Who deletes a journal while it is read is told which object is missing, in the words for that."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)
        await written.append(intended(1))

        async def remove(call: str, found: str) -> None:
            if call == "get" and found == key(1):
                store.delete(found)

        reader = View(store, before=remove)
        with pytest.raises(errors.StorageError, match=key(1)):
            await replayed(reader)

    in_memory(test)


class LeavesOut(Wrapped):
    """A listing that, as a folder's may, leaves out a file that is written meanwhile, though it has the next one."""

    left_out = key(1)

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield all but one, the first time."""
        left_out, self.left_out = self.left_out, ""
        async for entry in self.inner.list(prefix):
            if entry.key != left_out:
                yield entry


async def test_a_listing_that_leaves_out_what_is_being_written_is_no_damage(dataset: Storage) -> None:
    """A folder is not listed in one moment: a file that came meanwhile may be left out, and a later one be there."""
    written = await claimed(dataset)
    await written.append(intended(1))
    await written.append(intended(2))
    found = await replayed(LeavesOut(dataset))
    assert list(found.story.items) == [name(1), name(2)]
