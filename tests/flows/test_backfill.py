"""`variations backfill`, and the day of other commands, as their users meet them: processes, output and exit codes."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Completed, Failed
from prefect.utilities.callables import parameter_schema

from flows.augment import augment
from tests.flows.conftest import Ended, Variations, one_line
from variations import read_dataset
from variations.sandbox import Sandbox, sample_photos

PLACES = ("in/{date}", "out/{year}/{month}/{day}")
FROM = ("--from", "2026-11-01")


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """One photo on the first of November, none on the second, two on the third; the folder that holds them."""
    for photo, day in zip(sample_photos(), ("2026-11-01", "2026-11-03", "2026-11-03"), strict=False):
        (tmp_path / "in" / day).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "in" / day)
    return tmp_path


def test_each_day_is_a_run(variations: Variations, days: Path, sandbox: Sandbox) -> None:
    """The oldest first, with a receipt each; a day without a manifest is told, and ends with 3. What is there is not
    made again.
    """
    ended = variations("backfill", *PLACES, *FROM, "--to", "2026-11-03", "--json")
    assert ended.code == 3, ended.err
    told = json.loads(ended.out)
    assert [(day["day"], day.get("kept")) for day in told["days"]] == [
        ("2026-11-01", 1),
        ("2026-11-02", None),
        ("2026-11-03", 2),
    ]
    assert told["days"][1]["said"] == "nothing lies at in/2026-11-02: left out"
    assert told["total"] == "3 of 3 days, 3 kept, 0.09 USD, 1 without a run"
    assert told["total"] in ended.err
    assert ended.err.index("2026-11-01: 1 kept") < ended.err.index("2026-11-03: 2 kept")
    assert [len(read_dataset(str(days / "out/2026/11" / day))) for day in ("01", "03")] == [1, 2]
    assert len(list(days.glob("out/*/*/*/_runs/*/receipt.json"))) == 2
    assert not (days / "out/2026/11/02").exists()

    again = variations("backfill", *PLACES, *FROM, "--to", "2026-11-01")
    assert again.code == 0, again.err
    assert "nothing to make, 1 already there" in again.out
    assert sandbox.bill().accepted == 3


def test_a_dry_run_adds_up_what_the_days_would_cost(variations: Variations, days: Path, sandbox: Sandbox) -> None:
    """It needs no key and no Prefect server, and leaves no trace."""
    nothing = {"SEGMIND_API_KEY": "", "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    ended = variations(
        "backfill", *PLACES, *FROM, "--to", "2026-11-03", "--dry-run", "--outputs-per-request", "2", **nothing
    )
    assert ended.code == 3, ended.err
    assert "2026-11-01: 2 images to make for about 0.06 USD" in ended.err
    assert "3 of 3 days, 6 images to make, about 0.19 USD" in " ".join(ended.out.split())
    assert not (days / "out").exists()
    assert sandbox.bill().calls == {}


def test_a_day_with_a_bad_manifest_is_told_and_the_next_one_goes_on(variations: Variations, days: Path) -> None:
    """In a dry run as in one that pays, over the end of a month."""
    for day in ("2026-10-31", "2026-11-01"):
        (days / f"{day}.csv").write_text("url,id\nhttps://images.example.com/cat.jpg,cat\n", encoding="utf-8")
    (days / "2026-10-30.csv").write_text("colour,size\nred,3\n", encoding="utf-8")
    ended = variations("backfill", "{date}.csv", "o/{date}", "--from", "2026-10-30", "--to", "2026-11-02", "--dry-run")
    assert ended.code == 3, ended.err
    assert "2026-10-30: manifest 2026-10-30.csv: " in ended.err
    assert "2026-11-02: nothing lies at 2026-11-02.csv: left out" in ended.err
    assert "4 of 4 days, 2 images to make, about 0.06 USD" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("most", "made", "said"),
    [
        ("0.05", 1, "more than max_cost_usd 0.019"),
        ("0.031", 1, "not begun: 0.031 USD are spent or at risk, of max_cost_usd 0.031"),
    ],
)
def test_the_budget_is_for_all_days_together(
    variations: Variations, days: Path, sandbox: Sandbox, most: str, made: int, said: str
) -> None:
    """Each may cost what those before it have left; the day that it does not cover ends the backfill, with 4."""
    shutil.copytree(days / "in/2026-11-03", days / "in/2026-11-02")
    ended = variations("backfill", *PLACES, *FROM, "--to", "2026-11-03", "--max-cost-usd", most, "--json")
    assert ended.code == 4, ended.err
    told = json.loads(ended.out)
    assert [day["day"] for day in told["days"]] == ["2026-11-01", "2026-11-02"]
    assert said in told["days"][-1]["said"]
    assert told["total"].startswith("2 of 3 days, 1 kept, 0.03 USD")
    assert sandbox.bill().paid == made


def test_a_day_that_is_stopped_ends_it(variations: Variations, days: Path, sandbox: Sandbox) -> None:
    """Here credits run out, for an image costs more than was thought; a manifest that is no good ends its own day."""
    (days / "in/2026-11-02").write_text("no manifest")
    sandbox.configure(credits=0.065, free_credits=0.0)
    ended = variations(
        *("backfill", *PLACES, *FROM, "--to", "2026-11-04", "--json", "--max-in-flight", "1"),
        VARIATIONS_PRICE_USD="0.001",
    )
    assert ended.code == 4, ended.err
    told = json.loads(ended.out)["days"]
    assert [day.get("kept") for day in told] == [1, None, 1]
    assert "in/2026-11-02" in told[1]["said"]
    assert told[2]["said"].startswith("stopped, ")
    assert told[2]["stopped_by"] == "insufficient_credits"
    assert sandbox.bill().paid == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("in", "out", *FROM, "--to", "2026-11-02"), "neither source nor destination holds {date}"),
        ((*PLACES, "--from", "2026-11-02", "--to", "2026-11-01"), "--from 2026-11-02 is after --to 2026-11-01"),
        ((*PLACES, *FROM, "--to", "11/02"), "--to is '11/02': no day"),
        ((*PLACES, *FROM), "--to"),
        (("in/{hour}", "out", *FROM, "--to", "2026-11-02"), "source: {hour} is no placeholder; known are {date}"),
        ((*PLACES, *FROM, "--to", "2026-11-02", "--guidance", "12"), "guidance is 12.0"),
        ((*PLACES, *FROM, "--to", "2026-11-02", "--deployment", "augment/none"), "has no 'augment/none'"),
    ],
)
def test_what_is_no_backfill_is_one_line(
    variations: Variations, sandbox: Sandbox, arguments: tuple[str, ...], named: str
) -> None:
    """With exit code 2, before anything is asked of the API."""
    ended = variations("backfill", *arguments)
    assert ended.code == 2
    assert named in one_line(ended)
    assert sandbox.bill().calls == {}


@pytest.fixture
async def deployment(environment: dict[str, str]) -> AsyncIterator[str]:
    """A deployment of the flow, to which no worker listens; its name."""
    del environment
    async with get_client() as client:
        flow_id = await client.create_flow(augment)
        schema = parameter_schema(augment).model_dump_for_openapi()
        deployment_id = await client.create_deployment(
            flow_id, name="backfill", parameter_openapi_schema=schema, parameters={"guidance": 5.0}
        )
        yield "augment/backfill"
        await client.delete_deployment(deployment_id)


class Worker:
    """Takes the runs of a backfill, whichever is there, and ends each as it is told.

    Attributes:
        made: the days, in the order in which they were made.
        parameters: of each run.
    """

    def __init__(self, **ends: State[Any]) -> None:
        self._ends = ends
        self.made: list[str] = []
        self.parameters: list[dict[str, Any]] = []
        self.links: list[str] = []

    async def work(self) -> None:
        """Go on for as long as it is left to."""
        async with get_client() as client:
            while True:
                found = await client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=50)
                # One at a time is there to be taken, so nothing can be made before its turn.
                waiting = [run for run in found if "backfill" in run.tags and run.state and not run.state.is_final()]
                assert len(waiting) <= 1
                for run in waiting:
                    day = run.parameters["date"]
                    self.made.append(day)
                    self.parameters.append(run.parameters)
                    self.links.append(f"/runs/flow-run/{run.id}")
                    await client.set_flow_run_state(run.id, self._ends.get(f"on_{day[-2:]}", Completed()), force=True)
                await asyncio.sleep(0.5)


async def backfilled(variations: Variations, worker: Worker, *arguments: str) -> Ended:
    """Call the command while a worker is there."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(worker.work())
        ended = await asyncio.to_thread(variations, "backfill", *PLACES, *FROM, *arguments, SEGMIND_API_KEY="")
        working.cancel()
    return ended


