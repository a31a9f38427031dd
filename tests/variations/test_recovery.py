"""A run that ended without a word is closed: each of its shards is taken, and has its rows."""

import asyncio
import json

import pytest

from tests.variations import examples
from tests.variations.chaos.store import Store
from tests.variations.ledger.stores import View, in_memory, unavailable
from variations import errors
from variations.layout import journal_key, plan_key, plan_shard_key, receipt_key
from variations.ledger.records import Withdrawn
from variations.plan import Plan
from variations.receipt import Receipt
from variations.storage import Storage
from variations.tally import Tally

from .dead_run import EACH, PRICE, RUN, accepted, close, end, intended, journal, keys, plan_run, rows, settled, wrote


async def test_a_run_without_a_plan_can_never_begin(any_dataset: Storage) -> None:
    """It had paid for nothing: what is left of it is an empty plan, which keeps its process from writing one."""
    for _ in range(2):
        assert await close(any_dataset) == Tally()
    assert await keys(any_dataset) == [plan_key(RUN)]
    assert await any_dataset.put_if_absent(plan_key(RUN), b'{"shards": 3}') is None
    assert json.loads(await any_dataset.get(plan_key(RUN))) == {}


async def test_a_run_that_claimed_nothing_can_claim_nothing_more(any_dataset: Storage) -> None:
    """Every shard is taken, and what was planned is left for the next run."""
    await plan_run(any_dataset, 3)
    tally = await close(any_dataset)
    assert tally == Tally()
    for shard in range(3):
        late = journal(any_dataset, shard)
        with pytest.raises(errors.Replaced):
            await late.claim()
        with pytest.raises(errors.Replaced):
            await late.append(intended(examples.variation()))
    receipt = json.loads(await any_dataset.get(receipt_key(RUN)))
    assert (receipt["stopped_by"], receipt["left"], receipt["accepted"]) == ("crashed", 3 * EACH, 0)
    assert await rows(any_dataset) == []


async def test_a_run_that_died_in_the_middle_has_a_row_for_all_that_may_be_paid_for(any_dataset: Storage) -> None:
    """Of one ended shard, one that was being made, one claimed and one untouched: the sum, and every row."""
    first, second, *_ = await plan_run(any_dataset, 4)
    ended = await wrote(any_dataset, 0, *(settled(one, "kept") for one in first))
    await end(any_dataset, ended)
    a, b, c, d = second
    middle = await wrote(any_dataset, 1, *map(intended, second))
    await middle.append(accepted(a, "ra"), accepted(b, "rb"))
    await middle.append(settled(a, "kept"), Withdrawn(variation_id=d.variation_id, reason="stopped"))
    claimed = await wrote(any_dataset, 2)

    tally = await close(any_dataset)

    assert (tally.kept, tally.unknown, tally.failed, tally.accepted, tally.accepted_twice) == (5, 2, 0, 2, 0)
    assert (tally.variations, round(tally.cost_at_risk_usd, 6)) == (7, 2 * PRICE)
    assert set(tally.unknowns) == {b.variation_id, c.variation_id}
    assert tally.unknowns[b.variation_id].request_id == "rb"
    wanted = [(one.variation_id, "kept") for one in [*first, a]]
    wanted += [(one.variation_id, "unknown") for one in (b, c)]
    assert await rows(any_dataset) == sorted(wanted)
    for sleeper in (middle, claimed):
        with pytest.raises(errors.Replaced):
            await sleeper.append(intended(a))
    receipt = json.loads(await any_dataset.get(receipt_key(RUN)))
    assert (receipt["kept"], receipt["unknown"], receipt["left"]) == (5, 2, 4 * EACH - 7)


async def test_closing_twice_writes_nothing_more(any_dataset: Storage) -> None:
    """The second time finds what the first one wrote, and comes to the same."""
    (only,) = await plan_run(any_dataset, 1)
    await wrote(any_dataset, 0, *map(intended, only))
    tally = await close(any_dataset)
    before = {key: await any_dataset.get(key) for key in await keys(any_dataset)}
    assert await close(any_dataset, "another") == tally
    assert {key: await any_dataset.get(key) for key in await keys(any_dataset)} == before


async def test_what_a_journal_says_of_its_end_can_be_shown(any_dataset: Storage) -> None:
    """A tally that went through a journal counts the same errors, and a receipt of it has its lines."""
    (only,) = await plan_run(any_dataset, 1)
    await wrote(any_dataset, 0, *map(intended, only))
    tally = await close(any_dataset)
    found = journal(any_dataset, 0)
    await found.replay()
    assert found.story.tally is not None
    again = Tally.of_dict(found.story.tally)
    assert again.errors == tally.errors == {"submit_unknown": EACH}
    assert Receipt.of(Plan(RUN, "s", "d"), again).lines()


async def test_a_close_that_died_in_the_middle_is_gone_on_with(any_dataset: Storage) -> None:
    """Who took the journals over and died before the end leaves nothing that the next one cannot close."""
    (only,) = await plan_run(any_dataset, 1)
    await wrote(any_dataset, 0, intended(only[0]))
    half = journal(any_dataset, 0, "half")
    await half.take_over()
    tally = await close(any_dataset)
    assert set(tally.unknowns) == {only[0].variation_id}
    with pytest.raises(errors.Replaced):
        await half.append(intended(only[1]))


