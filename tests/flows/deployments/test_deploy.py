"""`variations deploy`, on a real Prefect server: what it makes, what it leaves alone, and what it refuses."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentUpdate, GlobalConcurrencyLimitUpdate, WorkPoolUpdate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from config import load_settings
from config.blocks import KEY_BLOCK, SETTINGS_BLOCK, VariationsSettings, read_settings, stored_settings
from deployments.automations import RECOVERY, ZOMBIE
from deployments.deployed import read_deployments
from deployments.names import AUGMENT, LIMIT, POOL, SCHEDULE
from deployments.schedule import Wish, ours
from deployments.server_checks import check_schedule
from deployments.setup import Wishes
from deployments.step import Outcome
from flows.__main__ import main
from tests.flows.conftest import ROOT, Variations
from tests.flows.deployments.conftest import steps_of, untouched, wipe
from variations.errors import SettingsError
from variations.sandbox import Sandbox

NOWHERE = "http://127.0.0.1:9/api"
PLACES = ("--source", "photos", "--destination", "s3://b/daily/{date}")


def outcomes(text: str) -> dict[str, str]:
    """Return what became of each thing, as it was printed."""
    rows = [line.split("  ", 1) for line in text.splitlines()]
    return {thing: outcome.strip().partition(":")[0] for thing, outcome in rows}


def test_deployed_twice(bare: str, variations: Variations, sandbox: Sandbox, tmp_path: Path) -> None:
    """The first time makes everything, the second time nothing, and no key is shown; what is left out says how."""
    assert bare
    first = variations("deploy")
    assert first.code == 0, first.err
    made = outcomes(first.out)
    assert set(made.values()) == {"created", "left out"}
    assert len(made) == 12
    assert "off until it has a source and a destination; give it --source and --destination" in first.out
    assert "--notify" in first.out

    second = variations("deploy")
    assert set(outcomes(second.out).values()) == {"as it should be", "left out"}
    assert set(outcomes(second.out)) == set(made)
    assert sandbox.api_key not in first.out + first.err + second.out + second.err

    third = variations("deploy", *PLACES, "--max-cost-usd", "5", "--timezone", "Europe/Berlin")
    changed = {thing for thing, outcome in outcomes(third.out).items() if outcome == "changed"}
    assert changed == {f"schedule {SCHEDULE} of augment"}
    assert f"0 6 * * * Europe/Berlin, {tmp_path}/photos → s3://b/daily/{{date}}" in third.out


async def test_a_machine_without_settings_finds_those_of_the_blocks(
    bare: str,
    client: PrefectClient,
    environment: dict[str, str],
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key and the addresses, as they were where `deploy` was called; nothing overwrites them with nothing."""
    assert bare
    settings = {"segmind_base_url": sandbox.base_url, "price_usd": 0.05}
    await steps_of(Wishes(api_key=sandbox.api_key, settings=settings))
    for name in environment:
        if name.startswith("SEGMIND_"):
            monkeypatch.delenv(name)
    assert untouched(await steps_of(Wishes()))
    # One that somebody emptied by hand is not there.
    await Secret(value=SecretStr("")).asave(KEY_BLOCK, overwrite=True, client=client)
    assert (await steps_of(Wishes()))[f"secret block {KEY_BLOCK}"].outcome == Outcome.LEFT_OUT
    assert (await steps_of(Wishes(api_key=sandbox.api_key)))[f"secret block {KEY_BLOCK}"].what == "the key"
    found = load_settings(stored=await stored_settings())
    assert (found.endpoint().api_key, found.endpoint().base_url) == (sandbox.api_key, sandbox.base_url)
    assert found.price_usd == 0.05
    steps = await steps_of(Wishes(api_key="SG_fedcba9876543210", settings={"price_usd": 0.06}))
    # What there is to know besides comes after it.
    changed = {step.thing: step.what.partition(";")[0] for step in steps.values() if step.outcome == Outcome.CHANGED}
    assert list(changed.items()) == [
        ("secret block variations-api-key", "the key"),
        ("settings block variations", "price_usd"),
    ]
    assert load_settings(stored=await stored_settings()).endpoint().api_key == "SG_fedcba9876543210"


