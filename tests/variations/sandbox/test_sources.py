"""Where a source may lie, how it fails, and what is never told of it."""

import base64
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from variations.sandbox import Sandbox
from variations.sandbox.sources import abridged, data_url_bytes, without_signature

LATENCY_SECONDS = 15.84
Submit = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", ["90_truncated.jpg", "92_html_not_image.jpg", "93_empty.jpg"])
def test_a_source_that_does_not_decode_fails_the_request(
    api: httpx.Client, sandbox: Sandbox, sources: Any, submit: Submit, name: str
) -> None:
    """It is accepted, and FAILED once its time has come; nothing is charged."""
    job = submit(sources.url(name))
    sandbox.advance_clock(LATENCY_SECONDS)
    answer = api.get(job["status_url"])
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("Could not decode redux_image")
    assert sandbox.bill().total_usd == 0


@pytest.mark.parametrize("path", ["missing.jpg", "loop"])
def test_a_source_that_cannot_be_fetched_fails_the_request_without_its_signature(
    *, api: httpx.Client, sandbox: Sandbox, sources: Any, submit: Submit, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Neither the error nor any log line repeats the query string."""
    caplog.set_level(logging.DEBUG)
    job = submit(sources.url(path) + "?X-Amz-Signature=topsecret")
    sandbox.advance_clock(LATENCY_SECONDS)
    body = api.get(job["status_url"]).json()
    assert body["status"] == "FAILED"
    assert body["error"].startswith("Could not fetch redux_image")
    assert "topsecret" not in str(body) + str(sandbox.bill()) + caplog.text


def test_a_source_at_a_port_where_nobody_listens_fails_the_request(
    api: httpx.Client, sandbox: Sandbox, submit: Submit
) -> None:
    """A refused connection is the source's fault."""
    job = submit("http://127.0.0.1:9/a.jpg?sig=topsecret")
    sandbox.advance_clock(LATENCY_SECONDS)
    assert api.get(job["status_url"]).json()["error"].endswith("ConnectError from http://127.0.0.1:9/a.jpg")


def test_a_redirect_is_followed(api: httpx.Client, sandbox: Sandbox, sources: Any, submit: Submit) -> None:
    """A source may have moved."""
    job = submit(sources.url("moved/10_chelsea.webp"))
    sandbox.advance_clock(LATENCY_SECONDS)
    assert api.get(job["status_url"]).json()["status"] == "COMPLETED"


@pytest.mark.parametrize("name", ["17_thumb_24.jpg", "10_chelsea.webp"])
def test_a_data_url_is_a_source(api: httpx.Client, sandbox: Sandbox, sources: Any, submit: Submit, name: str) -> None:
    """A short one is in the history as it was sent; of a long one the beginning and a hash."""
    url = f"data:image/png;base64,{base64.b64encode(sources.contents[name]).decode()}"
    job = submit(url)
    sandbox.advance_clock(30)
    assert api.get(job["status_url"]).json()["status"] == "COMPLETED"
    body = api.get(f"/inference-request/request-history/{job['request_id']}").json()["request_body"]
    assert body["redux_image"] == abridged(url)
    assert (body["redux_image"] == url) == (len(url) <= 2048)


def test_a_damaged_data_url_fails_the_request(api: httpx.Client, sandbox: Sandbox, submit: Submit) -> None:
    """As any other source that does not decode."""
    job = submit("data:image/png;base64,###")
    sandbox.advance_clock(LATENCY_SECONDS)
    assert "base64 is damaged" in api.get(job["status_url"]).json()["error"]


def test_a_source_is_fetched_once_for_many_requests(
    api: httpx.Client, sandbox: Sandbox, sources: Any, submit: Submit
) -> None:
    """Requests at the same time share a fetch, and a minute later it is fetched again."""
    url = sources.url("10_chelsea.webp")
    jobs = [submit(url, seed=seed, megapixels="0.25") for seed in range(1, 9)]
    sandbox.advance_clock(LATENCY_SECONDS)
    assert {api.get(job["status_url"]).json()["status"] for job in jobs} == {"COMPLETED"}
    assert sources.fetches["10_chelsea.webp"] == 1
    sandbox.advance_clock(60)
    submit(url)
    sandbox.advance_clock(LATENCY_SECONDS)
    assert sources.fetches["10_chelsea.webp"] == 2


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://u:p@h/a%20b.jpg?X-Amz-Signature=1#f", "https://h/a%20b.jpg"),
        ("http://127.0.0.1:9000/b/k.jpg", "http://127.0.0.1:9000/b/k.jpg"),
    ],
)
def test_a_source_is_shown_without_what_gives_access(source: str, shown: str) -> None:
    """Query string, fragment and user name are left out."""
    assert without_signature(source) == shown


def test_a_data_url_may_be_percent_encoded() -> None:
    """Base64 is not the only form."""
    assert data_url_bytes("data:text/plain,a%20b") == b"a b"
    assert data_url_bytes("data:;base64,YQ%3D%3D") == b"a"
    with pytest.raises(ValueError, match="not a data"):
        data_url_bytes("data:text/plain")
