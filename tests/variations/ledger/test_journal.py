"""The journal of a shard: groups, writers that replace each other, and stores that lose answers, are busy, or lie."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.variations.chaos.store import Store
from tests.variations.chaos.world import Process, Rates, World
from tests.variations.engine.simulation import simulate
from variations import errors
from variations.layout import journal_key, journal_prefix, note_key, notes_prefix
from variations.ledger.journal import PATIENCE_SECONDS, Journal, Note, read_notes
from variations.ledger.records import Accepted, Ended, Group, Header, Record
from variations.storage import Entry, Storage

from .stores import (
    Complaints,
    Sleeps,
    View,
    Wrapped,
    accepted,
    intended,
    memory,
    name,
    settled,
    unavailable,
    withdrawn,
)

RUN = "20260101T000000Z-abcdef"
SHARD = 3


def key(number: int) -> str:
    """Return the key of an object of the journal."""
    return journal_key(RUN, SHARD, number)


def journal(storage: Any, writer: str = "a", **options: Any) -> Journal:
    """Return the journal, as a writer sees it."""
    return Journal(storage, run_id=RUN, shard=SHARD, writer=writer, **options)


async def claimed(storage: Any, writer: str = "a", **options: Any) -> Journal:
    """Return a journal that a writer has claimed."""
    made = journal(storage, writer, **options)
    await made.claim()
    return made


async def replayed(storage: Any) -> Journal:
    """Return the journal, as anybody reads it."""
    reader = journal(storage, "reader")
    await reader.replay()
    return reader


def group_of(store: Store, number: int) -> Group:
    """Return what lies in the store under a number."""
    return Group.of_bytes(store.get(key(number)))


def writers(store: Store) -> list[str]:
    """Return who wrote each object."""
    found = [Group.of_bytes(store.get(name)).header.writer for name in store.keys(journal_prefix(RUN, SHARD))]
    return [name.rpartition(".")[0] for name in found]


def in_memory(test: Callable[[Store, View], Coroutine[Any, Any, None]]) -> None:
    """Run a test on simulated time, with a store and one view of it; the loop is left with nothing to complain of."""

    async def main() -> None:
        complaints = Complaints()
        store = memory()
        await test(store, View(store))
        gc.collect()
        await asyncio.sleep(0)
        assert [(found["message"], found.get("exception")) for found in complaints] == []

    simulate(main())


# On folders and on buckets.


async def test_a_journal_is_numbered_objects(any_dataset: Storage) -> None:
    """A claim is object 0, and each group after it the next; a reader finds the story of the writer."""
    written = await claimed(any_dataset)
    await written.append(intended(1))
    await written.append(accepted(1), settled(1, "kept"))
    await written.end({"kept": 1})
    keys = [entry.key async for entry in any_dataset.list(journal_prefix(RUN, SHARD))]
    assert keys == [key(number) for number in range(4)]
    found = await replayed(any_dataset)
    assert found.next_number == written.next_number == 4
    assert found.story.tally == written.story.tally == {"kept": 1}
    assert list(found.story.items) == list(written.story.items) == [name(1)]
    assert found.story.items[name(1)].images == written.story.items[name(1)].images


async def test_append_tells_the_time_of_the_store(any_dataset: Storage) -> None:
    """A record's time is its object's, by the store's clock, to the second."""
    written = await claimed(any_dataset)
    at = await written.append(intended(1))
    entry = await any_dataset.head(key(1))
    assert entry is not None
    assert abs((at - entry.modified).total_seconds()) <= 1
    assert written.story.items[name(1)].intended_at == at


async def test_only_one_claims(any_dataset: Storage) -> None:
    """Of several that claim a shard at once one gets it, and the others are told so."""
    made = [journal(any_dataset, f"writer-{number}") for number in range(5)]
    results = await asyncio.gather(*(one.claim() for one in made), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, errors.Replaced) for result in results) == 4
    assert (await replayed(any_dataset)).next_number == 1


async def test_who_was_replaced_writes_nothing_more(any_dataset: Storage) -> None:
    """After a take-over the old writer's next record is refused, and so are all after it."""
    old = await claimed(any_dataset, "old")
    await old.append(intended(1))
    new = journal(any_dataset, "new")
    await new.take_over()
    assert [found.variation_id for found in new.story.open_items()] == [name(1)]
    for _ in range(2):
        with pytest.raises(errors.Replaced, match=r"journal/00003/00000002\.jsonl"):
            await old.append(intended(2))
    await new.append(withdrawn(1))
    assert list((await replayed(any_dataset)).story.items) == [name(1)]
    assert list(old.story.items) == [name(1)]


