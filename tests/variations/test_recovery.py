"""Recovery: a run that ended without a word is closed, and what it left open is looked for."""

import asyncio
import gc
import json
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.variations import examples
from tests.variations.chaos.store import Store
from tests.variations.engine.simulation import (
    EPOCH,
    ApiRequest,
    FakeApi,
    LoopClock,
    refused,
    simulate,
    staged,
)
from tests.variations.ledger.stores import Complaints, View, memory, unavailable
from variations import errors
from variations.dataset import parquet_bytes
from variations.engine.limits import Limits
from variations.known import Before, Known
from variations.layout import (
    OPEN_KEY,
    journal_key,
    journal_prefix,
    note_key,
    parts_prefix,
    plan_key,
    plan_shard_key,
    receipt_key,
)
from variations.ledger.journal import Journal, read_notes
from variations.ledger.lock import DatasetLock
from variations.ledger.records import Accepted, Intended, Record, Settled, Withdrawn
from variations.ledger.writer import Writer
from variations.models import ImageOutcome, Variation
from variations.plan import cut, variations_of
from variations.publish import publish
from variations.receipt import Plan, Receipt, json_bytes
from variations.recovery import Settler, close_run, peek
from variations.shards import finish_shard, read_shard
from variations.storage import Storage
from variations.tally import Tally

RUN = "20260101T000000Z-abcdef"
PRICE = 0.031
EACH = 4


async def plan_run(storage: Any, shards: int) -> list[list[Variation]]:
    """Write a run's plan, so many shards of four variations each, and return them."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        spool = examples.spool_in(Path(folder))
        examples.planned(spool, [examples.source(f"source-{number}") for number in range(EACH * shards)])
        for number, table in enumerate(cut(spool.variations, EACH)):
            made.append(list(variations_of(table, signed={})))
            await storage.put(plan_shard_key(RUN, number), parquet_bytes(table))
    plan = Plan(RUN, "s3://bucket/manifest.csv", storage.uri, new=EACH * shards, images=EACH * shards, shards=shards)
    content = json_bytes({**asdict(plan), "recipe": {"model": "flux-redux-dev"}})
    assert await storage.put_if_absent(plan_key(RUN), content) is not None
    return made


def journal(storage: Any, shard: int, writer: str = "dead") -> Journal:
    """Return the journal of a shard."""
    return Journal(storage, run_id=RUN, shard=shard, writer=writer)


async def wrote(storage: Any, shard: int, *records: Record) -> Journal:
    """Return the journal of a shard whose process claimed it and wrote so much."""
    made = journal(storage, shard)
    await made.claim()
    if records:
        await made.append(*records)
    return made


def intended(of: Variation) -> Intended:
    """Return the intent of a variation."""
    return Intended(variation_id=of.variation_id, attempt=1, redux_image=of.source.public_uri)


def accepted(of: Variation, request_id: str) -> Accepted:
    """Return its acceptance."""
    return Accepted(variation_id=of.variation_id, request_id=request_id)


def settled(of: Variation, status: Any) -> Settled:
    """Return what became of it."""
    made = ImageOutcome(
        output_index=0,
        status=status,
        image=examples.image(of) if status == "kept" else None,
        error_code=None if status == "kept" else "inference_failed",
        request_id="r",
        cost_usd=PRICE if status == "kept" else 0.0,
    )
    return Settled(variation_id=of.variation_id, images=(made,))


async def close(storage: Any, writer: str = "new") -> Tally:
    """Close the run."""
    return await close_run(storage, RUN, writer=writer, price_usd=PRICE)


async def keys(storage: Any, prefix: str = "") -> list[str]:
    """Return what lies there."""
    return [entry.key async for entry in storage.list(prefix)]


async def rows(storage: Any) -> list[tuple[str, str]]:
    """Return variation and status of every row that the run has written."""
    newest: dict[str, str] = {}
    for key in await keys(storage, parts_prefix(RUN)):
        newest[key.rpartition("-")[0]] = key
    found = []
    for key in newest.values():
        table = pq.read_table(pa.BufferReader(await storage.get(key)))
        found += zip(table["variation_id"].to_pylist(), table["status"].to_pylist(), strict=True)
    return sorted(found)


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


# To close.


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


async def end(storage: Any, made: Journal) -> Tally:
    """End a shard as its own process does."""
    shard = await read_shard(storage, RUN, made.shard)
    return await finish_shard(storage, made, shard, model="flux-redux-dev", price_usd=PRICE)


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


# To settle.


def holding(*items: Variation, request_id: str | None = None) -> Known:
    """Return what a dataset knows that holds these."""
    known = Known()
    for one in items:
        known.note("unknown", bytes.fromhex(one.variation_id), Before(1, RUN, 0, request_id))
    return known


def settle(
    records: Callable[[list[Variation]], Iterable[Record]],
    test: Callable[[View, Any, list[Variation], Settler], Coroutine[Any, Any, None]],
    *,
    later_seconds: float = 1000.0,
    **api: Any,
) -> None:
    """Let a run die after its records, close it, and settle what it held, so much later."""

    async def main(_: Store, view: View) -> None:
        (only,) = await plan_run(view, 1)
        await wrote(view, 0, *records(only))
        await close(view)
        await asyncio.sleep(later_seconds)
        async with staged(FakeApi(**api), view) as stage:
            settler = Settler(view, engine=stage.engine, writer="new", limits=Limits(price_usd=PRICE))
            await test(view, stage, only, settler)

    in_memory(main)


def is_done(api: FakeApi, request_id: str, of: Variation) -> None:
    """Let the API have made a request."""
    inputs = {"redux_image": of.source.uri, **of.parameters.as_sent()}
    now = LoopClock().monotonic()
    api.requests[request_id] = ApiRequest(request_id, inputs, now - 100, now - 80)


def test_a_note_is_adopted_and_its_image_fetched() -> None:
    """What a replaced writer learned too late is written into the journal, polled, kept, and in the rows."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        is_done(stage.api, "late", only[0])
        content = {"variation_id": only[0].variation_id, "request_id": "late", "shard": 0}
        await view.put(note_key(RUN, only[0].variation_id, "late"), json.dumps(content).encode())
        recovery = await settler.settle(holding(only[0], only[1]))
        assert (recovery.kept, recovery.still_unknown) == (1, 1)
        assert settler.touched == {RUN}
        found = journal(view, 0)
        await found.replay()
        item = found.story.items[only[0].variation_id]
        assert (item.request_ids, [image.status for image in item.images]) == (["late"], ["kept"])
        assert dict(await rows(view)) == {only[0].variation_id: "kept", only[1].variation_id: "unknown"}
        assert stage.api.submitted == []
        assert set(settler.not_found) == {bytes.fromhex(only[1].variation_id)}

    settle(lambda only: [intended(only[0]), intended(only[1])], test)


