"""How a run ended: a kind, a name and a line, by which one end can be told from another."""

from dataclasses import replace
from typing import Any

import pytest

from variations import errors
from variations.ending import PAUSED, ending_of
from variations.receipt import RunStopped

from .examples import PLAN, RECEIPT


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({}, "Completed", "3 kept, 0.09 USD"),
        (
            {"kept": 0, "paid": 0, "cost_usd": 0.0, "already_done": 7},
            "Completed",
            "nothing to make, 7 already there, 0.00 USD",
        ),
        ({"kept": 1000, "failed": 2}, "CompletedWithFailures", "1,000 kept, 2 failed, 0.09 USD"),
        ({"unknown": 1}, "CompletedWithFailures", "3 kept, 1 unknown, 0.09 USD"),
        ({"rejected": 4}, "CompletedWithFailures", "3 kept, 4 rejected, 0.09 USD"),
        ({"failed_before": 5}, "Completed", "3 kept, 0.09 USD"),
    ],
    ids=lambda value: next(iter(value), "whole") if isinstance(value, dict) else None,
)
def test_a_run_that_is_done_is_completed(change: dict[str, Any], name: str, message: str) -> None:
    """Its name says whether all of it is there; what failed in earlier runs is not this one's."""
    ending = ending_of(replace(RECEIPT, **change), max_failed_percent=20)
    assert (ending.kind, ending.name, ending.message, ending.reason) == ("completed", name, message, "")


@pytest.mark.parametrize(
    ("kept", "failed", "most", "kind"),
    [
        (8, 2, 20.0, "completed"),
        (7, 2, 20.0, "failed"),
        (0, 1, 99.9, "failed"),
        (0, 1, 100.0, "completed"),
        (1, 0, 0.0, "completed"),
        (999, 1, 0.0, "failed"),
        (0, 0, 0.0, "completed"),
    ],
)
def test_more_failures_than_allowed_are_a_failure(kept: int, failed: int, most: float, kind: str) -> None:
    """Exactly so many are allowed."""
    receipt = replace(RECEIPT, kept=kept, failed=failed, errors={"inference_failed": failed})
    assert ending_of(receipt, max_failed_percent=most).kind == kind


def test_a_failure_says_how_many_and_why() -> None:
    """Unknown ones count among all of them, and have not failed."""
    receipt = replace(
        RECEIPT, kept=25, failed=12, unknown=3, errors={"inference_failed": 10, "timeout": 3, "b": 1, "c": 1}
    )
    ending = ending_of(receipt, max_failed_percent=20)
    assert (ending.name, ending.reason, ending.is_paused) == ("Failed", "too_many_failed", False)
    assert ending.message == (
        "30 % of the images failed, and max_failed_percent is 20: inference_failed 10×, timeout 3×, b 1× "
        "(25 kept, 12 failed, 3 unknown, 0.09 USD)"
    )


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errors.BudgetReached, "PausedBudget"),
        (errors.InsufficientCredits, "PausedCredits"),
        (errors.SpendLimitReached, "PausedCredits"),
        (errors.DatasetBusy, "PausedBusy"),
        (errors.NothingPasses, "PausedQuality"),
        (errors.ServiceDown, "PausedService"),
        (errors.Unauthorized, "Failed"),
        (errors.ManifestError, "Failed"),
        (errors.Replaced, "Failed"),
    ],
)
@pytest.mark.parametrize("has_begun", [True, False])
def test_what_stopped_a_run_is_in_its_name(error: type[errors.RunError], name: str, has_begun: bool) -> None:
    """Whether it had made anything or not; none of it is a success, or a crash."""
    reason = error("it says why")
    left = replace(RECEIPT, left=2, stopped_by=error.code)
    ending = ending_of(RunStopped(left, reason) if has_begun else reason)
    assert (ending.kind, ending.name, ending.reason) == ("failed", name, error.code)
    assert ending.is_paused == (name != "Failed")
    came_to = " (3 kept, 2 left for the next run, 0.09 USD)" if has_begun else ""
    assert ending.message == f"it says why{came_to}"


def test_every_name_of_a_pause_begins_alike() -> None:
    """An automation asks for `prefect.flow-run.Paused*`."""
    assert all(name.startswith("Paused") and name.isalpha() for name in PAUSED.values())
    paused = {error.code for error in errors.RunPaused.__subclasses__()} - {"stopped_by_user", "run_over"}
    assert set(PAUSED) == paused


@pytest.mark.parametrize(
    ("is_cancelled", "kind", "name"), [(True, "cancelled", "Cancelled"), (False, "crashed", "Interrupted")]
)
def test_who_was_told_to_end_was_cancelled_or_interrupted(is_cancelled: bool, kind: str, name: str) -> None:
    """By a person who asked the scheduler, or by whoever took the machine; neither is a pause."""
    stopped = RunStopped(RECEIPT, errors.StoppedByUser("stopped by SIGTERM"))
    ending = ending_of(stopped, is_cancelled=is_cancelled)
    assert (ending.kind, ending.name, ending.is_paused) == (kind, name, False)
    assert ending.message == "stopped by SIGTERM (3 kept, 0.09 USD)"


def test_a_plan_is_no_completed_run() -> None:
    """What waits for one to complete must not take a dry run for it."""
    ending = ending_of(PLAN)
    assert (ending.kind, ending.name) == ("completed", "Planned")
    assert ending.message == "2,400 images to make for about 74.40 USD in about 2 h; nothing was paid"
