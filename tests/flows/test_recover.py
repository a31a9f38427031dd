"""What is left open is looked after: the flow, its command, and those that tell how a dataset stands."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType
from prefect.utilities.callables import parameter_schema

from flows.augment import augment
from flows.recover import recover
from tests.chaos.worker import Order
from tests.flows.conftest import ROOT, Variations, at_work, one_line
from variations import read_dataset
from variations.errors import BadInput, BucketNotFound, DatasetBusy
from variations.sandbox import Sandbox, sample_photos
from variations.status import read_status
from variations.storage import open_storage

PACE = {"requests_per_minute": 6000.0, "poll_interval_seconds": 0.1}
IMAGES = 3


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos, beside which the dataset is to lie."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sample_photos()[:IMAGES]:
        shutil.copy(photo, folder)
    return folder


@pytest.fixture
def dataset(photos: Path) -> str:
    """Where it is to lie."""
    return str(photos.parent / "dataset")


@pytest.fixture
def dead_run(photos: Path, dataset: str, environment: dict[str, str], sandbox: Sandbox) -> int:
    """A process that was killed with a request of each photo in flight; its number."""
    del environment
    sandbox.configure(latency_seconds=30.0, history_delay_seconds=0.0)
    limits = {"max_in_flight": IMAGES, "poll_interval_seconds": 0.1}
    order = Order(
        source=str(photos),
        destination=dataset,
        base_url=sandbox.base_url,
        api_key=sandbox.api_key,
        environment={},
        limits=limits,
    )
    worker = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "tests.chaos.worker", order.to_json()],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        give_up_at = time.monotonic() + 60
        while asyncio.run(written_down(dataset)) < IMAGES:
            assert time.monotonic() < give_up_at
            assert worker.poll() is None
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    # By now they are done.
    sandbox.advance_clock(60)
    sandbox.configure(latency_seconds=0.5)
    return worker.pid


def gallery_of(dataset: str) -> tuple[str, int] | None:
    """Return a dataset's gallery, and when it was written."""
    path = Path(dataset, "report.html")
    return (path.read_text(encoding="utf-8"), path.stat().st_mtime_ns) if path.exists() else None


def card_of(dataset: str) -> str:
    """Return a dataset's card."""
    return Path(dataset, "README.md").read_text(encoding="utf-8")


async def written_down(dataset: str) -> int:
    """Return the number of requests whose acceptance is in the journal: the bill may be ahead of it."""
    try:
        status = await read_status(open_storage(dataset), runs=1)
    except (BadInput, BucketNotFound):
        return 0
    return sum(request.request_id is not None for request in status.open_requests)


async def test_the_flow_fetches_what_a_killed_run_paid_for(dead_run: int, dataset: str, sandbox: Sandbox) -> None:
    """It submits nothing, publishes the rows, and returns the receipt; the second time nothing is open."""
    assert dead_run
    receipt = await recover(dataset)
    found = receipt["recovery"]
    assert (found["kept"], found["looked_for"], found["still_unknown"]) == (IMAGES, IMAGES, 0)
    assert (receipt["paid"], receipt["dataset_rows"], receipt["unknowns"]) == (0, IMAGES, ())
    assert found["cost_usd"] == pytest.approx(sandbox.bill().total_usd)
    assert list(read_dataset(dataset)["status"]) == ["kept"] * IMAGES
    assert (sandbox.bill().accepted, sandbox.bill().calls_of("submit")) == (IMAGES, IMAGES)
    assert receipt["gallery"] == f"file://{dataset}/report.html"
    text, written = gallery_of(dataset) or ("", 0)
    assert f'"total":{IMAGES}' in text
    assert f"| kept | {IMAGES} |" in card_of(dataset)
    nothing = await recover(dataset)
    again = nothing["recovery"]
    assert (again["closed_run"], again["looked_for"], again["kept"]) == (None, 0, 0)
    assert (nothing["gallery"], gallery_of(dataset)) == ("", (text, written))


async def test_a_run_that_only_fetches_what_a_killed_one_paid_for_describes_it(
    dead_run: int, photos: Path, dataset: str
) -> None:
    """In the card, though it has made nothing itself."""
    assert dead_run
    receipt = await augment(str(photos), dataset, megapixels="0.25", **PACE)
    assert (receipt["recovery"]["kept"], receipt["kept"]) == (IMAGES, 0)
    assert f"| kept | {IMAGES} |" in card_of(dataset)


