"""A backfill: the same request for a day after another. What is made for each, and what all of it comes to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from variations.dates import days, filled, has_placeholder
from variations.errors import BadInput, BucketNotFound
from variations.plan import Plan
from variations.receipt import Receipt
from variations.storage import open_storage, split_uri
from variations.texts import duration


@dataclass(frozen=True, slots=True)
class Day:
    """A day of a backfill, and the source and the destination that it fills."""

    day: date
    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class DayEnd:
    """What came of a day, in words, and the receipt of its run or the plan of one, where there is one.

    `is_stop` says that the days after it are not begun; `state` is how its run ended where a deployment made it, which
    keeps its receipt.
    """

    day: date
    said: str
    receipt: Receipt | None = None
    plan: Plan | None = None
    is_stop: bool = False
    state: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all of the day is there, or would be."""
        return (
            self.state == "Completed" or self.plan is not None or (self.receipt is not None and self.receipt.all_kept)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        come_to = self.receipt or self.plan
        state = {"state": self.state} if self.state else {}
        return {"day": str(self.day), "said": self.said, **state, **({} if come_to is None else asdict(come_to))}


def days_of(source: str, destination: str, first: date, last: date) -> list[Day]:
    """Return the days of a backfill, the oldest first.

    Raises:
        BadInput: there is none, or nothing would differ from one to the next.
    """
    if first > last:
        raise BadInput(f"--from {first} is after --to {last}: a backfill goes from the older day to the newer one")
    if not has_placeholder(source) and not has_placeholder(destination):
        raise BadInput(
            "neither source nor destination holds {date}, {year}, {month} or {day}: each day would be the same"
        )
    return [
        Day(day, filled(source, day, name="source"), filled(destination, day, name="destination"))
        for day in days(first, last)
    ]


async def has_manifest(source: str) -> bool:
    """Return whether anything lies at a manifest's URI, be it an object or a prefix with objects.

    Raises:
        BadInput: it is no URI.
        StorageError: the store cannot be asked.
    """
    if not source.endswith("/"):
        root, key = split_uri(source)
        storage = open_storage(root, missing_ok=True)
        try:
            if await storage.exists(key):
                return True
        except BucketNotFound:
            return False
        finally:
            await storage.aclose()
    storage = open_storage(source, missing_ok=True)
    try:
        return await anext(storage.list(), None) is not None
    except BucketNotFound:
        return False
    finally:
        await storage.aclose()


def totals(ends: Sequence[DayEnd], *, wanted: int) -> str:
    """Say in a line what the days came to; `wanted` is how many they were to be."""
    parts = [f"{len(ends):,} of {wanted:,} days"]
    if plans := [end.plan for end in ends if end.plan is not None]:
        parts.append(f"{sum(plan.images for plan in plans):,} images to make")
        parts.append(f"about {sum(plan.cost_usd for plan in plans):,.2f} USD")
        parts.append(f"about {duration(sum(plan.seconds for plan in plans))}")
    if receipts := [end.receipt for end in ends if end.receipt is not None]:
        parts += [
            f"{count:,} {name}"
            for name in ("kept", "failed", "unknown", "dropped", "left")
            if (count := sum(getattr(receipt, name) for receipt in receipts)) or name == "kept"
        ]
        parts.append(f"{spent_usd(ends):.2f} USD")
    states = Counter(end.state for end in ends if end.state)
    parts += [f"{count:,} {state}" for state, count in states.most_common()]
    if nothing := sum(not (end.plan or end.receipt or end.state) for end in ends):
        parts.append(f"{nothing:,} without a run")
    return ", ".join(parts)


def spent_usd(ends: Iterable[DayEnd]) -> float:
    """Return what the days have cost, what is at risk included."""
    return sum(end.receipt.cost_usd + end.receipt.cost_at_risk_usd for end in ends if end.receipt is not None)
