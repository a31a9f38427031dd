"""The proxy is honest without faults, and each fault does what it says and no more."""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from variations.errors import CredentialsRefused, StorageUnavailable
from variations.sandbox.s3_server import running_s3
from variations.storage import S3Options, Storage, close_clients, open_storage

from .s3_proxy import KINDS, Fault, S3Proxy, running_proxy

BUCKET = "chaos"
# Moto compares no signature, and lets nobody without one at an object.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=MADEUP/20260101/us-east-1/s3/aws4_request"}


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    """Serve an object store with a bucket."""
    with running_s3() as url:
        httpx.put(f"{url}/{BUCKET}").raise_for_status()
        yield url


@pytest.fixture
def proxy(store_url: str) -> Iterator[S3Proxy]:
    """Put a proxy in front of it."""
    with running_proxy(store_url) as proxy:
        yield proxy
        close_clients()


@pytest.fixture
def direct(store_url: str) -> Iterator[httpx.Client]:
    """Reach the store past the proxy."""
    with httpx.Client(base_url=f"{store_url}/{BUCKET}", headers=SIGNED) as client:
        yield client


@pytest.fixture
def client(proxy: S3Proxy) -> Iterator[httpx.Client]:
    """Reach the store through the proxy, and repeat nothing."""
    with httpx.Client(base_url=f"{proxy.url}/{BUCKET}", headers=SIGNED) as client:
        yield client


