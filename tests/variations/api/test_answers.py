"""Reading answers: the table of codes, the liberal reading, and what can never be raised."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from variations import errors
from variations.api import answers
from variations.models import Completed, Failed, Metrics, OutputFile, Processing, Queued

METHOD_NOT_ALLOWED = b"""<!doctype html>
<html lang=en><head><style>body { color: red }</style><script>alert("x")</script></head>
<title>405 Method Not Allowed</title>
<h1>Method Not Allowed</h1>
"""


def envelope(text: str) -> bytes:
    """Return the API's error envelope."""
    return json.dumps({"error": text}).encode()


def auth(code: str, text: str) -> bytes:
    """Return the envelope of the auth surface."""
    return json.dumps({"error": code, "error_description": text, "status_code": 401}).encode()


@pytest.mark.parametrize(
    ("code", "content", "request_id", "expected", "text"),
    [
        (400, envelope("Missing required field: redux_image."), None, errors.InvalidRequest, "redux_image"),
        (401, auth("missing_api_key", "No API key."), None, errors.Unauthorized, "missing_api_key: No API key."),
        (401, auth("invalid_api_key", "Invalid API key."), "r", errors.Unauthorized, "invalid_api_key"),
        (403, envelope("Model not allowed for your team."), None, errors.Forbidden, "not allowed"),
        (404, envelope("Model not found."), None, errors.ModelUnavailable, "Model not found"),
        (404, envelope("Request not found."), "r", errors.RequestGone, "Request not found"),
        (405, METHOD_NOT_ALLOWED, None, errors.UnexpectedAnswer, "405 Method Not Allowed"),
        (406, envelope("Insufficient credits."), None, errors.InsufficientCredits, "top up"),
        (406, envelope("Your balance is too low."), None, errors.InsufficientCredits, "balance"),
        (406, envelope("Team spend limit reached."), None, errors.SpendLimitReached, "raise it"),
        (406, envelope("Spending limit exceeded: credits are left."), None, errors.SpendLimitReached, "limit"),
        (406, envelope("Invalid value for 'guidance'."), None, errors.InvalidRequest, "guidance"),
        (406, envelope("Content-Type must be application/json."), None, errors.InvalidRequest, "Content-Type"),
        (406, envelope("Cannot read https://x.example/credits.jpg"), None, errors.InvalidRequest, "Cannot read"),
        (410, envelope("Model retired."), None, errors.ModelUnavailable, "retired"),
        (413, b"", None, errors.InvalidRequest, "413"),
        (422, envelope("seed must be a number"), None, errors.InvalidRequest, "seed"),
        (429, envelope("Rate limit exceeded."), None, errors.RateLimited, "Rate limit"),
        (500, envelope("Internal server error."), None, errors.ServiceUnavailable, "500"),
        (502, b"<html><h1>502 Bad Gateway</h1></html>", "r", errors.ServiceUnavailable, "502 Bad Gateway"),
        (504, b"", "r", errors.ServiceUnavailable, "504"),
        (302, b"", None, errors.UnexpectedAnswer, "302"),
        (418, b"teapot", None, errors.UnexpectedAnswer, "teapot"),
    ],
)
def test_every_code_means_one_error(
    code: int, content: bytes, request_id: str | None, expected: type[errors.VariationsError], text: str
) -> None:
    """With the API's text in one line, and the request it is about."""
    error = answers.error_of(code, content, {}, request_id=request_id)
    assert type(error) is expected
    assert text in error.message
    assert "\n" not in error.message
    assert "<" not in error.message
    if request_id is not None:
        assert error.request_id == request_id


