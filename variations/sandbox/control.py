"""The sandbox's own endpoints, below `/__sandbox`: the bill, the faults, the clock. They need no key."""

import dataclasses
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from variations.sandbox.answers import refusal
from variations.sandbox.faults import FAULTS, Fault
from variations.sandbox.images import DISCLAIMER
from variations.sandbox.refusals import Refused
from variations.sandbox.service import Service
from variations.sandbox.validation import read_json_object

PREFIX: Final = "/__sandbox"
_Endpoint = Callable[[Request], Awaitable[Response]]


class Control:
    """Look into a service and turn its knobs over HTTP."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(PREFIX, _stated(self.about), methods=["GET"]),
            Route(f"{PREFIX}/bill", _stated(self.bill), methods=["GET"]),
            Route(f"{PREFIX}/faults", _stated(self.faults), methods=["GET", "PUT"]),
            Route(f"{PREFIX}/clock", _stated(self.clock), methods=["GET", "POST"]),
            Route(f"{PREFIX}/config", _stated(self.config), methods=["GET", "PUT"]),
            Route(f"{PREFIX}/reset", _stated(self.reset), methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:  # noqa: ARG002 - every endpoint is given the request
        """Say what this is, and which faults can be ordered."""
        return JSONResponse({"about": DISCLAIMER, "faults": FAULTS})

    async def bill(self, request: Request) -> Response:
        """Return the bill; with `?lines=0` its sums only."""
        with_lines = request.query_params.get("lines", "1") != "0"
        return JSONResponse(self._service.bill().as_json(with_lines=with_lines))

    async def faults(self, request: Request) -> Response:
        """Return the ordered faults, or replace them all."""
        if request.method == "PUT":
            self._service.faults.order(read_faults(await _fields(request)))
        return JSONResponse({"faults": self._service.faults.describe()})

    async def clock(self, request: Request) -> Response:
        """Return the sandbox's time, or move it ahead by `advance_seconds`."""
        if request.method == "POST":
            seconds = (await _fields(request)).get("advance_seconds")
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise ValueError("advance_seconds must be a number")
            await self._service.advance_clock(seconds)
        clock = self._service.clock
        return JSONResponse({"now": clock.now(), "offset_seconds": clock.offset_seconds})

    async def config(self, request: Request) -> Response:
        """Return the settings, the key aside, or change some."""
        if request.method == "PUT":
            self._service.configure(await _fields(request))
        settings = dataclasses.asdict(self._service.settings)
        return JSONResponse({name: value for name, value in settings.items() if name != "api_key"})

    async def reset(self, request: Request) -> Response:  # noqa: ARG002 - same
        """Forget everything."""
        await self._service.reset()
        return JSONResponse({"reset": True})


def read_faults(fields: dict[str, Any]) -> list[Fault]:
    """Return the orders of a body such as `{"faults": [{"name": "failed", "probability": 0.1, "count": null}]}`.

    Raises:
        ValueError: it is none, or a name or a number is wrong.
    """
    orders = fields.get("faults")
    if not isinstance(orders, list):
        raise ValueError("faults must be a list")  # noqa: TRY004 - one kind for the caller
    faults = []
    for order in orders:
        if not isinstance(order, dict) or "name" not in order or order.keys() - {"name", "probability", "count"}:
            raise ValueError("a fault has a name, and may have a probability and a count")
        faults.append(Fault(str(order["name"]), order.get("probability", 1.0), order.get("count")))
    return faults


async def _fields(request: Request) -> dict[str, Any]:
    return read_json_object(await request.body())


def _stated(endpoint: _Endpoint) -> _Endpoint:
    """Answer a wrong value with 400 and its reason."""

    @functools.wraps(endpoint)
    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refused:
            return refusal(refused)
        except ValueError as error:
            return refusal(Refused(400, str(error)))

    return call
