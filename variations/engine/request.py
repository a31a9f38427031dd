"""One variation's request, as far as it has come."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from variations.engine.sources import HandedOver
from variations.gate import Gate
from variations.ledger.records import FoundIn, Record
from variations.models import Outcome, Variation


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A request that an earlier run left open.

    Attributes:
        redux_image: the source as it was sent, without a signature.
        request_id: None if it is not known whether it was accepted.
        intended_at: by the store's clock; it was submitted within the next minutes, if it was.
        intended: the same moment by the engine's monotonic clock, at which it was no earlier.
        known: what became of its images, as far as that is written down: these are not fetched again.
    """

    variation: Variation
    redux_image: str | None
    request_id: str | None
    intended_at: datetime | None
    intended: float
    known: tuple[Outcome, ...] = ()


@dataclass(slots=True)
class Request:
    """What is known so far of one variation's request.

    Attributes:
        intended_at: when its intent became durable, by the store's clock; None before.
        intent_ends: until when its POST may leave, by the engine's monotonic clock.
        may_be_accepted: a POST has left, and nothing proves that it was not accepted.
        submitted: when it left, by the engine's monotonic clock.
        accepted: when the answer was there that it is accepted, by the same clock; 0 where an earlier run had it.
        reserved_images: for which the budget holds money back.
        is_resumed: an earlier run submitted it.
        may_have_more: the API forgot it, and its record, as far as that could be had, does not name all of its images.
        gate: by which its images are judged, where that is not the engine's.
        known: what became of those of its images that are not to be fetched any more.
    """

    variation: Variation
    source: HandedOver | None = None
    request_id: str | None = None
    intended_at: datetime | None = None
    intent_ends: float = 0.0
    submitted_at: datetime | None = None
    submitted: float = 0.0
    accepted: float = 0.0
    may_be_accepted: bool = False
    polls: int = 0
    reserved_images: int = 0
    is_resumed: bool = False
    may_have_more: bool = False
    gate: Gate | None = None
    known: tuple[Outcome, ...] = ()

    @property
    def wanted(self) -> list[int]:
        """Return which of its images are wanted, by their numbers."""
        known = {outcome.output_index for outcome in self.known}
        return [index for index in range(self.variation.parameters.num_outputs) if index not in known]

    @classmethod
    def of_unsettled(cls, item: Unsettled, *, gate: Gate | None = None) -> "Request":
        """Return the request that an earlier run left open."""
        return cls(
            item.variation,
            source=HandedOver(item.redux_image, item.redux_image) if item.redux_image else None,
            request_id=item.request_id,
            intended_at=item.intended_at,
            submitted_at=item.intended_at,
            submitted=item.intended,
            may_be_accepted=True,
            is_resumed=True,
            gate=gate,
            known=item.known,
        )


class Log(Protocol):
    """Where the engine writes down what it does; a shard's journal is one. Each call returns once that is durable."""

    async def append(self, *records: Record) -> datetime:
        """Write records; returns the time, by the store's clock."""

    async def accept(self, variation_id: str, request_id: str, *, found_in: FoundIn = "answer") -> None:
        """Write down that a submit was accepted."""
