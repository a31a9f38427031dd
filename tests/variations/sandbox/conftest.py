"""A sandbox, a client with its key, and a server of source photographs, all on loopback ports."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from variations.sandbox import Sandbox, running_sandbox

PHOTOS = Path(__file__).parents[2] / "photos"


class SourceServer:
    """Serve the test photographs, and count how often each path was fetched."""

    def __init__(self) -> None:
        self.fetches: Counter[str] = Counter()
        self.contents = {path.name: path.read_bytes() for path in PHOTOS.iterdir() if path.suffix != ".md"}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path.lstrip("/")
                server.fetches[path] += 1
                if path.startswith("moved/"):
                    self.send_response(302)
                    self.send_header("Location", "/" + path.removeprefix("moved/"))
                    self.end_headers()
                elif path == "loop":
                    self.send_response(302)
                    self.send_header("Location", "/loop")
                    self.end_headers()
                elif path in server.contents:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(server.contents[path])))
                    self.end_headers()
                    # A reset sandbox hangs up in the middle of a fetch.
                    with contextlib.suppress(ConnectionError):
                        self.wfile.write(server.contents[path])
                else:
                    self.send_error(403)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def url(self, name: str) -> str:
        """Return a photograph's address."""
        return f"{self.base_url}/{name}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="session")
def source_server() -> Iterator[SourceServer]:
    """One server of photographs for all tests."""
    server = SourceServer()
    yield server
    server.close()


@pytest.fixture
def sources(source_server: SourceServer) -> SourceServer:
    """The server of photographs, its counts at zero."""
    source_server.fetches.clear()
    return source_server


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests that need no settings of their own from the start.

    A request takes 15.84 s of its clock, which the tests move.
    """
    with running_sandbox(latency_spread=0.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def shared_api(shared_sandbox: Sandbox) -> Iterator[httpx.Client]:
    """One client for all tests: building one takes longer than most tests."""
    headers = {"x-api-key": shared_sandbox.api_key}
    with httpx.Client(base_url=shared_sandbox.base_url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def anonymous() -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def api(sandbox: Sandbox, shared_api: httpx.Client) -> httpx.Client:  # noqa: ARG001 - the sandbox is reset first
    """A client of the sandbox with its key."""
    return shared_api


@pytest.fixture
def photo(sources: SourceServer) -> str:
    """The address of a photograph that is quickly decoded."""
    return sources.url("01_rocket_rgb.jpg")


@pytest.fixture
def submit(api: httpx.Client) -> Callable[..., dict[str, Any]]:
    """Submit a source with parameters and return the answer's body."""

    def call(source: str, **parameters: object) -> dict[str, Any]:
        answer = api.post("/v2/flux-redux-dev", json={"redux_image": source, **parameters})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return call
