"""What a run is going to do, in numbers and in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from variations.leak_report import LeakCheck, LeakReport
from variations.texts import duration, held_lines, markdown_table, markdown_text, rejected_lines, resubmitted_lines


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
        lines += held_lines(self.failed_before, self.flagged_before, self.unknown_before, self.partly_there)
        lines += resubmitted_lines(self.resubmitted)
        return [
            *lines,
            ("new", f"{self.new:,} in {self.shards:,} shard{'s' * (self.shards != 1)}{self._made_again()}"),
            ("images to pay for", f"{self.images:,}"),
            ("cost", f"about {self.cost_usd:,.2f} USD{self._budget()}"),
            *self._rerolls(),
            *self._balance(),
            *self._canary(),
            ("time", f"about {duration(self.seconds)} at {limit}, {self.max_in_flight} in flight"),
            *rejected_lines(self.rejected_rows, self.rejected),
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
