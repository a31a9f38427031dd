"""A real process that makes one run through the library, and can be told where to die.

`python -m tests.chaos.worker '<order as JSON>'` makes a run; its last line of standard output is what it came to.
`python -m tests.chaos.worker --serve` forks a worker for each order that it reads, so that the second it takes to
import everything is spent once: a forked worker is a process like any other, and is killed like one.
"""

import asyncio
import importlib
import json
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import boto3.session

import variations.planning.planner
from variations.api.client import Client, Endpoint
from variations.engine.limits import Limits
from variations.engine.stopping import stop_on_signals
from variations.errors import VariationsError
from variations.job import Job
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.recipe import Recipe
from variations.receipt import Receipt, RunStopped
from variations.run import Run, open_run

from . import points

DONE, BUG, LEFT, STOPPED = 0, 1, 3, 4
# Within which a submit arrives on this machine; a little less than a half, for a store tells whole seconds.
INTENT_MARGIN_SECONDS: Final = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is told.

    Attributes:
        source, destination: of the run.
        base_url, api_key: the API.
        environment: set before anything else; where the store is, and the keys to it.
        hurry: how many seconds pass for the run in one of the world's: a minute of waiting takes a second at 60.
        limits: what differs from `Limits`, in the run's own seconds.
        max_shards: so many shards at the most; None for the usual.
        resubmit_after_seconds, retry_failed: as in `Recipe`, the former in the world's seconds.
        wait: whether to wait while another run works on the dataset.
        lease_seconds: in the world's seconds.
        die_at: a label of `points`, or `label:N` for its N-th time.
    """

    source: str
    destination: str
    base_url: str
    api_key: str = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    hurry: float = 1.0
    limits: dict[str, Any] = field(default_factory=dict)
    max_shards: int | None = None
    resubmit_after_seconds: float | None = None
    retry_failed: bool = False
    wait: bool = False
    lease_seconds: float = 60.0
    die_at: str | None = None

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "Order":
        """Read a line."""
        return cls(**json.loads(text))

    @property
    def job(self) -> Job:
        """The run's job; its images are small."""
        recipe = Recipe(
            parameters=Parameters(megapixels="0.25"),
            resubmit_after_seconds=self.resubmit_after_seconds,
            retry_failed=self.retry_failed,
        )
        return Job(self.source, self.destination, recipe)

    @property
    def endpoint(self) -> Endpoint:
        """The sandbox."""
        root = self.base_url
        return Endpoint(self.api_key, root, f"{root}/inference-request/request-history", f"{root}/upload-asset")


class HurriedClock:
    """Time that passes faster, for whoever waits; the time of day is everybody's.

    Args:
        hurry: how many times as fast.
    """

    def __init__(self, hurry: float) -> None:
        self._hurry = hurry

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment, which go by faster."""
        return time.monotonic() * self._hurry

    async def sleep(self, seconds: float) -> None:
        """Wait, not as long."""
        await asyncio.sleep(seconds / self._hurry)


async def make(order: Order) -> Receipt:
    """Make a run, step by step, as the flow does.

    Raises:
        RunStopped, VariationsError: as the steps do.
    """
    limits = Limits(requests_per_minute=0, **order.limits)
    # How long an intent holds is counted in the run's seconds, and how old it is in the store's.
    over_seconds = limits.intent_seconds / order.hurry + INTENT_MARGIN_SECONDS
    limits = replace(limits, submit_seconds=over_seconds - limits.intent_seconds)
    clock = HurriedClock(order.hurry)
    # Nor does the API's clock go by the run's seconds: without it, what is lost is looked for by the time of day.
    Client.on_date = lambda *_: None  # type: ignore[method-assign]
    # The lease is the store's time, and the beats within it are the run's.
    async with open_run(
        order.job, endpoint=order.endpoint, limits=limits, clock=clock, lease_seconds=order.lease_seconds
    ) as run:
        with stop_on_signals(run.engine):
            await run.check()
            await run.recover(wait=order.wait)
            plan = await run.plan()
            await _make_shards(run, plan, limits=limits)
            return await run.publish()


async def _make_shards(run: Run, plan: Plan, *, limits: Limits) -> None:
    shards = iter(range(plan.shards))

    async def take() -> None:
        for shard in shards:
            if run.engine.stopped_by is not None:
                return
            await run.make(shard)

    at_once = (limits.max_in_flight + limits.max_images_in_memory) // plan.shard_size + 1
    await asyncio.gather(*(take() for _ in range(min(at_once, plan.shards))))


def work(order: Order) -> int:
    """Make a run, print what it came to as the last line, and return the exit code."""
    os.environ.update(order.environment)
    logging.basicConfig(level=logging.WARNING, format="%(relativeCreated)d %(name)s %(message)s")
    if order.max_shards is not None:
        variations.planning.planner.MAX_SHARDS = order.max_shards  # type: ignore[misc]
    if order.die_at is not None:
        points.install(order.die_at, bill_url=f"{order.base_url}/__sandbox/bill")
    said: dict[str, Any]
    try:
        receipt = asyncio.run(make(order))
    except RunStopped as stopped:
        said = {"error": stopped.receipt.stopped_by, "receipt": stopped.receipt.as_dict()}
    except VariationsError as error:
        said = {"error": error.code, "message": error.message}
    except BaseException as error:
        logging.getLogger(__name__).exception("an error that should not be")
        print(json.dumps({"error": "bug", "message": repr(error)}), flush=True)  # noqa: T201 - that is its answer
        return BUG
    else:
        print(json.dumps({"receipt": receipt.as_dict()}), flush=True)  # noqa: T201 - same
        return LEFT if receipt.left or receipt.unknowns or receipt.failed else DONE
    print(json.dumps(said), flush=True)  # noqa: T201 - same
    return STOPPED


def serve() -> None:
    """Fork a worker for each line of standard input: `{"number", "order", "output", "errors"}`.

    Each answer is a line: the number with the `pid` of its worker, and at its end with its `code`, below 0 for a
    signal. Where the input ends, so do the workers that are left.
    """
    # What is imported on first use, half a second of it: pandas by pyarrow, and what a client of S3 is made of.
    for name in ("pandas", "pyarrow.dataset", "pytz", "_strptime", "encodings.idna"):
        importlib.import_module(name)
    boto3.session.Session().client("s3", region_name="us-east-1", aws_access_key_id="", aws_secret_access_key="")
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    numbers: dict[int, int] = {}
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    lines = _Lines()
    _say({"ready": True})
    while True:
        for key, _ in selector.select():
            if key.fd == woken:
                os.read(woken, 4096)
                _reap(numbers)
                continue
            if not (text := os.read(0, 1 << 16)):
                for pid in numbers:
                    os.kill(pid, signal.SIGKILL)
                return
            for line in lines.add(text):
                call = json.loads(line)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    _work_in_child(call)
                numbers[pid] = call["number"]
                _say({"number": call["number"], "pid": pid})


def _work_in_child(call: dict[str, Any]) -> None:
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, call["output"], os.O_WRONLY | os.O_CREAT),
        (2, call["errors"], os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    code = BUG
    try:
        code = work(Order(**call["order"]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _reap(numbers: dict[int, int]) -> None:
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _say({"number": numbers.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


class _Lines:
    """Cut what is read into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, text: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + text).split(b"\n")
        yield from lines


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(work(Order.of_json(sys.argv[1])))
