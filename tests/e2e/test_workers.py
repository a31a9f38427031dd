"""A run on several workers of a pool, started as the UI does: killed, cancelled, and the bill at the end."""

import os
import signal
from typing import Any, Final

from variations import read_dataset
from variations.workers.roster import Sign

from .processes import Running, until
from .stage import BEGIN_SECONDS, END_SECONDS, Sources, Stage

PHOTOS: Final = 8
EACH: Final = 3
IMAGES: Final = PHOTOS * EACH
# Few in flight, so that there is something left to do when one dies.
PACE: Final = {"variations_per_source": EACH, "requests_per_minute": 6000.0, "max_in_flight": 4}
# The lease of a slot is a minute, and the server looks every quarter of one.
SLOTS_SECONDS: Final = 120.0


def start(stage: Stage, sources: Sources, **parameters: Any) -> str:
    """Start `augment` as the UI does; returns the flow run's id."""
    given = {"source": sources.source, "destination": sources.destination, **PACE, **parameters}
    return stage.server.start("augment", given)


def progress(stage: Stage, flow_run_id: str) -> float:
    """Return how far the artifact says that a flow run is, in percent."""
    artifact = stage.server.artifacts(flow_run_id).get("variations-progress")
    return float(artifact["data"]) if artifact else 0.0


def until_at_work(stage: Stage, sources: Sources, *, workers: int) -> list[Sign]:
    """Wait until so many have made an image and have others in flight; returns their signs of life."""

    def at_work() -> list[Sign] | None:
        signs = [sign for sign in stage.signs(sources) if sign.kept and sign.in_flight]
        return signs if len(signs) == workers else None

    return until(f"{workers} workers with images in flight", at_work, seconds=BEGIN_SECONDS)


def until_free(stage: Stage) -> None:
    """Wait until no slot of any limit is taken."""
    until("all slots to be free", lambda: not any(stage.server.slots().values()), seconds=SLOTS_SECONDS)


def test_a_worker_that_is_killed_is_replaced(stage: Stage, workers: list[Running]) -> None:
    """The run completes, nothing is paid twice, and the slots are free again."""
    sources = stage.fill("killed", photos=PHOTOS)
    run = start(stage, sources, workers=2)
    signs = until_at_work(stage, sources, workers=2)
    # The processes of the flow runs are where they say.
    started = {process.pid for worker in workers for process in worker.below()}
    pids = {sign.writer.pid for sign in signs}
    assert pids <= started
    assert stage.server.slots()["variations"] == 2
    moved = until("the progress to move", lambda: progress(stage, run), seconds=30)
    assert moved < 100
    os.kill(signs[0].writer.pid, signal.SIGKILL)

    until("the progress to move on", lambda: progress(stage, run) > moved, seconds=END_SECONDS)
    state = stage.until_ended(run)
    assert (state["name"], state["type"]) == ("Completed", "COMPLETED"), state
    assert progress(stage, run) == 100
    assert (stage.sandbox.bill().accepted, stage.sandbox.bill().paid) == (IMAGES, IMAGES)
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * IMAGES
    ends = {one["id"]: one["state"]["type"] for one in stage.server.flow_runs("work", parent=run)}
    assert ends.pop(signs[0].label) == "CRASHED"
    assert list(ends.values()) == ["COMPLETED", "COMPLETED"]
    assert {"variations-plan", "variations-receipt"} < stage.server.artifacts(run).keys()
    until_free(stage)


def test_a_cancelled_run_settles_and_goes_on(stage: Stage, workers: list[Running]) -> None:
    """It is Cancelled once what is in flight is settled; the same again pays for the rest alone."""
    del workers
    sources = stage.fill("cancelled", photos=PHOTOS)
    run = start(stage, sources, workers=2)
    until_at_work(stage, sources, workers=2)
    stage.server.cancel(run)
    state = stage.until_ended(run)
    assert (state["name"], state["type"]) == ("Cancelled", "CANCELLED"), state
    ends = [stage.until_ended(one["id"])["type"] for one in stage.server.flow_runs("work", parent=run)]
    assert len(ends) == 2
    bill = stage.sandbox.bill()
    assert 0 < bill.accepted < IMAGES
    # What was in flight was waited for, and is in the dataset.
    assert bill.paid == bill.accepted
    kept = read_dataset(sources.destination)
    assert list(kept["status"]) == ["kept"] * bill.paid
    until_free(stage)

    again = stage.until_ended(start(stage, sources, workers=2))
    assert again["name"] == "Completed", again
    assert (stage.sandbox.bill().accepted, stage.sandbox.bill().paid) == (IMAGES, IMAGES)
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * IMAGES
    until_free(stage)
