"""A world in which everything takes a second each way, so that a test can name the moments."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from variations.api.client import Client

from .world import CALM, Process, Rates, World

T = TypeVar("T")
Main = Callable[[World], Coroutine[Any, Any, T]]
# A second each way, so that a test can name the moments.
SLOW = replace(CALM, request_seconds=(1.0, 1.0), answer_seconds=(1.0, 1.0), skew_seconds=0.0, api_skew_seconds=0.0)
LANDS = replace(SLOW, kill_drops=0.0, kill_delays=0.0)
LATE = replace(SLOW, kill_drops=0.0, kill_delays=1.0)
DROPS = replace(SLOW, kill_drops=1.0)


def run(main: Main[T], *, rates: Rates = SLOW, seed: int = 1) -> T:
    """Run a world; the loop was left with no exception."""
    world = World(seed, rates=rates)
    found = world.run(main)
    assert world.complaints == []
    return found


def client(process: Process) -> Client:
    """Return the API's client of a process."""
    return Client(process.http, endpoint=process.world.endpoint)


def inputs(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return what is sent for the number-th source."""
    return {"redux_image": f"https://photos.example/{number}.jpg", "seed": number, "num_outputs": 1, **fields}
