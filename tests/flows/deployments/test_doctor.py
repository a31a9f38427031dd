"""`variations doctor`, on a real Prefect server: all is well, and each thing that can be wrong."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import httpx
import pytest
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import State

from deployments.automations import RECOVERY
from deployments.deployed import read_deployments
from deployments.doctor import examine
from deployments.finding import Finding
from deployments.names import AUGMENT, DEPLOYMENTS, LIMIT, POOL, RECOVER, WORK
from deployments.schedule import Wish, ours
from deployments.server_checks import (
    IN_MEMORY,
    ON_DISK,
    check_leases,
    check_next_run,
    check_version,
    check_waiting,
    leases_told,
)
from deployments.setup import Wishes
from deployments.shared import RESET
from flows.__main__ import main
from tests.flows.conftest import Variations
from tests.flows.deployments.conftest import steps_of, wipe
from variations.sandbox import Sandbox

NOWHERE = "http://127.0.0.1:9/api"
ABOUT = [
    *("server", "leases", "work pool", "settings block", *DEPLOYMENTS, "schedule", "next run"),
    *("concurrency limit", "turn of augment", "waiting runs", "automations"),
]


async def found(source: str = "", destination: str = "") -> dict[str, Finding]:
    """Return what the doctor finds, by what it is about."""
    return {finding.about: finding async for finding in examine(source, destination)}


async def wrong(source: str = "", destination: str = "") -> dict[str, Finding]:
    """Return what is not well."""
    return {about: finding for about, finding in (await found(source, destination)).items() if not finding.is_ok}


def prefect(*arguments: str) -> int:
    """Run a command of Prefect's, as a user who was told of it; returns its exit code."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


@pytest.fixture(scope="module")
def shared_bucket(s3_url: str) -> str:
    """Give the address of a bucket with a manifest in it: a schedule that stays the same is not deployed again."""
    for path, content in (("doctor", b""), ("doctor/manifest.csv", b"url\n")):
        httpx.put(f"{s3_url}/{path}", content=content).raise_for_status()
    return "s3://doctor"


@pytest.fixture
def dataset(environment: dict[str, str], shared_bucket: str) -> str:
    """Give the address of that bucket, which the environment leads to."""
    assert environment
    return shared_bucket


@pytest.fixture
async def well(deployed: str, dataset: str, client: PrefectClient) -> AsyncIterator[str]:
    """Give the address of a bucket that a deployment with a live worker reads and writes; what is broken is mended."""
    assert deployed
    wish = Wish({"source": f"{dataset}/manifest.csv", "destination": f"{dataset}/daily/{{date}}"})
    await steps_of(Wishes(schedule=wish))
    await client.send_worker_heartbeat(POOL, "worker", heartbeat_interval_seconds=30)
    yield dataset
    await client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
    for automation in await client.read_automations_by_name(RECOVERY):
        await client.resume_automation(automation.id)


async def test_all_is_well(well: str, sandbox: Sandbox) -> None:
    """A line each, and none of them shows the key."""
    findings = await found()
    assert {about: finding.text for about, finding in findings.items() if not finding.is_ok} == {}
    assert list(findings) == [*ABOUT, "key", "balance", "source", "destination"]
    assert findings["work pool"].text == "variations (process), 1 live worker"
    assert findings["leases"].text == "outlive the server's process (filesystem)"
    assert "variations deploy --notify" in findings["automations"].text
    assert findings["source"].text == f"{well}/manifest.csv is readable, 4 bytes"
    assert findings["destination"].text.endswith("is writable, and honours conditional writes")
    assert not [finding for finding in findings.values() if sandbox.api_key in str(finding)]


def test_the_command_says_it_with_its_exit_code(well: str, variations: Variations) -> None:
    """0 if all is well; for machines too."""
    ended = variations("doctor", "--json", "--destination", f"{well}/elsewhere")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert answer["is_ok"] is True
    assert {"about", "text", "mend", "is_ok"} == set(answer["findings"][0])
    assert f"{well}/elsewhere" in answer["findings"][-1]["text"]
    assert f"ok  {POOL}" not in ended.out


