"""Every endpoint over a real socket, against the sandbox, with both transports."""

import asyncio
import base64
import logging
import ssl
from collections.abc import Awaitable, Callable
from importlib import metadata

import httpx
import pytest

from variations import errors
from variations.api.client import Client
from variations.api.download import OutputPolicy, fetch_output
from variations.api.http import default_http_client
from variations.images import inspect_image
from variations.models import Completed, Failed, Processing, Queued
from variations.parameters import Parameters
from variations.sandbox import Sandbox

from .conftest import PHOTOS, Connection, RawServer, client_at

LATENCY_SECONDS = 15.84


@pytest.fixture(scope="session")
def photo(shared_sandbox: Sandbox) -> str:
    """A photograph as a data: URL, which the sandbox takes."""
    del shared_sandbox
    return "data:image/jpeg;base64," + base64.b64encode((PHOTOS / "17_thumb_24.jpg").read_bytes()).decode()


@pytest.fixture
def inputs(photo: str) -> dict[str, object]:
    """Valid inputs of a quick request."""
    return {"redux_image": photo, **Parameters(megapixels="0.25", seed=7).as_sent()}


async def advance(sandbox: Sandbox, seconds: float = 1.2 * LATENCY_SECONDS) -> None:
    """Move the sandbox's clock, by default until a request is done."""
    await asyncio.to_thread(sandbox.advance_clock, seconds)


async def test_a_request_goes_from_submit_to_its_image(
    api: Client, sandbox: Sandbox, inputs: dict[str, object]
) -> None:
    """Its states, its result by both endpoints, and its file."""
    await asyncio.to_thread(sandbox.configure, workers=1)
    first, second = await api.submit(inputs), await api.submit(inputs)
    assert isinstance(await api.status(first.request_id), Processing)
    assert await api.status(second.request_id) == Queued(second.request_id)
    assert isinstance(await api.result(first.request_id), Processing)
    await advance(sandbox)
    status = await api.status(first.request_id)
    assert isinstance(status, Completed)
    assert status.outputs == ()
    result = await api.result(first.request_id)
    assert isinstance(result, Completed)
    assert (result.seed, len(result.outputs)) == (7, 1)
    assert result.metrics.cost_usd == pytest.approx(0.031)
    assert result.metrics.total_seconds == pytest.approx(LATENCY_SECONDS, rel=0.25)
    assert await api.poll(first.request_id) == result
    content = await fetch_output(api.http, result.outputs[0].url, policy=OutputPolicy("127.0.0.1"))
    facts = inspect_image(content)
    assert (facts.width, facts.height, facts.format) == (512, 512, "jpg")
    assert (await asyncio.to_thread(sandbox.bill)).accepted == 2


async def test_a_failed_request_is_an_answer(api: Client, sandbox: Sandbox, inputs: dict[str, object]) -> None:
    """Though it comes as 422, at every endpoint."""
    sandbox.set_faults("failed")
    request_id = (await api.submit(inputs)).request_id
    await advance(sandbox)
    for ask in (api.status, api.result, api.poll):
        found = await ask(request_id)
        assert isinstance(found, Failed)
        assert "Inference failed" in found.error


async def test_the_blocking_call_returns_the_image_itself(
    api: Client, sandbox: Sandbox, inputs: dict[str, object]
) -> None:
    """With what its headers say."""
    await asyncio.to_thread(sandbox.configure, speed=1000.0)
    image = await api.generate(inputs)
    assert inspect_image(image.content).format == "jpg"
    assert (image.content_type, image.seed) == ("image/jpeg", 7)
    assert image.cost_usd == pytest.approx(0.031)
    assert image.remaining_credits == pytest.approx(100 - 0.031)
    assert image.generation_seconds is not None
    assert image.request_id is not None
    assert image.content not in repr(image).encode()


async def test_the_balance_is_both_credits_together(api: Client, sandbox: Sandbox) -> None:
    """Paid and free, in USD."""
    await asyncio.to_thread(sandbox.configure, credits=5.0, free_credits=1.5)
    assert (await api.credits()).total == 6.5


async def test_an_uploaded_file_can_be_a_source(api: Client, inputs: dict[str, object]) -> None:
    """In the order in which the files were sent."""
    files = [
        ((PHOTOS / name).read_bytes(), kind)
        for name, kind in (("17_thumb_24.jpg", "image/jpeg"), ("10_chelsea.webp", "image/webp"))
    ]
    urls = await api.upload_asset(files)
    assert [(await api.http.get(url)).content for url in urls] == [content for content, _ in files]
    assert (await api.submit({**inputs, "redux_image": urls[0]})).request_id


