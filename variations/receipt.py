"""What a run did, in numbers and in words."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from variations.errors import RunError, RunPaused
from variations.failures import as_values
from variations.leak_report import LeakReport
from variations.plan import Plan
from variations.tally import Recovery, Tally, UnknownItem
from variations.texts import (
    SAMPLES,
    duration,
    held_lines,
    json_bytes,
    markdown_table,
    rejected_lines,
    resubmitted_lines,
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run did.

    `paid` counts images that the API charged for; `unknown` ones may be paid for too, at `cost_at_risk_usd`. `left` are
    variations that it did not come to, because it was stopped: the next run makes them. `dropped` images were paid,
    flagged by the quality gate and not stored; `flags` counts the flagged ones, kept or dropped, by reason, `passed`
    the kept ones that it passed, and `rerolled` those that were made in the place of a flagged one. `requests` are API
    calls by kind; `refused` of them were, for the plan's request limit, which showed as about `limit_found` a minute.
    `errors` and `notes` count images by what is said of them, with a sample of each error's text; `failures` (of the
    module of that name) tell more of them. `leaks` is the plan's. `dataset_rows` is the size of the metadata
    afterwards, None if it could not be published. `canary` says what the images came to that were made before the rest,
    and whether that was made. `gallery` is where that lies, if this run wrote one; the receipt in the destination was
    written before.
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
    resubmitted: int = 0
    accepted: int = 0
    accepted_twice: int = 0
    unknowns: tuple[dict[str, Any], ...] = ()
    recovery: dict[str, Any] = field(default_factory=dict)
    max_cost_usd: float = 0.0
    price_usd: float | None = None
    set_price_usd: float | None = None
    refused: int = 0
    limit_found: float | None = None
    all_found_counted: bool = False
    failures: tuple[dict[str, Any], ...] = ()
    leaks: dict[str, Any] = field(default_factory=dict)
    gallery: str = ""
    canary: str = ""
    dropped: int = 0
    passed: int = 0
    rerolled: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    flagged_before: int = 0

    @classmethod
    def of(
        cls,
        plan: Plan,
        tally: Tally,
        *,
        started_at: str = "",
        seconds: float = 0.0,
        requests: Mapping[str, int] | None = None,
        refused: int = 0,
        limit_found: float | None = None,
        all_found_counted: bool = False,
        held: Iterable[UnknownItem] = (),
        recovery: Recovery | None = None,
        stopped_by: str | None = None,
        stopped_because: str | None = None,
        dataset_rows: int | None = None,
        max_cost_usd: float = 0.0,
        price_usd: float | None = None,
        set_price_usd: float | None = None,
        canary: str = "",
    ) -> "Receipt":
        """Put a receipt together from what was planned and what the journals came to; `held` is of earlier runs."""
        unknowns = {item.variation_id: item for item in held} | tally.unknowns
        calls = dict(requests or {})
        failures = as_values(tally.failures.values())
        return cls(
            run_id=plan.run_id,
            source=plan.source,
            destination=plan.destination,
            started_at=started_at,
            seconds=round(seconds, 1),
            sources=plan.sources,
            rejected=plan.rejected,
            duplicates=plan.duplicates,
            already_done=plan.already_done,
            failed_before=plan.failed_before,
            unknown_before=plan.unknown_before,
            partly_there=plan.partly_there,
            resubmitted=plan.resubmitted,
            wanted=plan.images,
            paid=tally.paid,
            kept=tally.kept,
            failed=tally.failed,
            unknown=tally.unknown,
            left=plan.new - tally.variations + tally.rerolls_left,
            cost_usd=round(tally.cost_usd, 6),
            cost_at_risk_usd=round(tally.cost_at_risk_usd, 6),
            accepted=tally.accepted,
            accepted_twice=tally.accepted_twice,
            unknowns=tuple({**asdict(item), "settle": item.advice()} for item in unknowns.values()),
            recovery=asdict(recovery) if recovery else {},
            requests=calls,
            requests_per_image=round(sum(calls.values()) / tally.kept, 2) if tally.kept and calls else None,
            errors=dict(tally.errors.most_common()),
            error_samples={one["code"]: one["samples"][0]["error"] or "" for one in reversed(failures)},
            notes=dict(tally.notes.most_common()),
            rejected_rows=plan.rejected_rows,
            stopped_by=stopped_by,
            stopped_because=stopped_because,
            dataset_rows=dataset_rows,
            max_cost_usd=max_cost_usd,
            price_usd=price_usd,
            set_price_usd=set_price_usd,
            refused=refused,
            limit_found=limit_found,
            all_found_counted=all_found_counted,
            failures=tuple(failures),
            leaks=plan.leaks,
            canary=canary,
            dropped=tally.dropped,
            passed=tally.passed,
            rerolled=tally.rerolled,
            flags=dict(tally.flags.most_common()),
            flagged_before=plan.flagged_before,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return json_bytes(self.as_dict())

    @property
    def all_kept(self) -> bool:
        """Whether every image that was wanted is there, those of earlier runs too, but for what the gate dropped."""
        now = self.failed + self.unknown + self.rejected + self.left
        before = self.failed_before + self.unknown_before + self.partly_there + len(self.unknowns)
        return not (now or before or self.stopped_by)

    @property
    def has_news(self) -> bool:
        """Whether it made anything, or found out what became of what earlier runs left open, or what they came to."""
        recovery = Recovery(**self.recovery) if self.recovery else Recovery()
        is_found = recovery.closed_run or recovery.has_changed
        return bool(self.kept + self.failed + self.unknown + self.dropped or is_found)

    @property
    def has_new_images(self) -> bool:
        """Whether images may have come into the dataset: made now, fetched of what was open, or made by a dead run."""
        recovery = Recovery(**self.recovery) if self.recovery else Recovery()
        return bool(self.dataset_rows) and bool(self.kept or recovery.closed_run or recovery.has_changed)

    @property
    def failed_percent(self) -> float:
        """Of the images of which it is known what became, or that are unknown, how many failed."""
        return 100 * self.failed / max(1, self.kept + self.failed + self.unknown + self.dropped)

    def summary(self) -> str:
        """Say in a line what came of it."""
        if self.source:
            counts = [(self.kept, "kept"), (self.failed, "failed"), (self.unknown, "unknown")]
            counts += [(self.dropped, "flagged and dropped"), (self.rejected, "rejected")]
            counts.append((self.left, "left for the next run"))
            nothing, cost_usd = f"nothing to make, {self.already_done:,} already there", self.cost_usd
        else:
            found = Recovery(**self.recovery) if self.recovery else Recovery()
            counts = [(found.kept, "recovered"), (found.failed, "failed"), (found.dropped, "flagged and dropped")]
            counts.append((found.still_unknown, "still unknown"))
            nothing, cost_usd = "nothing was open", found.cost_usd
        parts = [f"{count:,} {what}" for count, what in counts if count] or [nothing]
        parts += [f"{self.unknown_before:,} still unknown of earlier runs"] if self.unknown_before else []
        return ", ".join([*parts, f"{cost_usd:.2f} USD"])

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them."""
        per_image = f"{self.requests_per_image:.1f}" if self.requests_per_image is not None else "–"
        calls = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.requests.items()))
        recovery = Recovery(**self.recovery) if self.recovery else Recovery()
        lines = recovery.lines()
        if not self.source:
            lines = lines or [("recovered", "nothing was open")]
            lines.append(("still unknown", f"{recovery.still_unknown:,}"))
            lines += [("time", duration(self.seconds)), ("destination", self.destination)]
            return [*lines, *([("gallery", self.gallery)] if self.gallery else []), *self._unknown_lines()]
        lines += [
            ("paid", f"{self.paid:,} image{'s' * (self.paid != 1)}"),
            ("kept", f"{self.kept:,}"),
            ("failed", f"{self.failed:,}"),
        ]
        if self.unknown:
            lines.append(("unknown", f"{self.unknown:,} (may be paid for: {self.cost_at_risk_usd:.3f} USD at risk)"))
        lines += self._gate_lines()
        lines.append(("submitted twice", f"{self.accepted_twice:,} of {self.accepted:,} accepted, by the journal"))
        if self.rejected:
            lines.append(("rejected rows", f"{self.rejected:,}"))
        if self.canary:
            lines.append(("canary", self.canary))
        if self.left:
            lines.append(("left for the next run", f"{self.left:,}"))
        if self.already_done:
            lines.append(("already there", f"{self.already_done:,}"))
        if self.duplicates:
            lines.append(("duplicates", f"{self.duplicates:,}, made once"))
        lines += held_lines(self.failed_before, self.flagged_before, self.unknown_before, self.partly_there)
        lines += resubmitted_lines(self.resubmitted)
        lines += [
            ("cost", f"{self.cost_usd:.3f} USD" + (f" of {self.max_cost_usd:g}" if self.max_cost_usd else "")),
            *self._price_of_passed(),
            *self._price(),
            ("time", duration(self.seconds)),
            ("requests per image", f"{per_image} ({calls})" if calls else per_image),
            *self._limit(),
            ("dataset", f"{self.dataset_rows:,} rows" if self.dataset_rows is not None else "not published"),
            ("destination", self.destination),
            *([("gallery", self.gallery)] if self.gallery else []),
        ]
        lines += [(f"{note}, {count:,}×", "kept, see the column notes") for note, count in self.notes.items()]
        lines += [(f"{code}, {count:,}×", self.error_samples[code]) for code, count in self.errors.items()]
        lines += rejected_lines(self.rejected_rows, self.rejected)
        report = LeakReport.of_json(self.leaks)
        lines += report.lines() if report else []
        lines += self._unknown_lines()
        if self.stopped_because:
            lines.append(("stopped", self.stopped_because))
        return lines

    def _gate_lines(self) -> list[tuple[str, str]]:
        """Say how many images were flagged, why, and what became of them."""
        if not self.flags:
            return []
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.flags.items())
        lines = [("flagged", f"{why}; {self.passed:,} passed")]
        if self.dropped:
            lines.append(("dropped", f"{self.dropped:,} of the flagged ones: paid, and not stored"))
        if self.rerolled:
            lines.append(("made again", f"{self.rerolled:,} in the place of flagged ones, each with the next seed"))
        return lines

    def _price_of_passed(self) -> list[tuple[str, str]]:
        if not self.passed:
            return []
        return [("a passed image", f"{self.cost_usd / self.passed:.4f} USD ({self.passed:,} passed)")]

    def _price(self) -> list[tuple[str, str]]:
        if not self.paid or self.price_usd is None or self.set_price_usd in {None, self.price_usd}:
            return []
        text = f"{self.price_usd:g} USD an image, as the API charges; the setting price_usd says {self.set_price_usd:g}"
        return [("price", text)]

    def _limit(self) -> list[tuple[str, str]]:
        lines = []
        if self.refused and self.limit_found:
            refused = f"{self.refused:,} ({self.refused / max(1, sum(self.requests.values())):.1%})"
            text = f"about {self.limit_found:,.0f} a minute, as the API showed: it refused {refused}"
            lines.append(("request limit", text))
        if self.all_found_counted:
            # The plan said otherwise, and so would the next one.
            text = "not submits alone, as the API showed by refusing another request: set requests_counted to all"
            lines.append(("requests counted", text))
        return lines

    def _unknown_lines(self) -> list[tuple[str, str]]:
        lines = []
        for item in self.unknowns[:SAMPLES]:
            name = item["source_uri"] or item["run_id"]
            lines.append(("unknown", f"{item['variation_id']} of {name}: {item['settle']}"))
        if len(self.unknowns) > SAMPLES:
            lines.append(("unknown", f"… and {len(self.unknowns) - SAMPLES:,} more, in the receipt's file"))
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
