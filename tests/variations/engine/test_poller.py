"""Waiting for a request: polls, deadlines, forgotten requests, and a poll endpoint that is not served."""

import asyncio
import random

import httpx
import pytest

from variations import errors
from variations.engine.poller import POLL_AGAIN_SECONDS, POLL_FAILURES

from .simulation import (
    PRICE_USD,
    FakeApi,
    history_row,
    lost,
    only,
    refused,
    run,
    statuses,
    variations,
)


def test_not_done_by_the_deadline_is_unknown_and_keeps_its_request_id() -> None:
    """It may still be billed: counted at the price, and its slot is free again."""
    api = FakeApi(latency=lambda number: 1e6 if number == 1 else 16.0)
    outcomes, _ = run(api, variations(3), max_in_flight=1, deadline_seconds=120.0)
    row = next(outcome for outcome in outcomes if outcome.status == "unknown")
    assert (row.error_code, row.request_id, row.cost_usd) == ("timeout", "request-1", PRICE_USD)
    assert statuses(outcomes) == {"kept": 2, "unknown": 1}
    last_poll = max(at for at, kind, target in api.calls if (kind, target) == ("status", "request-1"))
    assert last_poll - min(api.times("submit")) == pytest.approx(120, abs=1)


def test_polls_that_fail_are_asked_again_until_the_deadline() -> None:
    """A 500, a 502 or a broken connection says nothing of the request."""
    answers = [refused(500), refused(502, "<html>"), lost(), httpx.ConnectError("refused"), refused(503)]
    api = FakeApi(on_status=lambda _, number: answers[number - 1] if number <= len(answers) else None)
    outcomes, _ = run(api, variations(1))
    assert only(outcomes).status == "kept"
    api = FakeApi(on_status=lambda *_: refused(500))
    outcomes, _ = run(api, variations(1), deadline_seconds=100.0)
    assert (only(outcomes).status, only(outcomes).error_code) == ("unknown", "service_unavailable")
    assert only(outcomes).request_id == "request-1"


def gateway_says(status: str, code: int) -> httpx.Response:
    """Return a refusal whose body, too, has a word `status`."""
    return httpx.Response(code, json={"status": status, "message": "try again"})


@pytest.mark.parametrize("answer", [gateway_says("error", 500), gateway_says("FAILED", 503), gateway_says("fail", 429)])
def test_a_gateways_own_status_is_not_the_requests(answer: httpx.Response) -> None:
    """A refusal that says "FAILED" of itself does not give up a request that is paid for."""
    api = FakeApi(on_status=lambda _, number: answer if number == 1 else None)
    outcomes, stage = run(api, variations(1))
    assert only(outcomes).status == "kept"
    assert stage.engine.stopped_by is None


def test_a_forgotten_request_is_found_in_the_history() -> None:
    """Its output lives for days: it is fetched and kept, at the cost the record names."""
    api = FakeApi(
        on_status=lambda *_: refused(404), on_history=lambda request_id, _: history_row(request_id, credits_deduction=7)
    )
    outcomes, _ = run(api, variations(1))
    assert (only(outcomes).status, only(outcomes).cost_usd) == ("kept", 7.0)


def test_a_poll_brings_the_outputs_and_where_it_does_not_the_result_is_asked_for() -> None:
    """The older endpoint answers with the whole record, as it is told; nothing depends on it."""
    for brings, expected in ((True, {"submit", "poll"}), (False, {"submit", "poll", "result"})):
        outcomes, stage = run(FakeApi(polls_bring_outputs=brings), variations(3))
        assert statuses(outcomes) == {"kept": 3}
        assert set(stage.engine.progress.requests) == expected
        assert stage.engine.progress.requests.get("result", 3) == 3


@pytest.mark.parametrize(
    "answer",
    [*map(refused, (302, 401, 403, 404, 405, 410, 500, 503)), httpx.Response(200, text="<html>")],
    ids=lambda answer: f"{answer.status_code}",
)
def test_where_polls_are_not_served_the_status_is(answer: httpx.Response) -> None:
    """It is found out by a few requests that the status endpoint knows."""
    api = FakeApi(on_poll=lambda: httpx.Response(answer.status_code, content=answer.content))
    outcomes, stage = run(api, variations(5), max_in_flight=1)
    assert statuses(outcomes) == {"kept": 5}
    requests = stage.engine.progress.requests
    # And once more when it is looked whether it serves again, after some seconds and then more and more seldom.
    assert POLL_FAILURES <= requests["poll"] <= POLL_FAILURES + 2
    assert requests["result"] == 5
    assert stage.engine.stopped_by is None


def test_a_poll_that_breaks_is_asked_again_by_the_status() -> None:
    """And the next one is a poll again, whatever broke it: one that is served in between starts the count anew."""
    broken = iter([refused(502), lost(), None, refused(404), refused(500)])
    api = FakeApi(on_poll=lambda: next(broken, None))
    outcomes, stage = run(api, variations(5), max_in_flight=1)
    assert statuses(outcomes) == {"kept": 5}
    requests = stage.engine.progress.requests
    assert requests["status"] == 4
    assert "result" not in requests or requests["result"] <= 4