async def test_the_history_knows_every_request(api: Client, sandbox: Sandbox, inputs: dict[str, object]) -> None:
    """In flight, done and failed ones; the rows of one request are one record."""
    done = (await api.submit({**inputs, "num_outputs": 3})).request_id
    await asyncio.to_thread(sandbox.set_faults, "failed")
    failed = (await api.submit({**inputs, "seed": 8})).request_id
    await advance(sandbox)
    await asyncio.to_thread(sandbox.set_faults)
    pending = (await api.submit({**inputs, "seed": 9})).request_id
    records = {record.request_id: record for record in await api.history()}
    assert {name: record.status for name, record in records.items()} == {
        done: "COMPLETED",
        failed: "FAILED",
        pending: "PENDING",
    }
    assert len(records[done].output_urls) == 3
    assert records[done].cost_usd == pytest.approx(3 * 0.031)
    assert records[done].inputs["seed"] == 7
    assert records[failed].error
    assert records[failed].output_urls == ()
    assert [record.request_id for record in await api.history(status="PENDING")] == [pending]
    assert (await api.history(sort_order="asc"))[0].request_id == done
    assert await api.history(page=9) == []
    assert (await api.history_record(failed)).status == "FAILED"


async def test_a_result_that_expired_is_still_in_the_history(
    api: Client, sandbox: Sandbox, inputs: dict[str, object]
) -> None:
    """Gone after an hour, and its output's address is known."""
    request_id = (await api.submit(inputs)).request_id
    await advance(sandbox, 3700)
    for ask in (api.status, api.result, api.poll):
        with pytest.raises(errors.RequestGone) as caught:
            await ask(request_id)
        assert caught.value.request_id == request_id
    assert (await api.history_record(request_id)).output_urls


async def test_nobody_knows_a_request_that_never_was(api: Client) -> None:
    """By status, result and history alike."""
    for ask in (api.status, api.result, api.poll, api.history_record):
        with pytest.raises(errors.RequestGone):
            await ask("../../v1/get-user-credits")


@pytest.mark.parametrize(
    ("changes", "fields", "expected"),
    [
        ({"retired_models": ("flux-redux-dev",), "models": ()}, {}, errors.ModelUnavailable),
        ({"forbidden_models": ("flux-redux-dev",), "models": ()}, {}, errors.Forbidden),
        ({"models": ("another",)}, {}, errors.ModelUnavailable),
        ({"credits": 0.0}, {}, errors.InsufficientCredits),
        ({"spend_limit_usd": 0.0}, {}, errors.SpendLimitReached),
        ({}, {"guidance": 99}, errors.InvalidRequest),
        ({}, {"redux_image": None}, errors.InvalidRequest),
        ({}, {"no_such_parameter": 1}, errors.InvalidRequest),
    ],
    ids=["410", "403", "404", "credits", "spend limit", "value", "missing", "unknown"],
)
async def test_every_refusal_of_a_submit_has_its_error(
    *,
    api: Client,
    sandbox: Sandbox,
    inputs: dict[str, object],
    changes: dict[str, object],
    fields: dict[str, object],
    expected: type[errors.VariationsError],
) -> None:
    """And nothing is accepted, submitted or blocking."""
    await asyncio.to_thread(lambda: sandbox.configure(**changes))
    for call in (api.submit, api.generate):
        with pytest.raises(expected):
            await call({**inputs, **fields})
    assert (await asyncio.to_thread(sandbox.bill)).accepted == 0


@pytest.mark.parametrize("key", ["", "SG_wrong0123456789a"])
async def test_a_key_that_is_missing_or_wrong_is_unauthorized_everywhere(
    sandbox: Sandbox, http: httpx.AsyncClient, inputs: dict[str, object], key: str
) -> None:
    """And the error does not repeat it."""
    api = client_at(sandbox.base_url, http, key)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: api.submit(inputs),
        lambda: api.generate(inputs),
        lambda: api.status("r"),
        lambda: api.result("r"),
        lambda: api.poll("r"),
        api.credits,
        api.history,
        lambda: api.history_record("r"),
        lambda: api.upload_asset([(b"x", "image/jpeg")]),
    ]
    for call in calls:
        with pytest.raises(errors.Unauthorized) as caught:
            await call()
        assert not key or key not in repr(caught.value)


