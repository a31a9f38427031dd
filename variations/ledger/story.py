"""What follows from a journal: the state of every variation in it, and the rows of the metadata."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from variations import errors
from variations.ledger.records import Accepted, Ended, Intended, Record, Settled, Withdrawn
from variations.models import Attempt, ImageOutcome, Outcome, Variation

_IMAGE_FIELDS: Final = tuple(one.name for one in fields(ImageOutcome))


@dataclass(slots=True)
class Item:
    """One variation, as far as its shard's journal tells.

    Attributes:
        rolled_from: the variation whose place it took, as that was flagged, where it was not planned.
        seed: of one that was not planned.
        intended_at: when its last intent was written, by the store's clock.
        accepted_at: when its request id was.
        request_ids: of every accepted submit; more than one is what must never be.
        images: what became of them, once that is known.
        is_withdrawn: the last intent was taken back, and nothing was accepted.
    """

    variation_id: str
    attempt: int = 1
    redux_image: str | None = None
    before: Attempt | None = None
    rolled_from: str | None = None
    seed: int | None = None
    intended_at: datetime | None = None
    accepted_at: datetime | None = None
    request_ids: list[str] = field(default_factory=list)
    images: tuple[ImageOutcome, ...] = ()
    is_withdrawn: bool = False

    @property
    def request_id(self) -> str | None:
        """The request that it is; None if none is known to have been accepted."""
        return self.request_ids[0] if self.request_ids else None

    @property
    def is_open(self) -> bool:
        """Whether it is or may be paid for, and it is not known what became of each image."""
        if self.images:
            return any(image.status == "unknown" for image in self.images)
        return not self.is_withdrawn

    def outcomes(self, variation: Variation, *, price_usd: float) -> Iterator[Outcome]:
        """Yield its rows; what cannot be known counts as spent. Nothing of it was paid if it was withdrawn: no rows."""
        if self.images:
            for image in self.images:
                values = {name: getattr(image, name) for name in _IMAGE_FIELDS}
                if image.status == "unknown":
                    # It may have been found later, in the history or in a note.
                    values["request_id"] = image.request_id or self.request_id
                yield Outcome(variation=variation, **values)
        elif self.is_open:
            error: errors.ItemUnknown = errors.SubmitUnknown("it is not known whether it was accepted")
            if self.request_id is not None:
                error = errors.Interrupted("the run ended while it was in flight")
            for index in range(variation.parameters.num_outputs):
                yield Outcome(
                    variation=variation,
                    output_index=index,
                    status="unknown",
                    error_code=error.code,
                    error=error.message,
                    redux_image=self.redux_image,
                    request_id=self.request_id,
                    submitted_at=self.intended_at,
                    cost_usd=price_usd,
                )


class Story:
    """The state that a journal's records add up to; the same records always add up to the same.

    Attributes:
        items: by variation id, in the order of their first record.
        tally: what the last `Ended` said, and None if anything was written after it.
    """

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.tally: dict[str, Any] | None = None

    def add(self, record: Record, at: datetime) -> None:
        """Go on by one record, written at a moment of the store's clock."""
        self.tally = None
        match record:
            case Intended():
                item = self._item(record.variation_id)
                item.attempt, item.redux_image, item.before = record.attempt, record.redux_image, record.before
                item.rolled_from, item.seed = record.rolled_from, record.seed
                item.intended_at = at
                item.is_withdrawn = False
            case Accepted():
                item = self._item(record.variation_id)
                item.accepted_at = item.accepted_at or at
                item.is_withdrawn = False
                if record.request_id not in item.request_ids:
                    item.request_ids.append(record.request_id)
            case Withdrawn():
                item = self._item(record.variation_id)
                item.is_withdrawn = not item.request_ids
            case Settled():
                self._item(record.variation_id).images = record.images
            case Ended():
                self.tally = record.tally

    def _item(self, variation_id: str) -> Item:
        item = self.items.get(variation_id)
        if item is None:
            item = self.items[variation_id] = Item(variation_id)
        return item

    def open_items(self) -> list[Item]:
        """Return what is or may be paid for, and not settled."""
        return [item for item in self.items.values() if item.is_open]

    def accepted_twice(self) -> list[Item]:
        """Return the variations with more than one accepted submit: there must be none."""
        return [item for item in self.items.values() if len(item.request_ids) > 1]

    def outcomes(self, variation_of: Callable[[str], Variation | None], *, price_usd: float) -> list[Outcome]:
        """Return the rows of every item whose variation is known."""
        rows: list[Outcome] = []
        for item in self.items.values():
            variation = variation_of(item.variation_id)
            if variation is not None:
                rows += item.outcomes(variation, price_usd=price_usd)
        return rows
