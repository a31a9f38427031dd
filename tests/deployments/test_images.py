"""The image: what its Dockerfile says, what the builder gets to see, and what its steps install."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from docker.utils.build import exclude_paths
from packaging.markers import Marker

from deployments import container

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "deployments/Dockerfile").read_text(encoding="utf-8")
IGNORED: Final = [
    line
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
# Half a gigabyte from the index; a minute on a machine that does nothing else.
STEP_SECONDS: Final = 1800
Step = tuple[str, str]
LIST: Final = """
import importlib.metadata, json, re
found = {re.sub(r"[_.]", "-", one.name.lower()): one.version for one in importlib.metadata.distributions()}
print(json.dumps(found))
"""


def stages() -> list[list[Step]]:
    """Return the instructions of each stage, comments left out."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", "")
    steps = [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines.splitlines())]
    starts = [number for number, (name, _) in enumerate(steps) if name == "FROM"]
    return [
        [step for step in steps[start:end] if step[0]] for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]


BUILD, RUNTIME = stages()


def values(stage: list[Step], name: str) -> list[str]:
    """Return what the instructions of a name say."""
    return [value for one, value in stage if one == name]


def versions(lock: str) -> dict[str, str]:
    """Return what a lock names, by name: for this Python, where it names several versions."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for name, version, marker in re.findall(r"^([a-zA-Z0-9._-]+)==([^\s;]+)(?: ; ([^\\\n]+))?", text, re.MULTILINE):
        if name not in found or Marker(marker.strip()).evaluate():
            found[name] = version
    return found


def test_both_stages_stand_on_the_python_of_the_tests() -> None:
    """Slim, and by a tag of its minor version and of Debian's release."""
    bases = {value.partition(" ")[0] for stage in (BUILD, RUNTIME) for value in values(stage, "FROM")}
    assert bases == {f"python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm"}


def test_what_runs_is_nobody_and_leaves_the_image_as_it_is() -> None:
    """A number that Kubernetes can tell from root's; nothing of the image is its own."""
    assert values(RUNTIME, "USER") == ["10001:10001"]
    assert [name for name, _ in RUNTIME].index("USER") > [name for name, _ in RUNTIME].index("COPY")
    assert "chown" not in TEXT
    assert "chmod" not in TEXT


def test_nothing_of_the_build_stays() -> None:
    """The image is the base, a user and the environment that was built; no tool of the build, no layer of sources."""
    assert values(RUNTIME, "COPY") == ["--from=build /opt/venv /opt/venv"]
    assert [value.partition(" ")[0] for value in values(RUNTIME, "RUN")] == ["useradd"]
    assert "apt-get" not in TEXT
    assert values(RUNTIME, "WORKDIR") != values(BUILD, "WORKDIR")


