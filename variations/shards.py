"""A shard: the variations that were planned for it, its journal, and the rows that follow from both."""

import asyncio
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import outcomes_table, parquet_bytes
from variations.errors import JournalDamaged
from variations.layout import part_key, plan_shard_key, shard_part
from variations.ledger.journal import Journal, read_tally
from variations.ledger.story import Story
from variations.models import Outcome, Variation
from variations.planning.plan_shards import label_schema_of, variations_of
from variations.rolls import is_vacant, with_rolls
from variations.storage import Storage
from variations.tally import Tally


@dataclass(frozen=True, slots=True)
class Shard:
    """What was planned for a shard."""

    run_id: str
    number: int
    table: pa.Table
    signed: dict[str, str] = field(default_factory=dict, repr=False)

    def variations(self, story: Story) -> dict[str, Variation]:
        """Return its variations by their ids, in their order, and those that its journal put in the place of some."""
        planned = {variation.variation_id: variation for variation in variations_of(self.table, signed=self.signed)}
        return with_rolls(planned, story)


async def read_shard(storage: Storage, run_id: str, number: int, *, signed: dict[str, str] | None = None) -> Shard:
    """Read what was planned for a shard.

    Args:
        storage: the dataset.
        run_id: its run.
        number: its number in the run.
        signed: of the sources whose URI carries a signature, public URI → URI.

    Raises:
        JournalDamaged: what lies there is no part of a plan.
        StorageError: the store says no.
    """
    key = plan_shard_key(run_id, number)
    content = await storage.get(key)
    try:
        table = await asyncio.to_thread(lambda: pq.read_table(pa.BufferReader(content)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise JournalDamaged(f"{storage.uri_of(key)}: it is no part of a plan ({error})") from error
    return Shard(run_id, number, table, signed or {})


async def finish_shard(storage: Storage, journal: Journal, shard: Shard, *, model: str, price_usd: float) -> Tally:
    """Write the rows that a shard's journal tells, and then into the journal that this is done.

    The rows lie under the number of journal objects that they follow from: whoever writes rows of that number writes
    the same ones, so that one who was replaced long ago does no harm.

    Raises:
        Replaced, StorageError: it could not be written down; whoever closes the run writes it.
    """
    number = journal.next_number
    outcomes = await asyncio.to_thread(outcomes_of, journal, shard, price_usd=price_usd)
    if outcomes:
        content = await asyncio.to_thread(_rows, outcomes, shard, model)
        await storage.put(part_key(shard.run_id, shard_part(shard.number, number)), content)
    tally = tally_of(journal, shard, outcomes)
    await journal.end(tally.as_dict())
    return tally


async def close_shard(
    storage: Storage, run_id: str, number: int, *, writer: str, model: str, price_usd: float
) -> Tally:
    """Make sure that nobody submits anything more of a shard, and that its rows are written; return what it came to.

    Raises:
        Replaced: somebody else closes it at the same time.
        JournalDamaged: what lies there is not what a run of ours wrote.
        StorageError: the store says no.
    """
    tally = await read_tally(storage, run_id, number)
    if tally is not None:
        return Tally.of_dict(tally)
    journal = Journal(storage, run_id=run_id, shard=number, writer=writer)
    try:
        await journal.take_over()
        if journal.story.tally is not None:
            return Tally.of_dict(journal.story.tally)
        read = await read_shard(storage, run_id, number)
        return await finish_shard(storage, journal, read, model=model, price_usd=price_usd)
    finally:
        await journal.aclose()


def outcomes_of(journal: Journal, shard: Shard, *, price_usd: float) -> list[Outcome]:
    """Return the rows that a shard's journal tells; `price_usd` is that of an image that may be paid for."""
    return journal.story.outcomes(shard.variations(journal.story).get, price_usd=price_usd)


def tally_of(journal: Journal, shard: Shard, outcomes: list[Outcome]) -> Tally:
    """Count what a shard's journal tells, and its rows."""
    begun = {outcome.variation.variation_id for outcome in outcomes}
    tally = Tally(
        variations=len(begun.intersection(shard.table.column("variation_id").to_pylist())),
        accepted=sum(len(item.request_ids) for item in journal.story.items.values()),
        accepted_twice=len(journal.story.accepted_twice()),
        rerolls_left=_rerolls_left(outcomes),
    )
    tally.add(outcomes, run_id=journal.run_id)
    return tally


def _rerolls_left(outcomes: list[Outcome]) -> int:
    """Count the places that what was flagged has left vacant, and that are yet to be filled."""
    filled = {outcome.variation.rolled_from for outcome in outcomes}
    images: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        images.setdefault(outcome.variation.variation_id, []).append(outcome)
    return sum(
        name not in filled and is_vacant(made) and any(one.status == "rejected" and one.can_retry for one in made)
        for name, made in images.items()
    )


def _rows(outcomes: list[Outcome], shard: Shard, model: str) -> bytes:
    labels = label_schema_of(shard.table)
    return parquet_bytes(outcomes_table(outcomes, labels=labels, run_id=shard.run_id, shard=shard.number, model=model))