async def test_a_limit_says_when_it_ends(api: Client, sandbox: Sandbox) -> None:
    """In seconds from the answer on."""
    await asyncio.to_thread(sandbox.configure, requests_per_minute=2)
    await api.credits()
    await api.credits()
    with pytest.raises(errors.RateLimited) as caught:
        await api.credits()
    assert caught.value.wait_seconds is not None
    assert 0 <= caught.value.wait_seconds <= 61


@pytest.mark.parametrize(
    ("fault", "accepted", "expected"),
    [
        ("submit_500", 0, errors.ServiceUnavailable),
        ("accept_502", 1, errors.SubmitUnknown),
        ("accept_and_break", 1, errors.SubmitUnknown),
        ("refuse", 0, errors.SubmitUnknown),
    ],
)
async def test_a_submit_that_goes_wrong_is_billed_at_most_once(
    *,
    api: Client,
    sandbox: Sandbox,
    inputs: dict[str, object],
    fault: str,
    accepted: int,
    expected: type[errors.VariationsError],
) -> None:
    """And says what is known of it."""
    await asyncio.to_thread(sandbox.set_faults, fault)
    for call in (api.submit, api.generate):
        with pytest.raises(errors.VariationsError) as caught:
            await call(inputs)
        assert type(caught.value) is expected
    assert (await asyncio.to_thread(sandbox.bill)).accepted == 2 * accepted


@pytest.mark.parametrize("fault", ["status_500", "status_502"])
async def test_a_status_that_goes_wrong_can_be_asked_again(
    api: Client, sandbox: Sandbox, inputs: dict[str, object], fault: str
) -> None:
    """It says nothing of the request."""
    request_id = (await api.submit(inputs)).request_id
    await asyncio.to_thread(sandbox.set_faults, f"{fault}:1:1")
    with pytest.raises(errors.ServiceUnavailable):
        await api.status(request_id)
    assert isinstance(await api.status(request_id), Processing)


async def test_the_wrong_verb_is_a_programming_error(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    """405 comes as HTML, and is told in one line."""
    api = client_at(f"{sandbox.base_url}/v2/requests/x/status?", http, sandbox.api_key)
    with pytest.raises(errors.UnexpectedAnswer, match="405") as caught:
        await api.submit({})
    assert "<" not in str(caught.value)


async def test_the_key_shows_nowhere_but_in_its_header(
    api: Client, sandbox: Sandbox, inputs: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a repr, nor in any log, however talkative."""
    caplog.set_level(logging.DEBUG)
    request_id = (await api.submit(inputs)).request_id
    await api.status(request_id)
    with pytest.raises(errors.InvalidRequest) as caught:
        await api.submit({**inputs, "guidance": 99})
    shown = [repr(api), repr(api.endpoint), repr(caught.value), str(caught.value), caplog.text]
    assert not any(sandbox.api_key in text for text in shown)


async def test_an_address_that_an_answer_names_is_never_followed(server: RawServer, http: httpx.AsyncClient) -> None:
    """Status and result are asked where the settings say, so that the key stays there; so is a redirect of theirs."""
    asked: list[str] = []
    elsewhere = b'{"request_id": "r", "status": "QUEUED", "status_url": "http://127.0.0.1:1/x", "poll_url": "http://127.0.0.1:1/y"}'

    async def on_connect(connection: Connection) -> None:
        method, path = await connection.read_request()
        asked.append(f"{method} {path}")
        if path.endswith("/status"):
            await connection.answer(code=302, headers=f"location: {server.url}/stolen\r\n")
        else:
            await connection.answer(elsewhere, headers="connection: close\r\n")

    server.on_connect = on_connect
    http.follow_redirects = True
    api = client_at(server.url, http)
    await api.submit({})
    await api.result("r")
    with pytest.raises(errors.ServiceUnavailable, match="302"):
        await api.status("r")
    assert asked == ["POST /v2/flux-redux-dev", "GET /v2/requests/r", "GET /v2/requests/r/status"]


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (500, b'{"status": "error"}', errors.ServiceUnavailable),
        (503, b'{"status": "FAILED", "error": "no healthy upstream"}', errors.ServiceUnavailable),
        (404, b'{"status": "failed", "error": "Request not found"}', errors.RequestGone),
        (401, b'{"status": "failed"}', errors.Unauthorized),
        (200, b'{"no": "status"}', errors.ServiceUnavailable),
        (200, b"<html>maintenance</html>", errors.ServiceUnavailable),
        (422, b'{"error": "no status"}', errors.InvalidRequest),
    ],
)
async def test_only_an_answer_of_the_contract_tells_a_status(
    *, server: RawServer, http: httpx.AsyncClient, code: int, body: bytes, expected: type[errors.VariationsError]
) -> None:
    """A refusal that calls itself "failed" speaks of itself, not of a request that is paid for."""

    async def act(connection: Connection) -> None:
        await connection.answer(body, code=code)

    server.act = act
    with pytest.raises(errors.VariationsError) as caught:
        await client_at(server.url, http).status("r")
    assert type(caught.value) is expected


@pytest.mark.parametrize("code", [302, 402, 407, 408, 409, 418, 423, 425, 499])
async def test_an_odd_answer_to_what_costs_nothing_may_be_asked_again(
    server: RawServer, http: httpx.AsyncClient, code: int
) -> None:
    """A gateway's mood must not end a run that has paid images to fetch."""

    async def act(connection: Connection) -> None:
        await connection.answer(b"odd", code=code, headers="connection: close\r\n")

    server.act = act
    api = client_at(server.url, http)
    for call in (
        lambda: api.status("r"),
        lambda: api.result("r"),
        api.credits,
        api.history,
        lambda: api.history_record("r"),
        lambda: api.upload_asset([(b"x", "image/jpeg")]),
    ):
        with pytest.raises(errors.ServiceUnavailable, match=str(code)):
            await call()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (408, errors.SubmitUnknown),
        (499, errors.SubmitUnknown),
        (302, errors.UnexpectedAnswer),
        (405, errors.UnexpectedAnswer),
        (409, errors.UnexpectedAnswer),
        (423, errors.UnexpectedAnswer),
        (425, errors.UnexpectedAnswer),
    ],
)
async def test_an_odd_answer_to_a_submit_is_not_repeated(
    *, server: RawServer, http: httpx.AsyncClient, code: int, expected: type[errors.VariationsError]
) -> None:
    """Where somebody gave up waiting it may have been accepted; anything else is outside the contract."""

    async def act(connection: Connection) -> None:
        await connection.answer(b"odd", code=code, headers="connection: close\r\n")

    server.act = act
    api = client_at(server.url, http)
    for call in (api.submit, api.generate):
        with pytest.raises(errors.VariationsError, match=str(code)) as caught:
            await call({})
        assert type(caught.value) is expected


