"""The world in which the journal is tried: a store, an API, time, and processes that die, all drawn from a seed.

A run of the world is `World(seed).run(main)`, where `main(world)` makes processes, spawns the code under test in them,
kills and stalls them, and looks at the store and the bill. No time but the loop's passes, and nothing is drawn but
from the world's one random generator; so a seed replays exactly, as far as the code under test does.
"""

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from tests.variations.engine.simulation import BASE_URL, EPOCH, KEY
from variations.api.client import Endpoint

from .api import Api, Billed
from .loop import Guarded, JumpingTime, WorldLoop, make_task
from .process import PROCESS, Exit, Process
from .rates import CALM, Rates
from .store import Store
from .wire import Killed, Wire

__all__ = ["CALM", "Event", "Exit", "Killed", "Process", "Rates", "World"]

T = TypeVar("T")

HORIZON_SECONDS: Final = 30 * 86400.0


class Event(NamedTuple):
    """Something that happened: a call that left, landed or was dropped, an acceptance, a death, a pause."""

    at: float
    process: str
    call: str
    key: str


class World:
    """A world.

    Args:
        seed: what everything is drawn from.
        rates: how bad it is.
        horizon_seconds: a run that simulates longer than this does not end, and is ended with a `RuntimeError`.

    Attributes:
        random: the one generator; a driver draws from it too.
        store, api: what all processes share; to prepare and to look at, outside of time.
        endpoint: the API's address, for a `Client`.
        trace: everything that happened, in order.
        complaints: exceptions that the loop was left with.
    """

    def __init__(self, seed: int, *, rates: Rates | None = None, horizon_seconds: float = HORIZON_SECONDS) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.rates = rates or Rates()
        self.trace: list[Event] = []
        self.complaints: list[dict[str, Any]] = []
        self.processes: dict[str, Process] = {}
        self.endpoint = Endpoint(KEY, BASE_URL, f"{BASE_URL}/request-history", f"{BASE_URL}/upload-asset")
        self.is_ending = False
        self._beside: set[asyncio.Task[Any]] = set()
        self._time = JumpingTime(horizon_seconds=horizon_seconds)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks = 0
        self.store = Store(lambda: self._time.now)
        self.api = Api(self)
        self.wire = Wire(self)

    @property
    def now(self) -> float:
        """The loop's time in seconds."""
        return self._time.now

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the run."""
        assert self._loop is not None, "nothing happens in a world before its run"
        return self._loop

    def time_of_day(self) -> datetime:
        """Return the true time, of which the store's is the whole seconds."""
        return EPOCH + timedelta(seconds=self.now)

    def run(self, main: Callable[["World"], Coroutine[Any, Any, T]]) -> T:
        """Run `main(world)` on simulated time, once; what is alive at its end is killed, and everything disposed of."""
        assert self._loop is None, "a world runs once"
        collects = gc.isenabled()
        # Else the collector would end abandoned generators and tasks at moments that depend on earlier runs' garbage.
        gc.disable()
        try:
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                try:
                    return runner.run(main(self))
                finally:
                    runner.run(self._dispose())
        finally:
            if collects:
                gc.enable()

    async def quiet(self) -> None:
        """Wait until nothing is on the wire that could still take effect, late landings of the dead included."""
        while (last := self.wire.last_landing()) is not None:  # noqa: ASYNC110 - a landing may bring new ones
            await asyncio.sleep(max(last - self.now, 0) + 0.001)

    def bill(self) -> list[Billed]:
        """Return every request that was accepted, in that order, as it stands now."""
        return self.api.bill()

    def accepted(self) -> dict[tuple[str, int], list[str]]:
        """Return the ids of the accepted requests by (source without signature, seed)."""
        found: dict[tuple[str, int], list[str]] = {}
        for request in self.api.requests.values():
            found.setdefault((request.source, request.inputs["seed"]), []).append(request.request_id)
        return found

    def story(self, about: str = "") -> str:
        """Return the trace as text, one event a line; only those that name `about`, if it is given."""
        return "\n".join(
            f"{event.at - 1000:10.3f}  {event.process:10}  {event.call:22}  {event.key}"
            for event in self.trace
            if about in event.key or about == event.process
        )

    def request_delay(self) -> float:
        """Draw how long a call is under way until it takes effect."""
        return self._delay(*self.rates.request_seconds)

    def answer_delay(self) -> float:
        """Draw how long an answer is under way."""
        return self._delay(*self.rates.answer_seconds)

    def in_the_open(self, doing: Coroutine[Any, Any, Any]) -> None:
        """Do something beside, in no process, though one asks for it."""
        self._beside.add(self.loop.create_task(doing, context=Context()))

    def note(self, process: str, call: str, key: str) -> None:
        """Add to the trace."""
        self.trace.append(Event(self._time.now, process, call, key))

    def register(self, process: Process, name: str) -> None:
        """Take notice of a new process."""
        if name in self.processes:
            raise ValueError(f"there is a process {name} already")
        self.processes[name] = process

    def _delay(self, least: float, most: float) -> float:
        draw = self.random.random
        if draw() < self.rates.slow:
            return self.rates.slow_seconds * draw()
        return least + (most - least) * draw()

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = WorldLoop(self._time, self._make_task)
        self._loop.set_exception_handler(self._complain)
        return self._loop

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> asyncio.Task[Any]:
        process = PROCESS.get() if context is None else context.get(PROCESS)
        self._tasks += 1
        make = partial(make_task, loop, context=context, serial=self._tasks)
        if process is None:
            return make(coro)
        guarded = Guarded(coro, process, serial=self._tasks)
        task = make(guarded)
        process.adopt(task, guarded, serial=self._tasks)
        return task

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.is_ending and not isinstance(context.get("exception"), Killed | asyncio.CancelledError):
            self.complaints.append(context)

    async def _dispose(self) -> None:
        for process in self.processes.values():
            process.kill()
        await self._let_tasks_end()
        self.is_ending = True
        for process in self.processes.values():
            process.dispose()
        await self._let_tasks_end()
        for process in self.processes.values():
            process.dispose()

    async def _let_tasks_end(self) -> None:
        # Cancelled tasks end within a few turns of the loop, each waiting for another.
        for _ in range(1000):
            await asyncio.sleep(0)
            if not any(process.has_live_tasks() for process in self.processes.values()):
                return
