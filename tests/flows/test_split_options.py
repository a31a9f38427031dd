"""Splits from the command line: what a plan says of them, and which images a run makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.__main__ import main

ROWS = [("a", "train", "p1"), ("b", "train", "p2"), ("c", "test", "p3"), ("d", "test", "p1"), ("e", "", "p4")]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest with splits, one of which leaks, and a row that has none."""
    monkeypatch.chdir(tmp_path)
    lines = [f"https://images.example.com/{name}.jpg,{name},{split},{patient}" for name, split, patient in ROWS]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(["url,id,split,patient", *lines]))
    return path


def planned(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, dict[str, Any]]:
    """Run `variations plan`; returns its exit code, what it says to people, and the plan."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", "manifest.csv", "dataset", "--json", "--leak-check", "groups", *options])
    said = capsys.readouterr()
    lines = said.out.strip().splitlines()
    return int(ended.value.code or 0), " ".join(said.err.split()), json.loads(lines[-1]) if lines else {}


def test_only_train_is_varied_and_what_leaks_is_told(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row without a split is refused, and told, too."""
    del manifest
    code, said, plan = planned(capsys, "--group-by", "patient")
    assert code == 0
    assert (plan["sources"], plan["rejected"], plan["variations"]) == (4, 1, 2)
    assert "train 2, test 2 (left as they are); as the manifest says" in said
    assert "1 group is in two splits or more" in said
    assert "p1: train (row 1), test (row 4)" in said
    assert "row 5: it has no split: name one, or give split_ratios" in said
    assert planned(capsys, "--group-by", "patient", "--fail-on-leak")[0] == 5


def test_without_a_group_each_source_is_one(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what has no split gets one by the ratios."""
    del manifest
    code, said, plan = planned(capsys, "--split-ratios", "train=0.5,test=0.5", "--augment-splits", "train,test")
    assert (code, plan["rejected"], plan["variations"]) == (0, 0, 5)
    assert "no group is in two splits" in said
    assert "by a hash of the source (train 0.5, test 0.5)" in said


def test_a_leak_cannot_be_looked_for_where_nothing_is_split(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose column of splits is misspelt would have his test images varied, and hear that nothing leaks."""
    manifest.write_text(manifest.read_text().replace("split", "splt", 1))
    code, said, _ = planned(capsys, "--fail-on-leak")
    assert code == 2
    assert "fail_on_leak: nothing is split, for the manifest has no column 'split'" in said
    assert "its column 'splt' is not called so" in said


def test_splits_that_are_not_there_are_named(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing would be made, and that is hardly what was meant."""
    del manifest
    code, said, _ = planned(capsys, "--augment-splits", "training")
    assert code == 2
    assert "augment_splits: no source is in training; the manifest has train 2, test 2" in said
    code, said, _ = planned(capsys, "--augment-splits", "train,vall")
    assert code == 0
    assert "train 2, test 2 (left as they are), vall 0" in said
    code, said, _ = planned(capsys, "--group-by", "patientid")
    assert code == 2
    assert "group_by: the manifest has no column 'patientid'; it has split, patient" in said
