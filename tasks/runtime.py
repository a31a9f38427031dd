"""What a flow run is for: its day, and the name by which a person finds it among others."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from prefect.runtime import deployment, flow_run

from variations.dates import filled, parsed_day
from variations.errors import BadInput
from variations.uris import shown_uri


def day_of(text: str) -> date:
    """Return the day that fills `{date}`: the one that was asked for, else the one that it is scheduled for, in UTC.

    Raises:
        BadInput: what was asked for is no day.
    """
    if text:
        return parsed_day(text)
    scheduled: datetime = flow_run.scheduled_start_time or datetime.now(UTC)
    return scheduled.astimezone(UTC).date()


def place_of(uri: str, day: date, *, name: str) -> str:
    """Return a source or a destination with the day filled in.

    Raises:
        BadInput: it holds what is no placeholder; or it is a relative path in a deployed run, which works in a folder
            that is removed with all that is in it.
    """
    place = filled(uri, day, name=name)
    if deployment.id and "://" not in place and not Path(place).is_absolute():
        raise BadInput(
            f"{name}: {place} is a relative path, and a deployed run works in a folder that is removed when it ends; "
            "write an absolute one, or s3://…"
        )
    return place


def augment_name() -> str:
    """Return the name of a run of `augment`: `augment s3://bucket/dataset 2026-11-22`."""
    return _named("plan" if flow_run.parameters.get("dry_run") else "augment", flow_run.parameters)


def plan_name() -> str:
    """Return the name of a run of `plan`."""
    return _named("plan", flow_run.parameters)


def recover_name() -> str:
    """Return the name of a run of `recover`."""
    return _named("recover", flow_run.parameters)


def work_name() -> str:
    """Return the name of a run of `work`: the one that `augment` gave it, which has a number."""
    of_run = f"work {flow_run.parameters.get('run_id', '')}"
    given = str(flow_run.name or "")
    return given if given.startswith(of_run) else of_run


def _named(what: str, parameters: dict[str, Any]) -> str:
    # It is called before the flow is, and what it raised would be all that is heard of a bad value.
    destination = shown_uri(str(parameters.get("destination", "")))
    try:
        day = day_of(parameters.get("date", ""))
        place = filled(destination, day, name="destination")
    except BadInput:
        return f"{what} {destination}"
    return f"{what} {place}" if str(day) in place else f"{what} {place} {day}"
