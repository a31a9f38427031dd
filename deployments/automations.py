"""Automations: what the Prefect server does by itself when a run dies, fails or is paused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from deployments.names import AUGMENT, DEPLOYMENTS, RECOVER
from deployments.step import Outcome, Step
from variations.errors import SettingsError

PREFIX: Final = "variations: "
ZOMBIE: Final = f"{PREFIX}a silent run has crashed"
RECOVERY: Final = f"{PREFIX}a crashed run is recovered"
FAILURE: Final = f"{PREFIX}a failed run is reported"
PAUSE: Final = f"{PREFIX}a paused run is reported"
WAITING: Final = f"{PREFIX}a run that waits is reported"
LATE: Final = f"{PREFIX}a late run is reported"
NAMES: Final = (ZOMBIE, RECOVERY, FAILURE, PAUSE, WAITING, LATE)

# A server that was away counts that as silence, and asks at its start, before it has heard anybody: it may be away for
# so long. Results live for an hour.
SILENCE: Final = timedelta(minutes=10)
# What takes a worker that is there a few seconds.
PATIENCE: Final = timedelta(minutes=15)

_HEARTBEAT: Final = "prefect.flow-run.heartbeat"
# An event is called by the name of the state, which says more than its type: CompletedWithFailures, PausedBudget, …
_ENDS: Final = frozenset(
    f"prefect.flow-run.{name}*"
    for name in ("Completed", "Planned", "Failed", "Paused", "Cancelled", "Crashed", "Interrupted")
)
# Runs wait for their turn, or for a machine: nothing of that is late.
_BEGINS: Final = frozenset(f"prefect.flow-run.{name}" for name in ("Running", "AwaitingConcurrencySlot"))
# What Prefect calls a resource's labels: a name, and what may stand there.
Labels = dict[str, str | list[str]]
_RUNS: Final[Labels] = {"prefect.resource.id": "prefect.flow-run.*"}

# It runs below a run of `augment`, and is no deployment's.
_WAITING_FLOW: Final[Labels] = {"prefect.resource.role": "flow", "prefect.resource.name": "canary"}

_SUBJECT: Final = "variations: {{ flow_run.state.name }}"
_BODY: Final = "{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
_LATE_BODY: Final = (
    "{{ flow_run.name }} should have begun by now. Is a worker of the work pool running, and has it a place free? "
    "`variations doctor` looks.\n{{ flow_run|ui_url }}"
)


def automations(
    ids: Mapping[str, UUID], *, notify: UUID | None, silence: timedelta = SILENCE, patience: timedelta = PATIENCE
) -> list[AutomationCore]:
    """Return the automations that there are to be.

    Args:
        ids: of the deployments.
        notify: the block that is notified; None: nobody is.
        silence: for how long a run may be silent before it is taken for dead.
        patience: for how long a run that is due may wait for a machine before somebody is told.
    """
    augment = _of([ids[AUGMENT]])
    found = [
        AutomationCore(
            name=ZOMBIE,
            description="Nothing else notices that the machine of a run is gone; it would be Running for ever.",
            trigger=EventTrigger(
                after={_HEARTBEAT},
                expect={_HEARTBEAT, *_ENDS},
                match=_RUNS,
                match_related=_of([ids[name] for name in DEPLOYMENTS]),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=silence,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    name="Crashed",
                    message=f"No heartbeat for {silence.total_seconds():.0f} s: its process or its machine is gone.",
                )
            ],
        ),
        AutomationCore(
            name=RECOVERY,
            description="Results live for an hour at the API: `recover` fetches what the run has paid for.",
            trigger=_when_it_ends(augment, types=["CRASHED"]),
            actions=[RunDeployment(source="selected", deployment_id=ids[RECOVER], parameters=_recover_parameters())],
        ),
    ]
    if notify is not None:
        told = SendNotification(block_document_id=notify, subject=_SUBJECT, body=_BODY)
        found += [
            AutomationCore(
                name=FAILURE,
                description="More of its images failed than its threshold allows, it could not go on, or it crashed.",
                trigger=_when_it_ends(augment, types=["FAILED", "CRASHED"], names="!Paused*"),
                actions=[told],
            ),
            AutomationCore(
                name=PAUSE,
                description="Its budget or the account's credits are used up, say: a person has to do something.",
                trigger=_when_it_ends(augment, types=["FAILED"], names="Paused*"),
                actions=[told],
            ),
            AutomationCore(
                name=WAITING,
                description="It waits for somebody to look at its canary, and to resume it.",
                trigger=_when_it_ends(_WAITING_FLOW, types=["PAUSED"]),
                actions=[told],
            ),
            AutomationCore(
                name=LATE,
                description="No machine has taken it: without a worker nothing runs, and nothing fails either.",
                trigger=EventTrigger(
                    after={"prefect.flow-run.Late", "prefect.flow-run.Pending"},
                    expect={*_BEGINS, *_ENDS},
                    match=_RUNS,
                    # Workers wait for a machine where there are fewer than were asked for, and `augment` says so.
                    match_related=_of([ids[AUGMENT], ids[RECOVER]]),
                    for_each={"prefect.resource.id"},
                    posture=Posture.Proactive,
                    threshold=1,
                    within=patience,
                ),
                actions=[SendNotification(block_document_id=notify, subject=_SUBJECT, body=_LATE_BODY)],
            ),
        ]
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """An automation as it is wanted, and as it is; `found` is None if there is none.

    A server takes several of one name, and each of them acts: `others` are those that are one too many.
    """

    wanted: AutomationCore
    found: Automation | None
    others: tuple[Automation, ...] = ()

    def differences(self) -> list[str]:
        """Return in what it is not as it is wanted; whether it is switched on is its owner's business."""
        if self.found is None:
            return []
        now = AutomationCore(**self.found.model_dump(exclude={"id"}))
        pairs = {
            "description": (self.wanted.description, now.description),
            "trigger": (self.wanted.trigger, now.trigger),
            "actions": (self.wanted.actions, now.actions),
        }
        names = [name for name, (wanted, is_now) in pairs.items() if wanted != is_now]
        return [*names, f"{len(self.others) + 1} of that name"] if self.others else names


