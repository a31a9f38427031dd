"""What is on its way between a process and the store or the API, and what becomes of it when the process is no more."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .process import Process
    from .world import World


class Killed(BaseException):
    """The process is dead: nothing that leaves it arrives. No `except Exception` catches it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """When a call takes effect and when its caller hears of it, in seconds from now.

    Attributes:
        lands_after: moments at which it takes effect; several where the caller's side sends it again, none if never.
        answers_after: when the caller gets the answer of the last effect.
        instead: what the caller gets in its place; an exception is raised.
    """

    lands_after: Sequence[float]
    answers_after: float
    instead: Any = None


class Exchange:
    """One call on its way."""

    __slots__ = (
        "_answer",
        "_answer_timer",
        "_effect",
        "_error",
        "_instead",
        "_is_write",
        "_land_timer",
        "_name",
        "_serial",
        "_world",
        "future",
        "lands_at",
        "process",
    )

    def __init__(
        self, process: "Process", name: tuple[str, str], effect: Callable[[], Any], plan: Plan, *, is_write: bool
    ) -> None:
        world = self._world = process.world
        self.process = process
        self._name = name
        self._effect = effect
        self._is_write = is_write
        self._answer: Any = None
        self._error: Exception | None = None
        self._instead = plan.instead
        self._serial = world.wire.add(self)
        now = world.now
        self.lands_at = [now + seconds for seconds in plan.lands_after]
        self.future: asyncio.Future[Any] = world.loop.create_future()
        self._land_timer = world.loop.call_at(self.lands_at[0], self._land) if self.lands_at else None
        self._answer_timer: asyncio.TimerHandle | None = world.loop.call_at(now + plan.answers_after, self._reply)

    def cut(self) -> None:
        """Let the caller be gone: only what has left already may still land, and that by draw, possibly late."""
        self._hear_nothing()
        if not self.lands_at:
            return
        rates, draw = self._world.rates, self._world.random.random()
        if self._is_write and draw >= rates.kill_drops:
            if draw < rates.kill_drops + rates.kill_delays:
                self._drop()
                late = self._world.now + rates.late_seconds * self._world.random.random()
                self.lands_at = [late]
                self._land_timer = self._world.loop.call_at(late, self._land)
                self._world.wire.put_back(self._serial, self)
            del self.lands_at[1:]
        else:
            if self._is_write:
                self._note("dropped")
            self._drop()

    def forget_answer(self) -> None:
        """Let it take effect, though nobody waits for the answer: as a thread goes on whose caller was cancelled."""
        self._hear_nothing()

    def _hear_nothing(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
        self._leave_if_over()

    def _drop(self) -> None:
        self.lands_at = []
        if self._land_timer is not None:
            self._land_timer.cancel()
            self._land_timer = None
        self._leave_if_over()

    def _land(self) -> None:
        del self.lands_at[0]
        self._error = None
        self._note("lands")
        try:
            self._answer = self._effect()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._error = error
        self._land_timer = self._world.loop.call_at(self.lands_at[0], self._land) if self.lands_at else None
        self._leave_if_over()

    def _reply(self) -> None:
        self._answer_timer = None
        self._leave_if_over()
        if self.future.done():
            return
        answer = self._instead if self._instead is not None else self._error or self._answer
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)

    def _note(self, what: str) -> None:
        self._world.note(self.process.name, f"{self._name[0]} {what}", self._name[1])

    def _leave_if_over(self) -> None:
        if not self.lands_at and self._answer_timer is None:
            self._world.wire.remove(self._serial)


class Wire:
    """All calls on their way, oldest first."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._exchanges: dict[int, Exchange] = {}
        self._count = 0

    def add(self, exchange: Exchange) -> int:
        """Take a call in, and return its number."""
        self._count += 1
        self._exchanges[self._count] = exchange
        return self._count

    def put_back(self, serial: int, exchange: Exchange) -> None:
        """Take a call in again."""
        self._exchanges[serial] = exchange

    def remove(self, serial: int) -> None:
        """Let a call be over."""
        self._exchanges.pop(serial, None)

    def last_landing(self) -> float | None:
        """Return when the last call that is on its way takes effect; None if none is."""
        return max((exchange.lands_at[-1] for exchange in self._exchanges.values() if exchange.lands_at), default=None)

    def cut(self, process: "Process") -> None:
        """Let a process be gone."""
        for exchange in [found for found in self._exchanges.values() if found.process is process]:
            exchange.cut()
            if not exchange.future.done():
                # For a caller outside the process; the process's own tasks see nothing any more.
                exchange.future.set_exception(Killed(process.name))
                exchange.future.exception()

    async def send(
        self,
        process: "Process",
        name: tuple[str, str],
        effect: Callable[[], Any],
        plan: Plan,
        *,
        is_write: bool = False,
        goes_on_if_cancelled: bool = False,
    ) -> Any:
        """Make a call as planned, and wait for its answer."""
        exchange = Exchange(process, name, effect, plan, is_write=is_write)
        try:
            return await exchange.future
        except asyncio.CancelledError:
            if goes_on_if_cancelled:
                exchange.forget_answer()
            else:
                exchange.cut()
            raise
