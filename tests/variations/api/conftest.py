"""Both HTTP transports, a server that speaks HTTP as badly as it is told to, and a sandbox."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.sandbox import Sandbox, running_sandbox

PHOTOS = Path(__file__).parents[2] / "photos"
Act = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One connection, and what can be done to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.requests = 0

    async def read_request(self) -> tuple[str, str]:
        """Read one whole request, and return its method and its path."""
        head = await self.read_head()
        method, path, *_ = head.split()
        length = next(
            (line.split(":")[1] for line in head.lower().splitlines() if line.startswith("content-length")), 0
        )
        await self._reader.readexactly(int(length))
        self.requests += 1
        return method, path

    async def read_head(self) -> str:
        """Read a request up to its body."""
        return (await self._reader.readuntil(b"\r\n\r\n")).decode()

    async def write(self, content: bytes) -> None:
        """Send these bytes."""
        self._writer.write(content)
        await self._writer.drain()

    async def answer(self, content: bytes = b"{}", *, code: int = 200, headers: str = "") -> None:
        """Send a whole answer."""
        await self.write(f"HTTP/1.1 {code} x\r\ncontent-length: {len(content)}\r\n{headers}\r\n".encode() + content)

    def reset(self) -> None:
        """Cut the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()


class RawServer:
    """Count requests, and do with each what `act` says; the connection is closed when it returns, unless kept.

    Attributes:
        act: called once a request was read whole.
        on_connect: called before anything is read; without it, requests are read.
        keep: whether the connection waits for another request after `act`.
        seen: the methods of the requests that arrived.
    """

    def __init__(self) -> None:
        self.act: Act = Connection.answer
        self.on_connect: Act | None = None
        self.keep = False
        self.seen: list[str] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        connection = Connection(reader, writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.on_connect is not None:
                await self.on_connect(connection)
            else:
                while True:
                    method, _ = await connection.read_request()
                    self.seen.append(method)
                    await self.act(connection)
                    if not self.keep:
                        break
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def running_raw_server(context: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Run a server on a loopback port, over TLS with a context; what it still serves at the end is cancelled."""
    raw = RawServer()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(asyncio.CancelledError):
            await raw.serve(reader, writer)
        writer.transport.abort()
        serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    raw.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield raw
    finally:
        server.close()
        await server.wait_closed()
        for task in list(serving):
            task.cancel()
        if serving:
            await asyncio.wait(list(serving))
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    """A server without TLS."""
    async with running_raw_server() as raw:
        yield raw


@pytest.fixture(scope="session")
def trust() -> ssl.SSLContext:
    """The usual certificates; reading them takes longer than most tests."""
    return ssl.create_default_context()


@pytest.fixture(params=["aiohttp", "httpx"])
async def http(request: pytest.FixtureRequest, trust: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """The default client, and a plain one of httpx."""
    client = default_http_client(verify=trust) if request.param == "aiohttp" else httpx.AsyncClient(verify=trust)
    async with client:
        yield client


def client_at(url: str, http: httpx.AsyncClient, key: str = "SG_00000000000000ff") -> Client:
    """Return a client whose every endpoint lies below one root."""
    return Client(http, endpoint=Endpoint(key, url, f"{url}/inference-request/request-history", f"{url}/upload-asset"))


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests."""
    with running_sandbox(history_delay_seconds=0.0) as sandbox:
        yield sandbox


@pytest.fixture
def api(sandbox: Sandbox, http: httpx.AsyncClient) -> Client:
    """A client of the sandbox with its key."""
    return client_at(sandbox.base_url, http, sandbox.api_key)
