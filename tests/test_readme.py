"""What the README claims: its commands, its table of settings, its Python."""

import re
import shlex
from pathlib import Path

import pytest

from config.settings import Settings, variable_of
from deployments.server_checks import ON_DISK
from flows.commands import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("$ ")
]


def test_there_are_commands() -> None:
    """The README has commands to be held to."""
    assert len(CONSOLE) > 5


@pytest.mark.parametrize("command", [command for command in CONSOLE if command.startswith("make ")])
def test_each_make_target_is_there(command: str) -> None:
    """Every `make` in the README is a target of the Makefile."""
    target = shlex.split(command, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", [command for command in CONSOLE if "bin/variations " in command])
def test_each_command_is_one(command: str) -> None:
    """Every `variations …` in the README is understood by the command line, options and all."""
    words = shlex.split(command, comments=True)
    name, *rest = words[words.index(".venv/bin/variations") + 1 :]
    function, bound, *_ = app.parse_args([name, *rest], exit_on_error=False)
    assert function.__name__ == name
    assert bool(bound.arguments) == bool(rest)


def test_the_server_is_started_with_leases_that_last() -> None:
    """As the doctor asks for it."""
    (command,) = [one for one in CONSOLE if "server start" in one]
    assert shlex.split(command) == [ON_DISK, ".venv/bin/prefect", "server", "start"]


def test_the_table_of_settings_is_complete() -> None:
    """Each setting stands in the README once, with its default, and nothing else does."""
    rows = dict(re.findall(r"^\| `((?:VARIATIONS|SEGMIND)_\w+)` \| (.*?) \|", README, re.MULTILINE))
    expected = {}
    for name, field in Settings.model_fields.items():
        default = "" if name == "segmind_api_key" or field.default in {"", ()} else f"`{field.default}`"
        expected[variable_of(name)] = default
    assert rows == expected


def test_the_snippet_is_python() -> None:
    """The README's Python compiles, and what it takes from the package is there; the demo's test runs the other one."""
    import variations  # noqa: PLC0415 - what the snippet imports

    snippet, loading = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(snippet, "README.md", "exec")
    assert all(hasattr(variations, name) for name in re.findall(r"variations\.(\w+)\(", snippet))
    assert "load_dataset" in loading


def test_every_link_into_the_repository_leads_somewhere() -> None:
    """Paths that the README names are there."""
    for path in re.findall(r"`((?:flows|tasks|config|tests|variations|deployments)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
