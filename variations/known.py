"""What a dataset has already: what is there, what is open, and what failed."""

from dataclasses import dataclass, field
from typing import NamedTuple

from variations.splits import Groups


class Before(NamedTuple):
    """The last attempt at a variation, and where it is written down; `shard` is None in rows that name none."""

    attempt: int
    run_id: str
    shard: int | None
    request_id: str | None


@dataclass(slots=True)
class Known:
    """What the dataset has, by the 16 bytes of a variation's id.

    Attributes:
        done: there, as far as a request for several images is there at all.
        unknown: perhaps paid for, and nothing of it there.
        held: the unknown ones, and those of which only some images are unknown.
        failed: the last attempt failed.
        outputs: of requests for several images, which of these were kept.
        rows: of the metadata; None where there is none.
        groups: the sources that there are images of, and perhaps images, in a split, as often as they stand there.
    """

    done: set[bytes] = field(default_factory=set)
    unknown: dict[bytes, Before] = field(default_factory=dict)
    held: dict[bytes, Before] = field(default_factory=dict)
    failed: dict[bytes, Before] = field(default_factory=dict)
    outputs: dict[bytes, dict[int, bool]] = field(default_factory=dict)
    rows: int | None = None
    groups: Groups = field(default_factory=Groups)

    def note(self, status: str, key: bytes, before: Before) -> None:
        """Take in an image that is unknown or failed; those that were kept are in `done` by then."""
        last_held = self.held.get(key)
        if status == "unknown":
            self.held[key] = before
        elif last_held is not None and last_held.attempt < before.attempt:
            del self.held[key]
        if key in self.done:
            return
        last = self.unknown.get(key) or self.failed.get(key)
        if last is not None and last.attempt > before.attempt:
            return
        if status == "unknown":
            self.unknown[key] = before
            self.failed.pop(key, None)
        elif key not in self.unknown or self.unknown[key].attempt < before.attempt:
            self.unknown.pop(key, None)
            self.failed[key] = before

    def is_partial(self, key: bytes) -> bool:
        """Return whether some images of a variation are there and others are not."""
        return not all(self.outputs.get(key, {}).values())