@pytest.mark.parametrize(
    ("date", "reset", "wait"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:42Z", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01 00:00:42.500 UTC", 42.5),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:42", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T02:00:42+02:00", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:42 GMT", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "1767225642", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "1767225642000", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 -0000", "2026-01-01T00:00:42Z", 42.0),
        ("Thu, 01 Jan 2026 00:00:10 GMT", "2026-01-01T00:00:00Z", 0.0),
        # A server whose clock is half a century behind: only the difference counts.
        ("Thu, 01 Jan 1976 00:00:00 GMT", "1976-01-01T00:00:42Z", 42.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "soon", None),
        ("Thu, 01 Jan 2026 00:00:00 GMT", None, None),
    ],
)
def test_a_limit_ends_by_the_servers_own_clock(date: str, reset: str | None, wait: float | None) -> None:
    """The reset is read against the answer's own date, so that a clock that is wrong here does not matter."""
    headers = {"date": date} | ({answers.RATE_LIMIT_RESET_HEADER: reset} if reset is not None else {})
    error = answers.error_of(429, b"", headers)
    assert isinstance(error, errors.RateLimited)
    assert error.wait_seconds == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize("date", [None, "yesterday", "Thu, 01 Jan 99999 00:00:00 GMT"])
def test_without_a_date_the_limit_is_read_against_the_clock_here(date: str | None) -> None:
    """Better than nothing."""
    far = datetime.now(UTC).year + 1
    wait = answers.seconds_between(date, f"{far}-12-31T00:00:00Z")
    assert wait is not None
    assert wait > 360 * 86400


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (envelope("plain"), "plain"),
        (b'{"error": {"code": 7}}', '{"code": 7}'),
        (b'{"detail": [{"loc": ["seed"]}]}', '[{"loc": ["seed"]}]'),
        (b'{"message": "two\\nlines\\u0000and\\ud800more"}', "two lines and more"),
        (b"{}", "{}"),
        (METHOD_NOT_ALLOWED, "405 Method Not Allowed Method Not Allowed"),
        (b"  not json  ", "not json"),
        (b"\xff\xfe", "��"),
        (b"", ""),
    ],
)
def test_an_error_is_one_clean_line(content: bytes, text: str) -> None:
    """JSON, HTML or neither."""
    assert answers.error_text(content) == text


@pytest.mark.parametrize("page", [b"<" * 20_000, b"<script" * 3_000, b"<script>" * 3_000, b"<style><b" * 3_000])
def test_the_time_for_a_page_grows_with_its_length_alone(page: bytes) -> None:
    """However many tags are opened in it and never closed."""
    start = time.process_time()
    answers.error_text(page)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<SCRIPT>if (a < b) {}</SCRIPT>said", "said"),
        (b"<style>a</style>one<script src=x>b</script>two", "one two"),
        (b"a < b", "a < b"),
    ],
)
def test_scripts_and_styles_of_a_page_are_no_text(page: bytes, text: str) -> None:
    """With whatever they contain."""
    assert answers.error_text(page) == text


def test_an_error_is_short_and_quickly_read_however_long_its_page() -> None:
    """A page of megabytes that is all open tags takes no time."""
    assert len(answers.error_text(b"<script" * 500_000)) <= 300
    assert answers.error_text(envelope("x" * 1000)) == "x" * 299 + "…"


