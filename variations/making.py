"""Make shards: take a shard's journal in hand, run the engine over what is to be made, and write its rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from variations.engine.engine import Engine
from variations.errors import Replaced, StorageError
from variations.ledger.journal import Journal, read_notes
from variations.ledger.writer import Writer
from variations.models import Variation
from variations.planning.plan_shards import variations_of
from variations.rolls import rolls_due
from variations.shards import Shard, finish_shard, outcomes_of, read_shard, tally_of
from variations.storage import Storage
from variations.tally import Tally
from variations.unsettled import adopt_notes, tell_requests, unsettled_of


@dataclass(slots=True)
class _Begun:
    """A shard that was begun: its journal until its rows are written, and then what they came to."""

    journal: Journal | None
    is_claimed: bool = False
    has_waiting: bool = True
    shard: Shard | None = None
    tally: Tally | None = None

    def end(self, tally: Tally) -> None:
        """Keep the numbers and let go of the rest: a large run has a million items in its journals."""
        self.tally = tally
        self.journal = self.shard = None
        self.has_waiting = False

    def handing_over(self, variations: Iterable[Variation]) -> Iterator[Variation]:
        """Pass variations on, and note that none waits here any more once the last one has its slot."""
        yield from variations
        self.has_waiting = False

    def told(self, *, price_usd: float) -> Tally:
        """Return what it came to, or what its journal tells so far."""
        if self.tally is not None or self.journal is None or self.shard is None:
            return self.tally or Tally()
        return tally_of(self.journal, self.shard, outcomes_of(self.journal, self.shard, price_usd=price_usd))


class ShardMaker:
    """Makes shards of one run in this process, each once.

    Args:
        storage: the dataset.
        engine: does it; its slots, its rate and its budget are shared by all of them.
        writer: this process.
        run_id: of the run.
        model: that is asked.
        signed: public URI → URI, of the sources whose URI carries a signature.
        is_shared: whether others take over what is not done of a shard when the engine is stopped; else its rows are
            written, and what is left is for the next run.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        engine: Engine,
        writer: Writer,
        run_id: str,
        model: str,
        signed: Mapping[str, str],
        is_shared: bool = False,
    ) -> None:
        self._storage = storage
        self._engine = engine
        self._writer = writer
        self._run_id = run_id
        self._model = model
        self._signed = dict(signed)
        self._is_shared = is_shared
        self._begun: dict[int, _Begun] = {}

    def __contains__(self, shard: int) -> bool:
        """Return whether the shard was begun here."""
        return shard in self._begun

    @property
    def in_hand(self) -> int:
        """Return how many shards were begun here whose rows are not written."""
        return sum(1 for begun in self._begun.values() if begun.tally is None)

    @property
    def has_waiting(self) -> bool:
        """Return whether anything that was begun here waits for a slot."""
        return any(begun.has_waiting for begun in self._begun.values())

    async def claim(self, shard: int) -> bool:
        """Take a shard that nobody has begun; returns whether it is this process's now.

        Raises:
            StorageError: the store says no.
        """
        journal = self._journal(shard)
        try:
            await journal.claim()
        except Replaced:
            return False
        self._begun[shard] = _Begun(journal, is_claimed=True)
        return True

    async def take_over(self, shard: int, gone: str) -> bool:
        """Take a shard from a writer that is gone; returns whether it is this process's now, and not another's.

        Whoever wrote before can submit nothing more of it.

        Args:
            shard: its number.
            gone: who wrote last in its journal.

        Raises:
            JournalDamaged, StorageError: as they come.
        """
        journal = self._journal(shard)
        if not await journal.succeed(gone):
            return False
        self._begun[shard] = _Begun(journal, is_claimed=True)
        return True

    async def make(self, shard: int) -> Tally:
        """Make the variations of a shard, claimed before or now, and write its rows.

        What an earlier writer left open is fetched and not submitted again. When the engine has been stopped, what is
        in flight is made, and the others are left. A destination that cannot be written stops the engine.

        Raises:
            RuntimeError: the shard was made already; making it again would pay again.
        """
        begun = self._begun.setdefault(shard, _Begun(self._journal(shard)))
        journal = begun.journal
        if begun.shard is not None or journal is None:
            raise RuntimeError(f"shard {shard} was begun already, and is not made twice")
        try:
            planned = begun.shard = await read_shard(self._storage, self._run_id, shard, signed=self._signed)
            if not begun.is_claimed:
                await journal.claim()
            begun_before = await self._resume(journal, planned)
            variations = variations_of(planned.table, signed=self._signed)
            to_make = (one for one in variations if one.variation_id not in begun_before)
            await self._engine.run(begun.handing_over(chain(self._rolls_due(journal, planned), to_make)), journal)
            await journal.aclose()
            if not (self._is_shared and self._engine.stopped_by is not None):
                begun.end(await self._finish(journal, planned))
        except (StorageError, Replaced) as error:
            self._engine.stop(error)
        return begun.told(price_usd=self._engine.budget.price_usd)

    async def _resume(self, journal: Journal, shard: Shard) -> set[str]:
        """Fetch what an earlier writer of a shard submitted; returns what is not to be made any more."""
        items = {name: item for name, item in journal.story.items.items() if item.images or not item.is_withdrawn}
        still_open = [item for item in items.values() if item.is_open]
        if still_open:
            asked = self._engine.clock.monotonic()
            now = await self._storage.now()
            tell_requests(self._engine, journal)
            await adopt_notes(journal, await read_notes(self._storage, self._run_id), still_open)
            unsettled = unsettled_of(still_open, shard.variations(journal.story), now=now, asked=asked)
            for outcome in await self._engine.resume(unsettled, journal):
                self._engine.count(outcome)
        return set(items)

    def _rolls_due(self, journal: Journal, shard: Shard) -> list[Variation]:
        """Return what is to take the place of images that an earlier writer made, or that were fetched for it."""
        story, most = journal.story, self._engine.gate.rolls
        if not story.items or most == 1:
            return []
        return list(rolls_due(shard.variations(story), story, most=most))

    async def finish(self) -> None:
        """Write the rows of shards that could not be written at their end, from what their journals hold.

        Raises:
            Replaced, StorageError: they cannot be written now, either.
        """
        for number, begun in self._begun.items():
            if begun.tally is not None:
                continue
            journal = self._journal(number)
            await journal.replay()
            if journal.story.tally is None:
                begun.end(await self._finish(journal, await read_shard(self._storage, self._run_id, number)))
            else:
                begun.end(Tally.of_dict(journal.story.tally))

    def tally(self) -> Tally:
        """Return what the shards have come to so far."""
        tally = Tally()
        for begun in self._begun.values():
            tally.merge(begun.told(price_usd=self._engine.budget.price_usd))
        return tally

    def _journal(self, shard: int) -> Journal:
        sleep = self._engine.clock.sleep
        return Journal(self._storage, run_id=self._run_id, shard=shard, writer=self._writer.token, sleep=sleep)

    async def _finish(self, journal: Journal, shard: Shard) -> Tally:
        price_usd = self._engine.budget.price_usd
        return await finish_shard(self._storage, journal, shard, model=self._model, price_usd=price_usd)
