"""The schedule of `augment`: when it runs, over what, and to where. It is remembered on the server alone.

Prefect's server (3.8) puts an empty set in the place of a schedule's parameters where a change names none, and the
switch in its UI names none. So what a schedule asks for is kept in a variable, too, from which deploying puts it back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, VariableCreate, VariableUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from pydantic import ValidationError

from deployments.names import AUGMENT, SCHEDULE
from deployments.step import Outcome, Step
from variations.dates import filled
from variations.errors import SettingsError
from variations.job import refuse_secrets

# What a schedule cannot do without: every other parameter of `augment` has a default.
NEEDED: Final = ("source", "destination")
REMEMBERED: Final = "variations_schedule"
# Prefect takes so many characters of JSON; what asks for more, by a long sweep, is not kept.
_MOST_CHARACTERS: Final = 5000
# One: a name for all of them, as @daily.
_CRON_FIELDS: Final = frozenset({1, 5})
_NOT_KEPT: Final = "should Prefect's UI make it forget what it asks for, that is not put back"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the schedule is asked to be; what is not asked for stays as it is.

    Attributes:
        parameters: of the flow, by their names.
        cron: when, as cron says it.
        timezone: whose time that is, by its IANA name.

    Raises:
        SettingsError: there is no such time.
        BadInput: there is no such placeholder in a source or destination, or it carries a secret, which Prefect would
            show; each run would end with that.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    cron: str | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        """Refuse what Prefect would refuse, or each run."""
        for name, given in (("cron", self.cron), ("timezone", self.timezone)):
            try:
                CronSchedule(**{"cron": "0 0 * * *", **({name: given} if given is not None else {})})
            except ValidationError as error:
                problem = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise SettingsError(f"--{name} is {given!r}: {problem}") from None
        if self.timezone is not None and not self.timezone:
            raise SettingsError("--timezone is '': name one, as Europe/Berlin, or UTC")
        if self.cron is not None and len(self.cron.split()) not in _CRON_FIELDS:
            raise SettingsError(
                f"--cron is {self.cron!r}: write five fields, minute, hour, day of the month, month and day of the "
                "week; a sixth would be seconds"
            )
        for name in NEEDED:
            place = self.parameters.get(name, "")
            refuse_secrets(place, name=f"--{name}")
            filled(place, datetime.now(UTC).date(), name=f"--{name}")

    async def check(self) -> None:
        """Make sure that its time comes: of one that never does Prefect's server makes errors, and no run.

        Raises:
            SettingsError: it never does.
        """
        if self.cron is None:
            return
        from prefect.server.schemas.schedules import CronSchedule as Served  # noqa: PLC0415 - a second to import

        try:
            comes = await Served(cron=self.cron).get_dates(1)
        except ValueError:
            comes = []
        if not comes:
            raise SettingsError(f"--cron is {self.cron!r}: that never comes")


async def ensure_schedule(client: PrefectClient, proposed: Mapping[str, Any], wish: Wish) -> Step:
    """Make the schedule, or change it to what is asked for; those that somebody added are left alone.

    Args:
        client: the server, on which the deployment is.
        proposed: the schedule that `prefect.yaml` proposes.
        wish: what is asked for.
    """
    found = await client.read_deployment_by_name(AUGMENT)
    remembered = await read_remembered(client)
    before, now = ours(found), wanted(proposed, wish, found, remembered)
    content = {name: now[name] for name in ("active", "parameters", "slug")}
    rule = {name: value for name, value in now.items() if name not in content}
    one = DeploymentScheduleCreate.model_validate({**content, "schedule": rule})
    if before is None:
        try:
            await client.create_deployment_schedules(found.id, [one])
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.CONFLICT:
                raise
            # Somebody else deploys at the same time, and has made it.
            if ours(await client.read_deployment_by_name(AUGMENT)) is None:
                raise
            return await ensure_schedule(client, proposed, wish)
    elif written(before) != now:
        await client.update_deployment_schedule(
            found.id, before.id, active=one.active, schedule=one.schedule, parameters=one.parameters
        )
    # A deployment that is paused starts nothing, whatever its schedules say.
    is_resumed = found.paused and now["active"] and _names_a_place(wish)
    if is_resumed:
        await client.resume_deployment(found.id)
    done = step(before, now, is_paused=found.paused and not is_resumed, is_resumed=is_resumed)
    why_not = await _remember(client, now["parameters"], remembered)
    return replace(done, what=f"{done.what}; {why_not}") if why_not else done


def wanted(
    proposed: Mapping[str, Any],
    wish: Wish,
    found: DeploymentResponse | None,
    remembered: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what our schedule is to be, as `prefect.yaml` writes it.

    It is active once it has all that it needs, unless somebody has switched it off; naming its source or its
    destination switches it on again.

    Args:
        proposed: the schedule that `prefect.yaml` proposes.
        wish: what is asked for.
        found: the deployment as it is; None if there is none.
        remembered: what our schedule asked for last, should it have forgotten that.
    """
    before = ours(found)
    had = _known((before.parameters or remembered) if before else {}, found)
    parameters = {**had, **wish.parameters}
    rule = dict(proposed) if before is None else written(before)
    if wish.cron is not None:
        rule = {"slug": SCHEDULE, "cron": wish.cron, "timezone": rule.get("timezone", "UTC")}
    if wish.timezone is not None:
        rule["timezone"] = wish.timezone
    was_off = before is not None and not before.active and not missing(had)
    is_on = not missing(parameters) and (not was_off or _names_a_place(wish))
    return {**rule, "active": is_on, "parameters": parameters}


