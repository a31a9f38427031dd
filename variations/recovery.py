"""What comes before anything new is paid: close a run that ended without a word, and look for what is open.

To close a run is bookkeeping: take its journals over, so that its process, should it only sleep, can submit nothing
more, and write the rows that they tell. To settle is to ask the API: what was accepted is fetched, within the hour from
the API itself and later by its history, and a submit whose answer was lost is looked for in the history by its inputs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from variations import errors
from variations.engine.engine import Engine
from variations.engine.limits import Limits
from variations.gate import Gate
from variations.known import Before, Known
from variations.layout import journal_prefix, plan_key, receipt_key
from variations.ledger.journal import Journal, Note, read_notes
from variations.ledger.lock import look
from variations.ledger.records import Settled
from variations.ledger.story import Item
from variations.models import Outcome, Variation
from variations.parameters import MODEL
from variations.planned import read_planned
from variations.publish import read_known
from variations.receipt import Receipt
from variations.rolls import settled_together
from variations.shards import Shard, close_shard, finish_shard, read_shard
from variations.storage import Storage
from variations.tally import Recovery, Tally
from variations.unsettled import adopt_notes, age_seconds, tell_requests, unsettled_of

# Output files live for about 7 days. What is older cannot be had any more, and is not asked for again.
SETTLE_SECONDS: Final = 8 * 86400.0
# The history answers for 31; what may never have been accepted is looked for that long.
LOOK_SECONDS: Final = 30 * 86400.0
_AT_ONCE: Final = 16

T = TypeVar("T")
A = TypeVar("A")

logger = logging.getLogger(__name__)


async def close_run(storage: Storage, run_id: str, *, writer: str, price_usd: float) -> Tally:
    """Close a run whose process is gone, or sleeps; afterwards it can submit nothing more, and its rows are written.

    Raises:
        Replaced: somebody else closes it at the same time.
        JournalDamaged: what lies there is not what a run of ours wrote.
        StorageError: the store says no.
    """
    # A plan is created only once: where there is none yet, this one keeps the run from ever beginning.
    await storage.put_if_absent(plan_key(run_id), b"{}\n")
    planned = await read_planned(storage, run_id)
    if planned is None:
        return Tally()
    plan, model = planned.plan, planned.model

    async def close(shard: int) -> Tally:
        return await close_shard(storage, run_id, shard, writer=writer, model=model, price_usd=price_usd)

    tally = Tally()
    for one in await at_once(close, range(plan.shards)):
        tally.merge(one)
    receipt = Receipt.of(
        plan,
        tally,
        stopped_by="crashed",
        stopped_because="its process ended without a word; what it had begun was taken in hand by the next run",
    )
    await storage.put_if_absent(receipt_key(run_id), receipt.to_bytes())
    return tally


async def peek(storage: Storage) -> Known:
    """Read what the dataset has, what a run that is still open has made included; writes nothing, and asks no API."""
    seen = await look(storage)
    if seen is None or seen.run.state == "closed":
        return await read_known(storage)
    run_id = seen.run.run_id
    known = await read_known(storage)

    async def add(shard: int) -> None:
        journal = Journal(storage, run_id=run_id, shard=shard, writer="")
        await journal.replay()
        for item in journal.story.items.values():
            _note(known, item, Before(item.attempt, run_id, shard, item.request_id))

    await at_once(add, await shards_begun(storage, run_id))
    return known


async def shards_begun(storage: Storage, run_id: str) -> list[int]:
    """Return the numbers of a run's shards that have a journal."""
    return [int(name) async for name in storage.folders(journal_prefix(run_id)) if name.isascii() and name.isdigit()]


