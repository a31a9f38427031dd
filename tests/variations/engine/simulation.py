"""An event loop whose time jumps to the next timer, an API that lives on that time, and a dataset in memory.

Nothing waits for real: an hour of a run takes as long as its work. Threads run inline, so that time never jumps past
one that is still at work.
"""

import asyncio
import io
import itertools
import json
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any, TypeVar

import httpx
from PIL import Image

from variations.api.client import Client, Endpoint
from variations.engine.engine import Engine
from variations.engine.limits import Limits
from variations.engine.request import Log
from variations.gate import Gate
from variations.ledger.records import Accepted, FoundIn, Intended, Record
from variations.models import Outcome, Source, Variation
from variations.parameters import Parameters
from variations.storage import Entry

T = TypeVar("T")

KEY = "SG_00000000000000ff"
BASE_URL = "http://127.0.0.1:9"
PRICE_USD = 0.031
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: hands the time it was to wait to the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, and jump ahead if nothing is."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("the simulation waits for something that never comes")
        self.now += max(timeout, 1e-9)
        return []


class InlineExecutor(ThreadPoolExecutor):
    """Runs what is given to it at once, in the caller's thread."""

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Return a future that is already done."""
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the caller's to look at
            future.set_exception(error)
        return future


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on simulated time."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)
        self.set_default_executor(InlineExecutor(max_workers=1))

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self._jumping.now

    def fall_asleep(self, seconds: float) -> None:
        """Let so much time pass in which nothing of this process runs, and the API goes on."""
        self._jumping.now += seconds

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: the base class would wait for a thread, and time would jump meanwhile."""


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on simulated time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


class LoopClock:
    """Time as the running loop has it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> datetime:
        """Return the time of day."""
        return EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return the loop's seconds."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the loop."""
        await asyncio.sleep(seconds)


@cache
def picture(seed: int = 0, *, image_format: str = "JPEG") -> bytes:
    """Return a small photograph-like image."""
    sink = io.BytesIO()
    Image.radial_gradient("L").resize((64, 48)).rotate(seed % 360).convert("RGB").save(sink, image_format)
    return sink.getvalue()


