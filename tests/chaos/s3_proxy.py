"""A reverse proxy between a client and an S3 server that does to requests what networks and stores do to them.

Path, query and headers pass as they are, `Host` included, so that signatures stay valid; so do the answers. What
belongs to one connection alone (`Connection`, `Transfer-Encoding`, `Expect`) is settled on each side for itself.

A request is forwarded once, and only when its whole body has arrived. From then on it takes effect at the store even
if its client has gone away meanwhile: what a process sent before it was killed may land after the next one started.
"""

import asyncio
import contextlib
import io
import logging
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

_log = logging.getLogger(__name__)

START_TIMEOUT_SECONDS: Final = 10.0
STOP_TIMEOUT_SECONDS: Final = 1.0

_ANSWERS: Final[dict[str, tuple[int, str, str]]] = {
    "slowdown": (503, "SlowDown", "Please reduce your request rate."),
    "error_500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "refused_credentials": (403, "ExpiredToken", "The provided token has expired."),
}
KINDS: Final = frozenset({*_ANSWERS, "reset_before", "lost_reply", "latency"})

# RFC 9110, 7.6.1: each speaks of one connection. A proxy may answer `Expect` itself (10.1.1); nobody signs these.
_OF_ONE_CONNECTION: Final = ("Connection", "Expect", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding")
_ADDED_BY_AIOHTTP: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True, slots=True)
class Fault:
    """Order one fault.

    Attributes:
        kind: `slowdown` (503), `error_500` and `refused_credentials` (403 ExpiredToken) answer in the store's place;
            `reset_before` resets the connection, and the store hears of nothing; `lost_reply` forwards the request,
            waits for the whole answer and then resets the connection; `latency` holds the request back, and leaves
            it to the faults after it.
        probability: the chance of each request it can strike, 0 to 1.
        method: strike only these requests; None for all.
        path: strike only where this regular expression is found in the path, without its query and unquoted.
        count: how often it strikes at most; None for no end.
        seconds: how long `latency` lasts.
    """

    kind: str
    probability: float = 1.0
    method: str | None = None
    path: str | None = None
    count: int | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check the kind and the bounds.

        Raises:
            ValueError: there is no such kind, or a number is out of bounds.
        """
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; there are: {', '.join(sorted(KINDS))}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"{self.kind}: the probability lies between 0 and 1")
        if self.count is not None and self.count < 0:
            raise ValueError(f"{self.kind}: the count is not negative")
        if (self.kind == "latency") != (self.seconds > 0):
            raise ValueError(f"{self.kind}: seconds are for `latency`, which needs them")

    def concerns(self, method: str, path: str) -> bool:
        """Return whether a request is one it can strike."""
        return self.method in {None, method} and (self.path is None or re.search(self.path, path) is not None)


class S3Proxy:
    """The handle on a running proxy; its methods may be called from any thread.

    Attributes:
        url: where clients reach the store through it.
    """

    def __init__(self, url: str, chances: "_Chances") -> None:
        self.url = url
        self._chances = chances

    def set_faults(self, *faults: Fault) -> None:
        """Order faults in place of those before, for the requests from now on; none for an honest proxy.

        Of several that could strike a request the first one does. Counts and chances start anew.
        """
        self._chances.order(faults)

    def struck(self) -> Counter[str]:
        """Return how often each kind has struck since the proxy started."""
        return self._chances.struck()


@contextlib.contextmanager
def running_proxy(upstream_url: str, *, seed: int = 0) -> Iterator[S3Proxy]:
    """Run a proxy in a background thread, on a free port of 127.0.0.1, and stop it on leaving.

    Args:
        upstream_url: the store, as `http://host:port`.
        seed: of the faults' chances. Which request meets which chance is up to the order in which they arrive.
    """
    chances = _Chances(seed)
    started: Future[tuple[str, Callable[[], None]]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(URL(upstream_url), chances, started)), name="s3-proxy", daemon=True
    )
    thread.start()
    url, stop = started.result(START_TIMEOUT_SECONDS)
    try:
        yield S3Proxy(url, chances)
    finally:
        stop()
        thread.join()


class _Chances:
    """Decide, request by request, which faults strike: each fault has its own stream of chances."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._struck: Counter[str] = Counter()
        self._ordered: list[tuple[Fault, random.Random]] = []
        self._left: list[int | None] = []

    def order(self, faults: tuple[Fault, ...]) -> None:
        """Replace the faults."""
        with self._lock:
            self._ordered = [
                (fault, random.Random(f"{self._seed} {place}"))  # noqa: S311 - chances, no secrets
                for place, fault in enumerate(faults)
            ]
            self._left = [fault.count for fault in faults]

    def struck(self) -> Counter[str]:
        """Return how often each kind has struck."""
        with self._lock:
            return self._struck.copy()

    def strike(self, method: str, path: str) -> tuple[float, str | None]:
        """Return for how many seconds a request is held back, and the kind of fault it meets then."""
        seconds = 0.0
        with self._lock:
            for place, (fault, chances) in enumerate(self._ordered):
                left = self._left[place]
                if left == 0 or not fault.concerns(method, path) or chances.random() >= fault.probability:
                    continue
                if left is not None:
                    self._left[place] = left - 1
                self._struck[fault.kind] += 1
                if fault.kind != "latency":
                    return seconds, fault.kind
                seconds += fault.seconds
        return seconds, None


