"""A sweep on the command line: as options, as a file, and refused with its name."""

import json

import pytest

from flows.__main__ import main

MANIFEST = "url\nhttps://images.example.com/a.jpg\nhttps://images.example.com/b.jpg\n"


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """Run `variations plan` with options; returns its exit code, what it said, and the plan."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.csv").write_text(MANIFEST)

    def run(*options: str) -> tuple[int, str, dict[str, object]]:
        with pytest.raises(SystemExit) as ended:
            main(["plan", "manifest.csv", "dataset", "--json", *options])
        said = capsys.readouterr()
        lines = said.out.strip().splitlines()
        return ended.value.code, said.err, json.loads(lines[-1]) if lines else {}

    return run


def test_several_options_make_a_grid(plan):
    """And the plan says what it comes to."""
    code, said, planned = plan("--sweep", "guidance=2,3,4", "--sweep", "aspect_ratio=1:1,16:9", "--max-per-source", "5")

    assert code == 0
    assert (planned["variations"], planned["images"], planned["max_per_source"]) == (10, 10, 5)
    assert "6 settings: aspect_ratio 1:1, 16:9 × guidance 2, 3, 4" in said
    assert "10, at most 5 a source" in said


def test_a_parameter_that_the_manifest_sets_itself_is_told(plan, tmp_path):
    """It is not swept, so there are fewer images than settings."""
    (tmp_path / "manifest.csv").write_text(
        "url,guidance\nhttps://images.example.com/a.jpg,2.5\nhttps://images.example.com/b.jpg,\n"
    )
    code, said, planned = plan("--sweep", "guidance=2,4", "--sweep", "aspect_ratio=1:1,16:9")

    assert (code, planned["variations"]) == (0, 2 + 4)
    assert "1 source sets guidance in the manifest" in " ".join(said.split())


def test_a_file_says_it_too(plan, tmp_path):
    """With several outputs a request."""
    (tmp_path / "sweep.toml").write_text("[random]\ndraws = 4\nguidance = { from = 2, to = 4 }\n")
    code, _, planned = plan("--sweep-file", "sweep.toml", "--outputs-per-request", "2")

    assert code == 0
    assert (planned["variations"], planned["images"]) == (8, 16)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sweep", "guidance=20"], "guidance is '20'"),
        (["--sweep-file", "nowhere.toml"], "sweep: nowhere.toml cannot be read"),
        (["--sweep-file", "manifest.csv", "--sweep", "guidance=2"], "give one"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(plan, options, says):
    """With the exit code of bad input."""
    code, said, _ = plan(*options)

    assert code == 2
    assert says in " ".join(said.split())