async def test_a_take_over_of_nothing_is_a_claim(any_dataset: Storage) -> None:
    """A shard that nobody began is taken over too, and its own process then comes too late."""
    new = journal(any_dataset, "new")
    await new.take_over()
    late = journal(any_dataset, "late")
    with pytest.raises(errors.Replaced):
        await late.claim()
    with pytest.raises(errors.Replaced):
        await late.append(intended(1))
    assert (await replayed(any_dataset)).next_number == 1


async def test_of_several_that_take_over_the_last_one_writes(any_dataset: Storage) -> None:
    """Each take-over ends the one before, however many there are at once."""
    await claimed(any_dataset, "old")
    made = [journal(any_dataset, f"writer-{number}") for number in range(4)]
    await asyncio.gather(*(one.take_over() for one in made))
    results = await asyncio.gather(*(one.append(intended(1)) for one in made), return_exceptions=True)
    assert sum(isinstance(result, errors.Replaced) for result in results) == 3
    assert len((await replayed(any_dataset)).story.items) == 1


async def test_notes_of_a_replaced_writer_are_read(any_dataset: Storage) -> None:
    """Who learns of a request too late to write it down leaves a note, whatever the API calls the request."""
    old = await claimed(any_dataset, "old")
    await old.append(intended(1), intended(2))
    await journal(any_dataset, "new").take_over()
    for number, request_id in ((1, "request-1"), (2, "../../ü/ \n.json?")):
        with pytest.raises(errors.Replaced):
            await old.accept(name(number), request_id)
    assert await read_notes(any_dataset, RUN) == [
        Note(SHARD, name(1), "request-1"),
        Note(SHARD, name(2), "../../ü/ \n.json?"),
    ]
    assert await read_notes(any_dataset, "another-run") == []


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[]", b'"text"', b"\xff", b'{"shard":0,"variation_id":"v"}'])
async def test_a_note_that_is_none_is_named(dataset: Storage, content: bytes) -> None:
    """What lies among the notes and is none is damage, and the error names it."""
    await dataset.put(note_key(RUN, name(1), "r"), content)
    with pytest.raises(errors.JournalDamaged, match=f"{dataset.uri_of(notes_prefix(RUN))}.*no note"):
        await read_notes(dataset, RUN)


async def test_a_damaged_object_is_named(any_dataset: Storage) -> None:
    """An object that is no journal's ends the replay, with its URI."""
    await claimed(any_dataset)
    await any_dataset.put(key(1), b"<html>")
    for read in (replayed(any_dataset), journal(any_dataset, "new").take_over()):
        with pytest.raises(errors.JournalDamaged, match=any_dataset.uri_of(key(1))):
            await read


async def test_a_missing_object_is_named(any_dataset: Storage) -> None:
    """A gap in the numbers ends the replay, with the URI of what is missing."""
    written = await claimed(any_dataset)
    for number in range(1, 4):
        await written.append(intended(number))
    await any_dataset.delete(key(2))
    for read in (replayed(any_dataset), journal(any_dataset, "new").take_over()):
        with pytest.raises(errors.JournalDamaged, match=any_dataset.uri_of(key(2))):
            await read
    assert await any_dataset.head(key(2)) is None


async def test_a_replay_goes_on_where_it_was(any_dataset: Storage) -> None:
    """Who has read a journal reads only what was written since; many objects come in their order."""
    written = await claimed(any_dataset)
    reader = await replayed(any_dataset)
    for number in range(1, 40):
        await written.append(intended(number))
    await reader.replay()
    await reader.replay()
    assert list(reader.story.items) == [name(number) for number in range(1, 40)]
    assert reader.next_number == 40


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


# In memory, on simulated time.


def test_records_are_committed_in_groups() -> None:
    """While one PUT is under way the next records gather, and all of them share one object, in their order."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)
        first = asyncio.create_task(written.append(intended(1)))
        await asyncio.sleep(0.005)
        others = [asyncio.create_task(written.append(intended(n), accepted(n))) for n in range(2, 12)]
        times = await asyncio.gather(first, *others)
        assert len(set(times[1:])) == 1
        assert group_of(store, 1).records == (intended(1),)
        wanted = [record for number in range(2, 12) for record in (intended(number), accepted(number))]
        assert group_of(store, 2).records == tuple(wanted)
        assert written.next_number == len(store.keys()) == 3

    in_memory(test)


def test_append_returns_when_it_is_durable_and_not_before() -> None:
    """At the moment an append returns, its record lies in the store, and only then is it in the story."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)

        async def add(number: int) -> None:
            await asyncio.sleep(0.003 * number)
            wait = asyncio.create_task(written.append(intended(number)))
            await asyncio.sleep(0)
            assert name(number) not in written.story.items
            await wait
            there = [r for n in range(written.next_number) for r in group_of(store, n).records]
            assert intended(number) in there
            assert name(number) in written.story.items

        await asyncio.gather(*(add(number) for number in range(50)))
        assert len(store.keys()) < 25

    in_memory(test)


