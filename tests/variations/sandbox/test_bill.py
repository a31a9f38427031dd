"""The bill: the judge of every test of a pipeline."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from variations.sandbox import Sandbox

LATENCY_SECONDS = 15.84
Submit = Callable[..., dict[str, Any]]


def test_a_line_tells_what_was_asked_for_and_what_it_cost(sandbox: Sandbox, photo: str, submit: Submit) -> None:
    """Inputs without query string, time, state, cost, number of images."""
    job = submit(photo + "?X-Amz-Signature=secret", seed=3, num_outputs=2, megapixels="0.25")
    (line,) = sandbox.bill().lines
    assert (line.request_id, line.source, line.seed) == (job["request_id"], photo, 3)
    assert (line.state, line.cost_usd, line.outputs, line.outputs_wanted) == ("PROCESSING", 0, 0, 2)
    assert line.submitted_at == pytest.approx(sandbox.now(), abs=5)
    sandbox.advance_clock(LATENCY_SECONDS)
    line = sandbox.bill().line(job["request_id"])
    assert (line.state, line.cost_usd, line.outputs) == ("COMPLETED", 0.062, 2)


def test_the_same_inputs_are_a_lookup(sandbox: Sandbox, photo: str, submit: Submit) -> None:
    """By all that was sent but the signature; a failed one was accepted twice and paid once."""
    sandbox.set_faults("failed:1:1")
    for seed in (1, 1, 2, 2, 3):
        submit(f"{photo}?signature={seed}", seed=seed, megapixels="0.25")
    submit(photo, seed=3, megapixels="0.25", guidance=4)
    sandbox.advance_clock(LATENCY_SECONDS)
    bill = sandbox.bill()
    assert bill.accepted_counts()[photo, 3] == 2
    assert bill.same_inputs_accepted() == {(photo, 1): 2, (photo, 2): 2}
    assert bill.same_inputs_paid() == {(photo, 2): 2}
    assert bill.total_usd == pytest.approx(5 * 0.031)


def test_a_request_whose_answer_was_lost_is_on_the_bill(api: httpx.Client, sandbox: Sandbox, photo: str) -> None:
    """Nobody knows its id, and it is paid all the same, without anybody having asked for it."""
    sandbox.set_faults("accept_502")
    assert api.post("/v2/flux-redux-dev", json={"redux_image": photo}).status_code == 502
    sandbox.advance_clock(LATENCY_SECONDS)
    assert sandbox.bill().paid == 1
    assert sandbox.bill().credits_left == pytest.approx(100 - 0.031)


def test_every_call_is_counted_by_kind_and_status(
    api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Files are fetched without a key and are no API requests."""
    job = submit(photo)
    sandbox.advance_clock(LATENCY_SECONDS)
    api.get(job["status_url"])
    output = api.get(job["response_url"]).json()["output"]
    anonymous.get(output)
    anonymous.get(job["status_url"])
    bill = sandbox.bill()
    assert bill.calls == {
        "output": {"200": 1},
        "result": {"200": 1},
        "status": {"200": 1, "401": 1},
        "submit": {"200": 1},
    }
    assert bill.requests == 4
    assert bill.calls_of("status") == 2
    assert bill.calls_of("status", 401) == 1


def test_the_bill_is_read_over_http_without_a_key(
    anonymous: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """With its lines, or its sums only."""
    submit(photo)
    bill = anonymous.get(sandbox.bill_url).json()
    assert bill["accepted"] == len(bill["lines"]) == 1
    assert "lines" not in anonymous.get(sandbox.bill_url, params={"lines": 0}).json()


def test_a_reset_forgets_everything(api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit) -> None:
    """Requests, calls, faults, settings and clock are those of the start, and work in flight is dropped."""
    sandbox.configure(price_usd=1.0)
    sandbox.set_faults("failed")
    sandbox.advance_clock(100)
    job = submit(photo)
    assert api.post("/__sandbox/reset").json() == {"reset": True}
    assert sandbox.bill().lines == ()
    assert sandbox.bill().calls == {}
    assert sandbox.faults() == []
    assert sandbox.settings.price_usd == 0.031
    assert api.get("/__sandbox/clock").json()["offset_seconds"] == 0
    assert api.get(job["status_url"]).status_code == 404


def test_settings_are_changed_over_http(api: httpx.Client, sandbox: Sandbox) -> None:
    """What is unknown, fixed or out of bounds is 400; the key is not told."""
    assert api.put("/__sandbox/config", json={"credits": 5, "retired_models": ["x"]}).json()["credits"] == 5
    assert api.get("/v1/get-user-credits").json()["credits"] == 5
    assert sandbox.settings.retired_models == ("x",)
    for wrong in (
        {"nothing": 1},
        {"image_threads": 8},
        {"speed": 0},
        {"speed": "fast"},
        {"credits": None},
        {"models": [1]},
    ):
        assert api.put("/__sandbox/config", json=wrong).status_code == 400
    assert "api_key" not in api.get("/__sandbox/config").json()


@pytest.mark.parametrize("seconds", [-1, "x", None, True])
def test_time_only_goes_forward(api: httpx.Client, seconds: object) -> None:
    """Anything else is 400."""
    assert api.post("/__sandbox/clock", json={"advance_seconds": seconds}).status_code == 400


def test_the_sandbox_says_what_it_is(anonymous: httpx.Client, sandbox: Sandbox) -> None:
    """Its root of control tells that it is not FLUX and which faults there are."""
    about = anonymous.get(f"{sandbox.base_url}/__sandbox").json()
    assert "not FLUX" in about["about"]
    assert "accept_and_break" in about["faults"]