async def test_what_a_person_has_set_stays(deployed: str, client: PrefectClient) -> None:
    """A schedule that was added, one that was switched off, the slots: setup does not undo them."""
    assert deployed
    before = await client.read_deployment_by_name(AUGMENT)
    daily = ours(before)
    assert daily is not None
    await client.update_deployment_schedule(before.id, daily.id, active=False, parameters=daily.parameters)
    hourly = [(IntervalSchedule(interval=3600), False)]
    await client.create_deployment_schedules(before.id, hourly, max_scheduled_runs=2)
    await client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=3))
    assert untouched(await steps_of(Wishes()))

    steps = await steps_of(Wishes(schedule=Wish({"max_cost_usd": 7.0}), slots=5))
    assert {step.thing for step in steps.values() if step.outcome == Outcome.CHANGED} == {
        f"schedule {SCHEDULE} of augment",
        f"concurrency limit {LIMIT}",
    }
    after = await client.read_deployment_by_name(AUGMENT)
    found = ours(after)
    assert found is not None
    assert (found.active, found.parameters["max_cost_usd"]) == (False, 7.0)
    (added,) = [one for one in after.schedules if one.slug is None]
    assert (type(added.schedule), added.active, added.max_scheduled_runs) == (IntervalSchedule, False, 2)
    assert (await client.read_global_concurrency_limit_by_name(LIMIT)).limit == 5
    assert untouched(await steps_of(Wishes()))


async def test_a_schedule_that_forgot_what_it_asks_for(deployed: str, client: PrefectClient) -> None:
    """Prefect's server forgets it where a change names none, as its UI's switch does; deploying puts it back."""
    assert deployed
    places = {"source": "s3://b/m.csv", "destination": "s3://b/d"}
    await steps_of(Wishes(schedule=Wish({**places, "max_cost_usd": 7.0})))
    before = await client.read_deployment_by_name(AUGMENT)
    daily = ours(before)
    assert daily is not None
    asked = daily.parameters
    for is_on in (False, True):
        path = f"/deployments/{before.id}/schedules/{daily.id}"
        (await client.request("PATCH", path, json={"active": is_on})).raise_for_status()
    (emptied,) = [one for one in await read_deployments(client) if one.name == AUGMENT]
    finding = await check_schedule(client, emptied)
    assert (finding.text, finding.mend) == (
        "has forgotten what it asks for, as by the switch in Prefect's UI",
        "variations deploy, which remembers it",
    )
    steps = await steps_of(Wishes())
    assert "changed: destination, max_cost_usd, source" in str(steps[f"schedule {SCHEDULE} of augment"])
    found = ours(await client.read_deployment_by_name(AUGMENT))
    assert found is not None
    assert (found.active, found.parameters) == (True, asked)
    assert untouched(await steps_of(Wishes()))


async def test_a_deployment_that_is_paused(deployed: str, client: PrefectClient) -> None:
    """None of its schedules starts anything. That is told, and naming a place switches it on."""
    assert deployed
    thing = f"schedule {SCHEDULE} of augment"
    places = {"source": "s3://b/m.csv", "destination": "s3://b/d"}
    await steps_of(Wishes(schedule=Wish(places)))
    deployment = await client.read_deployment_by_name(AUGMENT)
    await client.pause_deployment(deployment.id)
    steps = await steps_of(Wishes())
    assert untouched(steps)
    assert "off, as somebody paused the deployment; --source or --destination" in steps[thing].what
    steps = await steps_of(Wishes(schedule=Wish(places)))
    assert (steps[thing].outcome, "off" in steps[thing].what) == (Outcome.CHANGED, False)
    assert not (await client.read_deployment_by_name(AUGMENT)).paused
    assert untouched(await steps_of(Wishes(schedule=Wish(places))))