def test_the_old_writers_last_word_is_in_the_take_over() -> None:
    """An object that the old writer gets in between the replay and the take-over is part of the story."""

    async def test(store: Store, view: View) -> None:
        old = await claimed(view, "old")
        second = View(store)

        async def before(call: str, found: str) -> None:
            if call == "put_if_absent" and found in {key(1), key(2)}:
                await old.append(accepted(int(found[-7])))

        second.before = before
        new = journal(second, "new")
        await new.take_over()
        assert writers(store) == ["old", "old", "old", "new"]
        assert [found.request_id for found in new.story.open_items()] == ["request-1", "request-2"]
        with pytest.raises(errors.Replaced):
            await old.append(accepted(3))

    in_memory(test)


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


def test_half_a_surrogate_pair_is_written_as_its_escape() -> None:
    """An API's JSON may spell one, and UTF-8 cannot."""

    async def test(_: Store, view: View) -> None:
        written = await claimed(view)
        await written.append(settled(1, "failed", output_url="https://cdn.example/\ud800.jpg"))
        read = journal(view)
        await read.replay()
        (item,) = read.story.items.values()
        assert item.images[0].output_url == "https://cdn.example/\\ud800.jpg"

    in_memory(test)


def test_who_is_cancelled_takes_nothing_back() -> None:
    """What was handed over is written, whether its PUT was under way or still to come, and the others go on."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)
        tasks = [asyncio.create_task(written.append(intended(0)))]
        await asyncio.sleep(0.005)
        tasks += [asyncio.create_task(written.append(intended(number))) for number in range(1, 5)]
        await asyncio.sleep(0.001)
        for task in (tasks[0], tasks[2], tasks[4]):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, True, False, True]
        await written.aclose()
        assert list(written.story.items) == [name(number) for number in range(5)]
        assert list((await replayed(view)).story.items) == [name(number) for number in range(5)]
        assert len(store.keys()) == 3

    in_memory(test)


def test_the_cancelled_are_not_told_of_a_failure() -> None:
    """Where the commit fails after its appender was cancelled, nothing is raised into the void."""

    async def test(_: Store, view: View) -> None:
        written = await claimed(view)
        second = journal(view, "new")
        task = asyncio.create_task(written.append(intended(0)))
        await asyncio.sleep(0)
        await second.take_over()
        task.cancel()
        later = asyncio.create_task(written.append(intended(1)))
        await asyncio.gather(task, later, return_exceptions=True)
        await written.aclose()

    in_memory(test)


def test_aclose_waits_for_what_is_under_way() -> None:
    """After it, nothing is on its way; nothing was, and it returns at once."""

    async def test(store: Store, view: View) -> None:
        written = journal(view)
        await written.aclose()
        await written.claim()
        task = asyncio.create_task(written.append(intended(1)))
        await asyncio.sleep(0)
        task.cancel()
        await written.aclose()
        assert len(store.keys()) == 2

    in_memory(test)


def test_accept_is_one_record() -> None:
    """An accepted request is durable when `accept` returns, with where it was found."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)
        await written.accept(name(1), "r", found_in="history")
        assert group_of(store, 1).records == (Accepted(variation_id=name(1), request_id="r", found_in="history"),)

    in_memory(test)


def test_a_note_waits_for_a_busy_store_too() -> None:
    """A note is the last word on a paid request: it is tried as long as a record is, and the writer stays replaced."""

    async def test(store: Store, view: View) -> None:
        old = await claimed(view, "old")
        await journal(View(store), "new").take_over()
        fails = 3

        async def busy(call: str, found: str) -> None:
            nonlocal fails
            if call == "put" and fails:
                fails -= 1
                raise unavailable(found)

        view.before = busy
        with pytest.raises(errors.Replaced):
            await old.accept(name(1), "r")
        assert await read_notes(view, RUN) == [Note(SHARD, name(1), "r")]

    in_memory(test)


def test_a_note_that_cannot_be_left_changes_nothing_of_the_cause() -> None:
    """The writer was replaced: that is what stops it, whatever becomes of its note."""

    async def test(store: Store, view: View) -> None:
        old = await claimed(view, "old")
        await journal(View(store), "new").take_over()

        async def refuse(call: str, found: str) -> None:
            if call == "put":
                raise errors.AccessDenied(found)

        view.before = refuse
        with pytest.raises(errors.Replaced):
            await old.accept(name(1), "r")

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


async def test_an_object_in_another_ones_place_is_damage(dataset: Storage) -> None:
    """A header that tells another number than the key does is no part of this journal."""
    await claimed(dataset)
    await dataset.put(key(1), Group(Header(writer="a", number=7), (intended(1),)).to_bytes())
    with pytest.raises(errors.JournalDamaged, match=dataset.uri_of(key(1))):
        await replayed(dataset)


