"""How far a run is: counters that the engine moves and whoever likes reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Counters of a run that is under way.

    Attributes:
        total: images wanted of this run; None until it is planned.
        step: what it does until then.
        in_flight: requests accepted and not yet done.
        dropped: flagged by the quality gate, and not stored.
        rerolled: of the dropped ones those in whose place another one is made.
        cost_usd: spent, what may be spent on unknown ones included.
        requests: calls made of the API, by kind.
        refused: of them for the plan's request limit (429).
        limit_found: requests a minute that the API allows, as it showed by refusing; None if it never did.
        all_found_counted: the API showed that it counts polls, too, though it was told to count submits alone.
        stopping: why nothing more is submitted, if that is so.
    """

    total: int | None = None
    step: str = "starting"
    in_flight: int = 0
    kept: int = 0
    failed: int = 0
    unknown: int = 0
    dropped: int = 0
    rerolled: int = 0
    cost_usd: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    limit_found: float | None = None
    all_found_counted: bool = False
    stopping: str | None = None

    @property
    def settled(self) -> int:
        """Images of which it is known what became."""
        return self.kept + self.failed + self.unknown + self.dropped - self.rerolled

    def line(self) -> str:
        """Say it in one line."""
        parts = [f"{self.settled:,} of {self.total or 0:,} images", f"{self.kept:,} kept"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.unknown:,} unknown"] if self.unknown else []
        parts += [f"{self.dropped:,} flagged and dropped"] if self.dropped else []
        parts += [f"{self.in_flight} in flight", f"{self.cost_usd:.2f} USD"]
        parts += [f"about {self.limit_found:.0f} requests a minute allowed"] if self.limit_found else []
        return ", ".join(parts) + (" (stopping)" if self.stopping else "")


_watched: ContextVar[Progress | None] = ContextVar("watched", default=None)


@contextmanager
def watch() -> Iterator[Progress]:
    """Yield the counters that a run started in this context will move: for a progress bar around a flow."""
    progress = Progress()
    token = _watched.set(progress)
    try:
        yield progress
    finally:
        _watched.reset(token)


def watched() -> Progress:
    """Return the counters that somebody watches, or new ones."""
    return _watched.get() or Progress()
