"""So many workers at once: which of them are replaced, when, and when it is given up."""

import asyncio
import itertools
from collections.abc import Collection, Iterator, Mapping

import pytest

from tests.variations.workers.clock import SetClock
from variations.errors import RunError
from variations.workers.places import FIRST_WAIT_SECONDS, MOST_IN_VAIN, PATIENCE_SECONDS, Places

LOOK_SECONDS = 3.0


class Pool:
    """A work pool whose workers end, or never begin, as a test says."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.over: dict[str, str] = {}
        self.withdrawn: set[str] = set()
        self.refusals: Iterator[str] = iter(())

    async def start(self) -> str:
        """Start one more."""
        for refusal in self.refusals:
            raise RunError(refusal)
        self.started.append(f"worker {len(self.started)}")
        return self.started[-1]

    async def ended(self, labels: Collection[str]) -> Mapping[str, str]:
        """Return those that have ended."""
        return {label: why for label, why in self.over.items() if label in labels}

    async def withdraw(self, labels: Collection[str]) -> None:
        """Note which."""
        self.withdrawn |= set(labels)


class Led:
    """A pool, its places, and time."""

    def __init__(self, workers: int = 2) -> None:
        self.pool = Pool()
        self.clock = SetClock()
        self.places = Places(self.pool, workers=workers, clock=self.clock)
        self.living: set[str] = set()
        self.gone: set[str] = set()
        self.done = 0

    def look(self, times: int = 1) -> None:
        """Look so many times, three seconds apart."""
        for _ in range(times):
            filling = self.places.fill(shards_left=100, living=self.living, gone=self.gone, done=self.done)
            asyncio.run(filling)
            self.clock.seconds += LOOK_SECONDS


def test_one_that_dies_is_replaced_for_as_long_as_something_is_done() -> None:
    """However many they are in the end."""
    led = Led()
    led.look()
    for number in range(20):
        led.living = set(led.pool.started) - led.gone
        led.gone.add(f"worker {number}")
        led.living.discard(f"worker {number}")
        led.done += 1
        led.look()
    assert len(led.pool.started) == 22


def test_each_replacement_names_the_one_it_replaces(caplog: pytest.LogCaptureFixture) -> None:
    """Two that end between two looks, too."""
    led = Led()
    led.look()
    led.living = set(led.pool.started)
    led.look()
    led.pool.over = {one: f"{one}: Crashed" for one in led.pool.started}
    led.gone, led.living = led.living, set()
    led.look()
    assert len(led.pool.started) == 4
    told = {record.getMessage() for record in caplog.records}
    assert told == {f"A worker is gone ({one}: Crashed): another one was started" for one in led.pool.started[:2]}


def test_one_that_never_begins_is_replaced_later_each_time_and_in_the_end_no_more() -> None:
    """While another one works, and goes on."""
    led = Led()
    led.look()
    led.living = {"worker 0"}
    starts = []
    for _ in range(400):
        led.done += 1
        led.pool.over = dict.fromkeys(led.pool.started[1:], "wrong key")
        before = len(led.pool.started)
        led.look()
        if len(led.pool.started) > before:
            starts.append(led.clock.seconds)
    assert len(led.pool.started) == 2 + 2 + MOST_IN_VAIN
    waited = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert waited == sorted(waited)
    assert waited[0] >= 2 * FIRST_WAIT_SECONDS
    # The one that works is gone, too.
    led.living, led.gone = set(), {"worker 0"}
    with pytest.raises(RunError, match="one after another; the last one: it gave no sign of life"):
        led.look()


def test_a_server_that_starts_none_for_a_moment_stops_nothing() -> None:
    """Where others work it is only tried again, and where none does, not for ever."""
    led = Led()
    led.pool.refusals = iter(["the server restarts"] * 2)
    led.look(3)
    assert len(led.pool.started) == 2
    led.living, led.gone = {"worker 0"}, {"worker 1"}
    led.pool.refusals = iter(["the server restarts"] * 20)
    led.look(21)
    assert len(led.pool.started) == 3
    alone = Led()
    alone.pool.refusals = iter(["there is no such pool"] * 20)
    with pytest.raises(RunError, match="no such pool"):
        alone.look(20)


def test_workers_for_which_no_machine_is_found_end_the_run() -> None:
    """They would be waited for while every later run waits, too."""
    led = Led()
    led.look(int(PATIENCE_SECONDS / LOOK_SECONDS))
    with pytest.raises(RunError, match="no worker has begun within 30 minutes"):
        led.look(2)
    patient = Led()
    patient.look()
    patient.living = {"worker 0"}
    patient.look(int(2 * PATIENCE_SECONDS / LOOK_SECONDS))
    assert len(patient.pool.started) == 2


def test_those_that_wait_for_a_machine_are_called_off() -> None:
    """At the end of the run, when there is nothing left for them."""
    led = Led(workers=3)
    led.look()
    asyncio.run(led.places.withdraw({"worker 1"}))
    assert led.pool.withdrawn == {"worker 0", "worker 2"}