async def test_each_day_is_a_run_of_a_deployment(variations: Variations, deployment: str, sandbox: Sandbox) -> None:
    """One after another, the oldest first, each with its day and an equal share of the budget; what is not given, the
    deployment has. A day whose run failed is told, and the next one is made.
    """
    worker = Worker(on_02=Failed(message="nothing lies there"))
    asked = ("--to", "2026-11-03", "--max-cost-usd", "3", "--retry", "failed", "--deployment", deployment)
    ended = await backfilled(variations, worker, *asked)
    assert ended.code == 3, ended.err
    days = ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert worker.made == days
    expected: dict[str, Any] = {"source": PLACES[0], "destination": PLACES[1], "guidance": 5.0, "retry": "failed"}
    assert worker.parameters == [{**expected, "max_cost_usd": 1.0, "date": day} for day in days]
    said = "".join(ended.err.split())
    assert all(f"{day}:started,http" in said for day in days)
    assert all(link in said for link in worker.links)
    assert "2026-11-02: Failed: nothing lies there" in ended.err
    assert "3 of 3 days, 2 Completed, 1 Failed" in ended.out
    assert sandbox.bill().calls == {}


async def test_a_run_of_a_deployment_that_needs_a_person_ends_it(variations: Variations, deployment: str) -> None:
    """As a day that is stopped does: those after it are not started, and the exit code is 4."""
    worker = Worker(on_01=Failed(name="PausedBudget", message="it may cost no more"))
    ended = await backfilled(variations, worker, "--to", "2026-11-02", "--deployment", deployment, "--json")
    assert ended.code == 4, ended.err
    assert worker.made == ["2026-11-01"]
    told = json.loads(ended.out)
    assert [(day["day"], day["state"]) for day in told["days"]] == [("2026-11-01", "PausedBudget")]
    assert told["total"] == "1 of 2 days, 1 PausedBudget"


def test_the_day_of_other_commands(variations: Variations, days: Path, sandbox: Sandbox) -> None:
    """`run`, `plan` and `recover` fill it in, and take today's where none is given."""
    ended = variations("run", *PLACES, "--date", "2026-11-03", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["destination"] == "out/2026/11/03"
    assert len(read_dataset(str(days / "out/2026/11/03"))) == sandbox.bill().paid == 2
    plan = variations("plan", *PLACES, "--date", "2026-11-03", "--json")
    assert (json.loads(plan.out)["already_done"], json.loads(plan.out)["balance_usd"]) == (2, pytest.approx(99.938))
    assert variations("recover", PLACES[1], "--date", "2026-11-03").code == 0
    today = variations("plan", *PLACES)
    assert (today.code, "in/20" in one_line(today), "{date}" in one_line(today)) == (2, True, False)