async def _serve(upstream: URL, chances: _Chances, started: Future[tuple[str, Callable[[], None]]]) -> None:
    loop, leave = asyncio.get_running_loop(), asyncio.Event()
    async with aiohttp.ClientSession(
        # A connection that is kept can be closed by the store just when it is used again: a fault nobody ordered.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        middlewares=(_send_once,),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_ADDED_BY_AIOHTTP,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await _handle(request, session=session, upstream=upstream, chances=chances)

        server = web.Server(handle, auto_decompress=False, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=STOP_TIMEOUT_SECONDS)
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            started.set_result((f"http://{host}:{port}", lambda: loop.call_soon_threadsafe(leave.set)))
            await leave.wait()
        finally:
            await runner.cleanup()


async def _handle(
    request: web.BaseRequest, *, session: aiohttp.ClientSession, upstream: URL, chances: _Chances
) -> web.StreamResponse:
    seconds, kind = chances.strike(request.method, unquote(request.raw_path.partition("?")[0]))
    if kind == "reset_before":
        await asyncio.sleep(seconds)
        return _cut(request)
    try:
        body = await _body_of(request)
    except (web.RequestPayloadError, ConnectionError):
        return _cut(request)
    await asyncio.sleep(seconds)
    if kind in _ANSWERS:
        return _answer(kind)
    answer: web.StreamResponse | None = None
    try:
        async with session.request(
            request.method,
            URL(f"{upstream.origin()}{request.raw_path}", encoded=True),
            headers=_passed_on(request.raw_headers),
            data=io.BytesIO(body) if body else None,
            allow_redirects=False,
        ) as given:
            if kind == "lost_reply":
                await given.read()
                return _cut(request)
            answer = web.StreamResponse(status=given.status, reason=given.reason, headers=_passed_on(given.raw_headers))
            await answer.prepare(request)
            async for chunk in given.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer
    except (aiohttp.ClientError, OSError) as error:
        # Either side went away: the other one learns of it as it would without a proxy in between.
        _log.warning("%s %s broke off: %r", request.method, request.raw_path, error)
        return _cut(request, answer)


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        # Of these two aiohttp would send anything but a POST a second time, unasked.
        raise aiohttp.ClientConnectionError("the store went away") from error


async def _body_of(request: web.BaseRequest) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    return await request.content.read()


def _passed_on(headers: tuple[tuple[bytes, bytes], ...]) -> CIMultiDict[str]:
    passed = CIMultiDict((name.decode(), value.decode()) for name, value in headers)
    for name in _OF_ONE_CONNECTION:
        passed.popall(name, None)
    return passed


def _answer(kind: str) -> web.Response:
    status, code, message = _ANSWERS[kind]
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>FAULT</RequestId></Error>"
    )
    return web.Response(
        status=status, body=xml.encode(), headers={"Content-Type": "application/xml", "x-amz-request-id": "FAULT"}
    )


def _cut(request: web.BaseRequest, answer: web.StreamResponse | None = None) -> web.StreamResponse:
    """Reset the client's connection; what is returned is for aiohttp, which finds nobody to send it to."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        # With no time to linger, the close of a socket is a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return answer or web.Response()