async def test_what_is_by_default_is_not_stored(bare: str, client: PrefectClient) -> None:
    """A later version's default arrives; a host that was tried is told, and is reset by naming the vendor's."""
    assert bare
    thing = "settings block variations"
    default = str(VariationsSettings.model_fields["segmind_base_url"].default)
    # As an earlier version stored it: all of it.
    await VariationsSettings(segmind_base_url=NOWHERE).asave(SETTINGS_BLOCK, overwrite=True, client=client)
    step = (await steps_of(Wishes(settings={"grace_seconds": 7.0})))[thing]
    assert step.outcome == Outcome.CHANGED
    assert "requests, with the key, go to 127.0.0.1:9 (segmind_base_url) and not to the vendor" in step.what
    assert await read_settings(client) == {"segmind_base_url": NOWHERE, "grace_seconds": 7.0}
    step = (await steps_of(Wishes(settings={"segmind_base_url": default})))[thing]
    assert (step.outcome, step.what) == (Outcome.CHANGED, "segmind_base_url")
    assert await read_settings(client) == {"grace_seconds": 7.0}


async def test_a_block_that_cannot_be_used(bare: str, client: PrefectClient) -> None:
    """Somebody wrote to it past the form: one line says what, where and how to mend it."""
    assert bare
    await steps_of(Wishes())
    block = await client.read_block_document_by_name(SETTINGS_BLOCK, "variations-settings")
    update = BlockDocumentUpdate(data={"price_usd": -1}, block_schema_id=block.block_schema_id)
    await client.update_block_document(block.id, update)
    with pytest.raises(SettingsError) as caught:
        await steps_of(Wishes())
    assert str(caught.value).startswith("price_usd (in Prefect's block) is -1: ")
    assert str(caught.value).endswith("prefect block delete variations-settings/variations")
    assert "\n" not in str(caught.value)
    # What is given here takes its place.
    assert (await steps_of(Wishes(settings={"price_usd": 0.04})))["settings block variations"].what == "price_usd"


async def test_the_file_alone_can_be_deployed(deployed: str, client: PrefectClient) -> None:
    """With Prefect's own command, from the root of a checkout; the schedule keeps its parameters, and setup agrees."""
    assert deployed
    await steps_of(Wishes(schedule=Wish({"source": "s3://b/m.csv", "destination": "s3://b/d"})))
    command = "prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all"
    environment = {**os.environ, "PREFECT_API_URL": deployed}
    done = subprocess.run(  # noqa: S603, ASYNC221 - as a user calls it
        [sys.executable, "-m", *command.split()], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    after = await client.read_deployment_by_name(AUGMENT)
    found = ours(after)
    assert found is not None
    assert (found.active, found.parameters["destination"]) == (True, "s3://b/d")
    assert len(after.schedules) == 2
    assert untouched(await steps_of(Wishes()))


async def test_a_deployment_that_was_changed_is_mended(deployed: str, client: PrefectClient) -> None:
    """And what is said of it is what was changed."""
    assert deployed
    before = await client.read_deployment_by_name(AUGMENT)
    await client.request("PATCH", f"/deployments/{before.id}", json={"tags": ["mine"], "job_variables": {}})
    steps = await steps_of(Wishes())
    step = steps[f"deployment {AUGMENT}"]
    assert (step.outcome, step.what) == (Outcome.CHANGED, "tags, job variables")
    assert untouched(await steps_of(Wishes()))


async def test_two_deploys_at_once(deployed: str, client: PrefectClient) -> None:
    """Each makes what the other has not yet, both end well, and nothing is there twice."""
    assert deployed
    await wipe()
    places = {"source": "s3://b/m.csv", "destination": "s3://b/d"}
    wishes = Wishes(schedule=Wish(places), slots=5, api_key="SG_0123456789abcdef")
    await asyncio.gather(steps_of(wishes), steps_of(wishes))
    assert [len(await client.read_automations_by_name(name)) for name in (ZOMBIE, RECOVERY)] == [1, 1]
    assert untouched(await steps_of(wishes))


async def test_a_turn_that_nobody_is_given(deployed: str, client: PrefectClient) -> None:
    """A deployment's own limit that is off lets no run begin, and one that decays lets two: both are mended."""
    assert deployed
    found = await client.read_deployment_by_name(AUGMENT)
    assert found.global_concurrency_limit is not None
    name = found.global_concurrency_limit.name
    await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active=False))
    assert (await steps_of(Wishes()))[f"deployment {AUGMENT}"].what == "turns"
    await client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(slot_decay_per_second=1.0))
    assert (await steps_of(Wishes()))[f"deployment {AUGMENT}"].what == "turns"
    limit = await client.read_global_concurrency_limit_by_name(name)
    assert (limit.limit, limit.active, limit.slot_decay_per_second) == (1, True, 0)
    assert untouched(await steps_of(Wishes()))


