"""Read an HTTP answer: into a domain value, or into the error that says what to do about it.

Pure functions. They are liberal: a missing key is None, an error may be HTML. What they insist on is `status`, and on
one URL where a request is done. The table of codes is the vendor's product page; the texts that tell the 406s and
500s apart are those seen in its documentation.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from variations import errors
from variations.models import (
    Accepted,
    Completed,
    Credits,
    Failed,
    HistoryRecord,
    Metrics,
    OutputFile,
    Processing,
    Queued,
    Status,
)

RATE_LIMIT_RESET_HEADER = "x-rate-limit-reset-at-utc"
_LONGEST_TEXT = 300
# No error needs more; what follows a page's head is not worth the search for its tags.
_LONGEST_BODY_READ = 20_000
# Linear, whatever the page: no part of it looks beyond the next tag of its kind.
_TAGS = re.compile(
    r"<(?:script|style)\b[^<]*+(?:<(?!/?(?:script|style)\b)[^<]*+)*+</(?:script|style)>|<[^<>]*+>", re.IGNORECASE
)
# An error may repeat the source's address, signature included, in whatever form the server's own error had it.
_QUERY = re.compile(r"\?[^\s?\"'<>=]+=[^\s\"'<>]*")
_KEY = re.compile(r"\bSG_\w+")
_ADDRESS = re.compile(r"https?://[^\s\"'<>]*", re.IGNORECASE)
_CREDITS = re.compile(r"credit|\bbalance\b|top[ -]?up", re.IGNORECASE)
_SPEND_LIMIT = re.compile(r"spend\w*[ -]?limit|limit .*\b(spend|team)|budget", re.IGNORECASE)


def body_of(content: bytes) -> Any:
    """Return the JSON of a body, or None where it is none (an HTML error page, an empty body)."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def error_text(content: bytes) -> str:
    """Return one line of text from an error's body, JSON envelope, HTML page or plain text alike."""
    body = body_of(content)
    if isinstance(body, dict):
        parts = [body.get("error"), body.get("error_description"), body.get("message"), body.get("detail")]
        text = ": ".join(part if isinstance(part, str) else json.dumps(part) for part in parts if part)
        text = text or json.dumps(body)
    else:
        text = _TAGS.sub(" ", content[:_LONGEST_BODY_READ].decode("utf-8", errors="replace"))
    return shown_text(text)