def test_notes_of_the_closed_process_itself_are_found_by_the_next_run() -> None:
    """From the sleeping process that wakes after its replacement to the image: nothing of it is lost."""

    async def main(store: Store, view: View) -> None:
        (only,) = await plan_run(view, 1)
        sleeper = await wrote(view, 0, intended(only[0]))
        await close(View(store))
        with pytest.raises(errors.Replaced):
            await sleeper.accept(only[0].variation_id, "late")
        assert [note.request_id for note in await read_notes(view, RUN)] == ["late"]
        async with staged(FakeApi(), view) as stage:
            is_done(stage.api, "late", only[0])
            settler = Settler(view, engine=stage.engine, writer="new", limits=Limits(price_usd=PRICE))
            assert (await settler.settle(holding(only[0]))).kept == 1
        await publish(view, [RUN])
        assert bytes.fromhex(only[0].variation_id) in (await peek(view)).done

    in_memory(main)


def test_what_the_history_does_not_show_may_be_submitted_again_later() -> None:
    """It was looked for, and not found, with the seconds since its intent."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        await settler.settle(holding(only[0]))
        assert stage.api.times("history page")
        (seconds,) = settler.not_found.values()
        assert 1000 <= seconds <= 1200
        assert stage.api.submitted == []

    settle(lambda only: [intended(only[0])], test)


def test_where_the_history_cannot_be_read_nothing_is_not_found() -> None:
    """A history that fails every time says nothing: what it may hold must not be submitted, and paid for, again."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        await settler.settle(holding(only[0]))
        assert stage.api.times("history page")
        assert settler.not_found == {}

    settle(lambda only: [intended(only[0])], test, on_history_page=lambda _: refused(500))


def test_where_the_engine_was_stopped_before_the_look_nothing_is_not_found() -> None:
    """What was not looked for is not a thing that was not found."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        settling = asyncio.create_task(settler.settle(holding(only[0])))
        await asyncio.sleep(0.03)
        stage.engine.stop(errors.StoppedByUser("stopped"))
        await settling
        assert stage.api.times("history page") == []
        assert settler.not_found == {}
        await asyncio.sleep(60)

    settle(lambda only: [intended(only[0])], test)


def test_an_intent_that_is_not_over_is_not_not_found() -> None:
    """While its POST may still leave, from a process that slept, it must not be submitted again."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        del stage
        await settler.settle(holding(only[0]))
        assert all(seconds > Limits().intent_is_over_seconds for seconds in settler.not_found.values())

    settle(lambda only: [intended(only[0])], test, later_seconds=5.0)