class Settler:
    """Find out what became of requests that earlier runs left open.

    Args:
        storage: the dataset.
        engine: asks the API; its slots and its rate are shared with everything else.
        writer: the token of this process in the journals.
        limits: the price of an image, for what stays unknown, and how long an intent holds.

    Attributes:
        touched: the runs whose rows have changed.
        not_found: the variations whose submit can no longer be under way, and which the history was read for and does
            not show, with the seconds since their intent.
    """

    def __init__(self, storage: Storage, *, engine: Engine, writer: str, limits: Limits) -> None:
        self._storage = storage
        self._engine = engine
        self._writer = writer
        self._price_usd = limits.price_usd
        self._intent_is_over_seconds = limits.intent_is_over_seconds
        self._notes: dict[str, asyncio.Task[list[Note]]] = {}
        self._settled = 0
        self.touched: set[str] = set()
        self.not_found: dict[bytes, float] = {}
        self.result = Recovery()

    async def settle(self, known: Known) -> Recovery:
        """Look for everything that is held.

        Raises:
            JournalDamaged, StorageError: as they come.
        """
        shards: dict[tuple[str, int], list[str]] = {}
        for key, before in known.held.items():
            if before.shard is not None:
                shards.setdefault((before.run_id, before.shard), []).append(key.hex())
        # Taken before the store tells the time: what is old by it is at least as old, however long that takes and
        # however long it is until somebody looks for it.
        asked = self._engine.clock.monotonic()
        now = await self._storage.now() if shards else None

        async def settle_shard(place: tuple[str, int]) -> None:
            if now is None or self._engine.stopped_by is not None:
                return
            try:
                await self._settle_shard(*place, wanted=shards[place], now=now, asked=asked)
            except (errors.JournalDamaged, errors.ObjectNotFound) as error:
                # What one closed run left must not keep every later one from working: its items stay held.
                logger.warning("what is unknown of the run %s stays so: %s", place[0], error)

        await at_once(settle_shard, sorted(shards))
        self.result.still_unknown = len(known.held) - self._settled
        return self.result

    async def _settle_shard(self, run_id: str, number: int, *, wanted: list[str], now: datetime, asked: float) -> None:
        journal = Journal(self._storage, run_id=run_id, shard=number, writer=self._writer)
        await journal.replay()
        items = [journal.story.items[name] for name in wanted if name in journal.story.items]
        stale = [item for item in items if not item.is_open]
        # The history cannot answer any more; so whoever asks for it may have these submitted again.
        old = [
            item for item in items if item.is_open and item.request_id is None and age_seconds(item, now) > LOOK_SECONDS
        ]
        self.not_found.update((bytes.fromhex(item.variation_id), age_seconds(item, now)) for item in old)
        young = [item for item in items if item.is_open and age_seconds(item, now) <= _lookable_seconds(item)]
        gone = [item for item in items if item.is_open and item.request_id and age_seconds(item, now) > SETTLE_SECONDS]
        if not stale and not young and not gone:
            return
        tell_requests(self._engine, journal)
        before = journal.next_number
        shard = await read_shard(self._storage, run_id, number)
        if any(item.request_id is None for item in young):
            await adopt_notes(journal, await self._notes_of(run_id), young)
        variations = shard.variations(journal.story)
        for item in gone:
            await self._give_up(item, variations[item.variation_id], journal)
        unsettled = unsettled_of(young, variations, now=now, asked=asked)
        try:
            outcomes = await self._engine.resume(unsettled, journal, gate=await self._gate_of(run_id))
        finally:
            await journal.aclose()
        self.result.looked_for += len(unsettled)
        self._count(outcomes, {item.variation_id: age_seconds(item, now) for item in young})
        self._settled += sum(not item.is_open for item in items)
        if journal.next_number > before or stale:
            self.touched.add(run_id)
            self.result.has_changed = True
        # Whoever settled the stale ones may not have come to their rows.
        if journal.next_number > before or journal.story.tally is None:
            await self._rewrite(journal, shard)

    def _count(self, outcomes: Iterable[Outcome], ages: Mapping[str, float]) -> None:
        for outcome in outcomes:
            self.result.kept += outcome.status == "kept"
            self.result.failed += outcome.status == "failed"
            self.result.dropped += outcome.is_dropped
            self.result.cost_usd += outcome.cost_usd if outcome.status != "unknown" else 0.0
            name = outcome.variation.variation_id
            # While the intent holds, the one who wrote it may only be asleep, and submit it yet.
            if outcome.error_code == errors.NotInHistory.code and ages[name] > self._intent_is_over_seconds:
                self.not_found[bytes.fromhex(name)] = ages[name]

    async def _give_up(self, item: Item, variation: Variation, journal: Journal) -> None:
        """Write down the end of a request whose images were not fetched while they were there: paid, and gone."""
        error = errors.RequestGone("its image was not fetched in the 7 days that it was there")
        before = list(item.outcomes(variation, price_usd=self._price_usd))
        after = settled_together(
            [
                replace(image, status="failed", error_code=error.code, error=error.message, can_retry=True)
                if image.status == "unknown"
                else image
                for image in before
            ]
        )
        self._count([new for old, new in zip(before, after, strict=True) if old.status == "unknown"], {})
        images = tuple(image.without_variation() for image in after)
        await journal.append(Settled(variation_id=item.variation_id, images=images))
        self.result.looked_for += 1

    async def _rewrite(self, journal: Journal, shard: Shard) -> None:
        try:
            await finish_shard(self._storage, journal, shard, model=MODEL, price_usd=self._price_usd)
        except errors.RunError as error:
            self._engine.stop(error)

    async def _gate_of(self, run_id: str) -> Gate | None:
        """Return by what a run's images are judged, whoever fetches them."""
        planned = await read_planned(self._storage, run_id)
        return planned.gate if planned is not None else None

    async def _notes_of(self, run_id: str) -> list[Note]:
        reading = self._notes.get(run_id)
        if reading is None:
            reading = self._notes[run_id] = asyncio.create_task(read_notes(self._storage, run_id))
        return await reading


def _note(known: Known, item: Item, before: Before) -> None:
    key = bytes.fromhex(item.variation_id)
    if any(image.status == "kept" for image in item.images):
        known.done.add(key)
    elif item.is_open:
        known.note("unknown", key, before)
    elif item.images:
        is_flagged = any(image.status == "rejected" for image in item.images)
        known.note("rejected" if is_flagged else "failed", key, before)


def _lookable_seconds(item: Item) -> float:
    return LOOK_SECONDS if item.request_id is None else SETTLE_SECONDS


async def at_once(call: Callable[[A], Awaitable[T]], arguments: Iterable[A]) -> list[T]:
    """Call for each argument, so many at a time; the first error ends all."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(argument: A) -> T:
        async with places:
            return await call(argument)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(argument)) for argument in arguments]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]