async def read_remembered(client: PrefectClient) -> dict[str, Any]:
    """Return what our schedule asked for when it was last deployed; nothing where that is not known."""
    try:
        variable = await client.read_variable_by_name(REMEMBERED)
    except PrefectHTTPStatusError as error:
        # Who may not read it has not written it. Whatever else it is, what is kept there must not be overwritten.
        if error.response.status_code != HTTPStatus.FORBIDDEN:
            raise
        return {}
    return dict(variable.value) if variable is not None and isinstance(variable.value, dict) else {}


async def _remember(client: PrefectClient, parameters: dict[str, Any], before: Mapping[str, Any]) -> str:
    """Keep what our schedule asks for; returns why not, if that cannot be: the schedule is right all the same."""
    is_too_long = len(json.dumps(parameters)) > _MOST_CHARACTERS
    value = {} if is_too_long else parameters
    if value != before:
        try:
            await _write(client, value)
        except PrefectHTTPStatusError as error:
            return f"{_NOT_KEPT}, for the server answered {error.response.status_code} to a variable"
    return f"{_NOT_KEPT}, for it is longer than {_MOST_CHARACTERS:,} characters" if is_too_long else ""


async def _write(client: PrefectClient, value: dict[str, Any]) -> None:
    try:
        await client.create_variable(VariableCreate(name=REMEMBERED, value=value))
    except ObjectAlreadyExists:
        await client.update_variable(VariableUpdate(name=REMEMBERED, value=value))


def placed(uri: str) -> str:
    """Return a source or a destination as a worker finds it: a path that is relative to here is made absolute."""
    return uri if "://" in uri else str(Path(uri).absolute())


def ours(found: DeploymentResponse | None) -> DeploymentSchedule | None:
    """Return our schedule of a deployment, if it has it."""
    return next((one for one in found.schedules if one.slug == SCHEDULE), None) if found else None


def missing(parameters: Mapping[str, Any]) -> list[str]:
    """Return what a schedule needs and does not have."""
    return [name for name in NEEDED if not parameters.get(name)]


def written(schedule: DeploymentSchedule) -> dict[str, Any]:
    """Return a schedule as `prefect.yaml` writes it."""
    rule = schedule.schedule.model_dump(mode="json", exclude_none=True)
    return {
        **({"slug": schedule.slug} if schedule.slug else {}),
        **{name: value for name, value in rule.items() if (name, value) != ("day_or", True)},
        "active": schedule.active,
        "parameters": schedule.parameters,
    }


def step(
    before: DeploymentSchedule | None, now: Mapping[str, Any], *, is_paused: bool = False, is_resumed: bool = False
) -> Step:
    """Return what becomes of our schedule.

    Args:
        before: as it was; None if there was none.
        now: as it is.
        is_paused: whether its deployment is, so that it starts nothing.
        is_resumed: whether that was paused, and no longer is.
    """
    thing = f"schedule {SCHEDULE} of augment"
    lacking = missing(now["parameters"])
    if lacking:
        options = " and ".join(f"--{name}" for name in lacking)
        what = f"off until it has a source and a destination; give it {options}"
    else:
        what = f"{told(now)}, {now['parameters']['source']} → {now['parameters']['destination']}"
        if not now["active"] or is_paused:
            how = "switched it off" if not now["active"] else "paused the deployment"
            what += f"; off, as somebody {how}; --source or --destination switches it on"
    if before is None:
        return Step(thing, Outcome.CREATED, what)
    was = written(before)
    names = sorted((was.keys() | now.keys()) - {"parameters"})
    differences = [name for name in names if was.get(name) != now.get(name)]
    differences += ["the deployment is no longer paused"] if is_resumed else []
    given, had = now["parameters"], was["parameters"]
    differences += [name for name in sorted(given.keys() | had.keys()) if given.get(name) != had.get(name)]
    return Step.changed(thing, differences, what=what)


def _known(parameters: Mapping[str, Any], found: DeploymentResponse | None) -> dict[str, Any]:
    """Leave out what the flow has no parameter for, be it that it had one in an older version: each run would fail."""
    known = (found.parameter_openapi_schema or {}).get("properties") if found else None
    return {name: value for name, value in parameters.items() if known is None or name in known}


def _names_a_place(wish: Wish) -> bool:
    return any(name in wish.parameters for name in NEEDED)


def told(rule: Mapping[str, Any]) -> str:
    """Return when a schedule runs, for people."""
    when = rule.get("cron") or rule.get("rrule") or f"every {rule.get('interval')} s"
    return f"{when} {rule.get('timezone', 'UTC')}"
