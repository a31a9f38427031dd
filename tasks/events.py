"""Events of a run, which Prefect's automations can act upon.

    variations.run.started     it is planned, and begins to make images (or, without a source, to look after old ones)
    variations.run.paused      a person has to do something; the label `variations.reason` says what: budget,
                               insufficient_credits, spend_limit_reached, canary, service_down, nothing_passes
    variations.run.finished    it ended in another way; the label `variations.state` is the name of its final state
    variations.item.failed     an image failed; the first twenty of a process, or a canary, and at last one for the rest

The resource of each is the run, `variations.run.<run_id>`; related are the dataset and what Prefect adds: flow run,
flow and deployment. Triggers can match labels, and not payloads, so what one would ask for is a label.
"""

from collections.abc import Iterable
from typing import Any, Final

from prefect import get_run_logger
from prefect.events import emit_event

from variations.ending import Ending
from variations.failures import Failures
from variations.plan import Plan
from variations.receipt import Receipt
from variations.run import Run

MOST_ITEMS: Final = 20
_COUNTS: Final = (
    *("kept", "failed", "unknown", "dropped", "rejected", "left"),
    *("cost_usd", "cost_at_risk_usd", "errors", "dataset_rows"),
)


def started(run: Run, plan: Plan | None = None) -> None:
    """Tell that a run begins."""
    counts = {"images": plan.images, "shards": plan.shards, "cost_usd": plan.cost_usd} if plan else {}
    payload = {"source": run.job.source, "destination": run.job.destination, **counts}
    _emit("run.started", run.run_id, run.job.destination, payload=payload)


def ended(ending: Ending, *, run_id: str, destination: str, receipt: Receipt | None = None) -> None:
    """Tell how a run ended; the receipt is there where it came so far."""
    labels = {"variations.state": ending.name, "variations.reason": ending.reason}
    payload: dict[str, Any] = {"state": ending.name, "reason": ending.reason, "message": ending.message}
    if receipt is not None:
        payload |= {name: getattr(receipt, name) for name in _COUNTS}
    name = "run.paused" if ending.is_paused else "run.finished"
    _emit(name, run_id, destination, labels=labels, payload={**payload, "destination": destination})


class ItemEvents:
    """Tells of images that failed: of each of the first twenty, and then how many more.

    Args:
        run_id: the run's.
        destination: its dataset.
    """

    def __init__(self, *, run_id: str, destination: str) -> None:
        self._run_id = run_id
        self._destination = destination
        self._told = 0
        self._failed = 0

    def add(self, failures: Iterable[Failures]) -> None:
        """Tell of what failed in a shard."""
        for one in failures:
            if one.status != "failed":
                continue
            self._failed += one.count
            for sample in one.samples[: MOST_ITEMS - self._told]:
                self._told += 1
                self._emit(one.code, {**sample, "error_code": one.code, "again": one.again(), "to_do": one.to_do()})

    def close(self) -> None:
        """Tell how many more there were."""
        if more := self._failed - self._told:
            self._emit("more", {"more": more, "failed": self._failed})

    def _emit(self, code: str, payload: dict[str, Any]) -> None:
        labels = {"variations.error_code": code}
        _emit("item.failed", self._run_id, self._destination, labels=labels, payload=payload)


def _emit(
    name: str, run_id: str, destination: str, *, payload: dict[str, Any], labels: dict[str, str] | None = None
) -> None:
    resource = {
        "prefect.resource.id": f"variations.run.{run_id}",
        "prefect.resource.name": run_id,
        "variations.destination": destination,
        **{label: value for label, value in (labels or {}).items() if value},
    }
    dataset = {"prefect.resource.id": f"variations.dataset.{destination}", "prefect.resource.role": "dataset"}
    try:
        emit_event(f"variations.{name}", resource=resource, related=[dataset], payload=payload)
    except Exception as error:  # noqa: BLE001 - the dataset does not depend on what Prefect is told of it
        get_run_logger().warning("The event variations.%s could not be sent: %r", name, error)
