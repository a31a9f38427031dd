"""The quality gate from the command line: what a plan says of it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.__main__ import main


@pytest.fixture(autouse=True)
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sources."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.csv").write_text("url\nhttps://images.example.com/a.jpg\nhttps://images.example.com/b.jpg")


def planned(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, dict[str, Any]]:
    """Run `variations plan`; returns its exit code, what it says to people, and the plan."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", "manifest.csv", "dataset", "--json", *options])
    said = capsys.readouterr()
    lines = said.out.strip().splitlines()
    return int(ended.value.code or 0), " ".join(said.err.split()), json.loads(lines[-1]) if lines else {}


def test_a_plan_says_what_rerolls_may_cost(capsys: pytest.CaptureFixture[str]) -> None:
    """At the most, beside what is paid for certain."""
    code, said, plan = planned(capsys, "--on-flagged", "reroll", "--max-rolls", "4", "--no-gate-sources")
    assert (code, plan["max_rolls"], plan["cost_usd"]) == (0, 4, 0.062)
    assert "re-rolls what is flagged is made again, 4 times in all: up to 0.19 USD more" in said


def test_a_plan_without_rerolls_says_nothing_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the limit is."""
    code, said, _ = planned(capsys, "--on-flagged", "drop", "--max-rolls", "4")
    assert code == 0
    assert "re-rolls" not in said


@pytest.mark.parametrize(
    "options",
    [
        ("--on-flagged", "burn"),
        ("--max-rolls", "0"),
        ("--gate-copy", "65"),
        ("--gate-blank", "256"),
        ("--gate-twin", "-1"),
    ],
    ids=" ".join,
)
def test_what_is_out_of_bounds_is_refused(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is read, and the message names it."""
    code, said, plan = planned(capsys, *options)
    assert (code, plan) == (2, {})
    assert options[0].removeprefix("--").replace("-", "_") in said.replace("-", "_")