async def read_automations(client: PrefectClient, notify: UUID | None = None) -> list[Compared]:
    """Return the automations that there are to be, each beside what is on the server.

    Args:
        client: the server, on which the deployments are.
        notify: a notification block; None: the one that is notified already, if there is one.
    """
    there = {name: await _read(client, name) for name in NAMES}
    block = notify or next((found for name in (FAILURE, PAUSE) if (found := _block_of(there[name]))), None)
    ids = {name: (await client.read_deployment_by_name(name)).id for name in DEPLOYMENTS}
    return [_compared(one, there[one.name]) for one in automations(ids, notify=block)]


async def _read(client: PrefectClient, name: str) -> list[Automation]:
    """Return the automations of a name, in an order that is the same for all who ask."""
    return sorted(await client.read_automations_by_name(name), key=lambda one: one.id)


def _compared(wanted: AutomationCore, found: list[Automation]) -> Compared:
    return Compared(wanted, found[0] if found else None, tuple(found[1:]))


async def ensure_automations(client: PrefectClient, notify: UUID | None) -> list[Step]:
    """Make the automations, and mend those that differ; the arguments are those of `read_automations`."""
    compared = await read_automations(client, notify)
    steps = [await _ensure(client, one) for one in compared]
    if not any(one.wanted.name == FAILURE for one in compared):
        how = "nobody is told of failures and pauses; --notify slack-webhook/NAME (or another notification block) does"
        steps.append(Step("automations that notify", Outcome.LEFT_OUT, how))
    elif await lost_block(client, compared):
        how = "the block that they notify is gone, so nobody is told; --notify TYPE/NAME names another one"
        steps.append(Step("automations that notify", Outcome.LEFT_OUT, how))
    return steps


async def lost_block(client: PrefectClient, compared: Iterable[Compared]) -> bool:
    """Return whether automations notify a block that is no longer there."""
    block = _block_of(one.wanted for one in compared)
    if block is None:
        return False
    try:
        await client.read_block_document(block, include_secrets=False)
    except ObjectNotFound:
        return True
    return False


async def _ensure(client: PrefectClient, one: Compared) -> Step:
    thing = f"automation {one.wanted.name.removeprefix(PREFIX)}"
    if one.found is None:
        await client.create_automation(one.wanted)
        # Who deploys at the same time has seen none, either. Both keep the same one.
        await _delete(client, (await _read(client, one.wanted.name))[1:])
        return Step(thing, Outcome.CREATED)
    if differences := one.differences():
        # Only what is set is sent: with the types, which are defaults, and without the owner, which may not be sent.
        mended = {**one.wanted.model_dump(exclude={"owner_resource"}), "enabled": one.found.enabled}
        await client.update_automation(one.found.id, AutomationCore(**mended))
        await _delete(client, one.others)
    return Step.changed(thing, differences, what="" if one.found.enabled else "off, as somebody switched it off")


async def _delete(client: PrefectClient, automations: Iterable[Automation]) -> None:
    for one in automations:
        try:
            await client.delete_automation(one.id)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise


def _when_it_ends(deployment: Labels, *, types: list[str], names: str = "*") -> EventTrigger:
    match: Labels = {**_RUNS, "prefect.state-type": types}
    return EventTrigger(
        expect={"prefect.flow-run.*"},
        match={**match, "prefect.state-name": names},
        match_related=deployment,
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )


def _recover_parameters() -> dict[str, Any]:
    day = "flow_run.parameters['date'] or flow_run.expected_start_time.strftime('%Y-%m-%d')"
    templates = {
        "destination": "{{ flow_run.parameters['destination'] }}",
        # The day that the run which crashed filled in.
        "date": f"{{{{ {day} }}}}",
        "profile": "{{ flow_run.parameters['profile'] }}",
    }
    # Said to be templates: a bare string is taken for an expression, and made JSON of.
    rendered = {name: {"__prefect_kind": "jinja", "template": text} for name, text in templates.items()}
    return {**rendered, "wait": True}


def _of(deployment_ids: list[UUID]) -> Labels:
    resources = [f"prefect.deployment.{one}" for one in deployment_ids]
    return {"prefect.resource.role": "deployment", "prefect.resource.id": resources}


def _block_of(automations: Iterable[AutomationCore]) -> UUID | None:
    actions = [action for automation in automations for action in automation.actions]
    return next((action.block_document_id for action in actions if isinstance(action, SendNotification)), None)


async def find_notification_block(client: PrefectClient, notify: str) -> UUID:
    """Return the block that is called `type/name`.

    Raises:
        SettingsError: there is no such block, or it notifies nobody.
    """
    block_type, _, name = notify.partition("/")
    if not name:
        raise SettingsError(f"--notify {notify}: name the block's type too, such as slack-webhook/{notify}")
    try:
        found = await client.read_block_document_by_name(name, block_type, include_secrets=False)
    except ObjectNotFound:
        raise SettingsError(f"--notify {notify}: the server has no such block; `prefect block ls` lists them") from None
    if found.block_schema is None or "notify" not in found.block_schema.capabilities:
        raise SettingsError(f"--notify {notify}: that block sends no notifications")
    return found.id
