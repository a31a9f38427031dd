"""What a run is going to do, and what it did: the plan and the receipt, for people and for machines."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from variations.errors import RunError, RunPaused
from variations.models import Outcome

# Markdown that a value may hold: emphasis, code, links, images and the table's bars. A `_` within a word is none.
_MARKUP: Final = re.compile(r"[\\|`*\[\]]")
SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is going to do; nothing of it is paid yet.

    `variations` = `already_done` + `failed_before` + `unknown_before` + `new`; `images` are what the new ones come to.
    `seconds` is about how long they take at the configured rate. `rejected_rows` says of the first ten what is wrong
    with them.
    """

    run_id: str
    source: str
    destination: str
    sources: int
    rejected: int
    duplicates: int
    variations: int
    already_done: int
    failed_before: int
    unknown_before: int
    new: int
    images: int
    shards: int
    shard_size: int
    cost_usd: float
    seconds: float
    requests_per_minute: float
    requests_counted: str
    max_in_flight: int
    rejected_rows: tuple[str, ...] = ()
    partly_there: int = 0

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them."""
        limit = (
            f"{self.requests_per_minute:g} requests a minute ({self.requests_counted})"
            if self.requests_per_minute
            else "no request limit"
        )
        notes = [f"{self.rejected:,} rejected"] if self.rejected else []
        notes += [f"{self.duplicates:,} duplicate{'s' * (self.duplicates != 1)}"] if self.duplicates else []
        lines = [
            ("source", self.source),
            ("destination", self.destination),
            ("usable sources", f"{self.sources:,}" + (f" ({', '.join(notes)})" if notes else "")),
            ("variations", f"{self.variations:,}"),
            ("already there", f"{self.already_done:,}"),
        ]
        lines += _held(self.failed_before, self.unknown_before, self.partly_there)
        return [
            *lines,
            ("new", f"{self.new:,} in {self.shards:,} shard{'s' * (self.shards != 1)}"),
            ("images to pay for", f"{self.images:,}"),
            ("cost", f"about {self.cost_usd:,.2f} USD"),
            ("time", f"about {duration(self.seconds)} at {limit}, {self.max_in_flight} in flight"),
            *_rejected(self.rejected_rows, self.rejected),
        ]

    def markdown(self) -> str:
        """Return a table for a Prefect artifact."""
        return markdown_table("Plan", self.lines())


@dataclass(slots=True)
class Tally:
    """What shards have come to so far; images, not requests."""

    kept: int = 0
    failed: int = 0
    unknown: int = 0
    paid: int = 0
    cost_usd: float = 0.0
    cost_at_risk_usd: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    error_samples: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes."""
        for outcome in outcomes:
            if outcome.status == "unknown":
                self.unknown += 1
                self.cost_at_risk_usd += outcome.cost_usd
            else:
                self.kept += outcome.status == "kept"
                self.failed += outcome.status == "failed"
                self.paid += outcome.cost_usd > 0
                self.cost_usd += outcome.cost_usd
            if outcome.error_code:
                self.errors[outcome.error_code] += 1
                self.error_samples.setdefault(outcome.error_code, outcome.error or "")
            if outcome.image:
                self.notes.update(note.split(":")[0] for note in outcome.image.notes)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run did.

    `paid` counts images that the API charged for; `unknown` ones may be paid for too, at `cost_at_risk_usd`. `left` are
    variations that it did not come to, because it was stopped: the next run makes them. `requests` are API calls by
    kind; `errors` and `notes` count images by what is said of them, with a sample of each error's text. `dataset_rows`
    is the size of the metadata afterwards, None if it could not be published.
    """

    run_id: str
    source: str
    destination: str
    started_at: str
    seconds: float
    sources: int
    rejected: int
    duplicates: int
    already_done: int
    failed_before: int
    unknown_before: int
    wanted: int
    paid: int
    kept: int
    failed: int
    unknown: int
    left: int
    cost_usd: float
    cost_at_risk_usd: float
    requests: dict[str, int]
    requests_per_image: float | None
    errors: dict[str, int]
    error_samples: dict[str, str]
    notes: dict[str, int]
    rejected_rows: tuple[str, ...]
    stopped_by: str | None
    stopped_because: str | None
    dataset_rows: int | None
    partly_there: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @property
    def all_kept(self) -> bool:
        """Whether every image that was wanted is there, those of earlier runs too."""
        now = self.failed + self.unknown + self.rejected + self.left
        before = self.failed_before + self.unknown_before + self.partly_there
        return not (now or before or self.stopped_by)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them."""
        per_image = f"{self.requests_per_image:.1f}" if self.requests_per_image is not None else "–"
        calls = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.requests.items()))
        lines = [
            ("paid", f"{self.paid:,} image{'s' * (self.paid != 1)}"),
            ("kept", f"{self.kept:,}"),
            ("failed", f"{self.failed:,}"),
        ]
        if self.unknown:
            lines.append(("unknown", f"{self.unknown:,} (may be paid for: {self.cost_at_risk_usd:.3f} USD at risk)"))
        if self.rejected:
            lines.append(("rejected rows", f"{self.rejected:,}"))
        if self.left:
            lines.append(("left for the next run", f"{self.left:,}"))
        if self.already_done:
            lines.append(("already there", f"{self.already_done:,}"))
        if self.duplicates:
            lines.append(("duplicates", f"{self.duplicates:,}, made once"))
        lines += _held(self.failed_before, self.unknown_before, self.partly_there)
        lines += [
            ("cost", f"{self.cost_usd:.3f} USD"),
            ("time", duration(self.seconds)),
            ("requests per image", f"{per_image} ({calls})" if calls else per_image),
            ("dataset", f"{self.dataset_rows:,} rows" if self.dataset_rows is not None else "not published"),
            ("destination", self.destination),
        ]
        lines += [(f"{note}, {count:,}×", "kept, see the column notes") for note, count in self.notes.items()]
        lines += [(f"{code}, {count:,}×", self.error_samples[code]) for code, count in self.errors.items()]
        lines += _rejected(self.rejected_rows, self.rejected)
        if self.stopped_because:
            lines.append(("stopped", self.stopped_because))
        return lines

    def markdown(self) -> str:
        """Return a table for a Prefect artifact."""
        return markdown_table(f"Receipt of {self.run_id}", self.lines())