async def test_a_writers_second_look_is_another_writer(dataset: Storage) -> None:
    """Two journals of one process on one shard do not both believe that they have claimed it, or may submit."""
    first = await claimed(dataset, "same")
    second = journal(dataset, "same")
    results = list(await asyncio.gather(second.claim(), return_exceptions=True))
    # Both begin with the same variation, as the engine does: what they write is the same to the last byte.
    results += await asyncio.gather(first.append(intended(1)), second.append(intended(1)), return_exceptions=True)
    assert [isinstance(result, errors.Replaced) for result in results] == [True, False, True]


# Whatever happens.

TURBULENT = Rates().times(8)


async def _write(process: Process, *, first: bool, number: int, told: dict[str, list[Any]]) -> None:
    """Write a journal for a while, as a shard's engine does: several at a time, each in its order."""
    written = Journal(process.storage, run_id=RUN, shard=SHARD, writer=process.name, sleep=process.clock.sleep)
    created = told.setdefault("created", [])
    acknowledged = told.setdefault("acknowledged", [])
    if first:
        await written.claim()
    else:
        await written.take_over()
    created.append((process.name, written.next_number - 1))

    async def one(item: int) -> None:
        await process.clock.sleep(5 * process.random())
        for record in (intended(item), accepted(item, f"{process.name}-{item}"), settled(item, "failed")):
            await written.append(record)
            acknowledged.append((process.name, record))
            await process.clock.sleep(process.random())

    await asyncio.gather(*(one(100 * number + item) for item in range(6)), return_exceptions=True)
    await written.aclose()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_no_two_writers_share_a_number_and_nothing_acknowledged_is_lost(seed: int) -> None:
    """Killed, stalled, taken over, with lost answers: each number is one writer's, and each record kept."""
    told: dict[str, list[Any]] = {}

    async def main(world: World) -> None:
        processes = []
        for number in range(4):
            process = Process(world, f"p{number}")
            process.spawn(_write(process, first=number == 0, number=number, told=told))
            processes.append(process)
            await asyncio.sleep(world.random.uniform(0, 6))
            fate = world.random.random()
            if fate < 0.3:
                process.kill()
            elif fate < 0.7:
                process.stall(world.random.uniform(0, 30))
        for process in processes:
            found = await process.wait()
            if found.how == "raised":
                assert isinstance(found.error, errors.Replaced | errors.StorageUnavailable), found.error
        await world.quiet()
        keys = world.store.keys(journal_prefix(RUN, SHARD))
        assert keys == [key(number) for number in range(len(keys))]
        groups = [Group.of_bytes(world.store.get(found)) for found in keys]
        assert [group.header.number for group in groups] == list(range(len(keys)))
        for writer, number in told.get("created", []):
            assert groups[number].header.writer.rpartition(".")[0] == writer
        numbers = [number for _, number in told.get("created", [])]
        assert len(set(numbers)) == len(numbers)
        there: list[tuple[str, Record]] = [
            (group.header.writer.rpartition(".")[0], record) for group in groups for record in group.records
        ]
        for one in told.get("acknowledged", []):
            assert there.count(one) == 1, one
        assert world.complaints == []

    World(seed, rates=TURBULENT).run(main)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_a_take_over_knows_all_that_was_acknowledged_before_it_and_nothing_comes_after(seed: int) -> None:
    """When a take-over returns, its story has each record that is or ever will be acknowledged to the old writer."""
    told: dict[str, list[Any]] = {}

    async def main(world: World) -> None:
        old, new = Process(world, "old"), Process(world, "new")
        old.spawn(_write(old, first=True, number=1, told=told))
        await asyncio.sleep(world.random.uniform(0, 5))
        if world.random.random() < 0.5:
            old.stall(world.random.uniform(0, 20))
        taken = Journal(new.storage, run_id=RUN, shard=SHARD, writer="new", sleep=new.clock.sleep)
        new.spawn(taken.take_over())
        if (await new.wait()).how != "returned":
            return
        requests = {request for item in taken.story.items.values() for request in item.request_ids}
        items = set(taken.story.items)
        await old.wait()
        await world.quiet()
        for writer, record in told.get("acknowledged", []):
            assert writer == "old"
            assert record.variation_id in items
            if isinstance(record, Accepted):
                assert record.request_id in requests

    World(seed, rates=TURBULENT).run(main)


def test_the_end_of_a_shard_is_a_record() -> None:
    """`end` writes the tally, None in it too, as it is."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)
        await written.end({"unknowns": {"v": {"since": None}}})
        assert group_of(store, 1).records == (Ended(tally={"unknowns": {"v": {"since": None}}}),)
        assert json.loads(store.get(key(1)).splitlines()[1])["kind"] == "ended"

    in_memory(test)
