"""A canary of a deployed run: it waits in Prefect, where somebody cancels it, or resumes it."""

from typing import Any, Final

from variations import read_dataset

from .processes import Running, until
from .stage import BEGIN_SECONDS, Sources, Stage
from .test_workers import until_free

PHOTOS: Final = 8
EACH: Final = 3
IMAGES: Final = PHOTOS * EACH
CANARY: Final = 6
BAD: Final = 3
PACE: Final = {"variations_per_source": EACH, "requests_per_minute": 6000.0, "max_failed_percent": 50.0}
PRICE_USD: Final = 0.031


def until_it_waits(stage: Stage, flow_run_id: str) -> dict[str, Any]:
    """Wait until the flow run below a run is paused; returns it."""

    def paused() -> dict[str, Any] | None:
        found = stage.server.flow_runs("canary", parent=flow_run_id)
        return found[0] if found and found[0]["state"]["type"] == "PAUSED" else None

    return until(f"the canary of the flow run {flow_run_id} to wait", paused, seconds=BEGIN_SECONDS)


def start(stage: Stage, sources: Sources, **parameters: Any) -> str:
    """Start `augment` with a canary, as the UI does; returns the flow run's id."""
    given = {"source": sources.source, "destination": sources.destination, "canary": CANARY, **PACE, **parameters}
    return stage.server.start("augment", given)


def test_it_is_cancelled_or_resumed(stage: Stage, workers: list[Running]) -> None:
    """Cancelled, nothing more is paid; the next run waits at once, for the same images; resumed, workers make the rest,
    within a budget that holds what the canary has cost.
    """
    del workers
    sources = stage.fill("canary", photos=PHOTOS)
    stage.sandbox.set_faults(f"failed:1:{BAD}")
    run = start(stage, sources)
    state = until_it_waits(stage, run)["state"]
    assert (state["name"], state["message"]) == (
        "Paused",
        "The canary is not good enough: 6 images, 3 failed: 50 %. Resume makes the rest.",
    )
    assert stage.sandbox.bill().accepted == CANARY
    assert {"variations-canary", "variations-gallery"} <= stage.server.artifacts(run).keys()
    stage.server.cancel(run)
    assert stage.until_ended(run)["name"] == "Cancelled"
    assert stage.sandbox.bill().accepted == CANARY

    # What the rest costs, and nothing for the canary, which is there.
    rest_usd = (IMAGES - CANARY) * PRICE_USD + 0.001
    run = start(stage, sources, workers=2, max_cost_usd=rest_usd)
    waiting = until_it_waits(stage, run)
    # It keeps its turn: the next one of a schedule waits for it.
    assert stage.server.slots()[f"deployment:{stage.server.deployment('augment')['id']}"] == 1
    assert stage.sandbox.bill().accepted == CANARY
    stage.server.post(f"/flow_runs/{waiting['id']}/resume", {})
    state = stage.until_ended(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    assert len(stage.server.flow_runs("work", parent=run)) == 2
    assert stage.sandbox.bill().accepted == IMAGES
    statuses = read_dataset(sources.destination)["status"].value_counts().to_dict()
    assert statuses == {"kept": IMAGES - BAD, "failed": BAD}
    until_free(stage)


def test_workers_go_on_after_a_good_one(stage: Stage, workers: list[Running]) -> None:
    """It is made by the process that planned; the budget is for both, and each image is counted once."""
    del workers
    sources = stage.fill("good-canary", photos=PHOTOS)
    run = start(stage, sources, workers=2, max_cost_usd=IMAGES * PRICE_USD + 0.001)
    state = stage.until_ended(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    assert state["message"].startswith(f"{IMAGES} kept")
    assert "| passed | 6 |" in str(stage.server.artifacts(run)["variations-canary"]["data"])
    assert (stage.sandbox.bill().accepted, stage.sandbox.bill().paid) == (IMAGES, IMAGES)
    assert list(read_dataset(sources.destination)["status"]) == ["kept"] * IMAGES
    until_free(stage)
