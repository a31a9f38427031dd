import http.client
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from variations.sandbox.s3_server import running_s3
from variations.storage import S3Options, Storage, close_clients, open_storage

SECRET = os.environ.get("AWS_SECRET_ACCESS_KEY", "made-up-secret-of-the-tests")
ACCESS_KEY = os.environ.get("AWS_ACCESS_KEY_ID", "MADEUPACCESSKEY")
# A real store for the same suite: an endpoint here, its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
REAL_ENDPOINT = os.environ.get("TEST_S3_ENDPOINT")

LOST = 0  # the status of an answer that never comes: the connection is closed instead


@dataclass(frozen=True)
class Request:
    """What a test's own server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What it answers; of the body only the first `cut` bytes are sent, then the connection is closed."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


class Gateway:
    """An HTTP server on the loopback that answers with whatever function it is given at the moment."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Answer] = lambda _: Answer(500)
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet, or each answer waits 40 ms for an acknowledgement

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                given = gateway.answer(Request(self.command, self.path, dict(self.headers), body))
                self.close_connection = given.cut is not None or given.status == LOST
                if given.status == LOST:
                    return
                self.send_response(given.status)
                for name, value in ({"Content-Length": str(len(given.body))} | given.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(given.body if given.cut is None else given.body[: given.cut])

            def handle_expect_100(self) -> bool:
                going_on = super().handle_expect_100()
                self.wfile.flush()
                return going_on

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def forward(endpoint: str, request: Request) -> Answer:
    """Pass a request on to another server, the signed host name included."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=10)
    try:
        connection.request(request.method, request.path, body=request.body or None, headers=request.headers)
        answer = connection.getresponse()
        body = answer.read()
        headers = {n: v for n, v in answer.getheaders() if n.lower() not in {"connection", "date", "server"}}
        headers.pop("Transfer-Encoding", None)
        return Answer(answer.status, body, headers)
    finally:
        connection.close()


class Naps:
    """A sleep that only notes how long it was asked to be."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note the seconds."""
        self.seconds.append(seconds)


@pytest.fixture(scope="session")
def secrets_of_tests() -> tuple[str, str]:
    """Give what no message may show."""
    return ACCESS_KEY, SECRET


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's AWS configuration reaches a test."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session", autouse=True)
def clients_closed() -> Iterator[None]:
    """Leave no socket open."""
    yield
    close_clients()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Serve an object store, or name the real one."""
    if REAL_ENDPOINT:
        yield REAL_ENDPOINT
        return
    with running_s3() as url:
        yield url
        close_clients()


@pytest.fixture(scope="session")
def bucket(s3_endpoint: str) -> str:
    """Make a bucket for all tests; each has its own prefix in it."""
    name = f"variations-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket=name)
    client.close()
    return name


@pytest.fixture(scope="session")
def s3_options(s3_endpoint: str) -> S3Options:
    """Reach the store; the same for all tests, so that they share a client."""
    return S3Options(endpoint_url=s3_endpoint)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """Serve one gateway for all tests, so that they share a client, too."""
    made = Gateway()
    yield made
    close_clients()
    made.close()


@pytest.fixture
def truncating(s3_endpoint: str, gateway: Gateway) -> Callable[..., str]:
    """Let the gateway pass everything on to the store, and break off or corrupt the bodies of the first GETs."""

    def serve(*, times: int, cut: int = 0, corrupt: bool = False, seen: list[Request] | None = None) -> str:
        left = [times]

        def answer(request: Request) -> Answer:
            if seen is not None:
                seen.append(request)
            given = forward(s3_endpoint, request)
            if request.method == "GET" and left[0] > 0:
                left[0] -= 1
                if corrupt:
                    given.body = bytes(byte ^ 1 for byte in given.body)
                else:
                    given.cut = cut
            return given

        gateway.answer = answer
        return gateway.endpoint

    return serve


@pytest.fixture
def answering(gateway: Gateway) -> Callable[..., str]:
    """Let the gateway give one answer, or one after the other, the last for good."""

    def serve(*answers: tuple[int, str], seen: list[Request] | None = None) -> str:
        left = list(answers)

        def answer(request: Request) -> Answer:
            if seen is not None:
                seen.append(request)
            status, code = left.pop(0) if len(left) > 1 else left[0]
            text = (
                f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>line one\nline two {SECRET}</Message>"
                f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId></Error>"
                if code
                else ""
            )
            return Answer(status, text.encode(), {"ETag": '"etag"', "Content-Type": "application/xml"})

        gateway.answer = answer
        return gateway.endpoint

    return serve


@pytest.fixture
def losing(s3_endpoint: str, gateway: Gateway) -> Callable[..., str]:
    """Let the gateway pass everything on to the store, and lose the answers to the first requests of a method."""

    def serve(*, method: str, times: int) -> str:
        left = [times]

        def answer(request: Request) -> Answer:
            given = forward(s3_endpoint, request)
            if request.method == method and left[0] > 0:
                left[0] -= 1
                given.status = LOST
            return given

        gateway.answer = answer
        return gateway.endpoint

    return serve


@pytest.fixture
def pairing(gateway: Gateway) -> Callable[[], tuple[str, list[int]]]:
    """Let the gateway answer requests in pairs only, and note how many are under way at once."""

    def serve() -> tuple[str, list[int]]:
        pair = threading.Barrier(2, timeout=10)
        lock = threading.Lock()
        under_way, noted = [0], []

        def answer(_: Request) -> Answer:
            with lock:
                under_way[0] += 1
                noted.append(under_way[0])
            pair.wait()
            with lock:
                under_way[0] -= 1
            return Answer(200, headers={"ETag": '"etag"'})

        gateway.answer = answer
        return gateway.endpoint, noted

    return serve


@pytest.fixture
def naps() -> Naps:
    """Give a sleep that takes no time."""
    return Naps()


@pytest.fixture
def s3_storage(bucket: str, s3_options: S3Options, naps: Naps) -> Storage:
    """Give an empty prefix of the bucket."""
    return open_storage(f"s3://{bucket}/{uuid.uuid4().hex}", s3=s3_options, sleep=naps)


@pytest.fixture
def local_storage(tmp_path: Path) -> Storage:
    """Give an empty folder."""
    root = tmp_path / "root"
    root.mkdir()
    return open_storage(str(root))


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Give each backend in turn."""
    return request.getfixturevalue(f"{request.param}_storage")


@pytest.fixture
def reopen(s3_options: S3Options) -> Callable[[str], Storage]:
    """Open whatever URI, S3 at the test's own store."""
    return lambda uri: open_storage(uri, s3=s3_options)
