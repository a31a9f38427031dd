import http.client
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from variations.storage import S3Options, Storage, close_clients, open_storage

SECRET = os.environ.get("AWS_SECRET_ACCESS_KEY", "made-up-secret-of-the-tests")
ACCESS_KEY = os.environ.get("AWS_ACCESS_KEY_ID", "MADEUPACCESSKEY")
# A real store for the same suite: an endpoint here, its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
REAL_ENDPOINT = os.environ.get("VARIATIONS_TEST_S3_ENDPOINT")


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


@contextmanager
def serving(answer: Callable[[Request], Answer]) -> Iterator[str]:
    """Serve HTTP on the loopback with a function, and give the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given = answer(Request(self.command, self.path, dict(self.headers), body))
            self.send_response(given.status)
            for name, value in ({"Content-Length": str(len(given.body))} | given.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(given.body if given.cut is None else given.body[: given.cut])
            self.close_connection = given.cut is not None

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any  # noqa: N815 - names given by http.server

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        close_clients()  # so that no handler waits for another request
        server.shutdown()
        thread.join()
        server.server_close()


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
        self.seconds.append(seconds)


@pytest.fixture(scope="session")
def secrets_of_tests() -> tuple[str, str]:
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
    yield
    close_clients()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    if REAL_ENDPOINT:
        yield REAL_ENDPOINT
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    close_clients()
    server.stop()


@pytest.fixture(scope="session")
def bucket(s3_endpoint: str) -> str:
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


@pytest.fixture
def s3_options(s3_endpoint: str) -> S3Options:
    return S3Options(endpoint_url=s3_endpoint)


@pytest.fixture
def truncating(s3_endpoint: str) -> Callable[..., AbstractContextManager[str]]:
    """Serve a store that breaks off the bodies of the first GETs."""

    @contextmanager
    def serve(*, times: int, cut: int, corrupt: bool = False) -> Iterator[str]:
        left = [times]

        def answer(request: Request) -> Answer:
            given = forward(s3_endpoint, request)
            if request.method == "GET" and left[0] > 0:
                left[0] -= 1
                if corrupt:
                    given.body = bytes(byte ^ 1 for byte in given.body)
                else:
                    given.cut = cut
            return given

        with serving(answer) as endpoint:
            yield endpoint

    return serve


@pytest.fixture
def answering() -> Callable[..., AbstractContextManager[str]]:
    """Serve one answer, or one after the other, the last for good; a HEAD gets the status alone."""

    @contextmanager
    def serve(*answers: tuple[int, str], seen: list[Request] | None = None) -> Iterator[str]:
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

        with serving(answer) as endpoint:
            yield endpoint

    return serve


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def s3_storage(bucket: str, s3_options: S3Options, naps: Naps) -> Storage:
    return open_storage(f"s3://{bucket}/{uuid.uuid4().hex}", s3=s3_options, sleep=naps)


@pytest.fixture
def local_storage(tmp_path: Path) -> Storage:
    root = tmp_path / "root"
    root.mkdir()
    return open_storage(str(root))


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    return request.getfixturevalue(f"{request.param}_storage")


@pytest.fixture
def reopen(s3_options: S3Options) -> Callable[[str], Storage]:
    """Open whatever URI, S3 at the test's own store."""
    return lambda uri: open_storage(uri, s3=s3_options)