class MemoryLog:
    """A log in memory, by the simulated clock; `fails` makes a write fail, by its number from 1."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.writes = 0
        self.fails: Callable[[int], Exception | None] = lambda _: None

    async def append(self, *records: Record) -> datetime:
        """Write records."""
        self.writes += 1
        error = self.fails(self.writes)
        await asyncio.sleep(0.01)
        if error is not None:
            raise error
        self.records += records
        return LoopClock().now()

    async def accept(self, variation_id: str, request_id: str, *, found_in: FoundIn = "answer") -> None:
        """Write down that a submit was accepted."""
        await self.append(Accepted(variation_id=variation_id, request_id=request_id, found_in=found_in))

    def intended(self) -> list[str]:
        """Return the variations that were about to be submitted."""
        return [record.variation_id for record in self.records if isinstance(record, Intended)]

    def accepted(self) -> dict[str, str]:
        """Return the request of each variation that was accepted."""
        found = [record for record in self.records if isinstance(record, Accepted)]
        assert len({record.variation_id for record in found}) == len(found), "a variation was accepted twice"
        return {record.variation_id: record.request_id for record in found}


class MemoryStorage:
    """A dataset in memory; `fails` makes a write fail, by its number from 1."""

    uri = "memory://dataset"

    def __init__(self, *, put_seconds: float = 0.01) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: Counter[str] = Counter()
        self.fails: Callable[[int], Exception | None] = lambda _: None
        self._put_seconds = put_seconds

    async def put(self, key: str, data: bytes, *, content_type: str | None = None, metadata: None = None) -> Entry:
        """Write an object."""
        del content_type, metadata
        self.puts[key] += 1
        error = self.fails(self.puts.total())
        await asyncio.sleep(self._put_seconds)
        if error is not None:
            raise error
        self.objects[key] = data
        return Entry(key, len(data), EPOCH, "etag")


@dataclass
class ApiRequest:
    """One request as the fake API keeps it."""

    request_id: str
    inputs: dict[str, Any]
    accepted_at: float
    done_at: float
    told_at: float | None = None
    expires_at: float = float("inf")


Answer = httpx.Response | Exception | None


@dataclass
class FakeApi(httpx.AsyncBaseTransport):
    """The API at the HTTP boundary. Each `on_…` may answer in its place; None lets the API answer as it does.

    `on_submit` is given the submit's number from 1 and its inputs; an exception with `accepted = True` is raised after
    the request was accepted. A poll counts as a status, and `on_poll` answers polls alone. `landed` tells which
    requests the pages of the history show: none, unless it is set. `told_seconds` is what the API says that a request
    took, by what it did take.
    """

    latency: Callable[[int], float] = lambda _: 16.0
    network_seconds: float = 0.05
    output_seconds: float = 0.0
    limit: tuple[int, float] | None = None
    on_submit: Callable[[int, dict[str, Any]], Answer] = lambda *_: None
    on_status: Callable[[str, int], Answer] = lambda *_: None
    on_result: Callable[[str, int], Answer] = lambda *_: None
    on_poll: Callable[[], Answer] = lambda: None
    polls_bring_outputs: bool = True
    price_usd: float = PRICE_USD
    told_seconds: Callable[[float], float | None] = lambda seconds: seconds
    on_history: Callable[[str, int], Answer] = lambda *_: None
    on_history_page: Callable[[int], Answer] = lambda _: None
    landed: Callable[["FakeApi"], Iterable["ApiRequest"]] = lambda _: ()
    on_output: Callable[[str, int], Answer] = lambda *_: None
    on_upload: Callable[[int], Answer] = lambda _: None
    made: Callable[[dict[str, Any]], int] = lambda inputs: inputs["num_outputs"]
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    requests: dict[str, ApiRequest] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    output_keys: set[str | None] = field(default_factory=set)
    most_in_flight: int = 0
    fetching: int = 0
    most_fetching: int = 0
    _counts: Counter[str] = field(default_factory=Counter)
    _admitted: list[float] = field(default_factory=list)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def in_flight(self) -> int:
        """Count what is accepted and not yet told to be done."""
        now = asyncio.get_running_loop().time()
        return sum(1 for request in self.requests.values() if request.told_at is None and now < request.expires_at)

    def times(self, kind: str | None = None) -> list[float]:
        """Return when calls arrived, outputs aside unless asked for."""
        return [at for at, found, _ in self.calls if (found == kind if kind else found != "output")]

    def targets(self, kind: str) -> list[str]:
        """Return what each call of a kind was about."""
        return [target for _, found, target in self.calls if found == kind]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        await asyncio.sleep(self.network_seconds)
        path = request.url.path
        kind, target = _kind(request.method, path)
        self.calls.append((asyncio.get_running_loop().time(), kind, target))
        (self.output_keys if kind == "output" else self.keys).add(request.headers.get("x-api-key"))
        if kind != "output" and self.limit is not None:
            refused = self._over_limit(*self.limit)
            if refused is not None:
                return refused
        self._counts[kind + target] += 1
        answer = await self._answer(kind, target, request, self._counts[kind + target])
        told = format_datetime(EPOCH + timedelta(seconds=int(asyncio.get_running_loop().time())), usegmt=True)
        await asyncio.sleep(self.network_seconds + (self.output_seconds if kind == "output" else 0.0))
        if isinstance(answer, Exception):
            raise answer
        answer.headers.setdefault("date", told)
        return answer

    async def _answer(  # noqa: PLR0911 - it is a table
        self, kind: str, target: str, request: httpx.Request, number: int
    ) -> httpx.Response | Exception:
        match kind:
            case "submit":
                return self._submit(number, json.loads(request.content))
            case "status":
                is_poll = request.url.path.startswith("/v1")
                answer = self.on_status(target, number) or (self.on_poll() if is_poll else None)
                return answer or self._told(target, with_output=is_poll and self.polls_bring_outputs)
            case "result":
                return self.on_result(target, number) or self._told(target, with_output=True)
            case "history":
                return self.on_history(target, number) or httpx.Response(404, json={"error": "Request not found."})
            case "history page":
                return self.on_history_page(number) or self._page(int(request.url.params["page"]))
            case "upload":
                url = f"{BASE_URL}/assets/{number}.jpg"
                return self.on_upload(number) or httpx.Response(200, json={"file_urls": [url]})
            case "credits":
                return httpx.Response(200, json={"credits": 5.0, "free-credits": 1.0})
        self.fetching += 1
        self.most_fetching = max(self.fetching, self.most_fetching)
        await asyncio.sleep(0.2)
        self.fetching -= 1
        return self.on_output(target, number) or httpx.Response(200, content=picture())

    def _page(self, page: int) -> httpx.Response:
        newest = sorted(self.landed(self), key=lambda request: request.accepted_at, reverse=True) if page == 1 else []
        return httpx.Response(200, json=list(map(_page_row, newest)))

    def _over_limit(self, calls: int, seconds: float) -> httpx.Response | None:
        now = asyncio.get_running_loop().time()
        window = int(now // seconds)
        if sum(1 for at in self._admitted if int(at // seconds) == window) >= calls:
            reset = EPOCH + timedelta(seconds=(window + 1) * seconds)
            headers = {
                "date": format_datetime(EPOCH + timedelta(seconds=now), usegmt=True),
                "x-rate-limit-reset-at-utc": reset.isoformat(),
            }
            return httpx.Response(429, json={"error": "Rate limit exceeded."}, headers=headers)
        self._admitted.append(now)
        return None

    def _submit(self, number: int, inputs: dict[str, Any]) -> httpx.Response | Exception:
        self.submitted.append(inputs)
        answer = self.on_submit(number, inputs)
        if answer is not None and not getattr(answer, "accepted", False):
            return answer
        now = asyncio.get_running_loop().time()
        request_id = f"request-{next(self._ids)}"
        self.requests[request_id] = ApiRequest(request_id, inputs, now, now + self.latency(number))
        self.most_in_flight = max(self.most_in_flight, self.in_flight())
        if answer is not None:
            return answer
        body = {"request_id": request_id, "status": "QUEUED", "status_url": "http://169.254.169.254/status"}
        return httpx.Response(200, json=body)

    def _told(self, request_id: str, *, with_output: bool) -> httpx.Response:
        request = self.requests.get(request_id)
        if request is None:
            return httpx.Response(404, json={"error": "Request not found."})
        now = asyncio.get_running_loop().time()
        body: dict[str, Any] = {"request_id": request_id, "status": "PROCESSING"}
        if now >= request.done_at:
            request.told_at = request.told_at or now
            count = self.made(request.inputs)
            body["status"] = "COMPLETED"
            body["metrics"] = {"cost": self.price_usd * count}
            if (told_seconds := self.told_seconds(request.done_at - request.accepted_at)) is not None:
                body["metrics"]["total_time"] = told_seconds
            if with_output:
                body["images"] = [{"url": output_url(request_id, k)} for k in range(count)]
                body["output"] = [image["url"] for image in body["images"]]
        return httpx.Response(200, json=body)


def _page_row(request: ApiRequest) -> dict[str, Any]:
    created_at = EPOCH + timedelta(seconds=request.accepted_at)
    row = {"request_id": request.request_id, "model_status": "PENDING", "model_created": created_at.isoformat()}
    return {**row, "request_body": request.inputs}


def output_url(request_id: str, index: int = 0) -> str:
    """Return where an output lies."""
    return f"{BASE_URL}/outputs/{request_id}-{index}.jpg"


def _kind(method: str, path: str) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    if method == "POST":
        return ("upload" if parts == ["upload-asset"] else "submit"), ""
    if parts[-1] == "status":
        return "status", parts[-2]
    if parts[:2] == ["v1", "requests"]:
        return "status", parts[2]
    if parts[:2] == ["v2", "requests"]:
        return "result", parts[2]
    if parts[0] == "request-history":
        return ("history", parts[1]) if parts[1:] else ("history page", "")
    return ("credits", "") if parts[-1] == "get-user-credits" else ("output", parts[-1])


def failed(text: str = "NSFW content") -> httpx.Response:
    """Return the answer for a request that failed."""
    return httpx.Response(422, json={"status": "FAILED", "error": text, "metrics": {"total_time": 3.0}})


def refused(status_code: int, text: str = "Refused.") -> httpx.Response:
    """Return an error in the API's envelope."""
    return httpx.Response(status_code, json={"error": text})