@pytest.fixture
def storage(proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Reach the store through the proxy, signed and repeated as a run would."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MADEUPACCESSKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    options = S3Options(endpoint_url=proxy.url, multipart_bytes=5 << 20)
    return open_storage(f"s3://{BUCKET}/{os.urandom(4).hex()}", s3=options)


class Upstream:
    """A server that notes every byte it is sent; it answers a whole request with `answer`, and then closes."""

    def __init__(self, answer: bytes) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                received = b""
                while not received.endswith((b"\r\n\r\n", b"the body")):
                    received += connection.recv(65536)
                self.requests.append(received)
                connection.sendall(self._answer)


@pytest.fixture
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    """Serve what the test's parameter says."""
    made = Upstream(request.param)
    yield made
    made.close()


def say(url: str, request: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back until the connection closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


async def test_without_faults_a_storage_does_not_notice(storage: Storage, proxy: S3Proxy, tmp_path: Path) -> None:
    """Odd keys, listings, conditions and parts arrive, signed."""
    key = "run=1/a b+c%2Fd ü~(1).json"
    entry = await storage.put(key, b"one", metadata={"name": "ü"}, content_type="application/json")
    assert await storage.get(key) == b"one"
    assert (await storage.head(key)) == entry
    assert [found.key async for found in storage.list("run=1/")] == [key]
    assert await storage.put_if_absent(key, b"two") is None
    assert (await storage.put_if_absent("new", b"two")) is not None
    replaced = await storage.replace(key, b"three", etag=entry.etag)
    assert replaced.etag != entry.etag
    await storage.delete(key)
    assert not await storage.exists(key)

    large = tmp_path / "large"
    large.write_bytes(os.urandom(20 << 20))
    stored = await storage.put("large", large)
    assert stored.etag.endswith("-4")
    await storage.get_to_file("large", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == large.read_bytes()
    assert proxy.struck() == Counter()


async def test_a_presigned_url_leads_through_the_proxy(storage: Storage) -> None:
    """Its signature covers host, path and query, which the store sees as they were signed."""
    await storage.put("a b", b"one")
    url = await storage.presigned_url("a b", expires_seconds=60)
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == b"one"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_come_back_with_the_stores_headers(method: str, client: httpx.Client, direct: httpx.Client) -> None:
    """Also the length of an answer that has no body."""
    direct.put("/object", content=b"0123456789", headers={"x-amz-meta-name": "one"}).raise_for_status()
    of_each_request = {"date", "connection", "x-amz-request-id", "x-amzn-requestid", "x-amz-id-2"}
    past, through = (
        {name: value for name, value in reach.request(method, "/object").headers.items() if name not in of_each_request}
        for reach in (direct, client)
    )
    assert through["content-length"] == "10"
    assert {"etag", "last-modified", "x-amz-meta-name"} <= set(through)
    assert through == past


@pytest.mark.parametrize(
    "upstream",
    [
        b"HTTP/1.1 206 Some Of It\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Encoding: gzip\r\n"
        b'Content-Type: text/x-odd\r\nServer: odd\r\nETag: "tag"\r\nContent-Length: 8\r\n\r\nnot gzip'
    ],
    indirect=True,
)
def test_not_a_byte_of_what_is_signed_changes(upstream: Upstream) -> None:
    """Path, query, headers and bodies pass as they are, in both directions."""
    with running_proxy(upstream.url) as proxy:
        answer = say(
            proxy.url,
            b"PUT //b/%7e/a%2Fb/./..+%20?prefix=a%2fb&x= HTTP/1.1\r\nHost: bucket.example:99\r\nX-ODD: a  b\r\n"
            b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 8\r\n\r\nthe body",
        )
    assert upstream.requests == [
        b"PUT //b/%7e/a%2Fb/./..+%20?prefix=a%2fb&x= HTTP/1.1\r\nHost: bucket.example:99\r\nX-ODD: a  b\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 8\r\nConnection: close\r\n\r\nthe body"
    ]
    assert answer == (
        b"HTTP/1.1 206 Some Of It\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Encoding: gzip\r\n"
        b'Content-Type: text/x-odd\r\nServer: odd\r\nETag: "tag"\r\nContent-Length: 8\r\n'
        b"Connection: close\r\n\r\nnot gzip"
    )


@pytest.mark.parametrize("upstream", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], indirect=True)
def test_who_waits_for_leave_to_send_a_body_gets_it(upstream: Upstream) -> None:
    """Clients send `Expect: 100-continue` before a body of some size."""
    with running_proxy(upstream.url) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"PUT /a HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"the body")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("upstream", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], indirect=True)
def test_a_request_is_sent_once_though_the_store_breaks_off(upstream: Upstream) -> None:
    """To repeat is the client's business: a proxy that did would hide what it should show."""
    with running_proxy(upstream.url) as proxy, pytest.raises(httpx.TransportError):
        httpx.put(f"{proxy.url}/a", content=b"the body")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("upstream", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], indirect=True)
def test_a_body_that_breaks_off_is_not_forwarded(upstream: Upstream) -> None:
    """A process that is killed while it sends leaves nothing at the store."""
    with running_proxy(upstream.url) as proxy:
        host, port = proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"PUT /a HTTP/1.1\r\nHost: b\r\nContent-Length: 8\r\n\r\nthe")
        httpx.put(f"{proxy.url}/b", content=b"the body").raise_for_status()
    assert [request.split()[1] for request in upstream.requests] == [b"/b"]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("slowdown", 503, "SlowDown"),
        ("error_500", 500, "InternalError"),
        ("refused_credentials", 403, "ExpiredToken"),
    ],
)
def test_an_error_is_answered_in_the_stores_place(
    kind: str, status: int, code: str, proxy: S3Proxy, client: httpx.Client, direct: httpx.Client
) -> None:
    """The store hears of nothing, and the connection stays good."""
    proxy.set_faults(Fault(kind, count=1))
    answer = client.put(f"/{kind}", content=b"one")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/xml")
    assert f"<Code>{code}</Code>" in answer.text
    assert direct.head(f"/{kind}").status_code == 404
    assert client.put(f"/{kind}", content=b"one").status_code == 200
    assert proxy.struck() == Counter([kind])


def test_reset_before_keeps_a_request_from_the_store(
    proxy: S3Proxy, client: httpx.Client, direct: httpx.Client
) -> None:
    """The client sees its connection break."""
    proxy.set_faults(Fault("reset_before", count=1))
    with pytest.raises(httpx.TransportError):
        client.put("/reset", content=b"one")
    assert direct.head("/reset").status_code == 404


def test_lost_reply_leaves_the_client_in_the_dark(proxy: S3Proxy, client: httpx.Client, direct: httpx.Client) -> None:
    """The client sees its connection break, and the request has taken effect."""
    proxy.set_faults(Fault("lost_reply", count=1))
    with pytest.raises(httpx.TransportError):
        client.put("/lost", content=b"one")
    assert direct.get("/lost").content == b"one"


