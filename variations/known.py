"""What a dataset has already: what is there, what is open, and what failed."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from variations.splits import Groups


class Before(NamedTuple):
    """The last attempt at a variation, and where it is written down; `shard` is None in rows that name none."""

    attempt: int
    run_id: str
    shard: int | None
    request_id: str | None


_SAYS: Final = {"failed": 0, "rejected": 1, "unknown": 2}


@dataclass(slots=True)
class Known:
    """What the dataset has, by the 16 bytes of a variation's id.

    Attributes:
        done: there, as far as a request for several images is there at all.
        unknown: perhaps paid for, and nothing of it there.
        held: the unknown ones, and those of which only some images are unknown.
        failed: the last attempt failed.
        flagged: paid for, and dropped by the quality gate; nothing of it is there, or to be had.
        outputs: of requests for several images, which of these were kept, or dropped as they were flagged.
        paid: of what is not there, the last attempt, and what all attempts have cost, or perhaps did, in USD.
        rows: of the metadata; None where there is none.
        groups: the sources that there are images of, and perhaps images, in a split, as often as they stand there.
    """

    done: set[bytes] = field(default_factory=set)
    unknown: dict[bytes, Before] = field(default_factory=dict)
    held: dict[bytes, Before] = field(default_factory=dict)
    failed: dict[bytes, Before] = field(default_factory=dict)
    flagged: dict[bytes, Before] = field(default_factory=dict)
    outputs: dict[bytes, dict[int, bool]] = field(default_factory=dict)
    paid: dict[bytes, tuple[int, float]] = field(default_factory=dict)
    rows: int | None = None
    groups: Groups = field(default_factory=Groups)

    def note(self, status: str, key: bytes, before: Before) -> None:
        """Take in an image that is unknown, rejected or failed; those that were kept are in `done` by then.

        Of the images of one request, one that is unknown says most of it, and then one that was dropped.
        """
        last_held = self.held.get(key)
        if status == "unknown":
            self.held[key] = before
        elif last_held is not None and last_held.attempt < before.attempt:
            del self.held[key]
        if key in self.done:
            return
        of_status = {"unknown": self.unknown, "rejected": self.flagged, "failed": self.failed}
        for said, noted in of_status.items():
            last = noted.get(key)
            if last is None:
                continue
            if last.attempt > before.attempt or (last.attempt == before.attempt and _SAYS[said] > _SAYS[status]):
                return
            del noted[key]
        of_status[status][key] = before

    def note_paid(self, key: bytes, *, attempt: int, cost_usd: float) -> None:
        """Take in what an image that is not there has cost; the row of an attempt counts those before it, too."""
        last, so_far = self.paid.get(key, (attempt, 0.0))
        if attempt >= last:
            self.paid[key] = (attempt, cost_usd + (so_far if attempt == last else 0.0))

    def is_vacant(self, key: bytes) -> bool:
        """Return whether all that was made for a variation is flagged and dropped."""
        return key in self.flagged and key not in self.done

    def knows(self, key: bytes) -> bool:
        """Return whether anything was ever paid, or attempted, for a variation."""
        return any(key in some for some in (self.done, self.unknown, self.failed, self.flagged))

    def is_partial(self, key: bytes) -> bool:
        """Return whether some images of a variation are there and others are not."""
        return not all(self.outputs.get(key, {}).values())