def history_row(request_id: str, status: str = "COMPLETED", **fields: Any) -> httpx.Response:
    """Return the answer of the history about one request."""
    url = output_url(request_id) if status == "COMPLETED" else None
    row = {"request_id": request_id, "model_status": status, "generation_url": url, "credits_deduction": PRICE_USD}
    return httpx.Response(200, json=row | fields)


def lost(*, accepted: bool = True) -> Exception:
    """Return a connection that broke after the request left."""
    error = httpx.ReadError("the connection broke")
    error.accepted = accepted  # type: ignore[attr-defined]
    return error


def variation(number: int, *, uri: str | None = None, **parameters: Any) -> Variation:
    """Return the number-th variation, of a source of its own."""
    uri = uri or f"https://photos.example/{number}.jpg"
    source = Source(row=number + 1, source_id=str(number), uri=uri, public_uri=uri.partition("?")[0])
    parameters = {"seed": 1 + number, **parameters}
    return Variation(f"{number:032x}", source, 0, Parameters(**parameters))


def variations(count: int, **parameters: Any) -> list[Variation]:
    """Return so many variations."""
    return [variation(number, **parameters) for number in range(count)]


@dataclass
class Stage:
    """An engine with everything around it."""

    engine: Engine
    api: FakeApi
    storage: MemoryStorage
    clock: LoopClock