def shown_text(text: str) -> str:
    """Return what may be shown and stored of a text that the API wrote: one line, no query of an address, no key."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST_BODY_READ])
    text = _KEY.sub("SG_…", _QUERY.sub("?…", " ".join(text.split())))
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def error_of(  # noqa: PLR0911 - it is a table
    status_code: int, content: bytes, headers: Mapping[str, str], *, request_id: str | None = None
) -> errors.VariationsError:
    """Return the error that an answer other than 2xx stands for, whatever was asked.

    `request_id` is the request that was asked about; a 404 means something else where there is one. What a 502 or 504
    means to a submit is for the caller to say.
    """
    text = error_text(content) or "no text"
    # Of what the API says, not of the address that it repeats: an image may be called credits.jpg.
    words = _ADDRESS.sub("", text)
    match status_code:
        case 401:
            return errors.Unauthorized(
                f"the API refused the key (401: {text}); set SEGMIND_API_KEY to a valid key", request_id=request_id
            )
        case 403:
            return errors.Forbidden(f"this key may not use the model (403: {text})", request_id=request_id)
        case 404 if request_id is not None:
            return errors.RequestGone(f"the API knows no such request (404: {text})", request_id=request_id)
        case 404 | 410:
            return errors.ModelUnavailable(f"the model is not there ({status_code}: {text}); check SEGMIND_BASE_URL")
        case 406 if _SPEND_LIMIT.search(words):
            return errors.SpendLimitReached(
                f"the team's spend limit is used up (406: {text}); raise it and run the same command again"
            )
        case 406 if _CREDITS.search(words):
            return errors.InsufficientCredits(
                f"the account's credits are used up (406: {text}); top up and run the same command again"
            )
        case 400 | 406 | 413 | 415 | 422:
            return errors.InvalidRequest(f"the API refused the request ({status_code}: {text})", request_id=request_id)
        case 429:
            reset = headers.get(RATE_LIMIT_RESET_HEADER)
            wait = seconds_between(headers.get("date"), reset)
            return errors.RateLimited(f"too many requests (429: {text})", wait_seconds=wait, request_id=request_id)
        case code if code >= 500:  # noqa: PLR2004 - HTTP's own boundary
            return errors.ServiceUnavailable(f"the API answered {code}: {text}", request_id=request_id)
    return errors.UnexpectedAnswer(f"the API answered {status_code}: {text}", request_id=request_id)


def seconds_between(answered: str | None, reset: str | None) -> float | None:
    """Return how long after its own answer the server lifts a limit; None if it does not say.

    Both times are the server's, so that a clock that is wrong here does not matter.
    """
    until = timestamp(reset)
    if until is None:
        return None
    since = _http_date(answered) or datetime.now(UTC)
    return max(0.0, (until - since).total_seconds())


def _http_date(value: Any) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # "-0000" says: UTC, of which zone is not told.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def timestamp(value: Any) -> datetime | None:
    """Read a time as servers write it, in UTC; None if it is none.

    That is ISO 8601, a date as HTTP has it, or seconds or milliseconds since 1970.
    """
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            moment = _http_date(value) or datetime.fromisoformat(value.strip().removesuffix(" UTC"))
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = float(value)
        return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)  # noqa: PLR2004
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def accepted(content: bytes) -> Accepted | None:
    """Read the answer to a submit; None means that it names no request, so nobody can say what was accepted."""
    body = body_of(content)
    request_id = body.get("request_id") if isinstance(body, dict) else None
    return Accepted(request_id) if isinstance(request_id, str) and request_id and request_id.isprintable() else None


def status(content: bytes, *, request_id: str) -> Status | None:
    """Read a status or result; None means that the body tells no status, and the HTTP code has the word.

    Raises:
        UnexpectedAnswer: the status is a word that the contract does not know.
    """
    body = body_of(content)
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        return None
    match body["status"].upper():
        case "QUEUED":
            return Queued(request_id)
        case "PROCESSING":
            return Processing(request_id)
        case "COMPLETED":
            return Completed(request_id, tuple(outputs(body)), metrics(body.get("metrics")), _integer(body.get("seed")))
        case "FAILED":
            return Failed(request_id, shown_text(_text(body.get("error"))), metrics(body.get("metrics")))
    word = shown_text(body["status"])
    raise errors.UnexpectedAnswer(f"the API told an unknown status {word!r}", request_id=request_id)


def outputs(body: Mapping[str, Any]) -> Iterable[OutputFile]:
    """Read the images of a final body: `images[]` where it has URLs, else `output` as a URL or a list of URLs."""
    images = body.get("images")
    described = [
        OutputFile(image["url"], _text(image.get("content_type")) or None, _integer(image.get("file_size")))
        for image in (images if isinstance(images, list) else [])
        if isinstance(image, dict) and isinstance(image.get("url"), str) and image["url"]
    ]
    if described:
        return described
    output = body.get("output")
    urls = output if isinstance(output, list) else [output]
    return [OutputFile(url) for url in urls if isinstance(url, str) and url]


def metrics(value: Any) -> Metrics:
    """Read `metrics`, whatever part of it is there."""
    if not isinstance(value, dict):
        return Metrics()
    return Metrics(
        cost_usd=number(value.get("cost")),
        remaining_credits=number(value.get("remaining_credits")),
        inference_seconds=number(value.get("inference_time")),
        queue_seconds=number(value.get("queue_time")),
        total_seconds=number(value.get("total_time")),
    )


def account_credits(content: bytes) -> Credits:
    """Read the balance.

    Raises:
        UnexpectedAnswer: there is no number in it.
    """
    body = body_of(content)
    paid = number(body.get("credits")) if isinstance(body, dict) else None
    free = number(body.get("free-credits")) if isinstance(body, dict) else None
    if paid is None and free is None:
        raise errors.UnexpectedAnswer(f"the API told no balance: {error_text(content)}")
    return Credits(paid or 0.0, free or 0.0)


def file_urls(content: bytes, *, expected: int) -> list[str]:
    """Read the URLs of uploaded files, in the order in which they were sent.

    Raises:
        UnexpectedAnswer: there are not as many as files.
    """
    body = body_of(content)
    urls = body.get("file_urls") if isinstance(body, dict) else None
    if not isinstance(urls, list) or len(urls) != expected or not all(isinstance(url, str) for url in urls):
        raise errors.UnexpectedAnswer(f"the upload named no file for each image: {error_text(content)}")
    return urls


def history_rows(content: bytes) -> list[dict[str, Any]]:
    """Read a page of the history: the list itself, or the one list-valued key of an object (the envelope is nowhere
    documented).

    Raises:
        UnexpectedAnswer: there is no list, or more than one.
    """
    body = body_of(content)
    if isinstance(body, dict):
        lists = [value for value in body.values() if isinstance(value, list)]
        if len(lists) == 1:
            body = lists[0]
    if not isinstance(body, list):
        raise errors.UnexpectedAnswer(f"the request history is no list: {error_text(content)}")
    return [row for row in body if isinstance(row, dict)]


def history_record(rows: Iterable[Mapping[str, Any]], *, request_id: str) -> HistoryRecord:
    """Join the history's rows of one request, one a file, into one record; the cost stands in each, and counts once."""
    rows = list(rows)
    first: Mapping[str, Any] = rows[0] if rows else {}
    latency = number(first.get("latency_ms"))
    inputs = first.get("request_body")
    if isinstance(inputs, str):
        inputs = body_of(inputs.encode())
    created = next(
        (first[key] for key in ("model_created", "created_at", "created", "timestamp") if key in first), None
    )
    urls = dict.fromkeys(row["generation_url"] for row in rows if isinstance(row.get("generation_url"), str))
    return HistoryRecord(
        request_id=request_id,
        status=_text(first.get("model_status")).upper(),
        model=_text(first.get("model_name")) or None,
        cost_usd=number(first.get("credits_deduction")),
        inputs=inputs if isinstance(inputs, dict) else {},
        output_urls=tuple(urls),
        latency_seconds=None if latency is None else latency / 1000,
        created_at=timestamp(created),
        error=shown_text(_text(first.get("error"))) or None,
    )


def number(value: Any) -> float | None:
    """Read a finite number that may be written as a string; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _integer(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