async def test_a_receipt_that_is_there_stays(any_dataset: Storage) -> None:
    """A run that wrote its receipt and died before it gave the dataset back keeps its own word."""
    await plan_run(any_dataset, 1)
    await any_dataset.put(receipt_key(RUN), b"its own")
    await close(any_dataset)
    assert await any_dataset.get(receipt_key(RUN)) == b"its own"


async def test_two_that_close_at_once_do_no_harm(any_dataset: Storage) -> None:
    """One of them may be told that it was replaced; the run is closed, and each row stands once."""
    (first, second) = await plan_run(any_dataset, 2)
    await wrote(any_dataset, 0, *map(intended, first))
    await wrote(any_dataset, 1, intended(second[0]), accepted(second[0], "r"))
    results = await asyncio.gather(close(any_dataset, "one"), close(any_dataset, "other"), return_exceptions=True)
    assert all(isinstance(result, Tally | errors.Replaced) for result in results), results
    tally = await close(any_dataset, "third")
    assert (tally.unknown, tally.accepted) == (5, 1)
    assert len(await rows(any_dataset)) == 5


@pytest.mark.parametrize("content", [b"", b"plan", b"\xff", b"[1]", b'"text"', b"7", b'{"shards": 1}', b'{"a": {}}'])
async def test_a_plan_that_is_none_is_damage(dataset: Storage, content: bytes) -> None:
    """What lies in the plan's place and is none is named, and nothing is written."""
    await dataset.put(plan_key(RUN), content)
    with pytest.raises(errors.JournalDamaged, match=dataset.uri_of(plan_key(RUN))):
        await close(dataset)
    assert await keys(dataset) == [plan_key(RUN)]


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
async def test_a_shard_that_is_none_is_an_error_that_names_it(dataset: Storage, content: bytes | None) -> None:
    """A damaged or missing list of variations ends in a StorageError with its URI, and not in another library's."""
    await plan_run(dataset, 1)
    if content is None:
        await dataset.delete(plan_shard_key(RUN, 0))
    else:
        await dataset.put(plan_shard_key(RUN, 0), content)
    with pytest.raises(errors.StorageError, match=dataset.uri_of(plan_shard_key(RUN, 0))):
        await close(dataset)


async def test_a_damaged_journal_is_named(dataset: Storage) -> None:
    """The first damage ends it, with its URI."""
    await plan_run(dataset, 2)
    await dataset.put(journal_key(RUN, 1, 0), b"<html>")
    with pytest.raises(errors.JournalDamaged, match=dataset.uri_of(journal_key(RUN, 1, 0))):
        await close(dataset)


def test_a_close_that_fails_leaves_nothing_under_way() -> None:
    """When it raises, nothing that it began is still trying to write."""

    async def test(store: Store, view: View) -> None:
        await plan_run(view, 2)
        store.put(journal_key(RUN, 0, 0), b"<html>")

        async def before(call: str, key: str) -> None:
            if call == "get" and key == journal_key(RUN, 0, 0):
                await asyncio.sleep(5)
            if call == "put_if_absent" and key == journal_key(RUN, 1, 1) and asyncio.get_running_loop().time() < 1030:
                raise unavailable(key)

        view.before = before
        with pytest.raises(errors.JournalDamaged):
            await close(view)
        await asyncio.sleep(0.1)
        calls = len(view.calls)
        await asyncio.sleep(300)
        assert view.calls[calls:] == []

    in_memory(test)


def test_a_busy_store_is_waited_for() -> None:
    """A store that is away for a minute does not end a close: its journals wait for it."""

    async def test(store: Store, view: View) -> None:
        (only,) = await plan_run(view, 1)
        await wrote(view, 0, *map(intended, only))
        until = asyncio.get_running_loop().time() + 60

        async def before(call: str, key: str) -> None:
            if "journal" in key and call == "put_if_absent" and asyncio.get_running_loop().time() < until:
                raise unavailable(key)

        view.before = before
        assert (await close(view)).unknown == EACH
        assert store.keys(receipt_key(RUN))

    in_memory(test)


def test_the_last_word_of_a_process_that_only_slept_is_in_its_rows() -> None:
    """A record that gets in between the replay and the take-over has its row."""

    async def test(store: Store, view: View) -> None:
        (only,) = await plan_run(view, 1)
        sleeper = await wrote(view, 0, intended(only[0]))
        second = View(store)
        woken = False

        async def before(call: str, key: str) -> None:
            nonlocal woken
            if call == "put_if_absent" and key == journal_key(RUN, 0, 2) and not woken:
                woken = True
                await sleeper.append(accepted(only[0], "r"))

        second.before = before
        tally = await close(second)
        assert woken
        assert tally.unknowns[only[0].variation_id].request_id == "r"
        with pytest.raises(errors.Replaced):
            await sleeper.append(intended(only[1]))

    in_memory(test)
