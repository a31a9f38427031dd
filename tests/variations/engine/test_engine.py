"""The stream of requests: slots, rate, polls, and what becomes of each variation."""

import asyncio
import random
from collections import Counter
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from variations import errors
from variations.engine.calls import OUTAGE_ITEMS
from variations.engine.outputs import DECODE_ATTEMPTS, FETCH_ATTEMPTS
from variations.engine.poller import POLL_AGAIN_SECONDS, POLL_FAILURES
from variations.ledger.records import Record
from variations.models import Outcome

from .simulation import (
    BASE_URL,
    KEY,
    PRICE_USD,
    ApiRequest,
    FakeApi,
    MemoryLog,
    MemoryStorage,
    Stage,
    failed,
    history_row,
    lost,
    picture,
    refused,
    run,
    variation,
    variations,
)


def statuses(outcomes: list[Outcome]) -> Counter[str]:
    """Count the rows by status."""
    return Counter(outcome.status for outcome in outcomes)


def only(outcomes: list[Outcome]) -> Outcome:
    """Return the one row."""
    assert len(outcomes) == 1
    return outcomes[0]


def test_every_variation_becomes_a_stored_image() -> None:
    """One row each, with everything that is known of it, and the counters agree."""
    outcomes, stage = run(FakeApi(), variations(20), max_in_flight=4, poll_interval_seconds=4.0)
    assert statuses(outcomes) == {"kept": 20}
    for outcome in outcomes:
        assert outcome.image is not None
        assert stage.storage.objects[outcome.image.file_name] == picture()
        assert outcome.image.file_name.endswith(f"/{outcome.variation.variation_id}.jpg")
        assert outcome.redux_image == outcome.variation.source.uri
        assert outcome.cost_usd == pytest.approx(PRICE_USD)
        assert outcome.polls == 4
        assert outcome.submitted_at is not None
        assert outcome.completed_at is not None
        assert 16 <= (outcome.completed_at - outcome.submitted_at).total_seconds() < 20
    assert len({outcome.request_id for outcome in outcomes}) == 20
    progress = stage.engine.progress
    assert (progress.kept, progress.failed, progress.unknown, progress.in_flight) == (20, 0, 0, 0)
    assert progress.cost_usd == pytest.approx(20 * PRICE_USD)
    assert progress.requests == {"submit": 20, "poll": 80}
    assert stage.engine.stopped_by is None


def test_the_key_goes_to_the_api_and_not_with_an_output() -> None:
    """Nor does any call go where an answer's `status_url` points."""
    _, stage = run(FakeApi(), variations(2))
    assert stage.api.keys == {KEY}
    assert stage.api.output_keys == {None}


def test_a_slot_is_refilled_the_moment_it_is_free() -> None:
    """There is no barrier: one request of an hour does not hold the others up, and no slot stays empty."""
    api = FakeApi(latency=lambda number: 500.0 if number == 1 else 16.0)
    outcomes, _ = run(api, variations(61), max_in_flight=4)
    assert statuses(outcomes) == {"kept": 61}
    assert api.most_in_flight == 4
    # Sixty of them share three slots: twenty rounds of about seventeen seconds.
    others = sorted(api.times("submit"))
    assert others[-1] - others[0] < 19 * 18.0
    done = sorted(request.told_at or 0.0 for request in api.requests.values())
    for told_at, submitted in zip(done, others[4:], strict=False):
        assert submitted - told_at < 0.5


def test_slots_are_shared_by_the_runs_of_an_engine() -> None:
    """Two shards together have no more in flight than one alone."""
    api = FakeApi()
    more: list[Outcome] = []

    async def second_shard(stage: Stage) -> None:
        more.extend(await stage.engine.run(variation(number) for number in range(100, 110)))

    outcomes, _ = run(api, variations(10), max_in_flight=3, meanwhile=second_shard)
    assert statuses(outcomes + more) == {"kept": 20}
    assert api.most_in_flight == 3


