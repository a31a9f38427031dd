"""How a run went: moments of it, and what was between two of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benches.prefect_server import Call


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of a run.

    Attributes:
        at: epoch seconds.
        kept: images stored so far.
        rss_bytes: of the flow's process.
        cpu_seconds: so far, of the flow's process as `client`, and of the servers by their names.
    """

    at: float
    kept: float
    rss_bytes: float
    cpu_seconds: dict[str, float]

    def towards(self, other: "Sample", share: float) -> "Sample":
        """Return the moment between this one and another, at a share of the way."""

        def between(one: float, two: float) -> float:
            return one + (two - one) * share

        return Sample(
            between(self.at, other.at),
            between(self.kept, other.kept),
            between(self.rss_bytes, other.rss_bytes),
            {name: between(value, other.cpu_seconds[name]) for name, value in self.cpu_seconds.items()},
        )


@dataclass(frozen=True, slots=True)
class Span:
    """What was between two moments."""

    begin: Sample
    end: Sample

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end.at - self.begin.at

    @property
    def images(self) -> float:
        """How many were stored in it."""
        return self.end.kept - self.begin.kept

    def cpu_ms(self) -> dict[str, float]:
        """Return the CPU an image, by process."""
        begin, end = self.begin.cpu_seconds, self.end.cpu_seconds
        return {name: (end[name] - begin[name]) / self.images * 1e3 for name in end}

    def a_minute(self, calls: Iterable[Call], *, messages: bool) -> float:
        """Return how many calls a minute fell into it, or messages."""
        found = sum(call.is_message is messages and self.begin.at <= call.at < self.end.at for call in calls)
        return found / self.seconds * 60


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went, from the call of the flow until Prefect's server has worked off what it was told.

    Attributes:
        samples: in the order of time.
        wanted: images that it was to make.
        result: what the flow returned.
    """

    samples: list[Sample]
    wanted: int
    result: Any

    def whole(self) -> Span:
        """Return all of it."""
        return Span(self.samples[0], self.samples[-1])

    def between(self, kept: float, then_kept: float) -> Span:
        """Return what was from so many images to so many more."""
        return Span(self.when(kept), self.when(then_kept))

    def phases_seconds(self) -> dict[str, float]:
        """Return how long it took to the first image, from there to the last, and until all was over."""
        first, last = self.when(1), self.when(self.wanted)
        return {
            "to the first image": first.at - self.samples[0].at,
            "to the last image": last.at - first.at,
            "to the end": self.samples[-1].at - last.at,
        }

    def when(self, kept: float) -> Sample:
        """Return the moment at which so many images were kept."""
        before = self.samples[0]
        for sample in self.samples:
            if sample.kept >= kept:
                step = sample.kept - before.kept
                return before.towards(sample, (kept - before.kept) / step) if step else sample
            before = sample
        raise ValueError(f"{kept:g} images were never kept, only {before.kept:g}")

    def mean_rss_bytes(self, span: Span) -> float:
        """Return the memory of the flow's process in a span, on average."""
        inside = [sample.rss_bytes for sample in self.samples if span.begin.at <= sample.at <= span.end.at]
        inside = inside or [span.begin.rss_bytes, span.end.rss_bytes]
        return sum(inside) / len(inside)
