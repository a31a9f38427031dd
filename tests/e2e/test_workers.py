"""A run on several workers of a pool, started as the UI does: killed, cancelled, and the bill at the end."""

import os
import signal
from typing import Any, Final

import pytest

from variations import read_dataset
from variations.workers.roster import Sign

from .processes import Running, until
from .stage import BEGIN_SECONDS, END_SECONDS, LATENCY_SECONDS, Sources, Stage

PHOTOS: Final = 8
EACH: Final = 3
IMAGES: Final = PHOTOS * EACH
# Few in flight, so that there is something left to do when one dies.
PACE: Final = {
    "variations_per_source": EACH,
    "requests_per_minute": 6000.0,
    "max_in_flight": 4,
    "poll_interval_seconds": 1.0,
}
PROGRESS: Final = "variations-progress"
# A request in flight stays there until the test lets it end: nothing is over before it was looked at.
HELD_SECONDS: Final = 300.0
# The lease of a slot is a minute, and the server looks every quarter of one.
SLOTS_SECONDS: Final = 120.0
# Three heartbeats; it is ten minutes where a server may be away.
SILENCE_SECONDS: Final = 90.0
# And what the server takes to notice it.
NOTICED_SECONDS: Final = 240.0


def start(stage: Stage, sources: Sources, **parameters: Any) -> str:
    """Start `augment` as the UI does; returns the flow run's id."""
    given = {"source": sources.source, "destination": sources.destination, **PACE, **parameters}
    return stage.server.start("augment", given)


def let_end(stage: Stage, *, then: float = LATENCY_SECONDS) -> None:
    """Let what is in flight at the API end now, and what comes afterwards take so many seconds."""
    stage.sandbox.configure(latency_seconds=then)
    stage.sandbox.advance_clock(2 * HELD_SECONDS)


def progress(stage: Stage, flow_run_id: str) -> float:
    """Return how far the artifact says that a flow run is, in percent."""
    return float(stage.server.artifacts(flow_run_id).get(PROGRESS, {}).get("data", 0.0))


def said(stage: Stage, flow_run_id: str) -> str:
    """Return what the artifact says of it in words."""
    return str(stage.server.artifacts(flow_run_id).get(PROGRESS, {}).get("description"))


def until_two_at_work(stage: Stage, sources: Sources, *, kept: int = 0, without: Sign | None = None) -> list[Sign]:
    """Wait until two workers have images in flight, and have kept so many each; returns their signs of life."""
    gone = without.writer if without is not None else None

    def at_work() -> list[Sign] | None:
        signs = [sign for sign in stage.signs(sources) if sign.in_flight and sign.kept >= kept and sign.writer != gone]
        return signs if len(signs) == 2 else None

    return until("two workers with images in flight", at_work, seconds=BEGIN_SECONDS)


def begin(stage: Stage, sources: Sources) -> tuple[str, list[Sign]]:
    """Start a run on two workers; returns it once each has kept an image and has others in flight, with their signs."""
    stage.sandbox.configure(latency_seconds=HELD_SECONDS)
    run = start(stage, sources, workers=2)
    until_two_at_work(stage, sources)
    let_end(stage, then=HELD_SECONDS)
    return run, until_two_at_work(stage, sources, kept=1)


def until_free(stage: Stage) -> None:
    """Wait until no slot of any limit is taken."""
    until("all slots to be free", lambda: not any(stage.server.slots().values()), seconds=SLOTS_SECONDS)


def test_a_worker_that_is_killed_is_replaced(stage: Stage, workers: list[Running]) -> None:
    """The run completes, nothing is paid twice, and the slots are free again."""
    sources = stage.fill("killed", photos=PHOTOS)
    run, signs = begin(stage, sources)
    killed = signs[0]
    # The processes of the flow runs are where they say.
    assert {sign.writer.pid for sign in signs} <= {one.pid for worker in workers for one in worker.below()}
    assert stage.server.slots()["variations"] == 2
    moved = until("the progress to move", lambda: progress(stage, run), seconds=30)
    assert moved < 100
    os.kill(killed.writer.pid, signal.SIGKILL)
    until_two_at_work(stage, sources, without=killed)
    let_end(stage)

    until("the progress to move on", lambda: progress(stage, run) > moved, seconds=END_SECONDS)
    state = stage.until_ended(run)
    assert (state["name"], state["type"]) == ("Completed", "COMPLETED"), state
    assert progress(stage, run) == 100
    assert (stage.sandbox.bill().accepted, stage.sandbox.bill().paid) == (IMAGES, IMAGES)
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * IMAGES
    ends = {one["id"]: one["state"]["type"] for one in stage.server.flow_runs("work", parent=run)}
    assert ends.pop(killed.label) == "CRASHED"
    assert list(ends.values()) == ["COMPLETED", "COMPLETED"]
    assert {PROGRESS, "variations-plan", "variations-receipt"} <= stage.server.artifacts(run).keys()
    until_free(stage)


def test_a_cancelled_run_settles_and_goes_on(stage: Stage, workers: list[Running]) -> None:
    """It is Cancelled once what is in flight is settled; the same again pays for the rest alone."""
    del workers
    sources = stage.fill("cancelled", photos=PHOTOS)
    run, _ = begin(stage, sources)
    stage.server.cancel(run)
    let_end(stage)
    state = stage.until_ended(run)
    assert (state["name"], state["type"]) == ("Cancelled", "CANCELLED"), state
    ends = [stage.until_ended(one["id"])["type"] for one in stage.server.flow_runs("work", parent=run)]
    assert len(ends) == 2
    bill = stage.sandbox.bill()
    assert 0 < bill.accepted < IMAGES
    # What was in flight was waited for, and is in the dataset.
    assert bill.paid == bill.accepted
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * bill.paid
    until_free(stage)

    again = stage.until_ended(start(stage, sources, workers=2))
    assert again["name"] == "Completed", again
    assert (stage.sandbox.bill().accepted, stage.sandbox.bill().paid) == (IMAGES, IMAGES)
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * IMAGES
    until_free(stage)


# What is waited for is the server's own sense of time, which no clock can be passed to; `make e2e`, and so CI, runs it.
@pytest.mark.skipif(os.environ.get("E2E_DATABASE") != "postgresql", reason="it takes three minutes: make e2e")
def test_a_machine_that_is_lost_is_noticed(stage: Stage, workers: list[Running]) -> None:
    """No process is left to tell of it: the silence does, and what the run has paid for is fetched by `recover`."""
    stage.server.shorten_silence(seconds=SILENCE_SECONDS)
    sources = stage.fill("lost", photos=PHOTOS)
    stage.sandbox.configure(latency_seconds=HELD_SECONDS)
    run = start(stage, sources)
    until("images in flight", lambda: "4 in flight" in said(stage, run), seconds=BEGIN_SECONDS)
    writer = stage.writer(sources)
    assert writer is not None
    (lost,) = [worker for worker in workers if writer.pid in {process.pid for process in worker.below()}]
    lost.kill()
    let_end(stage)

    state = stage.until_ended(run, seconds=NOTICED_SECONDS)
    assert state["type"] == "CRASHED", state
    assert "No heartbeat" in state["message"]
    recoveries = until("recover", lambda: stage.server.flow_runs("recover"), seconds=BEGIN_SECONDS)
    assert [stage.until_ended(one["id"])["type"] for one in recoveries] == ["COMPLETED"]
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * 4
    until_free(stage)

    assert stage.until_ended(start(stage, sources))["name"] == "Completed"
    assert (stage.sandbox.bill().accepted, stage.sandbox.bill().paid) == (IMAGES, IMAGES)
