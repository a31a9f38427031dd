"""The routes: the API's own, and the files that need no key. What they do is in `service`."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from variations.sandbox.answers import BrokenConnection, DateHeader, method_not_allowed, not_found, refusal
from variations.sandbox.control import Control
from variations.sandbox.history import History, HistoryQuery
from variations.sandbox.images import CONTENT_TYPES
from variations.sandbox.records import Record, Wording
from variations.sandbox.refusals import KEY_MISSING, KEY_REFUSED, Refused, Unauthenticated
from variations.sandbox.service import Service
from variations.sandbox.validation import read_json_object, read_request, require_json_content

Endpoint = Callable[[Request], Awaitable[Response]]
BROKEN: Final = "broken"
_SUBMITS: Final = ("submit", "blocking")
# Faults that answer a call of a kind in place of its endpoint.
_STATUS_FAULTS: Final = {
    "submit": {"submit_500": 500},
    "blocking": {"submit_500": 500},
    "status": {"status_500": 500, "status_502": 502},
    "result": {"result_500": 500, "result_502": 502},
    "poll": {"result_500": 500, "result_502": 502},
}
_TEXTS: Final = {500: "Internal server error.", 502: "Bad gateway."}


def create_app(service: Service) -> Starlette:
    """Return the ASGI application that serves `service`."""
    api = Api(service)
    routes = [
        api.route("/v1/get-user-credits", "GET", "credits", api.credits),
        api.route("/v1/requests/{request_id}", "GET", "poll", api.result),
        api.route("/v2/requests/{request_id}/status", "GET", "status", api.status),
        api.route("/v2/requests/{request_id}", "GET", "result", api.result),
        api.route("/v2/{model}", "POST", "submit", api.submit),
        api.route("/v1/{model}", "POST", "blocking", api.generate),
        api.route("/upload-asset", "POST", "upload", api.upload),
        api.route("/inference-request/request-history", "GET", "history", api.history),
        api.route("/inference-request/request-history/{request_id}", "GET", "history", api.history_of_one),
        api.route("/outputs/{file_name}", "GET", "output", api.output, needs_key=False),
        api.route("/assets/{file_name}", "GET", "asset", api.asset, needs_key=False),
        *Control(service).routes(),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(DateHeader, now=service.clock.now)],
        exception_handlers={404: not_found, 405: method_not_allowed},
    )
    app.router.redirect_slashes = False
    return app


class Api:
    """Answer the API's calls: count each, check its key and the rate limit, strike with the faults ordered."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def route(self, path: str, method: str, kind: str, endpoint: Endpoint, *, needs_key: bool = True) -> Route:
        """Return a route whose calls are counted as `kind`."""

        async def call(request: Request) -> Response:
            answer = await self._answer(request, kind, endpoint, needs_key=needs_key)
            status = BROKEN if isinstance(answer, BrokenConnection) else str(answer.status_code)
            self._service.calls[kind, status] += 1
            return answer

        return Route(path, call, methods=[method])

    async def submit(self, request: Request) -> Response:
        """Answer `POST /v2/{model}`."""
        record = await self._accept(request, endpoint="v2")
        return self._lost_answer() or JSONResponse(self._wording(request).accepted(record))

    async def generate(self, request: Request) -> Response:
        """Answer `POST /v1/{model}` with the bytes of the first image, once it is made."""
        record = await self._accept(request, endpoint="v1")
        lost = self._lost_answer()
        if lost is not None:
            return lost
        await self._service.finish(record)
        if record.settled == "FAILED":
            raise Refused(422, record.error or "Inference failed.")
        headers = {
            "x-cost": f"{record.cost_usd}",
            "x-remaining-credits": f"{record.remaining_credits}",
            "x-generation-time": f"{record.completed_at - record.started_at:.4f}",
            "x-seed-value": f"{record.seed}",
            "x-request-id": record.request_id,
        }
        content = await self._service.outputs.get(record, 0)
        media_type = CONTENT_TYPES[record.request().value("output_format")]
        return Response(content, media_type=media_type, headers=headers)

    async def status(self, request: Request) -> Response:
        """Answer `GET /v2/requests/{id}/status`."""
        record = await self._service.find(request.path_params["request_id"])
        return self._told(self._wording(request).status(record, self._service.clock.now()))

    async def result(self, request: Request) -> Response:
        """Answer `GET /v2/requests/{id}`, and the older `GET /v1/requests/{id}`."""
        record = await self._service.find(request.path_params["request_id"])
        return self._told(self._wording(request).result(record, self._service.clock.now()))

    async def credits(self, request: Request) -> Response:  # noqa: ARG002 - every endpoint is given the request
        """Answer `GET /v1/get-user-credits`."""
        account = self._service.account
        return JSONResponse({"credits": account.credits, "free-credits": account.free_credits})

    async def upload(self, request: Request) -> Response:
        """Answer `POST /upload-asset`."""
        require_json_content(request.headers.get("content-type"))
        names = self._service.assets.store(read_json_object(await request.body()))
        urls = [f"{request.base_url}assets/{name}" for name in names]
        return JSONResponse({"file_urls": urls, "message": f"{len(urls)} file(s) uploaded."})

    async def history(self, request: Request) -> Response:
        """Answer `GET /inference-request/request-history`."""
        query = HistoryQuery.parse(request.query_params, self._service.clock.now())
        return JSONResponse(self._history(request).page(list(self._service.records.values()), query))

    async def history_of_one(self, request: Request) -> Response:
        """Answer `GET /inference-request/request-history/{id}`, whatever the request's age."""
        record = self._service.records.get(request.path_params["request_id"])
        history = self._history(request)
        if record is None or not history.knows(record):
            raise Refused(404, "Request not found.")
        return JSONResponse(history.rows(record)[0])

    async def output(self, request: Request) -> Response:
        """Answer an output file's URL."""
        file_name = request.path_params["file_name"]
        if self._service.faults.strikes("output_404"):
            raise Refused(404, "File not found.")
        content = await self._service.output(file_name)
        if self._service.faults.strikes("output_damaged"):
            content = content[: len(content) // 2]
        return Response(content, media_type=CONTENT_TYPES[file_name.rpartition(".")[2]])

    async def asset(self, request: Request) -> Response:
        """Answer an uploaded file's URL."""
        content, media_type = self._service.assets.get(request.path_params["file_name"])
        return Response(content, media_type=media_type)

    async def _answer(self, request: Request, kind: str, endpoint: Endpoint, *, needs_key: bool) -> Response:
        try:
            if kind in _SUBMITS and self._service.faults.strikes("refuse"):
                return BrokenConnection(reset=True)
            if needs_key:
                self._admit(request, kind)
            self._strike(kind)
            return await endpoint(request)
        except Refused as refused:
            return refusal(refused)
        except ClientDisconnect:
            return BrokenConnection()

    def _admit(self, request: Request, kind: str) -> None:
        """Let a call with the right key through, as far as the rate limit goes."""
        settings = self._service.settings
        key = request.headers.get("x-api-key")
        if not key:
            raise Unauthenticated("missing_api_key", KEY_MISSING)
        if not secrets.compare_digest(key.encode(), settings.api_key.encode()):
            raise Unauthenticated("invalid_api_key", KEY_REFUSED)
        if settings.rate_limit_counts == "all" or kind in _SUBMITS:
            limit = settings.requests_per_minute
            self._service.rate_limit.take(self._service.clock.now(), requests_per_minute=limit)

    def _strike(self, kind: str) -> None:
        """Refuse a call with the status that a fault orders for its kind."""
        for fault, status in _STATUS_FAULTS.get(kind, {}).items():
            if self._service.faults.strikes(fault):
                raise Refused(status, _TEXTS[status])

    async def _accept(self, request: Request, *, endpoint: Literal["v1", "v2"]) -> Record:
        model = request.path_params["model"]
        settings = self._service.settings
        if model in settings.retired_models:
            raise Refused(410, f"The model {model} was retired.")
        if model in settings.forbidden_models:
            raise Refused(403, f"The model {model} is not allowed for your team.")
        if model not in settings.models:
            raise Refused(404, "Model not found.")
        require_json_content(request.headers.get("content-type"))
        fields = read_json_object(await request.body())
        return self._service.accept(read_request(fields), model=model, endpoint=endpoint)

    def _lost_answer(self) -> Response | None:
        """Return what stands in for the answer to a submit that was accepted, if a fault strikes."""
        if self._service.faults.strikes("accept_and_break"):
            return BrokenConnection()
        if self._service.faults.strikes("accept_502"):
            return JSONResponse({"error": _TEXTS[502]}, status_code=502)
        return None

    @staticmethod
    def _told(body: dict[str, Any]) -> Response:
        return JSONResponse(body, status_code=422 if body["status"] == "FAILED" else 200)

    def _wording(self, request: Request) -> Wording:
        return Wording(str(request.base_url), self._service.signer)

    def _history(self, request: Request) -> History:
        seen_at = self._service.clock.now() - self._service.settings.history_delay_seconds
        return History(self._wording(request), seen_at)