async def test_what_augment_has_no_parameter_for(deployed: str, client: PrefectClient) -> None:
    """A schedule that asks for it, as an older version had it, say, would fail each day: it is left out, and told."""
    assert deployed
    places = {"source": "s3://b/m.csv", "destination": "s3://b/d"}
    await steps_of(Wishes(schedule=Wish(places)))
    deployment = await client.read_deployment_by_name(AUGMENT)
    daily = ours(deployment)
    assert daily is not None
    await client.update_deployment_schedule(
        deployment.id, daily.id, active=True, parameters={**daily.parameters, "guidence": 4.0}
    )
    step = (await steps_of(Wishes()))[f"schedule {SCHEDULE} of augment"]
    assert (step.outcome, step.what.partition(";")[0]) == (Outcome.CHANGED, "guidence")
    assert untouched(await steps_of(Wishes()))


async def test_a_pool_that_is_paused_is_told(deployed: str, client: PrefectClient) -> None:
    """It stays so, as somebody wants it, and nothing is started."""
    assert deployed
    await client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    steps = await steps_of(Wishes())
    await client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
    assert untouched(steps)
    assert steps[f"work pool {POOL}"].what.endswith("paused, nothing is started: prefect work-pool resume variations")


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"pool_type": "docker"}, f"the work pool {POOL} is of the type process"),
        ({"notify": "ops"}, "name the block's type too, such as slack-webhook/ops"),
        ({"notify": "slack-webhook/ops"}, "the server has no such block"),
        ({"notify": "secret/variations-api-key"}, "that block sends no notifications"),
    ],
)
async def test_a_wish_that_cannot_be_granted(deployed: str, wishes: dict[str, str], said: str) -> None:
    """Is refused before anything else is done."""
    assert deployed
    with pytest.raises(SettingsError, match=said):
        await steps_of(Wishes(slots=7, **wishes))  # type: ignore[arg-type]
    assert untouched(await steps_of(Wishes(slots=5)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "PREFECT_API_URL is not set, so there is no Prefect server to deploy to"),
        (NOWHERE, f"no Prefect server answers at PREFECT_API_URL, {NOWHERE} (ConnectError)"),
    ],
)
def test_without_a_server(capsys: pytest.CaptureFixture[str], url: str | None, said: str) -> None:
    """One line names the variable."""
    with temporary_settings({PREFECT_API_URL: url}):
        assert said in refused(capsys, "deploy")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cron", "61 * * * *"), "--cron is '61 * * * *'"),
        (("--cron", "0 0 6 * * *"), "--cron is '0 0 6 * * *': write five fields"),
        (("--cron", "0 0 30 2 *"), "--cron is '0 0 30 2 *': that never comes"),
        (("--timezone", ""), "--timezone is ''"),
        (("--slots", "0"), "--slots is 0: without one no run could begin"),
        (("--slots=-3",), "--slots is -3"),
        (("--source", "gs://b/m.csv", "--destination", "s3://b/d"), "gs://"),
        (("--pool-type", "nomad"), "nomad"),
        (("--guidance", "12"), "guidance is 12"),
    ],
)
def test_what_is_given_wrongly(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str) -> None:
    """Is told before a server is asked for anything."""
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        assert said in refused(capsys, "deploy", *options)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a command says as it refuses its arguments."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    (line,) = told.err.splitlines()
    return line
