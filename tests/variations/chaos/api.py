"""The API of the world: what it accepted, and the HTTP transport through which a process talks to it."""

import io
import json
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qsl

import httpx
from PIL import Image

from tests.variations.engine.simulation import BASE_URL, EPOCH, PRICE_USD, output_url, picture
from variations.parameters import MODEL
from variations.uris import public_uri

from .wire import Plan

if TYPE_CHECKING:
    from .process import Process
    from .world import World

RESULT_SECONDS: Final = 3600.0
OUTPUT_SECONDS: Final = 7 * 86400.0
_READ_TIMEOUT_SECONDS: Final = 60.0
_TIMEOUT: Final = httpx.Timeout(_READ_TIMEOUT_SECONDS, connect=10.0, pool=None)

State = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]


@dataclass(slots=True)
class ApiRequest:
    """One accepted request; times are the loop's seconds, and `outputs` is how many images it makes."""

    request_id: str
    inputs: dict[str, Any]
    process: str
    accepted_at: float
    started_at: float
    done_at: float
    fails: bool
    history_delay: float
    missing_fetches: int
    outputs: int = 1

    @property
    def source(self) -> str:
        """The source without its signature."""
        return public_uri(str(self.inputs.get("redux_image")))

    def state(self, now: float) -> State:
        """Return how far it is."""
        if now < self.done_at:
            return "PROCESSING" if now >= self.started_at else "QUEUED"
        return "FAILED" if self.fails else "COMPLETED"

    def cost_usd(self, now: float) -> float:
        """Return what it has cost so far."""
        return PRICE_USD * self.outputs if self.state(now) == "COMPLETED" else 0.0


@dataclass(frozen=True, slots=True)
class Billed:
    """A line of the bill; `process` is the one whose submit it was, and `outputs` how many images it was for."""

    request_id: str
    inputs: dict[str, Any]
    process: str
    accepted_at: float
    state: State
    cost_usd: float
    outputs: int = 1


