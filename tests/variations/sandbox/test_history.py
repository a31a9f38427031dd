"""The request history: late, paged, one row an output."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from variations.sandbox import Sandbox

HISTORY = "/inference-request/request-history"
LATENCY_SECONDS = 15.84
Submit = Callable[..., dict[str, Any]]


def test_a_request_lands_late_and_is_pending_until_it_is_over(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """The history shows the world as it was a few seconds ago."""
    job = submit(photo + "?X-Amz-Signature=abc", seed=8, aspect_ratio="3:2")
    one = f"{HISTORY}/{job['request_id']}"
    assert api.get(HISTORY).json()["data"] == []
    assert api.get(one).status_code == 404
    sandbox.advance_clock(4)
    (row,) = api.get(HISTORY).json()["data"]
    assert row["model_status"] == "PENDING"
    assert row["request_body"] == {
        "redux_image": photo + "?X-Amz-Signature=abc",
        "seed": 8,
        "aspect_ratio": "3:2",
    }
    assert row["generation_url"] is None
    sandbox.advance_clock(LATENCY_SECONDS - 3)
    assert api.get(job["status_url"]).json()["status"] == "COMPLETED"
    assert api.get(one).json()["model_status"] == "PENDING"
    sandbox.advance_clock(3)
    row = api.get(one).json()
    assert row["model_status"] == "COMPLETED"
    assert row["model_name"] == "flux-redux-dev"
    assert row["credits_deduction"] == 0.031
    assert row["latency_ms"] == pytest.approx(15840, abs=5)
    assert row["generation_url"] == api.get(job["response_url"]).json()["output"]


def test_a_request_that_failed_tells_its_error(api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit) -> None:
    """And costs nothing."""
    sandbox.set_faults("failed:1:1")
    submit(photo)
    sandbox.advance_clock(30)
    (row,) = api.get(HISTORY, params={"status": "FAILED"}).json()["data"]
    assert row["error"]
    assert row["credits_deduction"] == 0
    assert api.get(HISTORY, params={"status": "COMPLETED"}).json()["data"] == []


def test_each_output_is_a_row_with_the_whole_cost(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Rows are paged, and a request's rows may lie on two pages."""
    first, second = (submit(photo, num_outputs=2, megapixels="0.25", seed=seed) for seed in (1, 2))
    sandbox.advance_clock(30)
    pages = [api.get(HISTORY, params={"page": page, "per_page": 3}).json() for page in (1, 2, 3)]
    rows = [row for page in pages for row in page["data"]]
    assert [len(page["data"]) for page in pages] == [3, 1, 0]
    assert pages[0]["total"] == 4
    assert [row["request_id"] for row in rows] == [second["request_id"]] * 2 + [first["request_id"]] * 2
    assert {row["credits_deduction"] for row in rows} == {0.062}
    assert len({row["generation_url"] for row in rows}) == 4


def test_a_record_of_any_age_is_found_by_its_id(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """The list reaches back a week by default, and an id for ever; the result itself is gone after an hour."""
    job = submit(photo)
    sandbox.advance_clock(40 * 86400)
    assert api.get(HISTORY).json()["data"] == []
    assert api.get(f"{HISTORY}/{job['request_id']}").json()["model_status"] == "COMPLETED"
    assert api.get(job["response_url"]).status_code == 404


def test_the_window_and_the_order_can_be_chosen(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Both days of the window belong to it."""
    cheap, dear = submit(photo), submit(photo, num_outputs=2, megapixels="0.25")
    sandbox.advance_clock(30)
    day = api.get(HISTORY).json()["data"][0]["model_created"][:10]
    found = api.get(
        HISTORY,
        params={"from_date": day, "to_date": day, "sort_by": "credits_deduction", "sort_order": "asc"},
    ).json()["data"]
    assert [row["request_id"] for row in found] == [cheap["request_id"], dear["request_id"], dear["request_id"]]
    assert api.get(HISTORY, params={"model_name": "redux"}).json()["total"] == 3
    assert api.get(HISTORY, params={"model_name": "other"}).json()["total"] == 0


@pytest.mark.parametrize(
    "params",
    [
        {"from_date": "2026-01-01", "to_date": "2026-02-01"},
        {"from_date": "2026-01-02", "to_date": "2026-01-01"},
        {"from_date": "yesterday"},
        {"page": "0"},
        {"per_page": "101"},
        {"per_page": "x"},
        {"status": "QUEUED"},
        {"sort_by": "seed"},
        {"sort_order": "up"},
    ],
)
def test_400_for_a_query_out_of_bounds(api: httpx.Client, params: dict[str, str]) -> None:
    """A window of more than 31 days is one."""
    assert api.get(HISTORY, params=params).status_code == 400
    assert api.get(HISTORY, params={"from_date": "2026-01-01", "to_date": "2026-01-31"}).status_code == 200
