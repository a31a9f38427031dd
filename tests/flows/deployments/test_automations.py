"""What a Prefect server does by itself when a run crashes, falls silent, fails or is paused."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, TypeVar
from uuid import UUID

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events import Event, RelatedResource, Resource
from prefect.events.clients import get_events_client
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_HOME
from prefect.states import State

from deployments.automations import FAILURE, LATE, PAUSE, WAITING, ZOMBIE, automations
from deployments.names import AUGMENT, DEPLOYMENTS
from deployments.server_checks import check_automations
from deployments.setup import Wishes
from deployments.step import Outcome
from flows.canary import canary
from tests.flows.deployments.conftest import steps_of, untouched

T = TypeVar("T")
PATIENCE_SECONDS = 90.0
# Of what Prefect on SQLite may lose an event.
ATTEMPTS = 3
# The least that Prefect allows.
SILENCE = timedelta(seconds=10)
PLACES = {"source": "s3://b/manifest.csv", "destination": "s3://b/daily/{date}"}
NOON = datetime(2031, 5, 17, 12, tzinfo=UTC)


async def until(look: Callable[[], Awaitable[T]]) -> T:
    """Wait for what the server brings about."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (seen := await look()):
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.5)
    return seen


async def running(client: PrefectClient, name: str = AUGMENT, **parameters: str) -> FlowRun:
    """Start a run of a deployment, as a schedule does, without a process."""
    deployment = await client.read_deployment_by_name(name)
    scheduled = State(type=StateType.SCHEDULED, state_details={"scheduled_time": NOON})
    run = await client.create_flow_run_from_deployment(
        deployment.id, parameters={**PLACES, **parameters}, state=scheduled
    )
    await client.set_flow_run_state(run.id, State(type=StateType.RUNNING), force=True)
    return run


async def end(client: PrefectClient, run: FlowRun, type_: StateType, name: str, message: str = "") -> None:
    """End a run."""
    await client.set_flow_run_state(run.id, State(type=type_, name=name, message=message), force=True)


async def recoveries(client: PrefectClient, destination: str) -> list[dict[str, Any]]:
    """Return what the runs of `recover` over a destination were asked for."""
    runs = await client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["recover"])))
    return [run.parameters for run in runs if run.parameters["destination"] == destination]


@pytest.mark.parametrize(
    ("place", "asked", "state", "date"),
    [
        ("s3://b/crashed/{date}", {}, "Crashed", "2031-05-17"),
        ("s3://b/stopped/{date}", {"date": "2030-01-31", "profile": "night"}, "Interrupted", "2030-01-31"),
    ],
)
async def test_a_crashed_run_is_recovered(
    deployed: str, client: PrefectClient, place: str, asked: dict[str, str], state: str, date: str
) -> None:
    """By a run of `recover` over its dataset, for the day that it was to fill in, whatever its state is called."""
    assert deployed
    run = await running(client, destination=place, **asked)
    await end(client, run, StateType.CRASHED, state)
    (found,) = await until(lambda: recoveries(client, place))
    assert found == {"destination": place, "date": date, "profile": asked.get("profile", ""), "wait": True}


async def test_a_silent_run_has_crashed(deployed: str, client: PrefectClient) -> None:
    """Nothing else notices that its machine is gone; one that has ended need not be heard of any more."""
    assert deployed
    ids = {name: (await client.read_deployment_by_name(name)).id for name in DEPLOYMENTS}
    await _put(client, next(one for one in automations(ids, notify=None, silence=SILENCE) if one.name == ZOMBIE))
    silent = await running(client, destination="s3://b/silent/{date}")
    done = await running(client, destination="s3://b/done/{date}")
    async with get_events_client() as events:
        for run in (silent, done):
            await events.emit(_heartbeat(run, ids[AUGMENT]))
    await end(client, done, StateType.COMPLETED, "CompletedWithFailures")

    async def crashed() -> bool:
        state = (await client.read_flow_run(silent.id)).state
        return state is not None and state.is_crashed()

    assert await until(crashed)
    assert await until(lambda: recoveries(client, "s3://b/silent/{date}"))
    state = (await client.read_flow_run(done.id)).state
    assert state is not None
    assert state.name == "CompletedWithFailures"
    # What was shortened here is mended by the next setup.
    steps = await steps_of(Wishes())
    changed = {thing: step.what for thing, step in steps.items() if step.outcome is Outcome.CHANGED}
    assert changed == {"automation a silent run has crashed": "trigger, actions"}
    assert untouched(await steps_of(Wishes()))


async def test_failures_and_pauses_are_told_once_each(deployed: str, client: PrefectClient, hook: "Hook") -> None:
    """To the block that the user names, which is remembered; a run that ended well is not worth a word."""
    assert deployed
    block = CustomWebhookNotificationBlock(name="ops", url=hook.url, json_data={"text": "{{subject}} | {{body}}"})
    await block.asave("ops", overwrite=True, client=client)
    steps = await steps_of(Wishes(notify="custom-webhook/ops"))
    assert {steps[f"automation {name.partition(': ')[2]}"].outcome for name in (FAILURE, PAUSE, WAITING, LATE)} == {
        Outcome.CREATED
    }
    assert untouched(await steps_of(Wishes()))
    assert "automations that notify" not in steps

    for type_, name in (
        (StateType.FAILED, "Failed"),
        (StateType.FAILED, "PausedBudget"),
        (StateType.COMPLETED, "Completed"),
        (StateType.CRASHED, "Crashed"),
    ):
        await end(client, await running(client, destination=f"s3://b/{name}"), type_, name, f"because of {name}")

    waiting = await client.create_flow_run(canary, parameters={"of": "it", "came_to": "so much", "seconds": 1.0})
    await end(client, waiting, StateType.PAUSED, "Paused", "because of Paused")

    async def all_told() -> bool:
        return len(hook.told) >= 4

    assert await until(all_told)
    assert sorted(text.partition(" | ")[0] for text in hook.told) == [
        "variations: Crashed",
        "variations: Failed",
        "variations: Paused",
        "variations: PausedBudget",
    ]
    assert all("because of" in text for text in hook.told)


