"""Submits whose answer is lost, over real sockets and both transports: each leaves once, and nothing is repeated."""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from variations import errors
from variations.api.http import was_never_sent

from .conftest import Act, Connection, RawServer, client_at, running_raw_server

INPUTS = {"redux_image": "https://x.example/a.jpg", "seed": 7}
ACCEPTED = b'{"request_id": "r-1", "status": "QUEUED"}'


async def close(_: Connection) -> None:
    """Read the request and say nothing."""


async def reset(connection: Connection) -> None:
    """Read the request and cut the connection."""
    connection.reset()


def says(content: bytes, *, then_reset: bool = False) -> Act:
    """Send these bytes, and close."""

    async def act(connection: Connection) -> None:
        await connection.write(content)
        if then_reset:
            await asyncio.sleep(0.05)
            connection.reset()

    return act


def answers(code: int, content: bytes = b"{}") -> Act:
    """Send a whole answer."""

    async def act(connection: Connection) -> None:
        await connection.answer(content, code=code)

    return act


async def never(_: Connection) -> None:
    """Say nothing and keep the connection."""
    await asyncio.Event().wait()


LOST: dict[str, Act] = {
    "closed before the answer": close,
    "reset before the answer": reset,
    "closed in the status line": says(b"HTTP/1.1 20"),
    "closed in the headers": says(b"HTTP/1.1 200 OK\r\ncontent-type: appl"),
    "closed in the body": says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + ACCEPTED[:10]),
    "reset in the body": says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + ACCEPTED[:10], then_reset=True),
    "closed in a chunk": says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\n" + ACCEPTED[:10]),
    "closed between chunks": says(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n" + ACCEPTED[:5] + b"\r\n"
    ),
    "broken gzip": says(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd"),
    "not HTTP": says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "not ASCII": says(b"HTTP/1.1 200 \xff\xfe\r\ncontent-length: 2\r\n\r\n{}"),
    "200 without an id": answers(200, b'{"status": "QUEUED"}'),
    "200 that is HTML": answers(200, b"<html>welcome</html>"),
    "200 that is empty": answers(200, b""),
    "204": answers(204, b""),
    "502": answers(502, b"<html>Bad Gateway</html>"),
    "503": answers(503),
    "504": answers(504),
    "524 of a proxy": answers(524),
}


@pytest.mark.parametrize("case", LOST)
async def test_a_submit_without_its_answer_is_unknown_and_arrives_once(
    server: RawServer, http: httpx.AsyncClient, case: str
) -> None:
    """It may be accepted and billed; nobody between here and there sends it again."""
    server.act = LOST[case]
    with pytest.raises(errors.SubmitUnknown):
        await client_at(server.url, http).submit(INPUTS)
    await asyncio.sleep(0.02)
    assert server.seen == ["POST"]


async def test_a_submit_that_is_never_answered_is_unknown(server: RawServer, http: httpx.AsyncClient) -> None:
    """A read timeout proves nothing."""
    server.act = never
    http.timeout = httpx.Timeout(5.0, read=0.2)
    with pytest.raises(errors.SubmitUnknown):
        await client_at(server.url, http).submit(INPUTS)
    assert server.seen == ["POST"]


@pytest.mark.parametrize("how", [close, reset], ids=["closed", "reset"])
async def test_a_connection_that_ends_before_the_request_is_read_is_unknown(
    server: RawServer, http: httpx.AsyncClient, how: Act
) -> None:
    """Seen from here it is the same as one that ended afterwards; it is not tried again either."""
    server.on_connect = how
    with pytest.raises(errors.SubmitUnknown):
        await client_at(server.url, http).submit(INPUTS)
    await asyncio.sleep(0.02)
    assert server.connections == 1