async def test_the_wrong_verb_of_a_get_is_a_programming_error_too(server: RawServer, http: httpx.AsyncClient) -> None:
    """Asking again would not help."""

    async def act(connection: Connection) -> None:
        await connection.answer(b"<h1>Method Not Allowed</h1>", code=405)

    server.act = act
    with pytest.raises(errors.UnexpectedAnswer):
        await client_at(server.url, http).status("r")


async def test_the_user_agent_names_the_installed_version(server: RawServer, trust: ssl.SSLContext) -> None:
    """So that the vendor's logs tell who asked."""
    heads: list[str] = []

    async def on_connect(connection: Connection) -> None:
        heads.append(await connection.read_head())
        await connection.answer(b'{"credits": 1}')

    server.on_connect = on_connect
    async with default_http_client(verify=trust) as http:
        await client_at(server.url, http).credits()
    assert f"user-agent: variations/{metadata.version('variations')}\r\n" in heads[0].lower()


@pytest.mark.parametrize(
    "body",
    [b'[{"request_id": "another", "generation_url": "u"}]', b"[]", b'{"data": []}', b'{"request_id": "another"}'],
)
async def test_the_record_of_another_request_is_not_taken_for_this_ones(
    server: RawServer, http: httpx.AsyncClient, body: bytes
) -> None:
    """A server that ignores the id and lists everything has no record of it."""

    async def act(connection: Connection) -> None:
        await connection.answer(body)

    server.act = act
    with pytest.raises(errors.RequestGone):
        await client_at(server.url, http).history_record("r")


@pytest.mark.parametrize(
    "body",
    [
        b'[{"request_id": "r"}]',
        b'{"data": [{"request_id": "r"}]}',
        b'{"data": {"request_id": "r"}}',
        b'{"request_id": "r"}',
    ],
)
async def test_a_record_is_read_in_any_envelope(server: RawServer, http: httpx.AsyncClient, body: bytes) -> None:
    """It is nowhere documented."""

    async def act(connection: Connection) -> None:
        await connection.answer(body)

    server.act = act
    assert (await client_at(server.url, http).history_record("r")).request_id == "r"