def test_no_secret_can_get_into_it() -> None:
    """Nothing is added from elsewhere, nothing is an argument, and no variable is called like a secret."""
    assert {name for stage in (BUILD, RUNTIME) for name, _ in stage} <= {
        "FROM", "ENV", "WORKDIR", "RUN", "COPY", "USER", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    variables = [value for stage in (BUILD, RUNTIME) for value in values(stage, "ENV")]
    assert re.findall(r"KEY|TOKEN|PASSWORD|SECRET|AWS_|SEGMIND", " ".join(variables)) == []


def test_what_is_installed_is_locked_and_needs_no_compiler() -> None:
    """From the lock of what runs, with hashes, from wheels; the project itself with nothing else."""
    _, lock, project = values(BUILD, "RUN")
    assert "pip install --require-hashes --no-deps --only-binary :all: -r requirements-runtime.lock" in lock
    assert "pip install --no-deps --no-build-isolation ." in project
    assert project.endswith("pip uninstall --yes setuptools pip")


def test_signals_reach_what_runs() -> None:
    """What passes them on comes first; neither it nor the command is a shell's."""
    (entrypoint,), (command,) = values(RUNTIME, "ENTRYPOINT"), values(RUNTIME, "CMD")
    assert json.loads(entrypoint) == ["python", "-m", container.__name__]
    assert json.loads(command)[:3] == ["prefect", "worker", "start"]


def test_the_lock_of_what_runs_is_a_part_of_the_lock() -> None:
    """The same versions and hashes as those that are tested, without what only tests and checks need."""
    whole, part = (
        # Without conditions and extras: what tests need too may be needed in more places, and with more of it.
        re.sub(r"\[[^\]]*\]| ; .*(?= \\$)", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        for name in ("requirements.lock", "requirements-runtime.lock")
    )
    requirements = re.split(r"\n(?=[a-zA-Z])", part.strip())[1:]
    assert len(requirements) > 80
    assert [one[:60] for one in requirements if f"\n{one}\n" not in f"{whole}\n"] == []
    assert all("--hash=sha256:" in one for one in requirements)
    assert "://" not in part
    names = versions("requirements-runtime.lock").keys()
    assert not names & {
        "pytest",
        "hypothesis",
        "moto",
        "segmind",
        "ruff",
        "mypy",
        "uv",
        "boto3-stubs",
        "check-jsonschema",
    }
    assert {"prefect", "boto3", "pyarrow", "pillow", "asyncpg", "httpx-aiohttp"} <= names


@pytest.mark.parametrize(
    "path",
    [
        ".env", "deployments/.env", "deployments/trial.env", ".git/config", "variations.toml", "tests/conftest.py",
        "demo-output/metadata.parquet", "bench-output/report.json", ".venv/bin/python", "flows/__pycache__/x.pyc",
        "requirements.lock", "deployments/compose.yaml", "id_rsa", ".aws/credentials",
    ],
)  # fmt: skip
def test_the_builder_does_not_get(path: str, tmp_path: Path) -> None:
    """What is secret, what was made, what tests: by the rules of `.dockerignore`, as Docker's own client reads them."""
    for one in (path, "flows/augment.py", "deployments/templates/ecs.json", "pyproject.toml"):
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).touch()
    sent = exclude_paths(str(tmp_path), IGNORED)
    assert {"flows/augment.py", "deployments/templates/ecs.json", "pyproject.toml"} <= sent
    assert path not in sent


# It takes minutes and a way to PyPI, which nobody expects of `make test`; `make e2e`, and so CI, runs it.
@pytest.mark.skipif(not os.environ.get("E2E_IMAGES"), reason="E2E_IMAGES=1 installs what the image holds, 500 MB")
def test_the_steps_install_it(tmp_path: Path) -> None:
    """The steps of the build, run as they stand there in folders of their own, leave an environment that works."""
    sent = exclude_paths(str(ROOT), IGNORED)
    folders = {"/opt/venv": tmp_path / "venv", "/build": tmp_path / "build"}
    for value in values(BUILD, "WORKDIR"):
        folders[value].mkdir()
    base = Path(sys.base_prefix) / "bin"
    env = {**os.environ, "PATH": f"{base}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name, value in BUILD:
        if name == "COPY":
            *sources, target = value.split()
            assert target == "./"
            for path in sorted(sent) if sources == ["."] else sources:
                if (ROOT / path).is_file():
                    (folders["/build"] / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / path, folders["/build"] / path)
        elif name == "RUN":
            step = value.replace("/opt/venv", str(folders["/opt/venv"]))
            done = subprocess.run(  # noqa: S603
                ["/bin/sh", "-ec", step],
                cwd=folders["/build"], env=env, capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"

    empty = tmp_path / "work"
    empty.mkdir()

    def ran(*command: str) -> str:
        path = f"{folders['/opt/venv']}/bin"
        done = subprocess.run(  # noqa: S603
            [f"{path}/{command[0]}", *command[1:]],
            cwd=empty,
            env={"PATH": path, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    installed = json.loads(ran("python", "-c", LIST))
    number = installed.pop("variations")
    assert f'version = "{number}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    locked = versions("requirements-runtime.lock")
    assert installed == {name: locked[name] for name in installed}
    assert not installed.keys() & {"setuptools", "pip", "pytest"}
    assert locked.keys() - installed.keys() < locked.keys() & {
        "setuptools",
        "pywin32",
        "tzdata",
        "whenever",
        "async-timeout",
    }

    assert "Commands" in ran("variations", "--help")
    assert ran("prefect", "--version").strip() == locked["prefect"]
    for module in (
        "flows.augment",
        "flows.plan",
        "flows.recover",
        "flows.work",
        "deployments.container",
        "prefect.server.api.server",
    ):
        ran("python", "-c", f"import {module}")
    templates = "from importlib.resources import files; print(*(files('deployments') / 'templates').iterdir())"
    assert ran("python", "-c", templates).count(".json") == 3