def test_a_shard_that_is_cancelled_gives_all_its_slots_back() -> None:
    """At whatever step it was: the other shards of the process go on with every slot."""
    api = FakeApi()
    ends: list[asyncio.Task[list[Outcome]]] = []

    async def cancelled_shard(stage: Stage) -> None:
        for steps in range(6):
            shard = asyncio.create_task(stage.engine.run(variations(3)))
            for _ in range(steps):
                await asyncio.sleep(0)
            shard.cancel()
            await asyncio.wait([shard])
            ends.append(shard)

    outcomes, _ = run(api, variations(12), max_in_flight=3, meanwhile=cancelled_shard)
    assert all(shard.cancelled() for shard in ends)
    assert statuses(outcomes) == {"kept": 12}
    times = sorted(api.times("submit"))
    assert times[-1] - times[0] < 5 * 18.0


def test_the_rate_binds_and_polls_go_before_new_submits() -> None:
    """A request that is due to be polled never waits for one that is not yet paid for."""
    api = FakeApi()
    outcomes, stage = run(api, variations(30), max_in_flight=16, requests_per_minute=60, poll_interval_seconds=4.0)
    assert statuses(outcomes) == {"kept": 30}
    times = sorted(api.times())
    for index, at in enumerate(times):
        assert sum(1 for other in times[index:] if other < at + 60) <= 62
    # 60 a minute: about six calls an image, no call wasted and no minute idle.
    assert (times[-1] - times[0]) / len(times) == pytest.approx(1.0, abs=0.05)
    polls: dict[str, list[float]] = {}
    for at, kind, request_id in api.calls:
        if kind == "status":
            polls.setdefault(request_id, []).append(at)
    waits = [later - earlier for found in polls.values() for earlier, later in pairwise(found)]
    # Sixteen in flight, each polled every 4 s, is more than the rate carries: the polls share it, submits wait.
    assert max(waits) < 17
    assert stage.engine.progress.requests["submit"] == 30


def test_a_limit_that_counts_submits_alone_lets_polls_through() -> None:
    """As a setting says."""
    api = FakeApi()
    pace = {"requests_per_minute": 5, "count_all_requests": False, "poll_interval_seconds": 4.0}
    outcomes, _ = run(api, variations(6), max_in_flight=6, **pace)
    assert statuses(outcomes) == {"kept": 6}
    submits = sorted(api.times("submit"))
    assert [later - earlier for earlier, later in pairwise(submits)] == pytest.approx([12.0] * 5)
    assert all(outcome.polls == 4 for outcome in outcomes)


