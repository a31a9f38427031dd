"""The journal of a shard: numbered objects, groups of records, and what is read of them."""

import asyncio
import json

import pytest

from tests.variations.chaos.store import Store
from variations import errors
from variations.layout import journal_prefix
from variations.ledger.records import Accepted, Ended, Group, Header
from variations.storage import Storage

from .journals import RUN, SHARD, claimed, group_of, journal, key, replayed
from .stores import View, accepted, in_memory, intended, name, settled


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


async def test_an_object_in_another_ones_place_is_damage(dataset: Storage) -> None:
    """A header that tells another number than the key does is no part of this journal."""
    await claimed(dataset)
    await dataset.put(key(1), Group(Header(writer="a", number=7), (intended(1),)).to_bytes())
    with pytest.raises(errors.JournalDamaged, match=dataset.uri_of(key(1))):
        await replayed(dataset)


def test_the_end_of_a_shard_is_a_record() -> None:
    """`end` writes the tally, None in it too, as it is."""

    async def test(store: Store, view: View) -> None:
        written = await claimed(view)
        await written.end({"unknowns": {"v": {"since": None}}})
        assert group_of(store, 1).records == (Ended(tally={"unknowns": {"v": {"since": None}}}),)
        assert json.loads(store.get(key(1)).splitlines()[1])["kind"] == "ended"

    in_memory(test)
