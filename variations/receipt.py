"""What a run is going to do, and what it did: the plan and the receipt, for people and for machines."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final

from variations.errors import RunError, RunPaused
from variations.failures import as_values
from variations.leak_report import LeakCheck, LeakReport
from variations.tally import Recovery, Tally, UnknownItem

# Markdown that a value may hold: emphasis, code, links, images and the table's bars. A `_` within a word is none.
_MARKUP: Final = re.compile(r"[\\|`*\[\]]")
SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is going to do; nothing of it is paid yet.

    `variations` = `already_done` + `failed_before` + `flagged_before` + `unknown_before` + `new`; `images` are what the
    new ones come to. `seconds` is about how long they take at `requests_per_minute`: the limit, or what a run begins
    with where none is told. `rejected_rows` says of the first ten what is wrong with them. `balance_usd` is the
    account's, where it was asked for, and `balance_error` why it is not known. `sweep` says in words what each source
    is varied with, and `max_per_source` how many variations it gets at the most; `splits` how many sources are in which
    split, and by which `split_rule`. `leaks` is what leaks from one into another, a `LeakReport` in JSON; empty where
    nothing is split. Looked at before the rest are `canary` variations, of which `canary_there` are there already, and
    the others in the first `canary_shards`; the rest is made where no more of their images than `max_canary_percent`
    are bad.
    `flagged_before` were dropped by the quality gate, and are left alone; `rerolls` of the new ones take the place of
    such a one, and each place is filled at most `max_rolls` times: that may come to `most_rerolled` images more.
    """

    run_id: str
    source: str
    destination: str
    sources: int = 0
    rejected: int = 0
    duplicates: int = 0
    variations: int = 0
    already_done: int = 0
    failed_before: int = 0
    unknown_before: int = 0
    new: int = 0
    images: int = 0
    shards: int = 0
    shard_size: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    requests_per_minute: float = 0.0
    is_limit_told: bool = True
    requests_counted: str = ""
    max_in_flight: int = 0
    rejected_rows: tuple[str, ...] = ()
    partly_there: int = 0
    resubmitted: int = 0
    max_cost_usd: float = 0.0
    balance_usd: float | None = None
    balance_error: str = ""
    sweep: str = ""
    max_per_source: int = 0
    splits: str = ""
    split_rule: str = ""
    leaks: dict[str, Any] = field(default_factory=dict)
    canary: int = 0
    canary_there: int = 0
    canary_shards: int = 0
    max_canary_percent: float = 0.0
    flagged_before: int = 0
    max_rolls: int = 1
    rerolls: int = 0
    most_rerolled: int = 0

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Plan":
        """Return a plan from what was written of it; whatever else stands there is left out."""
        known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        # An older version wrote a list of leaks.
        leaks = known.get("leaks")
        return cls(
            **{
                **known,
                "rejected_rows": tuple(known.get("rejected_rows", ())),
                "leaks": leaks if isinstance(leaks, dict) else {},
            }
        )

    @property
    def leak_report(self) -> LeakReport | None:
        """What leaks from one split into another; None where nothing is split."""
        return LeakReport.of_json(self.leaks)

    @property
    def splits_text(self) -> str:
        """Say in Markdown how sources were split, and what leaks; empty where they were not."""
        if not self.split_rule:
            return ""
        text = f"Sources are split {markdown_text(self.split_rule)}."
        report = self.leak_report
        if report is None:
            return text
        looked = f" ({report.looked_at:,} sources were looked at)" if report.is_by_image else ""
        text += f" Before the last run: {report.summary()}{looked}."
        leaks = [f"- {markdown_text(value)}" for name, value in report.lines() if name == "leak"]
        return "\n".join([text, *(["", *leaks] if leaks else [])])

    def with_canary(self, variations: int, *, new: int) -> "Plan":
        """Return it with a canary of so many variations, of which the `new` ones are made in the first shards."""
        if not variations:
            return self
        canary_shards = math.ceil(new / self.shard_size)
        shards = canary_shards + math.ceil((self.new - new) / self.shard_size)
        there = variations - new
        return replace(self, canary=variations, canary_there=there, canary_shards=canary_shards, shards=shards)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them."""
        pace = "" if self.is_limit_told else ", to begin with, as the limit is not told"
        limit = (
            f"{self.requests_per_minute:g} requests a minute{pace} ({self.requests_counted})"
            if self.requests_per_minute
            else "no request limit"
        )
        notes = [f"{self.rejected:,} rejected"] if self.rejected else []
        notes += [f"{self.duplicates:,} duplicate{'s' * (self.duplicates != 1)}"] if self.duplicates else []
        lines = [
            ("source", self.source),
            ("destination", self.destination),
            ("usable sources", f"{self.sources:,}" + (f" ({', '.join(notes)})" if notes else "")),
            *self._splits(),
            *([("sweep", self.sweep)] if self.sweep else []),
            ("variations", f"{self.variations:,}{self._most()}"),
            ("already there", f"{self.already_done:,}"),
        ]
        lines += _held(self.failed_before, self.flagged_before, self.unknown_before, self.partly_there)
        lines += _resubmitted(self.resubmitted)
        return [
            *lines,
            ("new", f"{self.new:,} in {self.shards:,} shard{'s' * (self.shards != 1)}{self._made_again()}"),
            ("images to pay for", f"{self.images:,}"),
            ("cost", f"about {self.cost_usd:,.2f} USD{self._budget()}"),
            *self._rerolls(),
            *self._balance(),
            *self._canary(),
            ("time", f"about {duration(self.seconds)} at {limit}, {self.max_in_flight} in flight"),
            *_rejected(self.rejected_rows, self.rejected),
        ]

    def _splits(self) -> list[tuple[str, str]]:
        if not self.splits:
            return []
        report = self.leak_report
        return [("splits", f"{self.splits}; {self.split_rule}"), *(report.lines() if report else [])]

    def _most(self) -> str:
        return f", at most {self.max_per_source:,} a source" if self.max_per_source else ""

    def _canary(self) -> list[tuple[str, str]]:
        if not self.canary:
            return []
        there = f", {self.canary_there:,} of them there already" if self.canary_there else ""
        rest = f"the rest if no more than {self.max_canary_percent:g} % of them are bad"
        return [("canary", f"{self.canary:,} variations first{there}; {rest}")]

    def _budget(self) -> str:
        if not self.max_cost_usd:
            return ""
        refused = ": a run refuses" if self.cost_usd > self.max_cost_usd else ""
        return f", of {self.max_cost_usd:,.2f} at most{refused}"

    def _made_again(self) -> str:
        return f", {self.rerolls:,} of them in the place of flagged ones" if self.rerolls else ""

    def _rerolls(self) -> list[tuple[str, str]]:
        if not self.most_rerolled or not self.images:
            return []
        most_usd = self.most_rerolled * self.cost_usd / self.images
        text = f"what is flagged is made again, {self.max_rolls} times in all: up to {most_usd:,.2f} USD more"
        return [("re-rolls", f"{text}, within the limit" if self.max_cost_usd else text)]

    def _balance(self) -> list[tuple[str, str]]:
        if self.balance_usd is None:
            return [("balance", f"not known: {self.balance_error}")] if self.balance_error else []
        refused = ": a run refuses" if self.cost_usd > self.balance_usd else ""
        return [("balance", f"{self.balance_usd:,.2f} USD{refused}")]

    def summary(self) -> str:
        """Say it in a line."""
        there = f", {self.already_done:,} variations already there" if self.already_done else ""
        images = f"{self.images:,} image{'s' * (self.images != 1)} to make"
        cost = f" for about {self.cost_usd:,.2f} USD in about {duration(self.seconds)}" if self.images else ""
        return f"{images}{cost}{there}"

    def markdown(self) -> str:
        """Return a table for a Prefect artifact."""
        return markdown_table("Plan", self.lines())


def check_leaks(plan: Plan, how: LeakCheck) -> None:
    """Refuse a plan that leaks, where that was asked for.

    Raises:
        LeakFound: something leaks from one split into another; with the first few by name.
    """
    report = plan.leak_report
    if how.is_fatal and report is not None and report.is_leak:
        error = report.error()
        error.plan = plan
        raise error


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
        found = recovery.kept + recovery.failed + recovery.dropped
        return bool(self.kept + self.failed + self.unknown + self.dropped + found or recovery.closed_run)

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
        lines += _held(self.failed_before, self.flagged_before, self.unknown_before, self.partly_there)
        lines += _resubmitted(self.resubmitted)
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
        lines += _rejected(self.rejected_rows, self.rejected)
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
        if not self.refused or not self.limit_found:
            return []
        share = self.refused / max(1, sum(self.requests.values()))
        text = f"about {self.limit_found:,.0f} a minute, as the API showed: it refused {self.refused:,} ({share:.1%})"
        return [("request limit", text)]

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
    rows = [f"| {name} | {markdown_text(value)} |" for name, value in lines]
    return "\n".join([f"## {title}", "", "| | |", "| --- | --- |", *rows, ""])


def _held(failed: int, flagged: int, unknown: int, partly: int) -> list[tuple[str, str]]:
    lines = [("failed before", f"{failed:,} left alone: --retry failed tries them again")] if failed else []
    lines += [("flagged before", f"{flagged:,} dropped, and left alone: --retry flagged pays again")] if flagged else []
    lines += [("unknown before", f"{unknown:,} perhaps paid for: held, and not submitted again")] if unknown else []
    lines += [("partly there", f"{partly:,} lack some of their images: left alone")] if partly else []
    return lines


def _resubmitted(count: int) -> list[tuple[str, str]]:
    text = f"{count:,} not found in the request history for long enough: they may be paid for a second time"
    return [("submitted again", text)] if count else []


def _rejected(first: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    more = [("rejected", f"… and {count - len(first):,} more")] if count > len(first) else []
    return [*(("rejected", row) for row in first), *more]


def markdown_text(value: str) -> str:
    """Return a text as Markdown that shows it, in one line."""
    text = _MARKUP.sub(r"\\\g<0>", " ".join(value.splitlines()))
    return text.replace("&", "&amp;").replace("<", "&lt;")


def json_bytes(value: object) -> bytes:
    """Return JSON in UTF-8; half a surrogate pair, which UTF-8 cannot spell, comes out as JSON's own escape of it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def started(moment: datetime) -> str:
    """Return a moment as it stands in a receipt."""
    return moment.isoformat(timespec="seconds")