@pytest.mark.parametrize(
    "text",
    [
        "cannot fetch https://b.s3.amazonaws.com/a.jpg?X-Amz-Signature=hidden&X-Amz-Date=1 (403)",
        "HTTPSConnectionPool(host='b', port=443): url: /a.jpg?a=1&X-Amz-Signature=hidden (Caused by x)",
        "key SG_hidden0123456789 refused",
    ],
)
def test_an_error_repeats_no_signature_and_no_key(text: str) -> None:
    """Whatever the API wrote: its texts land in logs and tables."""
    assert "hidden" not in answers.error_text(envelope(text))
    found = answers.status(json.dumps({"status": "FAILED", "error": text}).encode(), request_id="r")
    assert isinstance(found, Failed)
    assert "hidden" not in found.error
    assert found.error.split()[0] == text.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "QUEUED"}, Queued("r")),
        ({"status": "queued", "request_id": "other"}, Queued("r")),
        ({"status": "PROCESSING"}, Processing("r")),
        ({"status": "COMPLETED"}, Completed("r")),
        ({"status": "COMPLETED", "output": "u", "seed": "7"}, Completed("r", (OutputFile("u"),), Metrics(), 7)),
        ({"status": "COMPLETED", "output": ["u", "v"]}, Completed("r", (OutputFile("u"), OutputFile("v")))),
        ({"status": "COMPLETED", "output": ["", None, 3, "v"]}, Completed("r", (OutputFile("v"),))),
        (
            {"status": "COMPLETED", "output": "u", "images": [{"url": "v", "file_size": "12"}, {"no": "url"}, "w"]},
            Completed("r", (OutputFile("v", None, 12),)),
        ),
        ({"status": "COMPLETED", "output": "u", "images": []}, Completed("r", (OutputFile("u"),))),
        ({"status": "COMPLETED", "output": "u", "images": [{"url": ""}]}, Completed("r", (OutputFile("u"),))),
        ({"status": "COMPLETED", "images": "none"}, Completed("r")),
        (
            {"status": "COMPLETED", "metrics": {"cost": "0.031", "total_time": 15, "queue_time": "soon"}},
            Completed("r", (), Metrics(cost_usd=0.031, total_seconds=15.0)),
        ),
        ({"status": "COMPLETED", "metrics": {"cost": float("nan"), "inference_time": float("inf")}}, Completed("r")),
        ({"status": "COMPLETED", "seed": float("inf"), "metrics": {"cost": 10**400}}, Completed("r")),
        ({"status": "FAILED", "error": "NSFW"}, Failed("r", "NSFW")),
        ({"status": "FAILED", "error": {"code": 3}}, Failed("r", '{"code": 3}')),
        ({"status": "FAILED"}, Failed("r", "")),
        ({"error": "no status"}, None),
        ({"status": 7}, None),
        ([], None),
    ],
)
def test_a_status_is_read_liberally(body: Any, expected: object) -> None:
    """Keys may be missing, added, or numbers written as text."""
    assert answers.status(json.dumps(body).encode(), request_id="r") == expected


def test_an_unknown_status_word_raises() -> None:
    """Nobody can say what it means for the money."""
    with pytest.raises(errors.UnexpectedAnswer, match="CANCELLED"):
        answers.status(b'{"status": "CANCELLED"}', request_id="r")


@pytest.mark.parametrize(
    ("content", "request_id"),
    [
        (b'{"request_id": "a-b"}', "a-b"),
        (b'{"request_id": ""}', None),
        (b'{"request_id": 7}', None),
        (b'{"request_id": "a\\ud800"}', None),
        (b"{}", None),
        (b'"a-b"', None),
        (b'{"request_id": "a-', None),
        (b"<html>", None),
    ],
)
def test_an_acceptance_without_a_usable_id_is_none(content: bytes, request_id: str | None) -> None:
    """Then nobody can say what was accepted."""
    found = answers.accepted(content)
    assert (found.request_id if found else None) == request_id


def test_the_balance_is_read_from_either_key() -> None:
    """Text or number; without any number it is no balance."""
    assert answers.account_credits(b'{"credits": "1.5", "free-credits": 2}').total == 3.5
    assert answers.account_credits(b'{"free-credits": 2}').total == 2
    for content in (b"{}", b'{"credits": "many"}', b"[]", b'{"credits": NaN}'):
        with pytest.raises(errors.UnexpectedAnswer):
            answers.account_credits(content)


def test_an_upload_names_a_file_for_each_image() -> None:
    """In order; fewer, more or others than texts are no answer."""
    assert answers.file_urls(b'{"file_urls": ["a", "b"], "message": "x"}', expected=2) == ["a", "b"]
    for content in (b'{"file_urls": ["a"]}', b'{"file_urls": [1, 2]}', b"{}", b"[]", b""):
        with pytest.raises(errors.UnexpectedAnswer):
            answers.file_urls(content, expected=2)


ROW = {"request_id": "r"}


@pytest.mark.parametrize(
    "body",
    [[ROW, "noise"], {"data": [ROW]}, {"rows": [ROW], "page": 1, "total": 1}, {"anything": [ROW], "filters": {}}],
)
def test_the_historys_envelope_may_be_any(body: Any) -> None:
    """The list itself, or the one key that holds a list."""
    assert answers.history_rows(json.dumps(body).encode()) == [ROW]