def test_an_accepted_request_is_fetched() -> None:
    """What was in flight when its process died is polled, kept and paid once."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        is_done(stage.api, "ra", only[0])
        recovery = await settler.settle(holding(only[0], request_id="ra"))
        assert (recovery.kept, recovery.still_unknown) == (1, 0)
        assert settler.not_found == {}
        assert await rows(view) == [(only[0].variation_id, "kept")]
        assert stage.api.submitted == []

    settle(lambda only: [intended(only[0]), accepted(only[0], "ra")], test)


def test_what_is_too_old_to_be_had_has_failed() -> None:
    """After nine days no output is left: nobody is asked for it, it was paid, and trying it again is up to the user."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        recovery = await settler.settle(holding(only[0], request_id="ra"))
        assert (recovery.looked_for, recovery.still_unknown) == (0, 0)
        assert stage.api.calls == []
        assert await rows(view) == [(only[0].variation_id, "failed")]
        found = journal(view, 0)
        await found.replay()
        (image,) = found.story.items[only[0].variation_id].images
        assert (image.error_code, image.request_id, image.cost_usd, image.can_retry) == (
            "request_gone",
            "ra",
            PRICE,
            True,
        )
        assert settler.not_found == {}

    settle(
        lambda only: [intended(only[0]), accepted(only[0], "ra")],
        test,
        later_seconds=timedelta(days=9).total_seconds(),
    )


# To peek.


async def open_lock(storage: Any) -> DatasetLock:
    """Let a process hold the dataset, and its run be the open one."""
    lock = DatasetLock(storage, writer=Writer(token="t", host="h", pid=1), clock=LoopClock())
    await lock.acquire(RUN)
    return lock


def test_who_peeks_sees_what_an_open_run_has_made() -> None:
    """Kept, failed and open ones of its journals count, and nothing is written."""

    async def test(_: Store, view: View) -> None:
        lock = await open_lock(view)
        (only, other) = await plan_run(view, 2)
        a, b, c, d = only
        await wrote(view, 0, *map(intended, only), accepted(b, "rb"), settled(a, "kept"), settled(c, "failed"))
        await wrote(view, 1, intended(other[0]), Withdrawn(variation_id=other[0].variation_id, reason="stopped"))
        view.calls.clear()
        known = await peek(view)
        assert {call for call, _ in view.calls} <= {"head", "get", "list", "folders", "now"}
        assert {key.hex() for key in known.done} == {a.variation_id}
        assert {key.hex() for key in known.failed} == {c.variation_id}
        assert {key.hex(): before.request_id for key, before in known.held.items()} == {
            b.variation_id: "rb",
            d.variation_id: None,
        }
        assert known.unknown == known.held
        await lock.release(is_closed=False)

    in_memory(test)


async def test_who_peeks_at_nothing_sees_nothing(any_dataset: Storage) -> None:
    """An empty dataset has nothing, and stays empty."""
    known = await peek(any_dataset)
    assert known == Known()
    assert await keys(any_dataset) == []


def test_who_peeks_while_a_shard_ends_sees_its_images() -> None:
    """Rows that are written after the parts were read, and before the journal is, are not overlooked."""

    async def test(store: Store, view: View) -> None:
        lock = await open_lock(view)
        (only,) = await plan_run(view, 1)
        made = await wrote(view, 0, *map(intended, only), *(settled(one, "kept") for one in only))
        second = View(store)

        async def before(call: str, key: str) -> None:
            if call == "folders" and key == journal_prefix(RUN):
                await end(view, made)

        second.before = before
        assert len((await peek(second)).done) == EACH
        await lock.release(is_closed=False)

    in_memory(test)


def test_a_strangers_folder_among_the_journals_is_no_crash() -> None:
    """What is no journal's folder is left alone, or is damage with a name."""

    async def test(_: Store, view: View) -> None:
        lock = await open_lock(view)
        await plan_run(view, 1)
        await view.put(f"{journal_prefix(RUN)}backup/notes.txt", b"mine")
        (result,) = await asyncio.gather(peek(view), return_exceptions=True)
        assert isinstance(result, Known) or (isinstance(result, errors.JournalDamaged) and "backup" in str(result))
        await lock.release(is_closed=False)

    in_memory(test)


async def test_who_peeks_at_a_lock_that_is_none_is_told(dataset: Storage) -> None:
    """It is named."""
    await dataset.put(OPEN_KEY, b"{}")
    with pytest.raises(errors.JournalDamaged, match=dataset.uri_of(OPEN_KEY)):
        await peek(dataset)


def test_the_epoch_is_the_stores() -> None:
    """The simulated store and the simulated API tell the same time."""

    async def test(store: Store, _: View) -> None:
        assert abs((store.now() - LoopClock().now()).total_seconds()) <= 1
        assert store.now() > EPOCH

    in_memory(test)