def test_polls_that_were_not_served_are_tried_again_now_and_then() -> None:
    """An endpoint that comes back is used again: it saves a call for each image."""
    api = FakeApi()
    api.on_poll = lambda: refused(503) if asyncio.get_running_loop().time() < 1100 else None
    outcomes, stage = run(api, variations(60), max_in_flight=1)
    assert statuses(outcomes) == {"kept": 60}
    requests = stage.engine.progress.requests
    # Twice as long as it was away, at the most.
    waited = (2 * 100 + POLL_AGAIN_SECONDS) / 16 + 2
    assert requests["result"] <= waited
    assert requests["poll"] >= 60 - waited


@pytest.mark.parametrize("outage_seconds", [3.0, 10.0, 90.0])
def test_an_outage_is_not_taken_for_the_poll_endpoints_fault(outage_seconds: float) -> None:
    """Where the status does not answer either: afterwards each image is one poll's again."""
    begin, end = 1100.0, 1100.0 + outage_seconds
    api = FakeApi(network_seconds=0.02)
    api.on_status = lambda *_: refused(503) if begin < asyncio.get_running_loop().time() < end else None
    outcomes, _ = run(api, variations(600), requests_per_minute=600.0, max_in_flight=128)
    assert statuses(outcomes) == {"kept": 600}
    assert len(api.times("submit")) == 600
    # But for those that were under way when the outage ended.
    assert len([at for at in api.times("result") if at > end + 30]) <= 6


def test_single_polls_that_fail_cost_a_call_each_and_no_more() -> None:
    """A fifth of all polls fails, and so sometimes several in a row; that is soon looked at again."""
    rng = random.Random(1)  # noqa: S311 - it is a simulation
    api = FakeApi(network_seconds=0.02, on_status=lambda *_: refused(500) if rng.random() < 0.2 else None)
    outcomes, _ = run(api, variations(600), requests_per_minute=600.0)
    assert statuses(outcomes) == {"kept": 600}
    assert len(api.times("result")) <= 0.5 * 600


def test_a_poll_that_the_limit_refuses_is_a_poll_again() -> None:
    """Of another endpoint it would take a call more, of which there are too few already."""
    limited = iter([httpx.Response(429, json={"error": "Rate limit exceeded."})] * 4)
    api = FakeApi(on_poll=lambda: next(limited, None))
    outcomes, stage = run(api, variations(5), max_in_flight=1)
    assert statuses(outcomes) == {"kept": 5}
    assert set(stage.engine.progress.requests) == {"submit", "poll"}


def test_a_request_forgotten_between_status_and_result_is_found_in_the_history_too() -> None:
    """The result is gone an hour after the submission."""
    api = FakeApi(
        polls_bring_outputs=False,
        on_result=lambda *_: refused(404),
        on_history=lambda request_id, _: history_row(request_id),
    )
    outcomes, _ = run(api, variations(1))
    assert only(outcomes).status == "kept"


def test_a_request_that_the_history_has_in_flight_is_polled_on() -> None:
    """A 404 to an early poll may come from a replica that lags: nothing is given up while it is being made."""
    api = FakeApi(
        on_status=lambda _, number: refused(404) if number <= 2 else None,
        on_history=lambda request_id, _: history_row(request_id, "PENDING"),
    )
    outcomes, _ = run(api, variations(1), poll_interval_seconds=4.0)
    assert only(outcomes).status == "kept"
    assert only(outcomes).polls == 4


@pytest.mark.parametrize(
    ("history", "status", "code"),
    [
        (refused(404), "unknown", "request_gone"),
        (history_row("request-1", "COMPLETED", generation_url=None), "unknown", "request_gone"),
        (history_row("request-of-another"), "unknown", "request_gone"),
        (httpx.Response(200, json={"what": "is this"}), "unknown", "request_gone"),
        (refused(401), "unknown", "request_gone"),
        (refused(500), "unknown", "service_unavailable"),
        (history_row("request-1", "FAILED", error="no"), "failed", "inference_failed"),
    ],
    ids=["no record", "no output", "another's", "no list", "refused", "down", "failed"],
)
def test_a_forgotten_request_that_the_history_does_not_give_back(
    history: httpx.Response, status: str, code: str
) -> None:
    """Unknown, unless the record says that it failed; a history that is out of order stops no run."""
    api = FakeApi(on_status=lambda *_: refused(404), on_history=lambda *_: history)
    outcomes, stage = run(api, variations(1))
    row = only(outcomes)
    assert (row.status, row.error_code, row.request_id) == (status, code, "request-1")
    assert row.cost_usd == (PRICE_USD if status == "unknown" else 0.0)
    assert stage.engine.stopped_by is None


def test_an_unknown_status_word_stops_the_run_and_leaves_the_request_unknown() -> None:
    """The contract does not know it: nobody can say what it means for the money."""
    api = FakeApi(on_status=lambda *_: httpx.Response(200, json={"status": "PONDERING"}))
    outcomes, stage = run(api, variations(1))
    assert (only(outcomes).status, only(outcomes).error_code) == ("unknown", "unexpected_answer")
    assert isinstance(stage.engine.stopped_by, errors.UnexpectedAnswer)
