"""What a journal leaves open, as the engine takes it up again: by the request id, or by what was submitted and when."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from variations.engine.engine import Engine
from variations.engine.request import Unsettled
from variations.ledger.journal import Journal, Note
from variations.ledger.story import Item
from variations.models import Outcome, Variation


def age_seconds(item: Item, now: datetime) -> float:
    """Return how long ago an item's intent became durable, by the store's clock."""
    return max(0.0, (now - item.intended_at).total_seconds()) if item.intended_at else 0.0


def unsettled_of(
    items: Iterable[Item], variations: Mapping[str, Variation], *, now: datetime, asked: float
) -> list[Unsettled]:
    """Return the open items of a journal, for `Engine.resume`.

    Args:
        items: that are open.
        variations: of its shard, by id; an item of any other is left out.
        now: the store's time.
        asked: the engine's monotonic time from before the store was asked for it, so that what is old by it is at least
            as old, however long that took.
    """
    return [
        Unsettled(
            variation=variations[item.variation_id],
            redux_image=item.redux_image,
            request_id=item.request_id,
            intended_at=item.intended_at,
            intended=asked - age_seconds(item, now),
            known=_known_of(item, variations[item.variation_id]),
        )
        for item in items
        if item.variation_id in variations
    ]


def _known_of(item: Item, variation: Variation) -> tuple[Outcome, ...]:
    """Return what became of an item's images, but for those that are unknown: whoever fetched one may not be able to
    again, and what is kept is not given up for that.
    """
    if not item.images:
        return ()
    return tuple(image for image in item.outcomes(variation, price_usd=0.0) if image.status != "unknown")


def tell_requests(engine: Engine, journal: Journal) -> None:
    """Tell the engine whose the requests of a journal are: none that is looked for can be one of them."""
    for item in journal.story.items.values():
        for request_id in item.request_ids:
            engine.is_another(request_id)


async def adopt_notes(journal: Journal, notes: Iterable[Note], items: Iterable[Item]) -> None:
    """Take in what a replaced writer learned after it could no longer write it into the journal."""
    requests = {note.variation_id: note.request_id for note in notes}
    for item in items:
        if item.request_id is None and item.variation_id in requests:
            await journal.accept(item.variation_id, requests[item.variation_id], found_in="note")