@asynccontextmanager
async def staged(api: FakeApi, storage: MemoryStorage | None = None, gate: Gate | None = None, **limits: Any) -> Any:
    """Put an engine on the running loop; the request rate is not limited unless told so."""
    limits = {"requests_per_minute": 0.0, **limits}
    endpoint = Endpoint(KEY, BASE_URL, f"{BASE_URL}/request-history", f"{BASE_URL}/upload-asset")
    storage = storage or MemoryStorage()
    clock = LoopClock()
    async with httpx.AsyncClient(transport=api) as http:
        engine = Engine(
            Client(http, endpoint=endpoint),
            storage=storage,
            limits=Limits(**limits),
            clock=clock,
            random=lambda: 0.5,
            gate=gate or Gate(),
        )
        yield Stage(engine, api, storage, clock)


def run(
    api: FakeApi,
    wanted: Iterable[Variation],
    *,
    storage: MemoryStorage | None = None,
    log: Log | None = None,
    meanwhile: Callable[[Stage], Awaitable[None]] | None = None,
    gate: Gate | None = None,
    **limits: Any,
) -> tuple[list[Outcome], Stage]:
    """Run the engine over variations on simulated time; `meanwhile` runs beside it."""

    async def main() -> tuple[list[Outcome], Stage]:
        async with staged(api, storage, gate, **limits) as stage, asyncio.TaskGroup() as group:
            if meanwhile is not None:
                group.create_task(meanwhile(stage))
            return await stage.engine.run(wanted, log or MemoryLog()), stage

    return simulate(main())


def statuses(outcomes: list[Outcome]) -> Counter[str]:
    """Count the rows by status."""
    return Counter(outcome.status for outcome in outcomes)


def only(outcomes: list[Outcome]) -> Outcome:
    """Return the one row."""
    assert len(outcomes) == 1
    return outcomes[0]
