"""What an installation rests on: the lock, and that Prefect's server can be imported with what it holds."""

import re
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_every_file_of_a_package_is_installed() -> None:
    """What is no module is listed as data, or it is missing from a wheel."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    listed = {
        path
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    needed = {
        path for path in (ROOT / "variations").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert len(needed) > 10
    assert needed <= listed


def test_every_requirement_is_pinned_with_hashes() -> None:
    """Two installs are the same: each requirement has one version and at least one hash."""
    requirements = re.split(r"\n(?=[a-zA-Z])", LOCK[LOCK.index("\n", LOCK.rindex("#    ")) + 1 :])
    assert len(requirements) > 100
    for requirement in requirements:
        assert re.match(r"[a-zA-Z0-9._-]+(\[.*\])?==\S+", requirement), requirement[:80]
        assert "--hash=sha256:" in requirement, requirement[:80]


def test_the_lock_names_no_index() -> None:
    """The lock carries versions and hashes, and no address."""
    assert "://" not in LOCK
    assert "index-url" not in LOCK
    assert "find-links" not in LOCK


def test_what_is_installed_is_what_is_locked() -> None:
    """The environment that runs the tests is the one that the lock describes."""
    for name in ("prefect", "fastapi", "httpx", "httpx-aiohttp", "boto3", "pandas", "pyarrow", "pillow", "pydantic"):
        assert re.search(rf"^{name}(\[[^\]]*\])?=={re.escape(version(name))} ", LOCK, re.MULTILINE), name


def test_prefects_server_imports() -> None:
    """FastAPI is one with which Prefect's server and its test harness import."""
    from prefect.server.api.server import create_app  # noqa: PLC0415 - the import is the test
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415

    assert callable(create_app)
    assert callable(prefect_test_harness)
    assert (0, 139) <= tuple(int(part) for part in version("fastapi").split(".")[:2]) < (0, 151)


def test_the_command_is_installed() -> None:
    """The console script `variations` is the module `flows`."""
    (script,) = entry_points(group="console_scripts", name="variations")
    assert script.value == "flows.__main__:main"
