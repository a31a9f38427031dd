"""A dataset on which a run works is refused before anything is started, and nothing else is."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.augment import augment
from flows.commands.busy import refuse_if_busy
from tests.flows.conftest import Variations, at_work, one_line
from variations.errors import DatasetBusy
from variations.layout import OPEN_KEY
from variations.sandbox import Sandbox


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Where a dataset is to lie."""
    return str(tmp_path / "dataset")


def without_seconds(text: str) -> str:
    """Return what is said but for how long ago that was."""
    return re.sub(r"\d+ s", "some s", text)


async def test_a_run_that_is_refused_starts_no_server(variations: Variations, dataset: str, tmp_path: Path) -> None:
    """It ends with 4 and in the words of the flow, and no Prefect server has made its database."""
    home = tmp_path / "home"
    nowhere = {"PREFECT_API_URL": "", "PREFECT_HOME": str(home)}
    async with at_work(dataset) as run:
        with pytest.raises(DatasetBusy, match=run.run_id) as busy:
            await augment("photos", dataset)
        refused = await asyncio.to_thread(variations, "run", "photos", "dataset", **nowhere)
    assert refused.code == 4
    assert without_seconds(one_line(refused)) == without_seconds(f"variations: {busy.value}")
    assert "Starting" not in refused.err
    assert not (home / "prefect.db").exists()


async def test_a_recovery_that_is_refused_asks_the_api_nothing(
    variations: Variations, dataset: str, sandbox: Sandbox
) -> None:
    """It ends with 4 and says who works there."""
    async with at_work(dataset) as run:
        before = sandbox.bill().calls
        refused = await asyncio.to_thread(variations, "recover", "dataset")
        assert sandbox.bill().calls == before
    assert (refused.code, f"the run {run.run_id} works on" in one_line(refused)) == (4, True)


async def test_where_there_is_a_server_the_flow_is_refused(
    variations: Variations, dataset: str, sandbox: Sandbox
) -> None:
    """So that the server shows it: the flow has begun, and checked the key."""
    async with at_work(dataset):
        before = sandbox.bill().calls_of("credits")
        refused = await asyncio.to_thread(variations, "run", "photos", "dataset")
        assert (refused.code, sandbox.bill().calls_of("credits")) == (4, before + 1)
    assert "Beginning flow run" in refused.err


async def test_who_waits_starts_its_server_at_once(environment: dict[str, str], dataset: str, tmp_path: Path) -> None:
    """It will have to run in the end."""
    async with at_work(dataset):
        waiting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows", "run", "photos", "dataset", "--wait"),
            env={**os.environ, **environment, "PREFECT_API_URL": "", "PREFECT_HOME": str(tmp_path / "home")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert waiting.stderr is not None
        try:
            async with asyncio.timeout(60):
                assert b"Starting a temporary Prefect server" in await waiting.stderr.readline()
        finally:
            waiting.kill()
            await waiting.communicate()


@pytest.mark.parametrize("destination", ["s3://no-such-bucket-here/dataset", "nothing", "damaged", "damaged/taken"])
def test_whatever_else_is_wrong_is_left_to_the_run(
    environment: dict[str, str], tmp_path: Path, destination: str
) -> None:
    """Which says it as it always did: a place that is not there, or holds something else."""
    del environment
    lock = tmp_path / "damaged" / OPEN_KEY
    lock.parent.mkdir(parents=True)
    lock.write_text("locked")
    (tmp_path / "damaged" / "taken").write_text("a file")
    refuse_if_busy(destination)
    assert lock.read_text() == "locked"
    assert not (tmp_path / "nothing").exists()
