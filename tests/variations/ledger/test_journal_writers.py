"""Writers of a journal that replace each other: one of them writes, and the others are told."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.variations.chaos.store import Store
from tests.variations.chaos.world import Process, Rates, World
from variations import errors
from variations.layout import journal_prefix, note_key, notes_prefix
from variations.ledger.journal import Journal, Note, read_notes
from variations.ledger.records import Accepted, Group, Record
from variations.storage import Storage

from .journals import RUN, SHARD, claimed, journal, key, replayed, writers
from .stores import View, accepted, in_memory, intended, name, settled, unavailable, withdrawn


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


async def test_a_writers_second_look_is_another_writer(dataset: Storage) -> None:
    """Two journals of one process on one shard do not both believe that they have claimed it, or may submit."""
    first = await claimed(dataset, "same")
    second = journal(dataset, "same")
    results = list(await asyncio.gather(second.claim(), return_exceptions=True))
    # Both begin with the same variation, as the engine does: what they write is the same to the last byte.
    results += await asyncio.gather(first.append(intended(1)), second.append(intended(1)), return_exceptions=True)
    assert [isinstance(result, errors.Replaced) for result in results] == [True, False, True]


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
