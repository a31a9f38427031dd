"""The daily schedule: Prefect's server makes runs of it, ahead of their time."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .processes import until
from .stage import Stage

# The scheduler looks once a minute.
SCHEDULED_SECONDS: Final = 150.0


def test_the_next_days_are_scheduled(stage: Stage) -> None:
    """With the parameters of the schedule, at its hour, the first one within a day."""
    sources = stage.fill("daily", photos=1)
    hour = (datetime.now(UTC) + timedelta(hours=12)).hour
    destination = "s3://daily/{date}"
    said = stage.variations(
        *("deploy", "--source", sources.source, "--destination", destination, "--cron", f"0 {hour} * * *")
    )
    assert "schedule daily of augment" in said

    def scheduled() -> list[dict[str, Any]]:
        found = [run for run in stage.server.flow_runs("augment") if run["state"]["type"] == "SCHEDULED"]
        return [run for run in found if run["parameters"].get("destination") == destination]

    runs = until("runs of the schedule", scheduled, seconds=SCHEDULED_SECONDS)
    times = sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)
    assert {(time.hour, time.minute) for time in times} == {(hour, 0)}
    assert times[0] - datetime.now(UTC) < timedelta(days=1)
    assert {run["parameters"]["source"] for run in runs} == {sources.source}
