"""Faults to order: what each one does, how often, and what a real client sees of it."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from httpx_aiohttp import HttpxAiohttpClient
from PIL import Image

from variations.sandbox import FAULTS, Fault, Sandbox
from variations.sandbox.faults import FaultPlan

SUBMIT = "/v2/flux-redux-dev"
LATENCY_SECONDS = 15.84
Submit = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("client_class", [httpx.AsyncClient, HttpxAiohttpClient])
@pytest.mark.parametrize(("fault", "accepted"), [("accept_and_break", 1), ("refuse", 0)])
@pytest.mark.parametrize("path", [SUBMIT, "/v1/flux-redux-dev"])
async def test_a_cut_connection_is_no_answer_on_either_transport(
    *, sandbox: Sandbox, photo: str, client_class: type[httpx.AsyncClient], fault: str, accepted: int, path: str
) -> None:
    """The client sees its connection end before any answer, on a fresh connection and on one that was used."""
    sandbox.set_faults(fault)
    headers = {"x-api-key": sandbox.api_key}
    async with client_class(base_url=sandbox.base_url, headers=headers) as client:
        for round_number in (1, 2):
            with pytest.raises(httpx.TransportError):
                await client.post(path, json={"redux_image": photo})
            bill = await asyncio.to_thread(sandbox.bill)
            assert bill.accepted == accepted * round_number
            assert (await client.get("/v1/get-user-credits")).status_code == 200
    kind = "submit" if path == SUBMIT else "blocking"
    assert bill.calls_of(kind, "broken") == 2


@pytest.mark.parametrize(("fault", "status", "accepted"), [("accept_502", 502, 1), ("submit_500", 500, 0)])
def test_a_submit_fault_accepts_or_does_not(
    *, api: httpx.Client, sandbox: Sandbox, photo: str, fault: str, status: int, accepted: int
) -> None:
    """A 502 comes after the request was accepted, a 500 before; the next submit is let through."""
    sandbox.set_faults(f"{fault}:1:1")
    assert api.post(SUBMIT, json={"redux_image": photo}).status_code == status
    assert sandbox.bill().accepted == accepted
    assert api.post(SUBMIT, json={"redux_image": photo}).status_code == 200


@pytest.mark.parametrize(
    ("fault", "address", "status"),
    [
        ("status_500", "status_url", 500),
        ("status_502", "status_url", 502),
        ("result_500", "response_url", 500),
        ("result_502", "response_url", 502),
        ("result_500", "poll_url", 500),
    ],
)
def test_a_get_fault_strikes_and_the_next_call_succeeds(
    *, api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit, fault: str, address: str, status: int
) -> None:
    """A GET can be repeated."""
    job = submit(photo)
    sandbox.set_faults(Fault(fault, count=1))
    assert [api.get(job[address]).status_code for _ in range(2)] == [status, 200]


def test_an_ordered_failure_is_a_failed_request(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Only the request that was struck fails."""
    sandbox.set_faults("failed:1:1")
    jobs = [submit(photo), submit(photo)]
    sandbox.advance_clock(LATENCY_SECONDS)
    assert [api.get(job["status_url"]).json()["status"] for job in jobs] == ["FAILED", "COMPLETED"]


def test_a_slow_request_takes_ten_times_as_long(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """And is completed in the end."""
    sandbox.set_faults("slow:1:1")
    job = submit(photo)
    sandbox.advance_clock(9.9 * LATENCY_SECONDS)
    assert api.get(job["status_url"]).json()["status"] == "PROCESSING"
    sandbox.advance_clock(LATENCY_SECONDS)
    assert api.get(job["status_url"]).json()["metrics"]["total_time"] == pytest.approx(10 * LATENCY_SECONDS, abs=0.01)


def test_fewer_outputs_are_delivered_and_charged(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Of several images some are missing; a request for one is left alone and does not use up the count."""
    sandbox.set_faults("fewer_outputs:1:1")
    single, several = submit(photo), submit(photo, num_outputs=4, megapixels="0.25")
    sandbox.advance_clock(LATENCY_SECONDS)
    assert len(api.get(single["response_url"]).json()["images"]) == 1
    body = api.get(several["response_url"]).json()
    assert 1 <= len(body["images"]) < 4
    assert body["metrics"]["cost"] == pytest.approx(0.031 * len(body["images"]))


def test_an_output_fault_is_gone_with_the_next_fetch(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """A 404 and a damaged file are drawn anew for each fetch; damaged means that it does not decode."""
    job = submit(photo)
    sandbox.advance_clock(LATENCY_SECONDS)
    url = api.get(job["response_url"]).json()["output"]
    sandbox.set_faults("output_404:1:1")
    assert [api.get(url).status_code for _ in range(2)] == [404, 200]
    sandbox.set_faults("output_damaged:1:1")
    damaged, whole = api.get(url), api.get(url)
    assert damaged.status_code == 200
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(damaged.content)).load()
    Image.open(io.BytesIO(whole.content)).load()


def test_faults_are_ordered_and_read_over_http(api: httpx.Client, sandbox: Sandbox) -> None:
    """The control endpoint replaces all orders, tells how often each struck, and names a mistake."""
    orders = {"faults": [{"name": "failed", "probability": 0.5, "count": 3}, {"name": "slow"}]}
    assert api.put("/__sandbox/faults", json=orders).json()["faults"][0]["struck"] == 0
    assert [fault["name"] for fault in sandbox.faults()] == ["failed", "slow"]
    for wrong in ({}, {"faults": [{"name": "no_such_fault"}]}, {"faults": [{"name": "slow", "probability": 2}]}):
        assert api.put("/__sandbox/faults", json=wrong).status_code == 400
    assert len(api.get("/__sandbox/faults").json()["faults"]) == 2


def test_the_same_seed_strikes_at_the_same_calls() -> None:
    """Chances are seeded, one stream a fault: ordering another one changes nothing."""

    def pattern(*faults: Fault) -> list[bool]:
        plan = FaultPlan(faults, seed=4)
        strikes = []
        for _ in range(200):
            plan.strikes("slow")
            strikes.append(plan.strikes("failed"))
        return strikes

    alone = pattern(Fault("failed", 0.3))
    assert alone == pattern(Fault("failed", 0.3), Fault("slow", 0.5))
    assert 30 < sum(alone) < 90
    assert sum(pattern(Fault("failed", 0.3, 7))) == 7
    assert sum(pattern(Fault("failed", 0.0))) == 0


@pytest.mark.parametrize("text", ["nothing", "failed:x", "failed:2", "failed:1:-1", "failed:1:1:1", "failed:1:x"])
def test_a_fault_that_cannot_be_read_is_a_value_error(text: str) -> None:
    """A name, a probability and a count."""
    with pytest.raises(ValueError, match=r"fault|probability|count"):
        Fault.parse(text)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_written_by_its_name_alone(name: str) -> None:
    """Then it strikes always and without end."""
    assert Fault.parse(name) == Fault(name, 1.0, None)