class RunStopped(Exception):
    """A run ended before it was done; what it did is in its receipt, and published as far as that was possible."""

    def __init__(self, receipt: Receipt, reason: RunError | RunPaused) -> None:
        super().__init__(reason.message)
        self.receipt = receipt
        self.reason = reason


def duration(seconds: float) -> str:
    """Return a duration as people say it: `42 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"  # noqa: PLR2004
    for unit, size, smaller, small_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    raise AssertionError


def markdown_table(title: str, lines: Iterable[tuple[str, str]]) -> str:
    """Return a two-column table; what could break it is escaped."""
    rows = [f"| {name} | {_cell(value)} |" for name, value in lines]
    return "\n".join([f"## {title}", "", "| | |", "| --- | --- |", *rows, ""])


def _held(failed: int, unknown: int, partly: int) -> list[tuple[str, str]]:
    lines = [("failed before", f"{failed:,} left alone: --retry failed tries them again")] if failed else []
    lines += [("unknown before", f"{unknown:,} perhaps paid for: held, and not submitted again")] if unknown else []
    lines += [("partly there", f"{partly:,} lack some of their images: left alone")] if partly else []
    return lines


def _rejected(first: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    more = [("rejected", f"… and {count - len(first):,} more")] if count > len(first) else []
    return [*(("rejected", row) for row in first), *more]


def _cell(value: str) -> str:
    text = _MARKUP.sub(r"\\\g<0>", " ".join(value.splitlines()))
    return text.replace("&", "&amp;").replace("<", "&lt;")


def started(moment: datetime) -> str:
    """Return a moment as it stands in a receipt."""
    return moment.isoformat(timespec="seconds")
