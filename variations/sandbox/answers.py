"""Answers as they go over the wire, the one among them that is no answer included."""

import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from variations.sandbox.refusals import Refused

_METHOD_NOT_ALLOWED_HTML: Final = """<!doctype html>
<html lang=en>
<title>405 Method Not Allowed</title>
<h1>Method Not Allowed</h1>
<p>The method is not allowed for the requested URL.</p>
"""
_TRANSPORT_KEY: Final = "sandbox_transport"


class ConnectionProtocol(H11Protocol):
    """Speak HTTP as uvicorn does, and hand each request its connection, so that an answer may be to cut it."""

    def connection_made(self, transport: object) -> None:
        """Remember the transport where the request's state is copied from."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.app_state = {**self.app_state, _TRANSPORT_KEY: transport}


class BrokenConnection(Response):
    """Cut the connection instead of answering: close it, or reset it.

    A client sees the end of the connection before any byte of an answer.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing is sent
        """Cut the connection and wait until the server has noticed."""
        transport = scope["state"][_TRANSPORT_KEY]
        if self._reset:
            # With no time to linger, closing sends a reset in place of an orderly end.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class DateHeader:
    """Tell in each answer what time it is by the sandbox's clock, by which its rate limit and its expiry go."""

    def __init__(self, app: ASGIApp, *, now: Callable[[], float]) -> None:
        self._app = app
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header to whatever the application answers."""

        async def send_with_date(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["date"] = formatdate(self._now(), usegmt=True)
            await send(message)

        await self._app(scope, receive, send_with_date)


def refusal(refused: Refused) -> Response:
    """Return the JSON answer of a refused call."""
    return JSONResponse(refused.body, status_code=refused.status, headers=refused.headers)


async def not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette passes both
    """Answer an address that does not exist."""
    return JSONResponse({"error": "Not found."}, status_code=404)


async def method_not_allowed(request: Request, error: Exception) -> Response:  # noqa: ARG001 - same
    """Answer a wrong verb as the service does: with HTML."""
    headers = getattr(error, "headers", None) or {}
    return HTMLResponse(_METHOD_NOT_ALLOWED_HTML, status_code=405, headers=headers)