def test_without_a_server_the_rest_is_looked_at(capsys: pytest.CaptureFixture[str], dataset: str) -> None:
    """With the exit code 4, and how to mend it behind each line."""
    with temporary_settings({PREFECT_API_URL: NOWHERE}), pytest.raises(SystemExit) as ended:
        main(["doctor", "--source", f"{dataset}/manifest.csv"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 4
    assert [line.split("  ")[:2] for line in lines] == [
        ["!!", "server"],
        ["ok", "key"],
        ["ok", "balance"],
        ["ok", "source"],
        ["!!", "destination"],
    ]
    assert all("—" in line for line in lines if line.startswith("!!"))


async def test_what_the_server_answers_with_an_error_does_not_end_the_look(dataset: str) -> None:
    """The version may be what one does not tell; the next questions are asked all the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as failing:
        thread = threading.Thread(target=failing.serve_forever, daemon=True)
        thread.start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{failing.server_port}/api"}):
            findings = [one async for one in examine(f"{dataset}/manifest.csv", f"{dataset}/daily")]
        failing.shutdown()
        thread.join()
    about = ["server", "leases", "work pool", "settings block", "server", "key", "balance", "source", "destination"]
    assert [one.about for one in findings] == about
    assert [one.is_ok for one in findings] == [False] * 5 + [True] * 4
    assert "500" in findings[0].text


async def test_where_nothing_is_set_up(bare: str, environment: dict[str, str]) -> None:
    """One command mends it all."""
    assert bare
    assert environment
    await wipe()
    bad = await wrong()
    # What is not there holds nobody up.
    fine = ["server", "leases", "next run", "turn of augment", "waiting runs"]
    assert [about for about in ABOUT if about not in bad] == fine
    assert {bad[about].mend for about in ABOUT if about in bad} == {"variations deploy"}


async def test_no_worker_and_a_pool_that_is_paused(well: str, client: PrefectClient) -> None:
    """Runs would wait for ever."""
    assert well
    await client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    assert (await wrong())["work pool"].mend == "prefect work-pool resume variations"
    await client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
    await client.request("DELETE", f"/work_pools/{POOL}/workers/worker")
    assert (await wrong())["work pool"].mend == "prefect worker start --pool variations"


async def test_a_pool_or_a_queue_that_lets_nothing_in(well: str, client: PrefectClient) -> None:
    """Its worker lives, and nothing is started; what is said mends it."""
    assert well
    (queue,) = await client.read_work_queues(POOL)
    for about, path, broken in (
        ("work pool", f"/work_pools/{POOL}", {"concurrency_limit": 0}),
        ("work queue", f"/work_queues/{queue.id}", {"concurrency_limit": 0}),
        ("work queue", f"/work_queues/{queue.id}", {"is_paused": True}),
    ):
        (await client.request("PATCH", path, json=broken)).raise_for_status()
        bad = await wrong()
        assert list(bad) == [about]
        assert "nothing is started" in bad[about].text
        assert await asyncio.to_thread(prefect, *bad[about].mend.removeprefix("prefect ").split()) == 0
        assert await wrong() == {}


async def test_a_limit_that_bounds_nothing_or_all(well: str, client: PrefectClient) -> None:
    """One that decays frees the slots of those at work, and one without slots lets nobody begin."""
    assert well
    await client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(slot_decay_per_second=1.0))
    assert (await wrong())["concurrency limit"].mend == "variations deploy"
    await client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=0, slot_decay_per_second=0))
    assert (await wrong())["concurrency limit"].mend == "variations deploy --slots 64"
    await steps_of(Wishes(slots=64))
    assert await wrong() == {}


async def test_a_limit_of_its_own_that_gives_no_turns(well: str, client: PrefectClient) -> None:
    """All runs of `augment` would wait for ever."""
    assert well
    found = await client.read_deployment_by_name(AUGMENT)
    assert found.global_concurrency_limit is not None
    off = GlobalConcurrencyLimitUpdate(active=False)
    await client.update_global_concurrency_limit(found.global_concurrency_limit.name, off)
    bad = await wrong()
    assert [(about, one.text, one.mend) for about, one in bad.items()] == [
        (AUGMENT, "differs from this version: turns", "variations deploy")
    ]
    await steps_of(Wishes())
    assert await wrong() == {}


async def test_an_automation_that_is_there_twice(well: str, client: PrefectClient) -> None:
    """Each of them starts a recovery."""
    assert well
    (one,) = await client.read_automations_by_name(RECOVERY)
    await client.create_automation(AutomationCore(**one.model_dump(exclude={"id", "owner_resource"})))
    assert "a crashed run is recovered" in (await wrong())["automations"].text
    steps = await steps_of(Wishes())
    assert steps["automation a crashed run is recovered"].what == "2 of that name"
    assert len(await client.read_automations_by_name(RECOVERY)) == 1
    assert await wrong() == {}


async def test_a_schedule_that_asks_for_what_is_refused(well: str, client: PrefectClient) -> None:
    """Each of its runs would fail, and that is said before."""
    assert well
    deployment = await client.read_deployment_by_name(AUGMENT)
    daily = ours(deployment)
    assert daily is not None
    asked = {**daily.parameters, "guidance": 99, "destination": f"{well}/{{datum}}"}
    await client.update_deployment_schedule(deployment.id, daily.id, active=True, parameters=asked)
    bad = await wrong()
    assert bad["schedule"].text == (
        "asks for what augment/variations refuses: guidance: 99 is greater than the maximum of 10"
    )
    assert bad["schedule"].mend == "variations deploy --guidance …"
    assert bad["destination"].mend == "variations deploy --destination …"
    unknown = {**daily.parameters, "guidence": 3}
    await client.update_deployment_schedule(deployment.id, daily.id, active=True, parameters=unknown)
    bad = await wrong()
    assert bad["schedule"].text.endswith("guidence is no parameter of it")
    assert bad["schedule"].mend == "variations deploy"
    await steps_of(Wishes())
    assert await wrong() == {}


async def test_a_deployment_of_another_version(well: str, client: PrefectClient) -> None:
    """In what it differs is named."""
    assert well
    deployment = await client.read_deployment_by_name(WORK)
    await client.request("PATCH", f"/deployments/{deployment.id}", json={"description": "older"})
    bad = await wrong()
    assert list(bad) == [WORK]
    assert bad[WORK].text == "differs from this version: description"


async def test_a_schedule_that_is_off_or_knows_too_little(well: str, client: PrefectClient) -> None:
    """It is said how it is switched on."""
    assert well
    deployment = await client.read_deployment_by_name(AUGMENT)
    daily = ours(deployment)
    assert daily is not None
    await client.update_deployment_schedule(deployment.id, daily.id, active=False, parameters=daily.parameters)
    assert "it is off" in (await wrong())["schedule"].text
    await client.update_deployment_schedule(deployment.id, daily.id, parameters={"source": "s3://b/m.csv"})
    bad = await wrong()
    assert bad["schedule"].mend == "variations deploy --destination …"
    assert "--destination" in bad["destination"].mend


async def test_slots_that_nobody_holds(well: str, client: PrefectClient) -> None:
    """More are taken than runs are at work; those of runs at work are none of them."""
    assert well
    await client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(active_slots=1))
    assert "--active-slots 0" in (await wrong())["concurrency limit"].mend
    deployment = await client.read_deployment_by_name(WORK)
    run = await client.create_flow_run_from_deployment(
        deployment.id, parameters={"destination": "s3://b/d", "run_id": "r"}
    )
    await client.set_flow_run_state(run.id, State(type=StateType.RUNNING), force=True)
    assert await wrong() == {}
    await client.set_flow_run_state(run.id, State(type=StateType.CANCELLED), force=True)
    await client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(active_slots=0))
    assert await wrong() == {}


def test_leases_in_the_memory_of_the_server() -> None:
    """What a restart then costs is said, and how the server is to be started."""
    finding = leases_told(IN_MEMORY)
    assert "its restart ends runs of augment unpublished, and leaks their slots" in finding.text
    assert finding.mend == f"start it with {ON_DISK}"


async def test_a_turn_that_nobody_has(well: str, client: PrefectClient) -> None:
    """The deployment's own slot is taken by no run: all would wait for ever, unless it is freed as the doctor says."""
    assert well
    found = await client.read_deployment_by_name(AUGMENT)
    assert found.global_concurrency_limit is not None
    name = found.global_concurrency_limit.name
    await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=1))
    bad = await wrong()
    assert list(bad) == ["turn of augment"]
    assert bad["turn of augment"].text == "1 of 1 slots taken, and 0 runs at work"
    run = await client.create_flow_run_from_deployment(found.id, parameters={"source": "s", "destination": "d"})
    await client.set_flow_run_state(run.id, State(type=StateType.RUNNING), force=True)
    assert await wrong() == {}
    # It gives the slot back, which is not what is looked at here.
    await client.set_flow_run_state(run.id, State(type=StateType.CANCELLED), force=True)
    await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=1))
    _, _, command = (await wrong())["turn of augment"].mend.partition("if it stays so: ")
    assert await asyncio.to_thread(prefect, *command.removeprefix("prefect ").split()) == 0
    assert await wrong() == {}