async def test_the_flow_writes_no_gallery_where_none_is_wanted(
    dead_run: int, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the setting of the machine that it runs on."""
    assert dead_run
    monkeypatch.setenv("VARIATIONS_GALLERY", "false")
    receipt = await recover(dataset)
    assert (receipt["recovery"]["kept"], receipt["gallery"]) == (IMAGES, "")
    assert gallery_of(dataset) is None


async def test_the_flow_ends_where_a_run_works(environment: dict[str, str], dataset: str) -> None:
    """It says who works there; with `wait` it goes on when that one has ended, if it gives no sign of life before."""
    del environment
    async with at_work(dataset) as run:
        with pytest.raises(DatasetBusy, match=rf"the run {run.run_id} works on .* \(process {os.getpid()} on "):
            await recover(dataset)
        waiting = asyncio.create_task(recover(dataset, wait=True))
        # Until it has found the dataset busy: there is nothing else to see of it.
        done, _ = await asyncio.wait({waiting}, timeout=2)
        assert not done
    assert (await waiting)["recovery"]["looked_for"] == 0


async def test_the_flow_says_what_is_wrong_with_its_destination(environment: dict[str, str]) -> None:
    """Before anything is asked of anybody."""
    del environment
    with pytest.raises(BadInput, match="ftp://host/dataset"):
        await recover("ftp://host/dataset")


async def test_where_no_run_has_written_there_is_nothing_to_recover(
    environment: dict[str, str], variations: Variations, tmp_path: Path, bucket: str
) -> None:
    """The flow is started for any run that crashes, a dry one too, and has done what it should; the command was told
    where to look, and refuses.
    """
    del environment
    for nowhere in (str(tmp_path / "nowhere"), f"s3://{bucket}/nowhere"):
        state = await recover(nowhere, return_state=True)
        assert (state.type, state.name) == (StateType.COMPLETED, "Completed")
        assert str(state.message).startswith("no dataset at ")
        assert str(state.message).endswith(": no run has ever written there: nothing to recover")
        assert await state.result() is None
    refused = await asyncio.to_thread(variations, "recover", "nowhere")
    assert (refused.code, "no dataset at" in one_line(refused)) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_every_parameter_of_the_flow_is_described() -> None:
    """In the form, where only the destination has to be given."""
    schema = parameter_schema(recover)
    assert schema.required == ["destination"]
    assert set(schema.properties) == {"destination", "wait", "date", "profile"}
    for name, field in schema.properties.items():
        assert field.get("description"), name
        assert "anyOf" not in field, name


async def test_a_killed_run_is_told_fetched_and_explained(
    dead_run: int, variations: Variations, dataset: str, sandbox: Sandbox
) -> None:
    """`status` says who died and what is open, `recover` fetches it and ends with 0, `explain` tells how it went; the
    bill stays as it was.
    """
    told = await asyncio.to_thread(variations, "status", "dataset")
    assert told.code == 0, told.err
    assert f"died (process {dead_run} on " in " ".join(told.out.split())
    assert " ".join(told.out.split()).count("the API forgets it in 5") == IMAGES

    recovered = await asyncio.to_thread(variations, "recover", "dataset")
    assert recovered.code == 0, recovered.err
    assert f"{IMAGES} images kept, 0 failed" in recovered.out
    assert f"file://{dataset}/report.html" in "".join(recovered.out.split())
    assert f'"total":{IMAGES}' in (gallery_of(dataset) or ("", 0))[0]
    assert f"| kept | {IMAGES} |" in card_of(dataset)
    assert list(read_dataset(dataset)["status"]) == ["kept"] * IMAGES

    name = read_dataset(dataset).iloc[0]["variation_id"][:8]
    again, explained = await asyncio.gather(
        asyncio.to_thread(variations, "recover", "dataset", "--json"),
        asyncio.to_thread(variations, "explain", "dataset", name, "--json"),
    )
    assert again.code == 0, again.err
    nothing = json.loads(again.out)
    assert (nothing["recovery"]["looked_for"], nothing["gallery"]) == (0, "")
    assert "nothing was open" in again.err
    assert explained.code == 0, explained.err
    events = [event["what"] for event in json.loads(explained.out)["events"]]
    assert events[-2:] == ["another process took the journal over", "kept, 0.031 USD"]
    assert "about to be submitted, attempt 1" in explained.err

    told = await asyncio.to_thread(variations, "status", "dataset", "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert (found["rows"], found["open_run"], found["open_requests"]) == ({"kept": IMAGES}, None, [])
    assert "nobody; every run is closed" in told.err
    assert (sandbox.bill().accepted, sandbox.bill().calls_of("submit")) == (IMAGES, IMAGES)


async def test_the_command_writes_no_gallery_where_none_is_wanted(
    dead_run: int, variations: Variations, dataset: str
) -> None:
    """By the setting of the machine that it runs on; the card is written all the same."""
    assert dead_run
    ended = await asyncio.to_thread(variations, "recover", "dataset", "--json", VARIATIONS_GALLERY="false")
    assert ended.code == 0, ended.err
    receipt = json.loads(ended.out)
    assert (receipt["recovery"]["kept"], receipt["gallery"], gallery_of(dataset)) == (IMAGES, "", None)
    assert f"| kept | {IMAGES} |" in card_of(dataset)


async def test_where_there_is_no_dataset_there_is_nothing_to_tell(variations: Variations, tmp_path: Path) -> None:
    """One line with the place, and 2; nothing is made there."""
    told, explained = await asyncio.gather(
        asyncio.to_thread(variations, "status", "nowhere"),
        asyncio.to_thread(variations, "explain", "nowhere", "3f2a"),
    )
    assert (told.code, "no dataset at" in one_line(told)) == (2, True)
    assert (explained.code, "has no variation '3f2a'" in one_line(explained)) == (2, True)
    assert not (tmp_path / "nowhere").exists()


async def test_a_dataset_that_is_worked_on_is_left_alone(
    variations: Variations, photos: Path, dataset: str, sandbox: Sandbox
) -> None:
    """`run` and `recover` end with 4, and say who works there and how fresh that is; `run --wait` waits, says so, and
    makes it all when that one has ended.
    """
    async with at_work(dataset) as run:
        who = f"the run {run.run_id} works on file://{dataset} (process {os.getpid()} on "
        # By the environment of this process it finds everything that the fixture's find.
        waiting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows", "run", str(photos), "dataset", "--wait"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        busy, refused = await asyncio.gather(
            asyncio.to_thread(variations, "recover", "dataset"),
            asyncio.to_thread(variations, "run", str(photos), "dataset"),
        )
        assert waiting.stderr is not None
        async with asyncio.timeout(60):
            while f"Waiting: {who}" not in (line := (await waiting.stderr.readline()).decode()):
                assert line, "it ended, and did not wait"
    _, err = await asyncio.wait_for(waiting.communicate(), 60)
    assert waiting.returncode == 0, err.decode()
    assert len(read_dataset(dataset)) == sandbox.bill().paid == IMAGES
    for ended in (busy, refused):
        assert ended.code == 4
        assert who in one_line(ended)
        assert "its last sign of life was " in one_line(ended)
        assert "--wait" in one_line(ended)


async def test_too_little_money_is_exit_4_and_the_next_run_goes_on(
    variations: Variations, photos: Path, dataset: str, sandbox: Sandbox
) -> None:
    """Whether it is `--max-cost-usd` or the balance that does not cover it: the numbers are told, nothing is submitted,
    and the dataset is free.
    """
    sandbox.configure(credits=0.05, free_credits=0.0)
    limited, poor = await asyncio.gather(
        asyncio.to_thread(variations, "run", str(photos), "dataset", "--max-cost-usd", "0.07"),
        asyncio.to_thread(variations, "run", str(photos), "other"),
    )
    assert (limited.code, poor.code) == (4, 4)
    assert "3 images at 0.031 USD are 0.09 USD, more than max_cost_usd 0.07; nothing was submitted" in one_line(limited)
    assert "3 images at 0.031 USD are 0.09 USD, and the balance is 0.05 USD; nothing was" in one_line(poor)
    assert sandbox.bill().calls_of("submit") == 0

    sandbox.configure(credits=1.0)
    for destination, count in ((dataset, 1), (f"{dataset}/../other", 2)):
        receipt = await augment(str(photos), destination, max_cost_usd=0.1, **PACE)
        assert (receipt["kept"], sandbox.bill().paid) == (IMAGES, IMAGES * count)
