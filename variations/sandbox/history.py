"""The request history: the account's own requests, one row an output, as they were a few seconds ago."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from variations.sandbox.clock import iso_utc
from variations.sandbox.records import Record, Wording
from variations.sandbox.refusals import Refused

MAX_WINDOW_DAYS: Final = 31
DEFAULT_WINDOW_DAYS: Final = 7
MAX_ROWS_PER_PAGE: Final = 100
_STATUSES: Final = ("COMPLETED", "FAILED", "PENDING")
_SORT_COLUMNS: Final = ("model_created", "model_name", "credits_deduction")


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """What is asked of the history; `since` and `until` are epoch seconds, the latter exclusive."""

    page: int
    per_page: int
    since: float
    until: float
    model_name: str
    status: str | None
    sort_by: str
    descending: bool

    @classmethod
    def parse(cls, given: Mapping[str, str], now: float) -> "HistoryQuery":
        """Read the query string of a call made at `now`.

        Raises:
            Refused: 400, naming the value.
        """
        today = datetime.fromtimestamp(now, UTC).date()
        to_date = _day(given, "to_date", today)
        from_date = _day(given, "from_date", to_date - timedelta(days=DEFAULT_WINDOW_DAYS))
        if from_date > to_date:
            raise Refused(400, "from_date must not be after to_date.")
        # Both days count. Whether the service counts so is not documented; this is the stricter reading.
        if (to_date - from_date).days + 1 > MAX_WINDOW_DAYS:
            raise Refused(400, f"The date range must not exceed {MAX_WINDOW_DAYS} days.")
        return cls(
            page=_number(given, "page", 1, highest=10**9),
            per_page=_number(given, "per_page", 20, highest=MAX_ROWS_PER_PAGE),
            since=_midnight(from_date),
            until=_midnight(to_date + timedelta(days=1)),
            model_name=given.get("model_name", ""),
            status=_choice(given, "status", _STATUSES, None),
            sort_by=_choice(given, "sort_by", _SORT_COLUMNS, None) or "model_created",
            descending=(_choice(given, "sort_order", ("desc", "asc"), None) or "desc") == "desc",
        )


class History:
    """Tell what happened, as of `seen_at`: the moment up to which the history has caught up (epoch seconds)."""

    def __init__(self, wording: Wording, seen_at: float) -> None:
        self._wording = wording
        self._seen_at = seen_at

    def page(self, records: Sequence[Record], query: HistoryQuery) -> dict[str, Any]:
        """Return one page of rows in its envelope; `records` come in the order of their submission."""
        found = list(self._found(records, query))
        if query.sort_by == "model_name":
            found.sort(key=lambda record: record.model)
        elif query.sort_by == "credits_deduction":
            found.sort(key=self._cost)
        if query.descending:
            found.reverse()
        first = (query.page - 1) * query.per_page
        # Rows are counted before any is made: of a hundred thousand only a page is.
        rows: list[dict[str, Any]] = []
        total = 0
        for record in found:
            count = self._row_count(record)
            if total + count > first and total < first + query.per_page:
                rows += self.rows(record)[max(0, first - total) : first + query.per_page - total]
            total += count
        return {
            "data": rows,
            "page": query.page,
            "per_page": query.per_page,
            "total": total,
            "total_pages": -(-total // query.per_page),
        }

    def rows(self, record: Record) -> list[dict[str, Any]]:
        """Return a request's rows, one an output; one without output if there is none yet, or never will be."""
        status = self._status(record)
        is_over = status != "PENDING"
        urls: list[str | None] = [*self._wording.output_urls(record)] if status == "COMPLETED" else [None]
        row = {
            "request_id": record.request_id,
            "model_name": record.model,
            "model_status": status,
            "credits_deduction": self._cost(record),
            "request_body": record.body_as_sent(),
            "latency_ms": round(1000 * (record.completed_at - record.submitted_at)) if is_over else None,
            "model_created": iso_utc(record.submitted_at),
            "model_completed": iso_utc(record.completed_at) if is_over else None,
            "error": record.error if status == "FAILED" else None,
        }
        return [{**row, "generation_url": url} for url in urls]

    def knows(self, record: Record) -> bool:
        """Return whether the request has landed in the history."""
        return record.submitted_at <= self._seen_at

    def _found(self, records: Iterable[Record], query: HistoryQuery) -> Iterator[Record]:
        for record in records:
            if (
                self.knows(record)
                and query.since <= record.submitted_at < query.until
                and query.model_name in record.model
                and (query.status is None or self._status(record) == query.status)
            ):
                yield record

    def _status(self, record: Record) -> str:
        state = record.state(self._seen_at)
        return state if state in ("COMPLETED", "FAILED") else "PENDING"

    def _row_count(self, record: Record) -> int:
        return len(record.file_sizes) if self._status(record) == "COMPLETED" else 1

    def _cost(self, record: Record) -> float:
        return record.cost_usd if self._status(record) == "COMPLETED" else 0.0


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _day(given: Mapping[str, str], name: str, default: date) -> date:
    if not given.get(name):
        return default
    try:
        return datetime.strptime(given[name], "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise Refused(400, f"{name} must be a date as YYYY-MM-DD.") from None


def _number(given: Mapping[str, str], name: str, default: int, *, highest: int) -> int:
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= highest):
        raise Refused(400, f"{name} must be a whole number from 1 to {highest}.")
    return int(text)


def _choice(given: Mapping[str, str], name: str, choices: tuple[str, ...], default: str | None) -> str | None:
    value = given.get(name) or default
    if value is not None and value not in choices:
        raise Refused(400, f"{name} must be one of {', '.join(choices)}.")
    return value