@pytest.mark.parametrize("how", [close, reset], ids=["closed", "reset"])
async def test_a_post_on_a_stale_connection_is_not_repeated(
    server: RawServer, http: httpx.AsyncClient, how: Act
) -> None:
    """The server drops a kept connection just as the client uses it again: that POST has left, once."""
    server.keep = True

    async def act(connection: Connection) -> None:
        if connection.requests == 1:
            await connection.answer(ACCEPTED)
        else:
            await how(connection)
            raise ConnectionError

    server.act = act
    client = client_at(server.url, http)
    assert (await client.submit(INPUTS)).request_id == "r-1"
    with pytest.raises(errors.SubmitUnknown):
        await client.submit(INPUTS)
    await asyncio.sleep(0.02)
    assert server.connections == 1
    assert server.seen == ["POST", "POST"]


async def test_posts_on_connections_that_the_server_closes_at_once_are_never_doubled(
    server: RawServer, http: httpx.AsyncClient
) -> None:
    """It says keep-alive and closes: whatever the race gives, each submit arrives at most once."""
    server.act = answers(200, ACCEPTED)
    client = client_at(server.url, http)
    taken = 0
    for _ in range(30):
        before = len(server.seen)
        with contextlib.suppress(errors.SubmitUnknown):
            await client.submit(INPUTS)
            taken += 1
        assert len(server.seen) - before <= 1
    assert taken >= 1
    assert taken <= len(server.seen) <= 30


async def test_whatever_breaks_while_a_submit_is_out_leaves_it_unknown() -> None:
    """An error that no transport is known to raise included."""

    def odd(_: httpx.Request) -> httpx.Response:
        raise RuntimeError("a bug of the transport")

    async with httpx.AsyncClient(transport=httpx.MockTransport(odd)) as http:
        with pytest.raises(errors.SubmitUnknown):
            await client_at("http://127.0.0.1:9", http).submit(INPUTS)


async def test_a_plain_500_is_the_applications_word_that_nothing_was_accepted(
    server: RawServer, http: httpx.AsyncClient
) -> None:
    """Repeatable, by the engine; the client itself sends it once."""
    server.act = answers(500, b'{"error": "Internal server error."}')
    with pytest.raises(errors.ServiceUnavailable) as caught:
        await client_at(server.url, http).submit(INPUTS)
    assert type(caught.value) is errors.ServiceUnavailable
    assert server.seen == ["POST"]


async def test_a_redirect_of_a_submit_is_not_followed(server: RawServer) -> None:
    """Even by an HTTP client that follows redirects by itself: a 307 repeats the POST, key and all."""

    async def act(connection: Connection) -> None:
        await connection.answer(code=307, headers=f"location: {server.url}/elsewhere\r\n")

    server.act = act
    async with httpx.AsyncClient(follow_redirects=True) as http:
        with pytest.raises(errors.UnexpectedAnswer):
            await client_at(server.url, http).submit(INPUTS)
    assert server.seen == ["POST"]


def free_port() -> int:
    """Return a port at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_a_refused_connection_is_unreachable(http: httpx.AsyncClient) -> None:
    """Nothing left: it may be sent again, GET or POST."""
    client = client_at(f"http://127.0.0.1:{free_port()}", http)
    for call in (client.submit(INPUTS), client.generate(INPUTS), client.status("r"), client.credits()):
        with pytest.raises(errors.Unreachable) as caught:
            await call
        assert isinstance(caught.value, errors.Repeatable)


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[RawServer]:
    """A server whose certificate nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    async with running_raw_server(context) as raw:
        yield raw


async def test_a_certificate_that_is_not_trusted_is_unreachable(tls_server: RawServer, http: httpx.AsyncClient) -> None:
    """The handshake comes before the request."""
    with pytest.raises(errors.Unreachable):
        await client_at(tls_server.url, http).submit(INPUTS)
    assert tls_server.seen == []


@pytest.mark.parametrize(
    "how",
    [says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close, reset, never],
    ids=["plain HTTP", "closed", "reset", "silent"],
)
async def test_a_failed_tls_handshake_is_unreachable(server: RawServer, http: httpx.AsyncClient, how: Act) -> None:
    """However it fails, the connect timeout included."""
    server.on_connect = how
    http.timeout = httpx.Timeout(5.0, connect=0.3)
    with pytest.raises(errors.Unreachable):
        await client_at(server.url.replace("http:", "https:"), http).submit(INPUTS)
    assert server.seen == []


