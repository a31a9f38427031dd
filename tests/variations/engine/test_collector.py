"""What becomes of each image of a request: stored, failed with a reason, or unknown with its address."""

from typing import Any

import httpx
import pytest

from variations import errors
from variations.engine.calls import OUTAGE_ITEMS
from variations.engine.outputs import DECODE_ATTEMPTS, FETCH_ATTEMPTS

from .simulation import (
    BASE_URL,
    PRICE_USD,
    FakeApi,
    MemoryStorage,
    failed,
    history_row,
    lost,
    only,
    picture,
    refused,
    run,
    statuses,
    variations,
)


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
    # Another request would pay for the three again; where nothing came, nothing would be paid again.
    assert missing.can_retry is False
    outcomes, _ = run(FakeApi(on_output=lambda *_: httpx.Response(200, content=b"?")), variations(1, num_outputs=2))
    assert [(outcome.error_code, outcome.can_retry) for outcome in outcomes] == 2 * [("output_invalid", True)]


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


def test_the_apis_price_counts_and_where_it_is_silent_the_set_one() -> None:
    """Per image."""

    def on_result(request_id: str, _: int) -> httpx.Response:
        images = [{"url": f"http://127.0.0.1:9/outputs/{request_id}-{k}.jpg"} for k in range(2)]
        return httpx.Response(200, json={"status": "COMPLETED", "images": images})

    outcomes, _ = run(
        FakeApi(polls_bring_outputs=False, on_result=on_result), variations(1, num_outputs=2), price_usd=0.5
    )
    assert [outcome.cost_usd for outcome in outcomes] == [0.5, 0.5]
