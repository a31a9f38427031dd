"""One stage for all tests of this folder, and on failure what its processes said."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from variations.sandbox import Sandbox

from .postgres import programs, running_postgres
from .processes import Running
from .stage import SLOTS, Stage, running_stage

LINES_SHOWN: Final = 60
_stage = pytest.StashKey[Stage]()


@pytest.fixture(scope="package")
def shared_stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Prefect on SQLite, or on PostgreSQL where E2E_DATABASE says so, with all that `variations deploy` makes."""
    database = os.environ.get("E2E_DATABASE", "sqlite")
    with ExitStack() as stack:
        url = None
        if database == "postgresql":
            if (found := programs()) is None:
                pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
            url = stack.enter_context(running_postgres(found))
        stage = stack.enter_context(running_stage(tmp_path_factory.mktemp("e2e"), database_url=url))
        request.config.stash[_stage] = stage
        stage.variations("deploy", "--slots", str(SLOTS))
        yield stage
        del request.config.stash[_stage]


@pytest.fixture(scope="package")
def shared_sandbox(shared_stage: Stage) -> Sandbox:
    """The API of the stage, as the tests around reset it."""
    return shared_stage.sandbox


@pytest.fixture
def stage(shared_stage: Stage, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage, with an empty bill; what reads a dataset in this process finds the S3 server."""
    del sandbox
    for name, value in shared_stage.env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return shared_stage


@pytest.fixture(scope="package")
def workers(shared_stage: Stage) -> Iterator[list[Running]]:
    """Two workers of the pool, each a process."""
    with shared_stage.worker("worker-1") as one, shared_stage.worker("worker-2") as two:
        yield [one, two]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show beside a failure what the flow runs and the processes said."""
    del call
    report = yield
    stage = item.config.stash.get(_stage, None)
    if report.failed and stage is not None and Path(__file__).parent in item.path.parents:
        report.sections.append(("flow runs", "\n".join(_story(stage))))
        for log in sorted(stage.folder.glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            report.sections.append((log.name, "\n".join(lines[-LINES_SHOWN:])))
    return report


def _story(stage: Stage) -> list[str]:
    try:
        return stage.server.story()
    except Exception as error:  # noqa: BLE001 - the server may be what failed
        return [f"Prefect's server does not tell: {error!r}"]
