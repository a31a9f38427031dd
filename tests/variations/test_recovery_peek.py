"""Who peeks at a dataset sees what an open run has made, and writes nothing."""

import asyncio
from typing import Any

import pytest

from tests.variations.chaos.store import Store
from tests.variations.engine.simulation import LoopClock
from tests.variations.ledger.stores import View, in_memory
from variations import errors
from variations.known import Known
from variations.layout import OPEN_KEY, journal_prefix
from variations.ledger.lock import DatasetLock
from variations.ledger.records import Withdrawn
from variations.ledger.writer import Writer
from variations.recovery import peek
from variations.storage import Storage

from .dead_run import EACH, RUN, accepted, end, intended, keys, plan_run, settled, wrote


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
