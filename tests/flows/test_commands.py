"""The command line as its users meet it: a process, its output and its exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.flows.conftest import Variations, one_line
from variations import read_dataset
from variations.sandbox import Sandbox, sample_photos

BAD_ROWS = """\
id,url,guidance,kind
good,photos/rocket.jpg,,sky
nothing,,,none
words,not a uri,,none
strong,photos/coffee.jpg,12,food
ftp,ftp://host/a.jpg,,none
good,photos/rocket.jpg,,again
longer,photos/cat.webp,3,cat,too,many
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos in a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sample_photos():
        if photo.name in {"rocket.jpg", "coffee.jpg", "cat.webp"}:
            shutil.copy(photo, folder)
    return folder


def test_a_run_ends_with_a_receipt(variations: Variations, photos: Path, sandbox: Sandbox) -> None:
    """`run` ends with 0 when all was kept, shows the receipt, and its log tells the progress without a secret."""
    ended = variations("run", str(photos), "dataset", "--variations-per-source", "2", "--output-format", "webp")
    assert ended.code == 0, ended.err
    assert "paid" in ended.out
    assert "6 images" in ended.out
    assert "Beginning flow run" in ended.err
    assert sandbox.api_key not in ended.out + ended.err
    frame = read_dataset(str(photos.parent / "dataset"))
    assert set(frame["format"]) == {"webp"}
    assert len(frame) == sandbox.bill().paid == 6


def test_json_is_the_last_line(variations: Variations, photos: Path) -> None:
    """With `--json` standard output is one line, the receipt, and people's table goes to standard error."""
    ended = variations("run", str(photos), "dataset", "--json")
    receipt = json.loads(ended.out)
    assert (receipt["kept"], receipt["failed"], receipt["dataset_rows"]) == (3, 0, 3)
    assert "Receipt" in ended.err


def test_bad_rows_are_told_and_exit_3(variations: Variations, photos: Path, sandbox: Sandbox) -> None:
    """Bad rows are named with their number and reason, land in the metadata, cost nothing, and end with 3."""
    (photos.parent / "manifest.csv").write_text(BAD_ROWS)
    ended = variations("run", "manifest.csv", "dataset", "--json")
    receipt = json.loads(ended.out)
    assert ended.code == 3
    assert (receipt["kept"], receipt["rejected"], receipt["duplicates"], receipt["paid"]) == (1, 5, 1, 1)
    assert [row.split(":")[0] for row in receipt["rejected_rows"]] == ["row 2", "row 3", "row 4", "row 5", "row 7"]
    assert "guidance is 12, allowed are 0 to 10" in ended.err
    frame = read_dataset(str(photos.parent / "dataset"))
    assert frame["status"].value_counts().to_dict() == {"rejected": 5, "kept": 1}
    assert sandbox.bill().accepted == 1


def test_plan_pays_and_writes_nothing(variations: Variations, photos: Path, sandbox: Sandbox) -> None:
    """`plan` tells sources, variations, shards, cost and time, and leaves no trace; it needs no key."""
    ended = variations("plan", str(photos), "dataset", "--variations-per-source", "4", "--json", SEGMIND_API_KEY="")
    plan = json.loads(ended.out)
    assert ended.code == 0
    assert (plan["sources"], plan["variations"], plan["new"], plan["shards"]) == (3, 12, 12, 12)
    assert plan["cost_usd"] == pytest.approx(12 * 0.031)
    assert plan["seconds"] > 0
    assert not (photos.parent / "dataset").exists()
    assert sandbox.bill().calls == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "photos"), "destination"),
        (("rum",), 'Did you mean "run"'),
        (("run", "a", "b", "--gidance", "3"), "Did you mean --guidance"),
        (("run", "a", "b", "--guidance", "much"), "--guidance is 'much'"),
        (("run", "a", "b", "--guidance", "12"), "guidance is 12.0"),
        (("run", "a", "b", "--profile", "none"), "variations.toml"),
        (("plan", "gs://bucket/a.csv", "b"), "gs://bucket/a.csv"),
        (("plan", "nothing.csv", "b"), "nothing.csv"),
        (("plan", "photos", "ftp://host/b"), "ftp://host/b"),
    ],
)
def test_wrong_usage_is_one_line(
    variations: Variations, photos: Path, sandbox: Sandbox, arguments: tuple[str, ...], named: str
) -> None:
    """What was given wrongly is named in one line, with exit code 2, and nothing was asked of the API."""
    assert photos.is_dir()
    ended = variations(*arguments)
    assert ended.code == 2
    assert named in one_line(ended)
    assert sandbox.bill().calls == {}


def test_an_unknown_setting_names_the_nearest(variations: Variations) -> None:
    """A variable that is no setting is refused, with the one that was meant."""
    ended = variations("plan", "a.csv", "b", VARIATIONS_MAX_INFLIGHT="3")
    assert (ended.code, "VARIATIONS_MAX_IN_FLIGHT" in one_line(ended)) == (2, True)


def test_without_a_key_nothing_starts(variations: Variations, photos: Path) -> None:
    """A run without a key says which variable to set, before any server is started."""
    ended = variations("run", str(photos), "dataset", SEGMIND_API_KEY="")
    assert ended.code == 2
    assert "SEGMIND_API_KEY" in one_line(ended)


def test_a_wrong_key_is_one_line_and_exit_4(variations: Variations, photos: Path, sandbox: Sandbox) -> None:
    """A refused key stops before anything is written or paid; the key itself is not told."""
    ended = variations("run", str(photos), "dataset", SEGMIND_API_KEY="SG_eeeeeeeeeeeeeeee")
    assert ended.code == 4
    assert "refused the key" in one_line(ended)
    assert "SG_eeeeeeeeeeeeeeee" not in ended.err
    assert not (photos.parent / "dataset").exists()
    assert sandbox.bill().accepted == 0


def test_a_missing_bucket_is_named(variations: Variations, photos: Path, sandbox: Sandbox) -> None:
    """A destination whose bucket is not there stops before anything is paid."""
    ended = variations("run", str(photos), "s3://no-such-bucket-here/dataset")
    assert ended.code == 4
    assert "s3://no-such-bucket-here" in one_line(ended)
    assert "no such bucket" in one_line(ended)
    assert sandbox.bill().accepted == 0


def test_ctrl_c_finishes_what_is_in_flight(
    environment: dict[str, str], photos: Path, sandbox: Sandbox, variations: Variations
) -> None:
    """Ctrl-C submits nothing more, keeps what was paid for and exits with 4; the next run makes the rest, and the bill
    is equal to the rows.
    """
    sandbox.configure(latency_seconds=2.0)
    command = [sys.executable, "-m", "flows", "run", str(photos), "dataset", "--variations-per-source", "4", "--json"]
    run = subprocess.Popen(  # noqa: S603
        [*command, "--max-in-flight", "3"],
        env={**os.environ, **environment},
        cwd=photos.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (in_flight := httpx.get(f"{sandbox.base_url}/__sandbox/bill?lines=0").json()["accepted"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    receipt = json.loads(out)
    assert run.returncode == 4
    assert receipt["stopped_by"] == "stopped_by_user"
    assert in_flight <= receipt["kept"] == sandbox.bill().accepted < 12
    assert receipt["left"] == 12 - receipt["kept"]

    ended = variations("run", str(photos), "dataset", "--variations-per-source", "4")
    assert ended.code == 0
    assert len(read_dataset(str(photos.parent / "dataset"))) == sandbox.bill().paid == 12
