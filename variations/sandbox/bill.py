"""The bill: what was accepted, what it cost, how many calls were made. The judge of every test of a pipeline.

It tells which inputs were accepted or paid for more than once, and cannot tell why: two datasets that want the same
image ask with the same inputs, each of them once, and the API is not told for which one it is. Of the requests for one
dataset alone, they are what was paid twice.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from variations.sandbox.records import Record, State
from variations.sandbox.sources import without_signature

# Calls that a client makes with its key; files are fetched without one and count against no limit.
KEYED_CALLS: Final = ("submit", "blocking", "status", "result", "poll", "credits", "upload", "history")


@dataclass(frozen=True, slots=True)
class BillLine:
    """One accepted submit.

    Attributes:
        request_id: as answered, or as it would have been.
        source: `redux_image` without its query string.
        seed: the seed that was used.
        inputs: a digest of all that was sent, less the query string of the source; the same for the same request.
        endpoint: `v2`, or `v1` for a blocking call.
        submitted_at: epoch seconds of the sandbox's clock.
        state: at the moment of the bill.
        cost_usd: what it was charged; 0 while it runs and if it failed.
        outputs: how many images it delivered.
        outputs_wanted: how many it was asked for.
    """

    request_id: str
    source: str
    seed: int
    inputs: str
    endpoint: str
    submitted_at: float
    state: State
    cost_usd: float
    outputs: int
    outputs_wanted: int


@dataclass(frozen=True, slots=True)
class Bill:
    """A snapshot of everything that was accepted and every call that was made.

    `calls` counts by kind, then by HTTP status as text; `broken` stands for a connection that was cut.
    """

    lines: tuple[BillLine, ...]
    calls: dict[str, dict[str, int]]
    credits_left: float

    @property
    def total_usd(self) -> float:
        """Return what was charged in all."""
        return round(sum(line.cost_usd for line in self.lines), 6)

    @property
    def accepted(self) -> int:
        """Return how many submits were accepted, blocking ones included."""
        return len(self.lines)

    @property
    def paid(self) -> int:
        """Return how many requests were charged."""
        return sum(1 for line in self.lines if line.state == "COMPLETED")

    @property
    def requests(self) -> int:
        """Return how many calls with a key arrived, whatever the answer."""
        return sum(sum(self.calls.get(kind, {}).values()) for kind in KEYED_CALLS)

    def calls_of(self, kind: str, status: int | str | None = None) -> int:
        """Return how many calls of a kind there were, with one status or with any."""
        by_status = self.calls.get(kind, {})
        return sum(by_status.values()) if status is None else by_status.get(str(status), 0)

    def accepted_counts(self) -> Counter[tuple[str, int]]:
        """Return how often each (source without query string, seed) was accepted."""
        return Counter((line.source, line.seed) for line in self.lines)

    def paid_counts(self) -> Counter[tuple[str, int]]:
        """Return how often each (source without query string, seed) was charged."""
        return Counter((line.source, line.seed) for line in self.lines if line.state == "COMPLETED")

    def same_inputs_accepted(self) -> dict[tuple[str, int], int]:
        """Return the (source, seed) of inputs that were accepted more than once, charged or not, and how often."""
        return _more_than_once(self.lines)

    def same_inputs_paid(self) -> dict[tuple[str, int], int]:
        """Return the (source, seed) of inputs that were charged more than once, and how often."""
        return _more_than_once(line for line in self.lines if line.state == "COMPLETED")

    def line(self, request_id: str) -> BillLine:
        """Return the line of a request.

        Raises:
            KeyError: there is none.
        """
        for line in self.lines:
            if line.request_id == request_id:
                return line
        raise KeyError(request_id)

    def as_json(self, *, with_lines: bool = True) -> dict[str, Any]:
        """Return it as JSON objects; with a hundred thousand lines they are better left out."""
        summary = {
            "accepted": self.accepted,
            "paid": self.paid,
            "total_usd": self.total_usd,
            "credits_left": self.credits_left,
            "requests": self.requests,
            "calls": self.calls,
            "same_inputs_accepted": _as_rows(self.same_inputs_accepted()),
            "same_inputs_paid": _as_rows(self.same_inputs_paid()),
        }
        return {**summary, "lines": [asdict(line) for line in self.lines]} if with_lines else summary


def draw_up(records: Iterable[Record], now: float, *, calls: Counter[tuple[str, str]], credits_left: float) -> Bill:
    """Return the bill at `now` (epoch seconds)."""
    by_kind: dict[str, dict[str, int]] = {}
    for (kind, status), count in sorted(calls.items()):
        by_kind.setdefault(kind, {})[status] = count
    lines = tuple(
        BillLine(
            request_id=record.request_id,
            source=without_signature(record.source),
            seed=record.seed,
            inputs=_digest(record),
            endpoint=record.endpoint,
            submitted_at=record.submitted_at,
            state=record.state(now),
            cost_usd=record.cost_usd,
            outputs=len(record.file_sizes),
            outputs_wanted=record.outputs_wanted,
        )
        for record in records
    )
    return Bill(lines, by_kind, round(credits_left, 6))


def _digest(record: Record) -> str:
    return hashlib.sha256(without_signature(record.source).encode() + b"\0" + record.sent).hexdigest()[:16]


def _more_than_once(lines: Iterable[BillLine]) -> dict[tuple[str, int], int]:
    counts = Counter((line.source, line.seed, line.inputs) for line in lines)
    found = Counter[tuple[str, int]]()
    for (source, seed, _), count in counts.items():
        if count > 1:
            found[source, seed] += count
    return dict(found)


def _as_rows(counts: dict[tuple[str, int], int]) -> list[dict[str, Any]]:
    return [{"source": source, "seed": seed, "count": count} for (source, seed), count in counts.items()]
