"""A simulated process of an operating system: it can be killed and paused, and its clock is off."""

import asyncio
import contextvars
import random
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import httpx

from tests.variations.engine.simulation import EPOCH

from .api import LeanClient, ProcessTransport
from .loop import Guarded, WorldTask
from .store import ProcessStorage
from .wire import Killed

if TYPE_CHECKING:
    from .world import World

PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `interrupted` if its main coroutine let a cancellation through."""

    how: Literal["returned", "raised", "interrupted", "killed"]
    result: Any = None
    error: Exception | None = None


class ProcessClock:
    """A process's clock: its wall clock is off, its seconds are the world's."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    def now(self) -> datetime:
        """Return what this process takes for the time of day."""
        return EPOCH + timedelta(seconds=self.monotonic() + self._process.skew_seconds)

    def monotonic(self) -> float:
        """Return the loop's seconds."""
        return self._process.world.now

    async def sleep(self, seconds: float) -> None:
        """Wait on the loop."""
        if self._process.is_over:
            await self._process.never()
        await asyncio.sleep(seconds)


class Process:
    """A process. Give `storage`, `http`, `clock` and `random` to the code under test, and `spawn` it.

    Args:
        world: where it lives.
        name: for the trace; no other process of the world may have it.

    Attributes:
        skew_seconds: what its wall clock is off by; may be set.
        credentials_expire_at: from this loop time on the store refuses it; None for never.
        on_call: called with (call, key) just before each call leaves. It may kill or stall the process: then the call
            does not leave, or leaves after the pause.
        calls: how many calls have left.
        exit: how it ended, or None.
    """

    def __init__(self, world: "World", name: str) -> None:
        world.register(self, name)
        self.world = world
        self.name = name
        self.random: Callable[[], float] = random.Random(world.random.getrandbits(64)).random  # noqa: S311 - no secret
        self.skew_seconds = world.random.uniform(-world.rates.skew_seconds, world.rates.skew_seconds)
        self.clock = ProcessClock(self)
        self.storage = ProcessStorage(world, self)
        self.http: httpx.AsyncClient = LeanClient(ProcessTransport(world, self))
        self.credentials_expire_at: float | None = None
        self.on_call: Callable[[str, str], None] | None = None
        self.calls = 0
        self.exit: Exit | None = None
        self.is_over = False
        self.is_stalled = False
        self._stalled_until = 0.0
        self._gates: list[asyncio.Future[None]] = []
        self._tasks: dict[int, tuple[WorldTask, Guarded]] = {}
        self._main_task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return f"Process({self.name!r})"

    def spawn(self, main: Coroutine[Any, Any, Any]) -> None:
        """Start the main coroutine; tasks that it starts, at any depth, are the process's too.

        When it ends, the tasks left over are cancelled and waited for, as `asyncio.run` does.
        """
        if self._main_task is not None:
            raise RuntimeError(f"{self.name} was started already")
        self._main_task = self.world.loop.create_task(self._run(main), context=self._context)

    async def wait(self) -> Exit:
        """Wait until the process is over, and return how it ended; raises nothing of it."""
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    def kill(self) -> None:
        """End the process at once (kill -9): no line of it runs any more; what is on the wire lands or not, by draw."""
        if not self.is_over:
            self.world.note(self.name, "killed", "")
            self._end(Exit("killed"))
            self.world.wire.cut(self)

    def interrupt(self) -> None:
        """Cancel the main task, as Ctrl-C and SIGTERM do."""
        if self._main_task is not None:
            self.world.note(self.name, "interrupted", "")
            self._main_task.cancel()

    def stall(self, seconds: float) -> None:
        """Pause the process: no line of it runs for so long, while what it had on the wire lands at the other side."""
        if self.is_over:
            return
        self.world.note(self.name, "stalled", f"{seconds:.3f}")
        self.is_stalled = True
        self._stalled_until = max(self._stalled_until, self.world.now + seconds)
        self.world.loop.call_at(self._stalled_until, self._go_on)

    def expire_credentials(self, after_seconds: float = 0.0) -> None:
        """Let the store refuse the process from then on."""
        self.credentials_expire_at = self.world.now + after_seconds

    async def leave(self, call: str, key: str) -> None:
        """Let a call leave the process: at once, after the pause, or never."""
        if self.is_over:
            await self.never()
        if self.on_call is not None:
            self.on_call(call, key)
            if self.is_over:
                await self.never()
        while self.is_stalled:
            if PROCESS.get() is self:
                await asyncio.sleep(0)  # the next step is at the end of the pause
            else:
                await asyncio.sleep(self._stalled_until - self.world.now)
        self.calls += 1
        self.world.note(self.name, call, key)

    async def never(self) -> None:
        """Wait for ever, in a process that is over.

        Raises:
            Killed: in the world's hands, which must not wait.
        """
        if not self.world.is_ending and PROCESS.get() is self:
            await self.world.loop.create_future()
        raise Killed(self.name)

    def adopt(self, task: WorldTask, guarded: Guarded, *, serial: int) -> None:
        """Take notice of a task of this process."""
        self._tasks[serial] = (task, guarded)

    def forget(self, serial: int) -> None:
        """Take notice that a task has ended by itself."""
        self._tasks.pop(serial, None)

    def has_live_tasks(self) -> bool:
        """Return whether a task of it has not ended yet."""
        return any(not task.done() for task, _ in self._tasks.values())

    def gate(self) -> asyncio.Future[None]:
        """Return a future, as a coroutine yields it, that is done when the pause is over."""
        gate: asyncio.Future[None] = self.world.loop.create_future()
        gate._asyncio_future_blocking = True  # what `Future.__await__` sets; there is no public way
        self._gates.append(gate)
        return gate

    def dispose(self) -> None:
        """Close what a dead process left behind, newest first."""
        with warnings.catch_warnings():
            # A task that was never started may hold coroutines that were not, either.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            while self._tasks:
                _, (_, guarded) = self._tasks.popitem()
                self._context.run(guarded.close)
                del guarded

    async def _run(self, main: Coroutine[Any, Any, Any]) -> None:
        try:
            how = Exit("returned", result=await main)
        except asyncio.CancelledError:
            how = Exit("interrupted")
        except Exception as error:  # noqa: BLE001 - it is told
            how = Exit("raised", error=error)
        this = asyncio.current_task()
        while left := [task for task, _ in self._tasks.values() if task is not this]:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        self.world.note(self.name, how.how, "")
        self._end(how)

    def _end(self, how: Exit) -> None:
        self.exit = how
        self.is_over = True
        for task, _ in list(self._tasks.values()):
            if task is not self._main_task or how.how == "killed":
                task.cancel()
        self._ended.set()

    def _go_on(self) -> None:
        # A timer may be a nanosecond early; an earlier pause's own is of no account.
        if self.world.now + 1e-6 < self._stalled_until:
            return
        self.is_stalled = False
        gates, self._gates = self._gates, []
        for gate in gates:
            if not gate.done():
                gate.set_result(None)