async def test_a_schedule_of_which_no_run_is_made(well: str, client: PrefectClient) -> None:
    """The server's scheduler makes them within a minute or so; where it does not, nothing runs, and nothing fails."""
    assert well
    deployments = await read_deployments(client)
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    runs = await client.read_flow_runs(flow_run_filter=wanted)
    for run in runs:
        await client.delete_flow_run(run.id)
    (finding,) = await check_next_run(client, deployments, now=datetime.now(UTC) + timedelta(minutes=11))
    assert finding.text == "the server has made none of the schedule"
    assert "Scheduler" in finding.mend
    # As the scheduler makes them, by the same code.
    (augment,) = (one.found for one in deployments if one.name == AUGMENT)
    assert augment is not None
    await client.request("POST", "/deployments/{id}/schedule", path_params={"id": augment.id}, json={})
    (finding,) = await check_next_run(client, deployments, now=datetime.now(UTC) + timedelta(minutes=11))
    assert finding.is_ok
    assert finding.text.endswith(" UTC")


@pytest.mark.parametrize(("type_", "name"), [(StateType.SCHEDULED, "Late"), (StateType.PENDING, "Pending")])
async def test_runs_that_do_not_begin(well: str, client: PrefectClient, type_: StateType, name: str) -> None:
    """Those that wait for another one's end are none of them, nor those that came a moment ago."""
    assert well
    deployment = await client.read_deployment_by_name(RECOVER)

    runs = []
    for state_type, state in ((StateType.SCHEDULED, "AwaitingConcurrencySlot"), (type_, name)):
        run = await client.create_flow_run_from_deployment(deployment.id, parameters={"destination": "d"}, name=state)
        await client.set_flow_run_state(run.id, State(type=state_type, name=state), force=True)
        runs.append(run)
    assert await wrong() == {}
    finding = await check_waiting(client, await read_deployments(client), now=datetime.now(UTC) + timedelta(minutes=11))
    assert finding.text.startswith(f"1 for over 10 minutes, the oldest {name} since ")
    assert finding.text.endswith(f" UTC: {name}")
    assert finding.mend.endswith(f"prefect flow-run cancel {runs[-1].id}")
    for run in runs:
        await client.delete_flow_run(run.id)


