"""How far the run is that is open: by its plan, by its journals, and by its workers' signs of life."""

from dataclasses import dataclass, field
from typing import Any

from variations.errors import ObjectNotFound
from variations.ledger.journal import Journal
from variations.ledger.lock import OpenRun
from variations.ledger.story import Item
from variations.planned import read_planned
from variations.recovery import at_once, shards_begun
from variations.storage import Storage
from variations.texts import duration
from variations.workers.roster import Roster, Sign


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker that has not left in order.

    Attributes:
        sign: its last sign of life.
        age_seconds: of that, by the store's clock.
        is_silent: whether its lease has run out since.
    """

    sign: Sign
    age_seconds: float
    is_silent: bool

    def told(self) -> str:
        """Say what it has done, and whether it lives."""
        one = self.sign
        parts = [f"{one.kept:,} kept"] + ([f"{one.failed:,} failed"] if one.failed else [])
        told = f"{one.writer}: {', '.join(parts)}, {one.in_flight} in flight"
        if one.writer.is_certainly_dead():
            return f"{told} when it died; {'another one takes' if self.is_silent else 'soon another one takes'} it over"
        if self.is_silent:
            ago = ago_text(self.age_seconds)
            return f"{told}; its last sign of life was {ago} ago: it is most likely gone, and another one takes it over"
        return told

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        one = self.sign
        return {
            "works": str(one.writer),
            "kept": one.kept,
            "failed": one.failed,
            "in_flight": one.in_flight,
            "sign_of_life_seconds": self.age_seconds,
            "is_gone": self.is_silent or one.writer.is_certainly_dead(),
        }


@dataclass(slots=True)
class UnderWay:
    """A run that is open.

    Attributes:
        wanted: images to be made; None until it is planned.
        kept, failed, unknown: images, by its journals.
        in_flight: requests that are or may be accepted, and not settled.
        cost_usd: of what is settled.
        items: variations that were begun, by their ids.
        workers: that have not left in order; none where the run does its work itself.
    """

    wanted: int | None = None
    kept: int = 0
    failed: int = 0
    unknown: int = 0
    in_flight: int = 0
    cost_usd: float = 0.0
    items: dict[str, Item] = field(default_factory=dict)
    workers: list[SeenWorker] = field(default_factory=list)

    def told(self) -> str:
        """Say how far it is."""
        if self.wanted is None:
            return "it is open, and nothing is planned yet"
        parts = [f"{self.kept:,} of {self.wanted:,} kept"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.unknown:,} unknown"] if self.unknown else []
        parts += [f"{self.in_flight:,} in flight", f"{self.cost_usd:.3f} USD so far"]
        return f"it is open: {', '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Return its counts as JSON values."""
        names = ("wanted", "kept", "failed", "unknown", "in_flight")
        return {**{name: getattr(self, name) for name in names}, "cost_usd": round(self.cost_usd, 6)}

    def add(self, item: Item) -> None:
        """Count a variation, as its journal tells of it."""
        self.items[item.variation_id] = item
        self.in_flight += item.is_open and not item.images
        for image in item.images:
            self.kept += image.status == "kept"
            self.failed += image.status == "failed"
            self.unknown += image.status == "unknown"
            self.cost_usd += image.cost_usd


async def read_under_way(storage: Storage, run: OpenRun) -> UnderWay:
    """Look at the run that is open; writes nothing.

    Raises:
        JournalDamaged, StorageError: as they come.
    """
    found = UnderWay()
    try:
        planned = await read_planned(storage, run.run_id)
    except ObjectNotFound:
        planned = None
    if planned is not None:
        found.wanted = planned.plan.images

    async def add(shard: int) -> None:
        journal = Journal(storage, run_id=run.run_id, shard=shard, writer="")
        await journal.replay()
        for item in journal.story.items.values():
            found.add(item)

    await at_once(add, await shards_begun(storage, run.run_id))
    roster = Roster(storage, run.run_id, lease_seconds=run.lease_seconds)
    ages = await roster.ages()
    found.workers = [
        SeenWorker(sign, ages[sign.writer.token], is_silent=not roster.is_fresh(ages[sign.writer.token]))
        for sign in await roster.signs()
        if sign.writer.token in ages
    ]
    return found


def ago_text(seconds: float) -> str:
    """Say how long ago something was, in the whole seconds that clocks of stores tell."""
    return duration(round(seconds)).replace(".0 s", " s")