class Api:
    """What the API knows. Of what it makes, `blank_share` shows nothing; it may be set before anything is made."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.requests: dict[str, ApiRequest] = {}
        self.blank_share = 0.0
        self.skew_seconds = world.random.uniform(-1, 1) * world.rates.api_skew_seconds
        self._uploads = 0

    def submit(self, inputs: dict[str, Any], process: str) -> httpx.Response:
        """Accept a request."""
        world, rates, draw = self._world, self._world.rates, self._world.random.random
        seconds = rates.latency_seconds * max(0.2, world.random.gauss(1.0, rates.latency_spread))
        if draw() < rates.slow_inference:
            seconds *= 10
        least, most = rates.history_delay_seconds
        request = ApiRequest(
            request_id=str(uuid.UUID(int=world.random.getrandbits(128), version=4)),
            inputs=inputs,
            process=process,
            accepted_at=world.now,
            started_at=world.now + min(seconds / 2, 2 * draw()),
            done_at=world.now + seconds,
            fails=draw() < rates.inference_failed,
            history_delay=least + (most - least) * draw(),
            missing_fetches=1 + int(3 * draw()) if draw() < rates.output_missing else 0,
            outputs=self._made_of(int(inputs.get("num_outputs", 1))),
        )
        self.requests[request.request_id] = request
        world.note(process, "accepted", request.request_id)
        url = f"{BASE_URL}/v2/requests/{request.request_id}"
        return self._dated(
            {
                "request_id": request.request_id,
                "status": "QUEUED",
                "status_url": f"{url}/status",
                "response_url": url,
                "poll_url": url.replace("/v2/", "/v1/"),
            }
        )

    def _made_of(self, asked: int) -> int:
        """Return how many images are made; one at least, as a request that makes none fails."""
        draw = self._world.random.random
        is_short = asked > 1 and draw() < self._world.rates.fewer_outputs
        return 1 + int((asked - 1) * draw()) if is_short else asked

    def limited(self) -> httpx.Response:
        """Refuse, and say when to come again."""
        now = self._now()
        headers = {
            "date": format_datetime(now.replace(microsecond=0), usegmt=True),
            "x-rate-limit-reset-at-utc": (now + timedelta(seconds=1 + 20 * self._world.random.random())).isoformat(),
        }
        return httpx.Response(429, json={"error": "Rate limit exceeded."}, headers=headers)

    def told(self, request_id: str, *, with_output: bool) -> httpx.Response:
        """Tell how far a request is."""
        now = self._world.now
        request = self.requests.get(request_id)
        if request is None or now >= request.accepted_at + RESULT_SECONDS:
            return refusal(404, "Request not found.")
        state = request.state(now)
        body: dict[str, Any] = {"request_id": request_id, "status": state}
        if state in {"COMPLETED", "FAILED"}:
            body["metrics"] = {
                "total_time": request.done_at - request.accepted_at,
                "queue_time": request.started_at - request.accepted_at,
                "inference_time": request.done_at - request.started_at,
            }
        if state == "FAILED":
            return self._dated(body | {"error": "NSFW content detected."}, status_code=422)
        if state == "COMPLETED":
            body["metrics"]["cost"] = request.cost_usd(now)
            if with_output:
                urls = [output_url(request_id, index) for index in range(request.outputs)]
                body |= {"output": urls, "images": [{"url": url} for url in urls], "seed": request.inputs.get("seed")}
        return self._dated(body)

    def credits(self) -> httpx.Response:
        """Tell the balance."""
        now = self._world.now
        spent = sum(request.cost_usd(now) for request in self.requests.values())
        return self._dated({"credits": 1000.0 - spent, "free-credits": 0.0})

    def upload(self) -> httpx.Response:
        """Take a file in."""
        self._uploads += 1
        return _json({"file_urls": [f"{BASE_URL}/assets/{self._uploads}.jpg"]})

    def output(self, name: str) -> httpx.Response:
        """Give an output file."""
        request_id, _, index = name.removesuffix(".jpg").rpartition("-")
        now = self._world.now
        request = self.requests.get(request_id)
        if request is None or request.state(now) != "COMPLETED" or now >= request.done_at + OUTPUT_SECONDS:
            return refusal(404, "Not found.")
        if request.missing_fetches > 0:
            request.missing_fetches -= 1
            return refusal(404, "Not found.")
        headers = {"content-type": "image/jpeg"}
        return httpx.Response(200, content=self.content(request_id, int(index)), headers=headers)

    def is_blank(self, request_id: str, index: int) -> bool:
        """Return whether an image that a request makes shows nothing; its id, which was drawn, tells."""
        drawn = int(request_id.replace("-", ""), 16) >> (96 - 8 * index)
        return drawn % 2**32 < self.blank_share * 2**32

    def content(self, request_id: str, index: int) -> bytes:
        """Return the content of an output."""
        return output_content(request_id, index, is_blank=self.is_blank(request_id, index))

    def history(self, query: dict[str, str]) -> httpx.Response:
        """Tell a page of what shows in the history, newest first."""
        today = self._now().date().isoformat()
        week_ago = (self._now() - timedelta(days=7)).date().isoformat()
        first_day, last_day = query.get("from_date") or week_ago, query.get("to_date") or today
        if (datetime.fromisoformat(last_day) - datetime.fromisoformat(first_day)).days >= 31:
            return refusal(400, "The date range must not exceed 31 days.")
        rows: list[dict[str, Any]] = []
        for request in self.requests.values():
            # ISO dates compare as texts do.
            if self._shows(request) and first_day <= self._created(request)[:10] <= last_day:
                rows += self._rows(request)
        if "status" in query:
            rows = [row for row in rows if row["model_status"] == query["status"]]
        if query.get("model_name", "") not in MODEL:
            rows = []
        if query.get("sort_order", "desc") == "desc":
            rows.reverse()
        page, per_page = int(query.get("page", 1)), int(query.get("per_page", 20))
        shown = rows[(page - 1) * per_page : page * per_page]
        return _json({"data": shown, "page": page, "per_page": per_page, "total": len(rows)})

    def history_record(self, request_id: str) -> httpx.Response:
        """Tell what shows of one request."""
        request = self.requests.get(request_id)
        if request is None or not self._shows(request):
            return refusal(404, "Request not found.")
        return _json(self._rows(request)[0])

    def bill(self) -> list[Billed]:
        """Return every request that was accepted, in that order, as it stands now."""
        now = self._world.now
        return [
            Billed(
                request.request_id,
                request.inputs,
                request.process,
                request.accepted_at,
                request.state(now),
                request.cost_usd(now),
                request.outputs,
            )
            for request in self.requests.values()
        ]

    def _dated(self, body: Any, *, status_code: int = 200) -> httpx.Response:
        """Return an answer that tells the time at which it was made."""
        answer = _json(body, status_code=status_code)
        answer.headers["date"] = format_datetime(self._now().replace(microsecond=0), usegmt=True)
        return answer

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._world.now + self.skew_seconds)

    def _created(self, request: ApiRequest) -> str:
        created = EPOCH + timedelta(seconds=request.accepted_at + self.skew_seconds)
        return created.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _shows(self, request: ApiRequest) -> bool:
        return self._world.now >= request.accepted_at + request.history_delay

    def _rows(self, request: ApiRequest) -> list[dict[str, Any]]:
        seen_at = self._world.now - request.history_delay
        state = request.state(seen_at)
        is_done = state in {"COMPLETED", "FAILED"}
        row = {
            "request_id": request.request_id,
            "model_name": MODEL,
            "model_status": state if is_done else "PENDING",
            "credits_deduction": request.cost_usd(seen_at),
            "request_body": request.inputs,
            "latency_ms": round(1000 * (request.done_at - request.accepted_at)) if is_done else None,
            "model_created": self._created(request),
            "error": "NSFW content detected." if state == "FAILED" else None,
            "generation_url": None,
        }
        if state != "COMPLETED":
            return [row]
        return [row | {"generation_url": output_url(request.request_id, index)} for index in range(request.outputs)]


class ProcessTransport(httpx.AsyncBaseTransport):
    """The API as one process reaches it, with delays and faults."""

    def __init__(self, world: "World", process: "Process") -> None:
        self._world = world
        self._process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, or break off."""
        path, _, query = request.url.raw_path.decode().partition("?")
        parts = path.strip("/").split("/")
        is_submit, is_post = False, request.method == "POST"
        api = self._world.api
        key = parts[-1]
        if is_post and parts[-1] == "upload-asset":
            call, effect = "upload", api.upload
        elif is_post:
            inputs = json.loads(request.content)
            call, key, is_submit = "submit", f"{public_uri(str(inputs.get('redux_image')))} {inputs.get('seed')}", True
            effect = partial(api.submit, inputs, self._process.name)
        elif parts[-1] == "status":
            call, key, effect = "status", parts[-2], partial(api.told, parts[-2], with_output=False)
        elif "requests" in parts:
            call, effect = "poll" if "v1" in parts else "result", partial(api.told, key, with_output=True)
        elif parts[-1] == "request-history":
            call, key, effect = "history", query, partial(api.history, dict(parse_qsl(query)))
        elif "request-history" in parts:
            call, effect = "history", partial(api.history_record, key)
        elif parts[-1] == "get-user-credits":
            call, effect = "credits", api.credits
        else:
            call, effect = "output", partial(api.output, key)
        await self._process.leave(call, key)
        plan, effect = self._submit_plan(effect, request) if is_submit else self._plan(effect, request)
        answer: httpx.Response = await self._world.wire.send(
            self._process, (call, key), effect, plan, is_write=is_submit
        )
        return answer

    def _submit_plan(  # noqa: PLR0911 - it is a table
        self, accept: Any, request: httpx.Request
    ) -> tuple[Plan, Any]:
        world, rates, draw = self._world, self._world.rates, self._world.random.random
        there, back = world.request_delay(), world.answer_delay()
        timeout = _read_timeout(request)
        faults = (rates.broken, rates.bad_gateway, rates.no_answer, rates.refused, rates.limited, rates.submit_500)
        match _drawn(draw(), faults):
            case 0:
                instead, after = httpx.ReadError("the connection broke", request=request), there + back
            case 1:
                instead, after = refusal(502 if draw() < 0.5 else 504, "Bad gateway."), there + back
            case 2:
                instead, after = httpx.ReadTimeout("no answer", request=request), timeout
            case 3:
                return Plan((), there, httpx.ConnectError("connection refused", request=request)), accept
            case 4:
                return _in_time(there, back, request), world.api.limited
            case 5:
                return _in_time(there, back, request), partial(refusal, 500, "Internal server error.")
            case _:
                return _in_time(there, back, request), accept
        accepted = draw()
        if accepted < rates.lost_accepted:
            return Plan((there,), after, instead), accept
        if accepted < rates.lost_accepted + rates.lost_accepted_late:
            return Plan((after + rates.late_seconds * draw(),), after, instead), accept
        return Plan((), after, instead), accept

    def _plan(self, effect: Any, request: httpx.Request) -> tuple[Plan, Any]:
        world, draw = self._world, self._world.random.random
        plan = _in_time(world.request_delay(), world.answer_delay(), request)
        if draw() >= world.rates.get_fails:
            return plan, effect
        match int(5 * draw()):
            case 0:
                return plan, partial(refusal, 500, "Internal server error.")
            case 1:
                return plan, partial(refusal, 502, "Bad gateway.")
            case 2:
                return plan, world.api.limited
            case 3:
                broken = httpx.ReadError("the connection broke", request=request)
                return Plan(plan.lands_after, plan.answers_after, broken), effect
        return Plan((), plan.answers_after, httpx.ConnectError("connection refused", request=request)), effect


class LeanClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` for one transport, without what nothing here needs: redirects, cookies, authentication.

    A call costs a third of the CPU so: 0.06 ms, not 0.18.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, timeout=_TIMEOUT, trust_env=False)
        self._lean_transport = transport

    def build_request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Request:
        """Build a request; an address that was parsed before is not parsed again."""
        timeout = options.pop("timeout", None)
        timeout = _TIMEOUT if timeout is None or timeout is httpx.USE_CLIENT_DEFAULT else httpx.Timeout(timeout)
        extensions = {"timeout": timeout.as_dict(), **(options.pop("extensions", None) or {})}
        return httpx.Request(method, _url(str(url)), extensions=extensions, **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request; its answer is whole at once, so there is nothing to stream."""
        del options
        answer = await self._lean_transport.handle_async_request(request)
        answer.request = request
        return answer


@lru_cache(maxsize=4096)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


@lru_cache(maxsize=1)
def _blank() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (64, 48)).save(sink, "JPEG")
    return sink.getvalue()


def output_content(request_id: str, index: int = 0, *, is_blank: bool = False) -> bytes:
    """Return an output's content: a picture with its own name in it, so that no two are the same bytes."""
    name = f"{request_id}-{index}".encode()
    content = _blank() if is_blank else picture()
    return content[:2] + b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name + content[2:]


def refusal(status_code: int, text: str) -> httpx.Response:
    """Return an error in the API's envelope."""
    return _json({"error": text}, status_code=status_code)


def _json(body: Any, *, status_code: int = 200) -> httpx.Response:
    return httpx.Response(status_code, content=json.dumps(body).encode())


def _in_time(there: float, back: float, request: httpx.Request) -> Plan:
    """Return the plan of a call that goes well, unless its caller loses patience."""
    timeout = _read_timeout(request)
    if there + back > timeout:
        return Plan((there,), timeout, httpx.ReadTimeout("no answer in time", request=request))
    return Plan((there,), there + back)


def _read_timeout(request: httpx.Request) -> float:
    seconds = request.extensions.get("timeout", {}).get("read")
    return math.inf if seconds is None else float(seconds)


def _drawn(draw: float, chances: tuple[float, ...]) -> int:
    """Return which of some chances a number from 0 to 1 falls on; their count if on none."""
    for at, chance in enumerate(chances):
        if draw < chance:
            return at
        draw -= chance
    return len(chances)