@pytest.mark.parametrize("body", [{}, {"a": [ROW], "b": [ROW]}, "text", None, {"data": {"rows": [ROW]}}])
def test_a_history_without_its_one_list_is_no_history(body: Any) -> None:
    """It is not guessed at."""
    with pytest.raises(errors.UnexpectedAnswer):
        answers.history_rows(json.dumps(body).encode())


def test_the_rows_of_one_request_are_one_record_and_cost_once() -> None:
    """One row an output; the cost stands in each."""
    row = {
        "request_id": "r",
        "model_name": "flux-redux-dev",
        "model_status": "completed",
        "credits_deduction": "0.062",
        "request_body": '{"seed": 7}',
        "latency_ms": "15840",
        "model_created": "2026-01-01T00:00:00.000Z",
        "error": None,
    }
    rows = [row | {"generation_url": url} for url in ("u", "v", "u", None)]
    record = answers.history_record(rows, request_id="r")
    assert record.cost_usd == 0.062
    assert record.output_urls == ("u", "v")
    assert record.status == "COMPLETED"
    assert record.inputs == {"seed": 7}
    assert record.latency_seconds == 15.84
    assert record.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert record.error is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("status", "request_id", "output", "images", "url", "metrics", "cost", "seed", "error", "credits"),
                    *("free-credits", "file_urls", "data", "generation_url", "request_body", "latency_ms", "detail"),
                    *("model_created", "file_size", "content_type", "model_status", "total_time", "created_at"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
)
WORDS = st.sampled_from(["QUEUED", "PROCESSING", "COMPLETED", "FAILED"])
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda body: json.dumps(body).encode()),
    st.builds(lambda body, word: json.dumps({**body, "status": word}).encode(), st.dictionaries(WORDS, JSON), WORDS),
    st.builds(
        lambda word, fields: json.dumps({**dict(fields), "status": word}).encode(),
        WORDS,
        st.lists(st.tuples(st.sampled_from(["output", "images", "metrics", "seed", "error"]), JSON)),
    ),
)
READERS: list[Callable[[bytes], object]] = [
    answers.error_text,
    answers.accepted,
    lambda content: answers.status(content, request_id="r"),
    answers.account_credits,
    lambda content: answers.file_urls(content, expected=1),
    lambda content: [answers.history_record([row], request_id="r") for row in answers.history_rows(content)],
]


@settings(deadline=None)
@given(content=BODIES)
@example(content=b"[" * 100_000)
@example(content=b'{"status": "COMPLETED", "seed": 1' + b"0" * 5000 + b"}")
@example(content=b'{"status": "COMPLETED", "seed": 1e999, "images": [{"url": "u", "file_size": NaN}]}')
@example(content=b'{"data": [{"latency_ms": Infinity, "model_created": 1e99, "request_body": "[[["}]}')
def test_no_body_breaks_a_reader(content: bytes) -> None:
    """Whatever a server says is a value or one of the package's errors."""
    for read in READERS:
        try:
            read(content)
        except errors.VariationsError as error:
            str(error).encode()


@settings(deadline=None)
@given(
    code=st.integers(300, 999),
    content=BODIES,
    headers=st.dictionaries(st.sampled_from(["date", answers.RATE_LIMIT_RESET_HEADER]), st.text() | st.just("1e9")),
    request_id=st.none() | st.just("r"),
)
@example(code=429, content=b"", headers={"date": "1 Jan 1 1:1 +99999999999999", "x": ""}, request_id=None)
@example(
    code=429,
    content=b"",
    headers={"date": "Thu, 01 Jan 2026 00:00:00 -0000", answers.RATE_LIMIT_RESET_HEADER: "2026-01-01T00:00:42"},
    request_id=None,
)
def test_no_refusal_breaks_the_table(
    code: int, content: bytes, headers: dict[str, str], request_id: str | None
) -> None:
    """Every code, body and header gives one error that can be shown and stored."""
    error = answers.error_of(code, content, headers, request_id=request_id)
    str(error).encode()
    assert "\n" not in str(error)
    if isinstance(error, errors.RateLimited) and error.wait_seconds is not None:
        assert error.wait_seconds >= 0