def test_latency_holds_a_request_back(proxy: S3Proxy, client: httpx.Client) -> None:
    """And leaves it to the faults after it."""
    proxy.set_faults(Fault("latency", seconds=0.05, count=2), Fault("slowdown", count=1))
    began = time.monotonic()
    assert client.get("/late").status_code == 503
    assert client.get("/late").status_code == 404
    assert time.monotonic() - began >= 0.1
    assert proxy.struck() == Counter(latency=2, slowdown=1)


def test_a_fault_strikes_only_what_it_is_meant_for(proxy: S3Proxy, client: httpx.Client) -> None:
    """By the method and the path, which is read unquoted and without its query."""
    proxy.set_faults(Fault("error_500", method="PUT", path=r"run=\d+/b$"))
    assert client.put("/run%3D1/b?x=1", content=b"one").status_code == 500
    assert client.get("/run%3D1/b").status_code == 404
    assert client.put("/run%3D1/b.json?x=run=1/b", content=b"one").status_code == 200
    proxy.set_faults()
    assert client.put("/run%3D1/b", content=b"one").status_code == 200
    assert proxy.struck() == Counter(error_500=1)


def test_a_seed_gives_the_same_chances_again(store_url: str) -> None:
    """Also after new faults are ordered; another seed gives others."""

    def answers(seed: int, *, again: bool = False) -> list[int]:
        with (
            running_proxy(store_url, seed=seed) as proxy,
            httpx.Client(base_url=f"{proxy.url}/{BUCKET}", headers=SIGNED) as client,
        ):
            for _ in range(1 + again):
                proxy.set_faults(Fault("slowdown", probability=0.5))
                found = [client.get("/absent").status_code for _ in range(32)]
            return found

    first = answers(1)
    assert set(first) == {404, 503}
    assert answers(1, again=True) == first
    assert answers(2) != first


@pytest.mark.parametrize("kind", sorted(KINDS - {"latency", "refused_credentials", "lost_reply"}))
async def test_boto3_repeats_what_may_pass(kind: str, proxy: S3Proxy, storage: Storage) -> None:
    """Once, and the storage notices nothing."""
    proxy.set_faults(Fault(kind, count=1))
    assert await storage.put_if_absent("once", b"one") is not None
    assert proxy.struck() == Counter([kind])


async def test_boto3_repeats_a_lost_reply_and_meets_its_own_object(proxy: S3Proxy, storage: Storage) -> None:
    """This is what `put_if_absent` warns of: None does not say that somebody else was first."""
    proxy.set_faults(Fault("lost_reply", count=1, method="PUT"))
    assert await storage.put_if_absent("mine", b"one") is None
    assert await storage.get("mine") == b"one"


async def test_boto3_gives_up_in_the_end(proxy: S3Proxy, storage: Storage) -> None:
    """After `attempts`; refused credentials it does not repeat at all."""
    proxy.set_faults(Fault("refused_credentials"))
    with pytest.raises(CredentialsRefused):
        await storage.put("never", b"one")
    assert proxy.struck() == Counter(refused_credentials=1)
    impatient = open_storage(storage.uri, s3=S3Options(endpoint_url=proxy.url, attempts=2))
    proxy.set_faults(Fault("lost_reply"))
    with pytest.raises(StorageUnavailable):
        await impatient.get("never")
    assert proxy.struck()["lost_reply"] == 2


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("no_such_kind", {}),
        ("slowdown", {"probability": 1.5}),
        ("slowdown", {"count": -1}),
        ("slowdown", {"seconds": 1.0}),
        ("latency", {}),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(kind: str, changes: dict[str, float]) -> None:
    """A misspelt fault would let a chaos test pass in fair weather."""
    with pytest.raises(ValueError, match=kind):
        Fault(kind, **changes)  # type: ignore[arg-type]


def test_nothing_is_left_of_a_proxy(store_url: str) -> None:
    """Neither a thread nor a listener, also with a request under way and a connection open."""
    threads = threading.active_count()
    with httpx.Client() as client, running_proxy(store_url) as proxy:
        url = proxy.url
        client.get(f"{url}/{BUCKET}").raise_for_status()
        proxy.set_faults(Fault("latency", seconds=600))
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"{url}/{BUCKET}", timeout=0.1)
    assert threading.active_count() == threads
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
