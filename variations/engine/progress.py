"""How far a run is: counters that the engine moves and whoever likes reads."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Counters of a run that is under way.

    Attributes:
        total: images wanted of this run, known once it is planned.
        requests: calls made of the API so far, by kind.
    """

    total: int = 0
    in_flight: int = 0
    kept: int = 0
    failed: int = 0
    unknown: int = 0
    cost_usd: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    stopping: str | None = None

    @property
    def settled(self) -> int:
        """Images of which it is known what became."""
        return self.kept + self.failed + self.unknown

    def line(self) -> str:
        """Say it in one line."""
        parts = [f"{self.settled:,} of {self.total:,} images", f"{self.kept:,} kept"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.unknown:,} unknown"] if self.unknown else []
        parts += [f"{self.in_flight} in flight", f"{self.cost_usd:.2f} USD"]
        return ", ".join(parts) + (f" (stopping: {self.stopping})" if self.stopping else "")
