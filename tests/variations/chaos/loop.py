"""An event loop on simulated time, whose tasks can be stopped between any two of their steps, as processes are."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from tests.variations.engine.simulation import InlineExecutor

_ENDLESS_TURNS = 1_000_000


class JumpingTime(selectors.DefaultSelector):
    """Never waits and never looks at a socket: hands the time it was to wait to the loop's clock.

    Args:
        horizon_seconds: a simulation that comes so far does not end, and is ended.
    """

    def __init__(self, *, horizon_seconds: float) -> None:
        super().__init__()
        self.now = 1000.0
        self.horizon = self.now + horizon_seconds
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Jump ahead.

        Raises:
            RuntimeError: nothing is left that could go on, time stands still, or the horizon is reached.
        """
        if timeout is not None and timeout <= 0:
            self._turns += 1
            if self._turns > _ENDLESS_TURNS:
                self._turns = 0
                raise RuntimeError(f"at {self.now:.3f} s the simulation goes on and on while no time passes")
            return []
        self._turns = 0
        if timeout is None:
            raise RuntimeError(f"at {self.now:.3f} s the simulation waits for something that never comes")
        self.now += max(timeout, 1e-9)
        if self.now > self.horizon:
            self.horizon = float("inf")
            raise RuntimeError(f"the simulation does not end: it came to {self.now:.0f} s")
        return []


class WorldTask(asyncio.Task[Any]):
    """A task that hashes to its number, so that sets of tasks (every task group has one) keep an order that replays."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, serial: int, **kwargs: Any) -> None:
        self._serial = serial
        super().__init__(coro, **kwargs)

    __eq__ = object.__eq__

    def __hash__(self) -> int:
        return self._serial


class WorldLoop(asyncio.SelectorEventLoop):
    """An event loop on simulated time; what is given to threads is run at once."""

    def __init__(self, time: JumpingTime, make_task: Callable[..., asyncio.Task[Any]]) -> None:
        self._jumping = time
        super().__init__(time)
        self.set_default_executor(InlineExecutor(max_workers=1))
        self.set_task_factory(make_task)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: the base class would wait for a thread, and time would jump meanwhile."""

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self._jumping.now

    def _write_to_self(self) -> None:
        """Wake nobody: the loop never sleeps."""


class Owner(Protocol):
    """Whose a task is."""

    is_over: bool
    is_stalled: bool

    def gate(self) -> asyncio.Future[None]:
        """Return a future that is done when the pause is over."""

    def forget(self, serial: int) -> None:
        """Take notice that a task has ended by itself."""


class Guarded(Coroutine[Any, Any, Any]):
    """A coroutine of a simulated process: every step of it is asked for permission.

    In a pause a step waits for the end of the pause. After the process's end no line of it runs any more, no `finally`
    either: its task is cancelled, and the coroutine stays where it is until the world disposes of it.
    """

    __slots__ = ("_coro", "_owner", "_postponed", "_serial")

    def __init__(self, coro: Coroutine[Any, Any, Any], owner: Owner, *, serial: int) -> None:
        self._coro = coro
        self._owner = owner
        self._serial = serial
        self._postponed: BaseException | None = None

    def __repr__(self) -> str:
        return f"<{getattr(self._coro, '__qualname__', self._coro)} of {self._owner}>"

    def __await__(self) -> Any:
        return self._coro.__await__()

    def send(self, value: Any) -> Any:
        """Go on to the next point where the coroutine waits."""
        owner = self._owner
        if owner.is_over:
            raise asyncio.CancelledError
        if owner.is_stalled:
            return owner.gate()
        if self._postponed is not None:
            error, self._postponed = self._postponed, None
            return self._step(self._coro.throw, error)
        return self._step(self._coro.send, value)

    def throw(self, *error: Any) -> Any:
        """Go on with an exception: a cancellation, or what the awaited future raised."""
        if self._owner.is_over:
            raise asyncio.CancelledError
        if self._owner.is_stalled:
            self._postponed = error[0]
            return self._owner.gate()
        self._postponed = None
        return self._step(self._coro.throw, *error)

    def close(self) -> None:
        """End the coroutine where it is, and whatever it says to that.

        What it does in its handlers meets `Killed` at every call that leaves the process.
        """
        for _ in range(100):
            try:
                self._coro.close()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001, S112 - nobody is left who could want to know
                continue
            return

    def _step(self, step: Callable[..., Any], *value: Any) -> Any:
        try:
            yielded = step(*value)
        except BaseException:
            self._owner.forget(self._serial)
            raise
        if self._owner.is_over:
            # It ended its own process, in this very step.
            raise asyncio.CancelledError
        return yielded


def make_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any],
    context: Context | None,
    *,
    serial: int,
) -> WorldTask:
    """Return a task of the loop."""
    return WorldTask(coro, serial=serial, loop=loop, context=context)
