"""What shards have come to, and what is open: counted as it is written down, and added up for a receipt."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from variations.failures import Failures
from variations.gate import PASSED, reasons_of
from variations.models import Outcome


@dataclass(frozen=True, slots=True)
class UnknownItem:
    """A variation that is or may be paid for, and of which it is not known what became.

    `since` is when it was submitted, by the store's clock where that is known; `code` says how it came to be unknown.
    """

    variation_id: str
    run_id: str
    source_uri: str | None = None
    request_id: str | None = None
    since: str | None = None
    code: str | None = None

    def advice(self) -> str:
        """Say what would settle it."""
        if self.request_id is None:
            return (
                "it is not known whether it was accepted: each run, and `variations recover`, looks for it in the "
                "request history; with the setting unknown=resubmit it is submitted again when it is not found there"
            )
        return (
            f"accepted as request {self.request_id}: the next run, or `variations recover`, fetches it; within the "
            "hour from the API, and for about 7 days by the history; after that it is not to be had"
        )


@dataclass(slots=True)
class Tally:
    """What shards have come to so far; images, but for `accepted` and `accepted_twice`.

    Attributes:
        dropped: made, paid, and dropped by the quality gate.
        passed: of the kept ones those that the gate passed.
        flags: those that it flagged, kept or dropped, by its reasons; an image may have several.
        rerolled: images that were made in the place of a flagged one.
        rerolls_left: variations that are yet to be made in such a place.
        failures: those that failed or are unknown, by their reason.
        variations: of which anything is known.
        accepted: submits that were accepted.
        accepted_twice: variations with more than one of them: there must be none.
        unknowns: what is unknown, one entry a variation.
    """

    kept: int = 0
    failed: int = 0
    unknown: int = 0
    dropped: int = 0
    passed: int = 0
    rerolled: int = 0
    rerolls_left: int = 0
    paid: int = 0
    cost_usd: float = 0.0
    cost_at_risk_usd: float = 0.0
    failures: dict[str, Failures] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    variations: int = 0
    accepted: int = 0
    accepted_twice: int = 0
    unknowns: dict[str, UnknownItem] = field(default_factory=dict)

    def add(self, outcomes: Iterable[Outcome], *, run_id: str = "") -> None:
        """Count outcomes."""
        for outcome in outcomes:
            if outcome.status == "unknown":
                self.unknown += 1
                self.cost_at_risk_usd += outcome.cost_usd
                self._name(outcome, run_id)
            else:
                self.kept += outcome.status == "kept"
                self.failed += outcome.status == "failed"
                self.dropped += outcome.is_dropped
                self.paid += outcome.cost_usd > 0
                self.cost_usd += outcome.cost_usd
            # What a request failed to make is no image.
            is_made = outcome.is_dropped or outcome.status in {"kept", "unknown"}
            self.rerolled += outcome.variation.roll > 0 and is_made
            if outcome.measures is not None:
                self.flags.update(reasons_of(outcome.measures.verdict))
                self.passed += outcome.status == "kept" and outcome.measures.verdict == PASSED
            if outcome.status in {"failed", "unknown"}:
                self._failures(outcome.error_code or "error", outcome.status, outcome.can_retry).add(outcome)
            if outcome.image:
                self.notes.update(note.split(":")[0] for note in outcome.image.notes)

    def _failures(self, code: str, status: str, can_retry: bool | None) -> Failures:
        return self.failures.setdefault(f"{status} {code} {can_retry}", Failures(code, status, can_retry))

    @property
    def errors(self) -> Counter[str]:
        """How many failed, or are unknown, by their code."""
        counts = Counter[str]()
        for one in self.failures.values():
            counts[one.code] += one.count
        return counts

    def _name(self, outcome: Outcome, run_id: str) -> None:
        variation = outcome.variation
        since = outcome.submitted_at.isoformat(timespec="seconds") if outcome.submitted_at else None
        self.unknowns[variation.variation_id] = UnknownItem(
            variation.variation_id, run_id, variation.source.public_uri, outcome.request_id, since, outcome.error_code
        )

    def merge(self, other: "Tally") -> None:
        """Count what another tally counts, too."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for one in other.failures.values():
            self._failures(one.code, one.status, one.can_retry).merge(one)
        self.notes += other.notes
        self.flags += other.flags
        self.unknowns.update(other.unknowns)

    def summary(self) -> str:
        """Say in a line what came of it."""
        parts = [f"{self.kept:,} kept"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.unknown:,} unknown"] if self.unknown else []
        parts += [f"{self.dropped:,} flagged and dropped"] if self.dropped else []
        return ", ".join([*parts, f"{self.cost_usd:.2f} USD"])

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        unknowns = {name: asdict(item) for name, item in self.unknowns.items()}
        failures = {name: asdict(one) for name, one in self.failures.items()}
        more = {"flags": dict(self.flags), "unknowns": unknowns}
        return {**values, "failures": failures, "notes": dict(self.notes), **more}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Tally":
        """Return it from JSON values; whatever else stands there is left out."""
        known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        failures = {name: Failures(**one) for name, one in values.get("failures", {}).items()}
        unknowns = {name: UnknownItem(**item) for name, item in values.get("unknowns", {}).items()}
        counters = {name: Counter(values.get(name, {})) for name in ("notes", "flags")}
        return cls(**{**known, **counters, "failures": failures, "unknowns": unknowns})


_SUMS: Final = (
    *("kept", "failed", "unknown", "paid", "cost_usd", "cost_at_risk_usd"),
    *("dropped", "passed", "rerolled", "rerolls_left", "variations", "accepted", "accepted_twice"),
)


@dataclass(slots=True)
class Recovery:
    """What was found out about requests of earlier runs, before anything new was submitted.

    Attributes:
        closed_run: the run that had ended without a word, if there was one.
        looked_for: variations that were open.
        kept, failed: images of them that were fetched, and of which it is known now that there will be none.
        dropped: of them that were fetched, flagged and dropped.
        cost_usd: what the API charged for these; it was at risk before.
        still_unknown: variations that are open still.
        has_changed: whether rows of earlier runs were written anew by that.
    """

    closed_run: str | None = None
    looked_for: int = 0
    kept: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    still_unknown: int = 0
    dropped: int = 0
    has_changed: bool = False

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values for people; none if there was nothing to do."""
        lines = [("closed", f"the run {self.closed_run}, which had ended without a word")] if self.closed_run else []
        if self.looked_for:
            found = [f"{self.kept:,} images kept", f"{self.failed:,} failed", f"{self.cost_usd:.3f} USD"]
            found[2:2] = [f"{self.dropped:,} flagged and dropped"] if self.dropped else []
            lines.append(("recovered", f"{', '.join(found)}; {self.looked_for:,} were open"))
        return lines