async def test_a_block_that_is_gone_is_missed(deployed: str, client: PrefectClient, hook: "Hook") -> None:
    """The automations are as they should be, and nobody is told of anything."""
    assert deployed
    block = CustomWebhookNotificationBlock(name="gone", url=hook.url, json_data={"text": "{{subject}}"})
    notify = await block.asave("gone", overwrite=True, client=client)
    await steps_of(Wishes(notify="custom-webhook/gone"))
    await client.delete_block_document(notify)
    steps = await steps_of(Wishes())
    assert untouched(steps)
    assert steps["automations that notify"].what.startswith("the block that they notify is gone")
    finding = await check_automations(client)
    assert (finding.text, finding.mend) == (
        "notify a block that is gone: nobody is told of failures",
        "variations deploy --notify TYPE/NAME",
    )
    for name in (FAILURE, PAUSE, WAITING, LATE):
        for automation in await client.read_automations_by_name(name):
            await client.delete_automation(automation.id)
    assert (await check_automations(client)).is_ok


async def test_a_run_that_does_not_begin_is_told_of(deployed: str, client: PrefectClient, hook: "Hook") -> None:
    """It waits for a machine; one that has begun in time, or waits for another one's end, is not worth a word."""
    assert deployed
    block = CustomWebhookNotificationBlock(name="late", url=hook.url, json_data={"text": "{{subject}} | {{body}}"})
    notify = await block.asave("late", overwrite=True, client=client)
    ids = {name: (await client.read_deployment_by_name(name)).id for name in DEPLOYMENTS}
    wanted = automations(ids, notify=notify, patience=SILENCE)
    await _put(client, next(one for one in wanted if one.name == LATE))

    async def due(name: str, *then: State) -> FlowRun:
        run = await client.create_flow_run_from_deployment(ids[AUGMENT], parameters=PLACES, name=name)
        states = [State(type=StateType.SCHEDULED, name="Late"), *then]
        for state in states:
            await client.set_flow_run_state(run.id, state, force=True)
        await until(lambda: _has_heard(client, run, str(states[-1].name)))
        return run

    for number in range(ATTEMPTS):
        # One after another, and the one that is told of last: for the others it would be time before.
        runs = [
            await due(f"begins {number}", State(type=StateType.RUNNING, name="Running")),
            await due(f"queues {number}", State(type=StateType.SCHEDULED, name="AwaitingConcurrencySlot")),
            await due(f"waits {number}"),
        ]

        async def told_or_lost(runs: Sequence[FlowRun] = runs) -> list[str] | bool:
            return _told_of(hook, runs) or _lost(runs)

        told = await until(told_or_lost)
        for run in runs:
            await client.delete_flow_run(run.id)
        if not _lost(runs):
            break
    for automation in await client.read_automations_by_name(LATE):
        await client.delete_automation(automation.id)
    assert told == [f"waits {number}"]


async def _has_heard(client: PrefectClient, run: FlowRun, state: str) -> bool:
    """Return whether the server's events say that a run came to a state."""
    wanted = {"event": {"name": [f"prefect.flow-run.{state}"]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    answer = await client.request("POST", "/events/filter", json={"filter": wanted})
    return bool(answer.json()["events"])


def _told_of(hook: "Hook", runs: Sequence[FlowRun]) -> list[str]:
    """Return of which runs it was told that they are late; what other tests left may be, too."""
    return [
        run.name for run in runs if any(text.startswith(f"variations: Late | {run.name} should") for text in hook.told)
    ]


def _lost(runs: Sequence[FlowRun]) -> bool:
    """Return whether Prefect lost an event of the runs: its memory broker gives up where SQLite is locked."""
    letters = [letter.read_text(encoding="utf-8") for letter in (PREFECT_HOME.value() / "dlq").glob("*")]
    return any(str(run.id) in letter for run in runs for letter in letters)


async def _put(client: PrefectClient, automation: AutomationCore) -> None:
    for one in await client.read_automations_by_name(automation.name):
        await client.delete_automation(one.id)
    await client.create_automation(automation)


def _heartbeat(run: FlowRun, deployment_id: UUID) -> Event:
    deployment = {"prefect.resource.id": f"prefect.deployment.{deployment_id}", "prefect.resource.role": "deployment"}
    return Event(
        event="prefect.flow-run.heartbeat",
        resource=Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}"}),
        related=[RelatedResource(deployment)],
    )


class Hook:
    """A web server that is told of things.

    Attributes:
        told: the texts.
    """

    def __init__(self) -> None:
        told: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.told = told
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Give a web server that is told of things."""
    hook = Hook()
    yield hook
    hook.close()
