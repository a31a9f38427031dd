"""The schedule: what is asked for, what is remembered, and when it is on."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.objects import DeploymentSchedule, Variable
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import PrefectHTTPStatusError

from deployments.deployed import Deployment
from deployments.names import AUGMENT, SCHEDULE
from deployments.schedule import Wish, ensure_schedule, missing, ours, placed, step, wanted, written
from deployments.server_checks import check_schedule
from variations.errors import BadInput, SettingsError

PROPOSED = {"slug": SCHEDULE, "cron": "0 6 * * *", "timezone": "UTC"}
PLACES = {"source": "s3://b/manifest.csv", "destination": "s3://b/dataset"}


def deployment(*schedules: DeploymentSchedule) -> DeploymentResponse:
    """Return a deployment with schedules."""
    return DeploymentResponse(id=uuid4(), flow_id=uuid4(), name="variations", schedules=list(schedules))


def daily(parameters: dict[str, Any], *, active: bool) -> DeploymentSchedule:
    """Return our schedule as a server has it."""
    rule = CronSchedule(cron="30 4 * * *", timezone="Europe/Berlin")
    return DeploymentSchedule(schedule=rule, slug=SCHEDULE, active=active, parameters=parameters)


def test_the_first_time_it_is_off_until_it_has_what_it_needs() -> None:
    """A schedule without a source would fail every day."""
    assert wanted(PROPOSED, Wish(), None) == {**PROPOSED, "active": False, "parameters": {}}
    assert wanted(PROPOSED, Wish({"source": "s3://b/m.csv"}), None)["active"] is False
    assert wanted(PROPOSED, Wish(PLACES), None) == {**PROPOSED, "active": True, "parameters": PLACES}


def test_what_is_not_asked_for_stays() -> None:
    """Time, time zone and parameters, those that a person set in the UI too."""
    found = deployment(daily({**PLACES, "max_cost_usd": 5.0}, active=True))
    assert wanted(PROPOSED, Wish(), found) == written(found.schedules[0])
    changed = wanted(PROPOSED, Wish({"destination": "s3://b/other"}, cron="0 1 * * *"), found)
    assert changed == {
        "slug": SCHEDULE,
        "cron": "0 1 * * *",
        "timezone": "Europe/Berlin",
        "active": True,
        "parameters": {**PLACES, "destination": "s3://b/other", "max_cost_usd": 5.0},
    }
    assert wanted(PROPOSED, Wish(timezone="UTC"), found)["cron"] == "30 4 * * *"


@pytest.mark.parametrize(
    ("parameters", "active", "wish", "is_on"),
    [
        (PLACES, True, {}, True),
        (PLACES, False, {}, False),
        (PLACES, False, {"max_cost_usd": 5.0}, False),
        (PLACES, False, {"destination": "s3://b/other"}, True),
        ({}, True, {}, False),
        ({}, False, PLACES, True),
    ],
)
def test_when_it_is_on(parameters: dict[str, Any], *, active: bool, wish: dict[str, Any], is_on: bool) -> None:
    """Who switched it off finds it off, unless they name its places anew; one that lacks a place is never on."""
    assert wanted(PROPOSED, Wish(wish), deployment(daily(parameters, active=active)))["active"] is is_on


def test_ours_is_told_from_those_that_somebody_added() -> None:
    """By its slug; it may be written as an interval, too."""
    hourly = DeploymentSchedule(schedule=IntervalSchedule(interval=3600), parameters=PLACES)
    found = deployment(hourly, daily(PLACES, active=True))
    assert ours(found) is found.schedules[1]
    assert wanted(PROPOSED, Wish(), found) == written(found.schedules[1])
    assert written(hourly)["interval"] == 3600.0


def test_what_is_said_of_it() -> None:
    """When it runs, over what, and what has changed, by name."""
    before = daily(PLACES, active=True)
    assert str(step(None, wanted(PROPOSED, Wish(), None))).endswith("give it --source and --destination")
    same = str(step(before, written(before)))
    assert same.endswith("as it should be: 30 4 * * * Europe/Berlin, s3://b/manifest.csv → s3://b/dataset")
    changed = {**written(before), "active": False, "parameters": {**PLACES, "guidance": 5.0}}
    assert "changed: active, guidance; 30 4" in str(step(before, changed))
    assert "off, as somebody switched it off; --source or --destination switches it on" in str(step(before, changed))
    paused = str(step(before, written(before), is_paused=True))
    assert "as it should be" in paused
    assert "off, as somebody paused the deployment; --source or --destination switches it on" in paused
    assert "changed: the deployment is no longer paused" in str(step(before, written(before), is_resumed=True))
    assert missing({"source": ""}) == ["source", "destination"]


@pytest.mark.parametrize(
    ("active", "wish", "is_on"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"guidance": 5.0}, False),
        (False, {"source": "s3://b/other.csv"}, True),
    ],
)
def test_what_a_schedule_forgot_is_put_back(*, active: bool, wish: dict[str, Any], is_on: bool) -> None:
    """All of it, its budget too; and one that somebody switched off stays so."""
    had = {**PLACES, "max_cost_usd": 5.0}
    now = wanted(PROPOSED, Wish(wish), deployment(daily({}, active=active)), had)
    assert (now["active"], now["parameters"]) == (is_on, {**had, **wish})


def test_what_is_remembered_is_for_what_was_forgotten_alone() -> None:
    """One that asks for something else by now keeps that, and a new one begins with nothing."""
    had = {"source": "s3://b/old.csv", "destination": "s3://b/old", "max_cost_usd": 5.0}
    assert wanted(PROPOSED, Wish(), deployment(daily(PLACES, active=True)), had)["parameters"] == PLACES
    assert wanted(PROPOSED, Wish(), None, had)["parameters"] == {}


class Server:
    """A server with our deployment and our variable, which answers to each of that as it is told."""

    def __init__(self, found: DeploymentResponse, *, read: int = 200, write: int = 201) -> None:
        self.found = found
        self.kept: object = {"source": "s3://b/older.csv"}
        self.done: list[str] = []
        self._read, self._write = read, write

    async def read_deployment_by_name(self, name: str) -> DeploymentResponse:
        """Return the deployment."""
        assert name == AUGMENT
        return self.found

    async def update_deployment_schedule(self, *_: object, **changed: object) -> None:
        """Take notice."""
        self.done += sorted(changed)

    async def resume_deployment(self, _: object) -> None:
        """Take notice."""
        self.done.append("resumed")

    async def read_variable_by_name(self, name: str) -> Variable:
        """Return the variable."""
        _answered(self._read)
        return Variable(name=name, value=self.kept)

    async def create_variable(self, variable: VariableCreate) -> None:
        """Keep it."""
        _answered(self._write)
        self.kept = variable.value


def _answered(status: int) -> None:
    response = httpx.Response(status, request=httpx.Request("GET", "http://127.0.0.1/api/variables/"))
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise PrefectHTTPStatusError.from_httpx_error(error) from error


@pytest.mark.parametrize("read", [200, 403])
async def test_a_server_that_keeps_no_variable_has_the_schedule_all_the_same(read: int) -> None:
    """It is told what that means; nothing else of a deployment needs it."""
    found = deployment(daily(PLACES, active=True))
    found.paused = True
    server = Server(found, read=read, write=403)
    done = await ensure_schedule(server, PROPOSED, Wish({"source": "s3://b/new.csv"}))  # type: ignore[arg-type]
    assert server.done == ["active", "parameters", "schedule", "resumed"]
    assert str(done).endswith("that is not put back, for the server answered 403 to a variable")


async def test_what_is_remembered_stays_where_it_cannot_be_read_for_once() -> None:
    """Nothing takes its place: a schedule that forgot what it asks for has only that."""
    server = Server(deployment(daily({}, active=True)), read=500)
    with pytest.raises(PrefectHTTPStatusError):
        await ensure_schedule(server, PROPOSED, Wish())  # type: ignore[arg-type]
    assert (server.kept, server.done) == ({"source": "s3://b/older.csv"}, [])


async def test_what_is_too_long_to_be_remembered_is_told() -> None:
    """And what was remembered before is not put in its place."""
    long = {**PLACES, "sweep": "guidance=" + ",".join(["2.5"] * 1500)}
    server = Server(deployment(daily(long, active=True)))
    done = await ensure_schedule(server, PROPOSED, Wish())  # type: ignore[arg-type]
    assert "as it should be" in str(done)
    assert str(done).endswith("that is not put back, for it is longer than 5,000 characters")
    assert (server.kept, server.done) == ({}, [])


@pytest.mark.parametrize(
    ("source", "given"),
    [("s3://b/manifest.csv", "s3://b/manifest.csv"), ("s3://b/my {date}.csv", "'s3://b/my {date}.csv'")],
)
async def test_one_that_is_off_is_switched_on_by_deploying(source: str, given: str) -> None:
    """And not where it would forget what it asks for; the command is one that a shell takes as it is."""
    places = {**PLACES, "source": source}
    switched = Deployment(AUGMENT, {"name": "variations"}, {}, deployment(daily(places, active=False)))
    async with get_client() as client:
        finding = await check_schedule(client, switched)
    assert finding.mend == f"variations deploy --source {given}"


def test_a_path_is_made_absolute() -> None:
    """A worker starts each run in a folder of its own."""
    assert placed("photos/{date}") == str(Path.cwd() / "photos/{date}")
    assert placed("s3://b/{date}") == "s3://b/{date}"
    assert placed("file:///photos") == "file:///photos"


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"cron": "61 * * * *"}, "--cron is '61 * * * *': Invalid cron"),
        ({"timezone": "Mars"}, "--timezone is 'Mars': "),
    ],
)
def test_no_such_time(wish: dict[str, str], said: str) -> None:
    """Refused before anything is set up."""
    with pytest.raises(SettingsError) as caught:
        Wish(**wish)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", ["source", "destination"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://b/{dat}/x", "{dat} is no placeholder; known are {date}"),
        ("s3://b/{date", "a brace is missing at {date"),
    ],
)
def test_a_day_that_no_run_can_fill_in(name: str, place: str, said: str) -> None:
    """Refused with its option before anything is set up: at six in the morning nobody looks."""
    with pytest.raises(BadInput) as caught:
        Wish({**PLACES, name: place})
    assert str(caught.value).startswith(f"--{name}: {said}")


@pytest.mark.parametrize("name", ["source", "destination"])
@pytest.mark.parametrize("place", ["s3://b/m.csv?X-Amz-Signature=secret", "s3://key:secret@b/m.csv"])
def test_a_place_that_carries_a_secret(name: str, place: str) -> None:
    """Refused, alone as well, before Prefect keeps it and shows it to everybody."""
    with pytest.raises(BadInput, match=f"--{name} carries a signature or credentials") as caught:
        Wish({name: place})
    assert "secret" not in str(caught.value)
