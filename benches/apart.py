"""Contestants, each in a process of its own, that all begin when the last one is ready."""

import contextlib
import math
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
STOP_SECONDS: Final = 10.0
# In which the word to begin reaches everybody.
BEGIN_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Times:
    """When to begin, and when to stop, in epoch seconds."""

    starts_at: float
    stops_at: float = math.inf


# Called by a contestant when it is ready; returns when it is to begin.
Ready = Callable[[], Times]


class Contestant(Generic[T]):
    """A function that runs in its own process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def wait_until_ready(self) -> None:
        """Return once it is ready.

        Raises:
            RuntimeError: it failed instead.
        """
        self._hear()

    def begin(self, times: Times) -> None:
        """Let it begin."""
        self._pipe.send(times)

    def result(self) -> T:
        """Return what it returns.

        Raises:
            RuntimeError: it failed.
        """
        made: T = self._hear()
        return made

    def _hear(self) -> Any:
        try:
            value, trouble = self._pipe.recv()
        except EOFError:
            trouble = "a contestant's process ended"
        if trouble:
            raise RuntimeError(trouble)
        return value


@contextlib.contextmanager
def apart(function: Callable[[Any, Ready], T], order: object) -> Iterator[Contestant[T]]:
    """Call a function of an order in a new process, which ends with the context.

    Args:
        function: of a module, so that the process finds it.
        order: its first argument; the second is what it calls when it is ready.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    # A daemon does not outlive this process, however it ends.
    process = context.Process(target=_call, args=(its, function, order), daemon=True)
    process.start()
    its.close()
    try:
        yield Contestant(ours)
    finally:
        process.terminate()
        process.join(STOP_SECONDS)
        ours.close()


def begin_together(
    contestants: Iterable[Contestant[Any]],
    *,
    seconds: float = math.inf,
    before: Callable[[float], object] = lambda _: None,
) -> Times:
    """Let contestants begin at the same moment, once all are ready.

    Args:
        contestants: all of them.
        seconds: how long they have.
        before: called with that moment, in epoch seconds, before it comes.
    """
    contestants = list(contestants)
    for contestant in contestants:
        contestant.wait_until_ready()
    starts_at = time.time() + BEGIN_SECONDS
    times = Times(starts_at, starts_at + seconds)
    before(starts_at)
    for contestant in contestants:
        contestant.begin(times)
    return times


def _call(pipe: Connection, function: Callable[[Any, Ready], T], order: object) -> None:
    def ready() -> Times:
        pipe.send((None, None))
        times: Times = pipe.recv()
        return times

    try:
        pipe.send((function(order, ready), None))
    except BaseException:  # noqa: BLE001 - whatever it is, the process that waits tells it
        pipe.send((None, traceback.format_exc()))