GET_CASES = [case for case in LOST if not case.startswith("20") or case == "200 that is HTML"]


@pytest.mark.parametrize("case", GET_CASES)
async def test_a_get_without_its_answer_is_unavailable(server: RawServer, http: httpx.AsyncClient, case: str) -> None:
    """It can be asked again, and names the request that it was about."""
    server.act = LOST[case]
    with pytest.raises(errors.ServiceUnavailable) as caught:
        await client_at(server.url, http).status("r-1")
    assert caught.value.request_id == "r-1"
    assert "POST" not in server.seen


async def test_a_get_that_is_never_answered_is_unavailable(server: RawServer, http: httpx.AsyncClient) -> None:
    """After the read timeout."""
    server.act = never
    http.timeout = httpx.Timeout(5.0, read=0.2)
    with pytest.raises(errors.ServiceUnavailable):
        await client_at(server.url, http).result("r-1")


async def test_an_upload_without_its_answer_may_be_asked_again(server: RawServer, http: httpx.AsyncClient) -> None:
    """It is not billed."""
    server.act = close
    with pytest.raises(errors.ServiceUnavailable):
        await client_at(server.url, http).upload_asset([(b"x", "image/jpeg")])
    assert server.seen == ["POST"]


def caused(error: Exception, cause: Exception) -> Exception:
    """Return an error as a transport raises it from its own."""
    error.__cause__ = cause
    return error


KEY = aiohttp.client_reqrep.ConnectionKey(
    "127.0.0.1", 1, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)  # type: ignore[call-arg,arg-type]
REFUSED = OSError(111, "refused")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("x"), True),
        (httpx.ConnectTimeout("x"), True),
        (httpx.PoolTimeout("x"), True),
        (httpx.UnsupportedProtocol("x"), True),
        (httpx.ProxyError("the proxy does not tunnel"), True),
        (httpx.ReadError("x"), False),
        (httpx.WriteError("x"), False),
        (httpx.ReadTimeout("x"), False),
        (httpx.WriteTimeout("x"), False),
        (httpx.RemoteProtocolError("x"), False),
        (httpx.DecodingError("x"), False),
        (caused(httpx.ConnectError("x"), aiohttp.ClientConnectorError(KEY, REFUSED)), True),
        (caused(httpx.ConnectError("x"), aiohttp.ClientConnectorDNSError(KEY, REFUSED)), True),
        (caused(httpx.ConnectTimeout("x"), aiohttp.ConnectionTimeoutError()), True),
        (caused(httpx.UnsupportedProtocol("x"), aiohttp.NonHttpUrlClientError("ftp://x")), True),
        (caused(httpx.UnsupportedProtocol("x"), aiohttp.InvalidUrlClientError("x")), True),
        (caused(httpx.ConnectTimeout("x"), aiohttp.ServerDisconnectedError()), False),
        (caused(httpx.ConnectTimeout("x"), aiohttp.ClientOSError(104, "reset")), False),
        (caused(httpx.ConnectTimeout("x"), aiohttp.ClientConnectionResetError("closing")), False),
        (caused(httpx.ReadTimeout("x"), aiohttp.SocketTimeoutError()), False),
        (caused(httpx.TimeoutException("x"), aiohttp.ServerTimeoutError()), False),
        (caused(httpx.ReadError("x"), aiohttp.ClientPayloadError()), False),
        (caused(httpx.ConnectTimeout("x"), TimeoutError()), False),
        (aiohttp.ClientConnectorError(KEY, REFUSED), True),
        (aiohttp.ServerDisconnectedError(), False),
        (OSError(104, "reset"), False),
        (TimeoutError(), False),
        (ValueError("anything else"), False),
    ],
    ids=lambda value: (
        f"{type(value).__name__} of {type(value.__cause__).__name__}" if isinstance(value, Exception) else ""
    ),
)
def test_what_proves_that_a_request_never_left(*, error: Exception, expected: bool) -> None:
    """The trap: over aiohttp, almost every broken connection looks like one that could not be made."""
    assert was_never_sent(error) is expected