@pytest.mark.parametrize("count_all", [True, False])
def test_a_429_pauses_everything_until_the_reset_and_then_it_goes_on(*, count_all: bool) -> None:
    """A plan that is smaller than the setting costs waiting, and nothing else."""
    api = FakeApi(limit=(20, 60.0))
    outcomes, stage = run(api, variations(20), max_in_flight=8, requests_per_minute=600, count_all_requests=count_all)
    assert statuses(outcomes) == {"kept": 20}
    assert len(api.requests) == 20
    assert len(api.submitted) == 20
    # Twenty a minute are let in; each minute has a few refusals beside them: those that were under way, no more.
    minutes = Counter(int(at // 60) for at in api.times())
    assert max(minutes.values()) <= 20 + 2 * 8
    assert stage.engine.stopped_by is None


def test_a_500_on_submit_is_repeated_and_then_that_row_fails() -> None:
    """The others are made."""
    api = FakeApi(on_submit=lambda _, inputs: refused(500) if inputs["seed"] == 3 else None)
    outcomes, stage = run(api, variations(6), max_in_flight=2)
    assert statuses(outcomes) == {"kept": 5, "failed": 1}
    row = next(outcome for outcome in outcomes if outcome.status == "failed")
    assert (row.error_code, row.cost_usd, row.request_id) == ("service_unavailable", 0.0, None)
    assert sum(1 for inputs in api.submitted if inputs["seed"] == 3) == 5
    assert stage.engine.stopped_by is None


@pytest.mark.parametrize(("code", "expected"), [(400, "invalid_request"), (406, "invalid_request")])
def test_a_value_that_is_refused_fails_its_item_at_once(code: int, expected: str) -> None:
    """It is sent once."""
    api = FakeApi(on_submit=lambda number, _: refused(code, "guidance out of range") if number == 2 else None)
    outcomes, _ = run(api, variations(4), max_in_flight=1)
    assert statuses(outcomes) == {"kept": 3, "failed": 1}
    assert [outcome.error_code for outcome in outcomes if outcome.status == "failed"] == [expected]
    assert len(api.submitted) == 4


@pytest.mark.parametrize("answer", ["lost", "refused"])
def test_a_lost_answer_to_a_submit_is_unknown_and_sent_exactly_once(answer: str) -> None:
    """It is counted at its full price, all its images."""

    def on_submit(number: int, _: dict[str, Any]) -> httpx.Response | Exception | None:
        if number != 1:
            return None
        return lost() if answer == "lost" else refused(502, "Bad gateway")

    api = FakeApi(on_submit=on_submit)
    outcomes, stage = run(api, variations(3, num_outputs=2), max_in_flight=1)
    assert statuses(outcomes) == {"unknown": 2, "kept": 4}
    assert len(api.submitted) == 3
    rows = [outcome for outcome in outcomes if outcome.status == "unknown"]
    assert [row.output_index for row in rows] == [0, 1]
    assert all(row.error_code == "submit_unknown" and row.request_id is None for row in rows)
    assert sum(row.cost_usd for row in rows) == pytest.approx(2 * PRICE_USD)
    assert stage.engine.progress.cost_usd == pytest.approx(6 * PRICE_USD)
    # It was looked for in the history, for a minute and in a few looks.
    looks = api.times("history page")
    assert 4 <= len(looks) <= 8
    assert 30 < looks[-1] - looks[0] <= 61


def test_a_lost_submit_that_shows_in_the_history_is_adopted() -> None:
    """However late in the minute it lands there: it is fetched as if its answer had come, and sent once."""

    def on_submit(number: int, _: dict[str, Any]) -> Exception | None:
        return lost() if number in {1, 3} else None

    def landed(api: FakeApi) -> list[ApiRequest]:
        return [request for request in api.requests.values() if api.times()[-1] >= request.accepted_at + 25]

    log = MemoryLog()
    outcomes, stage = run(FakeApi(on_submit=on_submit, landed=landed), variations(4), log=log, max_in_flight=2)
    assert statuses(outcomes) == {"kept": 4}
    assert len(stage.api.submitted) == len(stage.api.requests) == 4
    assert log.accepted() == {outcome.variation.variation_id: outcome.request_id for outcome in outcomes}
    seeds = {request.request_id: request.inputs["seed"] for request in stage.api.requests.values()}
    assert all(seeds[outcome.request_id or ""] == outcome.variation.parameters.seed for outcome in outcomes)


def test_a_history_that_is_out_of_order_makes_no_lost_submit_worse() -> None:
    """It stays unknown, and the run goes on."""
    api = FakeApi(
        on_submit=lambda number, _: lost() if number == 1 else None,
        on_history_page=lambda number: refused(500) if number % 2 else httpx.Response(200, json={"what": "is this"}),
    )
    outcomes, stage = run(api, variations(3), max_in_flight=1)
    assert statuses(outcomes) == {"unknown": 1, "kept": 2}
    assert stage.engine.stopped_by is None


def test_each_step_is_written_down_before_the_next() -> None:
    """The intent before the request leaves, its id before it is polled, what became of it once the image is stored."""
    api, storage, told = FakeApi(), MemoryStorage(), []

    class Watching(MemoryLog):
        async def append(self, *records: Record) -> datetime:
            kinds = [record.kind for record in records]
            told.append((*kinds, len(api.times("submit")), len(api.times("status")), len(storage.objects)))
            return await super().append(*records)

    outcomes, _ = run(api, variations(1), storage=storage, log=Watching(), poll_interval_seconds=4.0)
    assert only(outcomes).status == "kept"
    assert told == [("intended", 0, 0, 0), ("accepted", 1, 0, 0), ("settled", 1, 4, 1)]


def test_an_inference_that_failed_is_a_failed_row_and_costs_nothing() -> None:
    """With the API's own text."""
    api = FakeApi(on_status=lambda request_id, _: failed("NSFW content") if request_id == "request-2" else None)
    outcomes, _ = run(api, variations(3), max_in_flight=1)
    row = next(outcome for outcome in outcomes if outcome.status == "failed")
    assert (row.error_code, row.error, row.cost_usd, row.request_id) == (
        "inference_failed",
        "NSFW content",
        0.0,
        "request-2",
    )
    assert statuses(outcomes) == {"kept": 2, "failed": 1}


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


def test_what_the_history_does_not_name_of_several_outputs_is_unknown() -> None:
    """One record names one output: it is kept, and the others, which were paid for too, are not called missing."""
    api = FakeApi(
        on_status=lambda *_: refused(404), on_history=lambda request_id, _: history_row(request_id, credits_deduction=9)
    )
    outcomes, _ = run(api, variations(1, num_outputs=3), price_usd=0.5)
    assert [(outcome.status, outcome.cost_usd) for outcome in outcomes] == [
        ("kept", 3.0),
        ("unknown", 0.5),
        ("unknown", 0.5),
    ]


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


@pytest.mark.parametrize(
    "answer",
    [
        refused(404),
        refused(503),
        lost(),
        httpx.Response(200, content=picture()[:-200]),
        httpx.Response(200, content=b"<!doctype html><p>Not yet"),
        httpx.Response(200, content=b""),
    ],
    ids=["404", "503", "broken", "truncated", "html", "empty"],
)
def test_an_output_that_is_bad_once_is_fetched_again(answer: httpx.Response | Exception) -> None:
    """Only the whole image is stored, and it is stored once."""
    api = FakeApi(on_output=lambda _, number: answer if number == 1 else None)
    outcomes, stage = run(api, variations(1))
    assert only(outcomes).status == "kept"
    assert stage.storage.puts.total() == 1
    assert list(stage.storage.objects.values()) == [picture()]


def test_an_output_that_stays_damaged_is_a_failed_row_with_its_cost() -> None:
    """It was paid for, and there is nothing to keep."""
    damaged = httpx.Response(200, content=picture()[:-200])
    outcomes, stage = run(FakeApi(on_output=lambda *_: damaged), variations(1))
    row = only(outcomes)
    assert (row.status, row.error_code, row.cost_usd) == ("failed", "output_invalid", PRICE_USD)
    assert len(stage.api.targets("output")) == DECODE_ATTEMPTS
    assert not stage.storage.objects


@pytest.mark.parametrize("code", [404, 500, 503])
def test_an_output_that_cannot_be_fetched_is_unknown_with_its_address(code: int) -> None:
    """It was paid for and lies there for days: it is not called failed, which could be tried, and paid, again."""
    outcomes, stage = run(FakeApi(on_output=lambda *_: refused(code)), variations(1))
    row = only(outcomes)
    assert (row.status, row.error_code, row.cost_usd) == ("unknown", "output_unavailable", PRICE_USD)
    assert row.output_url == f"{BASE_URL}/outputs/request-1-0.jpg"
    assert len(stage.api.targets("output")) == FETCH_ATTEMPTS


def test_an_outage_of_the_images_host_of_a_minute_loses_nothing() -> None:
    """All that was paid for meanwhile is fetched afterwards."""
    api = FakeApi(latency=lambda *_: 5.0)
    api.on_output = lambda *_: refused(503) if (api.calls[-1][0] if api.calls else 0) < 60 else None
    outcomes, _ = run(api, variations(20), max_in_flight=5, requests_per_minute=0)
    assert statuses(outcomes) == {"kept": 20}


def test_a_host_that_hangs_stops_the_run_in_minutes() -> None:
    """What is done and not stored is bounded, and so is what is paid for while nothing can be had."""
    api = FakeApi(output_seconds=10_000)
    outcomes, stage = run(api, variations(300), max_in_flight=4, max_images_in_memory=4, requests_per_minute=60)
    assert isinstance(stage.engine.stopped_by, errors.ServiceDown)
    assert {outcome.status for outcome in outcomes} == {"unknown"}
    assert len(api.submitted) <= 4 + 2 * 4 + OUTAGE_ITEMS + 4
    assert stage.clock.monotonic() < 1800


def test_paying_in_vain_stops_the_run() -> None:
    """Where request after request is paid for and none brings an image, going on would only cost."""
    api = FakeApi(on_output=lambda *_: httpx.Response(200, content=b"<html>"))
    outcomes, stage = run(api, variations(60), max_in_flight=4)
    assert isinstance(stage.engine.stopped_by, errors.ServiceDown)
    assert "output_invalid" in stage.engine.stopped_by.message
    assert OUTAGE_ITEMS <= len(outcomes) == len(api.submitted) <= OUTAGE_ITEMS + 8


def test_several_outputs_have_their_own_keys_and_share_the_cost() -> None:
    """`-0`, `-1` … tell them apart."""
    outcomes, stage = run(FakeApi(), variations(2, num_outputs=4))
    assert statuses(outcomes) == {"kept": 8}
    assert len(stage.storage.objects) == 8
    names = sorted(outcome.image.file_name for outcome in outcomes if outcome.image)
    assert names[:4] == [f"images/00/{0:032x}-{k}.jpg" for k in range(4)]
    assert all(outcome.cost_usd == pytest.approx(PRICE_USD) for outcome in outcomes)


def test_fewer_images_than_asked_are_failed_rows_for_the_missing() -> None:
    """What was charged is shared by those that came."""
    outcomes, _ = run(FakeApi(made=lambda _: 3), variations(1, num_outputs=4))
    assert statuses(outcomes) == {"kept": 3, "failed": 1}
    missing = next(outcome for outcome in outcomes if outcome.status == "failed")
    assert (missing.output_index, missing.error_code, missing.cost_usd) == (3, "output_missing", 0.0)
    assert sum(outcome.cost_usd for outcome in outcomes) == pytest.approx(3 * PRICE_USD)


def test_more_images_than_asked_do_not_overwrite_the_one_that_was() -> None:
    """There is exactly one row for each image wanted, at the whole cost."""
    outcomes, stage = run(FakeApi(made=lambda _: 3), variations(1))
    assert only(outcomes).cost_usd == pytest.approx(3 * PRICE_USD)
    assert len(stage.storage.objects) == stage.storage.puts.total() == 1


def test_one_bad_output_does_not_take_the_others_of_its_request() -> None:
    """An error that nobody thought of included: it is that image's alone."""
    storage = MemoryStorage()
    storage.fails = lambda number: RuntimeError("a bug") if number == 2 else None
    outcomes, _ = run(FakeApi(), variations(1, num_outputs=4), storage=storage)
    assert statuses(outcomes) == {"kept": 3, "unknown": 1}
    row = next(outcome for outcome in outcomes if outcome.status == "unknown")
    assert (row.error_code, row.error, row.cost_usd) == ("internal_error", "RuntimeError: a bug", PRICE_USD)


def test_an_unexpected_error_in_one_item_is_that_items_row() -> None:
    """Before it was accepted it cost nothing; afterwards it may have."""

    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("a bug")

    def on_status(request_id: str, _: int) -> httpx.Response | None:
        return Odd() if request_id == "request-2" else None  # type: ignore[return-value]

    wanted = variations(5)
    object.__setattr__(wanted[3], "source", Odd())
    outcomes, stage = run(FakeApi(on_status=on_status), wanted, max_in_flight=1)
    assert statuses(outcomes) == {"kept": 3, "unknown": 1, "failed": 1}
    assert {outcome.error_code for outcome in outcomes if outcome.status != "kept"} == {"internal_error"}
    assert stage.engine.stopped_by is None
    assert len(stage.api.submitted) == 4


def test_images_in_memory_are_bounded() -> None:
    """However many requests end at once, so many are fetched, checked and stored at a time."""
    outcomes, stage = run(
        FakeApi(),
        variations(24, num_outputs=4),
        max_in_flight=24,
        max_images_in_memory=3,
        storage=MemoryStorage(put_seconds=1.0),
    )
    assert statuses(outcomes) == {"kept": 96}
    assert stage.api.most_fetching == 3


def test_fetching_and_storing_hold_no_slot() -> None:
    """A slow dataset does not keep the API idle while there are places for images."""
    api = FakeApi()
    run(api, variations(8), max_in_flight=1, storage=MemoryStorage(put_seconds=100.0))
    submits = sorted(api.times("submit"))
    assert submits[-1] - submits[0] < 8 * 18


def test_the_apis_price_counts_and_where_it_is_silent_the_set_one() -> None:
    """Per image."""

    def on_result(request_id: str, _: int) -> httpx.Response:
        images = [{"url": f"http://127.0.0.1:9/outputs/{request_id}-{k}.jpg"} for k in range(2)]
        return httpx.Response(200, json={"status": "COMPLETED", "images": images})

    outcomes, _ = run(
        FakeApi(polls_bring_outputs=False, on_result=on_result), variations(1, num_outputs=2), price_usd=0.5
    )
    assert [outcome.cost_usd for outcome in outcomes] == [0.5, 0.5]


def test_a_presigned_url_goes_to_the_api_and_into_no_row() -> None:
    """Not even where the API repeats it in its error."""
    signed = "https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Signature=secret&X-Amz-Credential=me"
    python_error = "HTTPSConnectionPool(host='bucket.s3.amazonaws.com'): url: /a.jpg?X-Amz-Signature=secret (Caused by"
    for text in (f"Failed to fetch {signed}", python_error):
        api = FakeApi(on_status=lambda *_, text=text: failed(text))
        outcomes, _ = run(api, [variation(1, uri=signed)])
        assert api.submitted[0]["redux_image"] == signed
        row = only(outcomes)
        assert row.redux_image == "https://bucket.s3.amazonaws.com/a.jpg"
        assert "secret" not in repr(row)
        assert "a.jpg" in (row.error or "")


def test_the_balance_is_told_and_a_silent_one_is_none() -> None:
    """A wrong key is an error, an answer without a number is not."""

    async def balance(stage: Stage) -> None:
        balances.append(await stage.engine.check_key())

    balances: list[float | None] = []
    run(FakeApi(), [], meanwhile=balance)
    assert balances == [6.0]


def test_nothing_wanted_is_nothing_done() -> None:
    """An empty shard ends at once."""
    outcomes, stage = run(FakeApi(), [])
    assert (outcomes, stage.api.calls) == ([], [])


def test_an_unknown_status_word_stops_the_run_and_leaves_the_request_unknown() -> None:
    """The contract does not know it: nobody can say what it means for the money."""
    api = FakeApi(on_status=lambda *_: httpx.Response(200, json={"status": "PONDERING"}))
    outcomes, stage = run(api, variations(1))
    assert (only(outcomes).status, only(outcomes).error_code) == ("unknown", "unexpected_answer")
    assert isinstance(stage.engine.stopped_by, errors.UnexpectedAnswer)