async def test_hosts_that_are_not_the_vendors(well: str) -> None:
    """A key would be sent there; the command that is told resets it, and then all is by default again."""
    assert well
    await steps_of(Wishes(settings={"segmind_base_url": "http://127.0.0.1:9", "price_usd": 0.05}))
    told = (await found())["settings block"].text
    assert told.startswith(
        "variations holds price_usd, segmind_base_url; requests, with the key, go to 127.0.0.1:9 (se"
    )
    assert told.endswith(RESET)
    done = await asyncio.to_thread(prefect, *RESET.removeprefix("prefect ").split())
    assert done == 0
    await steps_of(Wishes())
    assert (await found())["settings block"].text == "variations holds nothing: all is as it is by default"


async def test_prefect_cloud_is_not_asked_for_what_it_does_not_tell() -> None:
    """Neither its version nor where it keeps leases: nothing is sent."""
    cloud = PrefectClient(f"https://api.prefect.cloud/api/accounts/{uuid4()}/workspaces/{uuid4()}", api_key="pnu_0")
    assert cloud.server_type == ServerType.CLOUD
    assert (await check_version(cloud)).text.endswith(", Prefect Cloud")
    assert await check_leases(cloud) == []


async def test_an_automation_that_is_off(well: str, client: PrefectClient) -> None:
    """A crashed run would wait for the next day."""
    assert well
    (automation,) = await client.read_automations_by_name(RECOVERY)
    await client.pause_automation(automation.id)
    assert (await wrong())["automations"].text == "switched off: a crashed run is recovered"


async def test_a_key_that_is_refused_and_a_balance_that_is_used_up(
    well: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is not repeated."""
    assert well
    sandbox.configure(credits=0.02)
    bad = await wrong()
    assert list(bad) == ["balance"]
    assert bad["balance"].text == "0.02 USD does not cover an image"
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_eeeeeeeeeeeeeeee")
    bad = await wrong()
    assert "refused the key" in bad["key"].text
    assert bad["key"].mend.startswith("set SEGMIND_API_KEY")
    assert "SG_eeeeeeeeeeeeeeee" not in str(bad)
    # Where the API does not answer, no other key would be of use.
    monkeypatch.setenv("SEGMIND_BASE_URL", "http://127.0.0.1:9")
    assert (await wrong())["key"].mend == "check SEGMIND_BASE_URL and the network"


async def test_a_source_and_a_destination_that_are_not_there(well: str) -> None:
    """Of a source with dates, today's may still come."""
    bad = await wrong(f"{well}/none.csv", "s3://no-such-bucket-here/dataset")
    assert list(bad) == ["source", "destination"]
    assert "nothing there" in bad["source"].text
    assert "no such bucket" in bad["destination"].text
    assert await wrong(f"{well}/{{date}}.csv") == {}
    assert (await found(f"{well}/"))["source"].text == f"{well}/ is readable"
