"""A planted leak, as a new user meets it: in the plan, in what a run ends with, and in Prefect."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import StateType

from flows.__main__ import main
from flows.augment import augment
from flows.plan import plan
from tests.flows.conftest import Variations, one_line
from variations.errors import LeakFound
from variations.sandbox import Sandbox

PHOTOS = Path(__file__).parents[1] / "photos"
CLEAN = {
    "rocket": ("01_rocket_rgb.jpg", "train"),
    "coffee": ("05_coffee_rgb.png", "train"),
    "retina": ("02_retina_1411_square.jpg", "test"),
}
PACE = {"requests_per_minute": 6000.0, "poll_interval_seconds": 0.1}


@pytest.fixture
def clean(tmp_path: Path) -> str:
    """A manifest of three photographs in two splits."""
    return write(tmp_path, "clean.csv", [(name, str(PHOTOS / file), split) for name, (file, split) in CLEAN.items()])


@pytest.fixture
def leaking(tmp_path: Path) -> str:
    """The same, with a smaller and recompressed copy of a train photograph in test."""
    with Image.open(PHOTOS / "05_coffee_rgb.png") as image:
        image.convert("RGB").resize((image.width // 2, image.height // 2)).save(tmp_path / "cup.jpg", quality=60)
    rows = [(name, str(PHOTOS / file), split) for name, (file, split) in CLEAN.items()]
    return write(tmp_path, "leaking.csv", [*rows, ("cup", "cup.jpg", "test")])


def write(folder: Path, name: str, rows: list[tuple[str, str, str]]) -> str:
    """Write a manifest."""
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("id", "url", "split"), *rows])
    return str(folder / name)


def planned(capsys: pytest.CaptureFixture[str], manifest: str, *options: str) -> tuple[int, str, str, dict[str, Any]]:
    """Run `variations plan`; returns its exit code, what it says, its last line, and the plan."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", manifest, "dataset", "--json", *options])
    said = capsys.readouterr()
    return int(ended.value.code or 0), " ".join(said.err.split()), said.err.splitlines()[-1], json.loads(said.out)


def test_a_plan_tells_a_planted_leak(leaking: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It exits with 0, or with 5 if asked, in a line that names the two and says what to do."""
    code, said, _, plan = planned(capsys, leaking)
    assert code == 0
    assert "2 sources look like one in another split" in said
    assert "coffee in train (row 2) looks like cup in test (row 4): alike" in said
    assert plan["leaks"]["pairs"][0]["one"]["source_uri"].endswith("05_coffee_rgb.png")
    code, _, last, plan = planned(capsys, leaking, "--fail-on-leak")
    assert (code, plan["leaks"]["similar"]) == (5, 2)
    assert last.startswith("variations: 2 sources look like one in another split: coffee in train (row 2) looks like")
    assert "put them into one split" in last


def test_a_plan_of_what_does_not_leak_says_so(clean: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the number of those that were looked at."""
    code, said, _, _ = planned(capsys, clean, "--fail-on-leak")
    assert code == 0
    assert "no group is in two splits; no source looks like one in another split" in said
    assert "looked at 3 sources" in said


def test_a_run_that_must_not_leak_exits_with_5(
    leaking: str, variations: Variations, sandbox: Sandbox, tmp_path: Path
) -> None:
    """And pays for nothing; without being asked, it goes on, and its receipt and the dataset's card tell."""
    ended = variations("run", leaking, "dataset", "--fail-on-leak")
    assert ended.code == 5
    assert "coffee in train (row 2) looks like cup in test (row 4)" in one_line(ended)
    assert sandbox.bill().accepted == 0
    ended = variations("run", leaking, "dataset", "--json")
    receipt = json.loads(ended.out.splitlines()[-1])
    assert (ended.code, receipt["kept"], receipt["leaks"]["similar"]) == (0, 2, 2)
    card = Path(tmp_path, "dataset", "README.md").read_text()
    assert (
        "Sources are split as the manifest says. Before the last run: 2 sources look like one in another split" in card
    )
    assert "- coffee in train (row 2) looks like cup in test (row 4): alike" in card
    # What the one that was refused has seen need not be fetched again.
    assert receipt["leaks"]["known_before"] == 4


@pytest.mark.usefixtures("environment")
async def test_prefect_shows_the_leak(leaking: str, tmp_path: Path, sandbox: Sandbox) -> None:
    """In the state of the run, and in its plan."""
    for of, more in ((augment, {}), (augment, {"dry_run": True}), (plan, {})):
        places = {"source": leaking, "destination": str(tmp_path / "dataset")}
        state = await of(**places, fail_on_leak=True, return_state=True, **PACE, **more)
        assert (state.type, state.name) == (StateType.FAILED, "LeakFound")
        assert "coffee in train (row 2) looks like cup in test (row 4)" in state.message
        with pytest.raises(LeakFound):
            await state.result()
        assert "coffee in train (row 2) looks like cup" in await plan_of(state.state_details.flow_run_id)
    assert sandbox.bill().accepted == 0


async def plan_of(flow_run_id: Any) -> str:
    """Return the artifact with the plan of a flow run."""
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=["variations-plan"]), flow_run_id={"any_": [flow_run_id]}
            )
        )
    (artifact,) = found
    return str(artifact.data)
