"""One stage for all tests of this folder, and on failure what its processes said."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from variations.sandbox import Sandbox

from .postgres import running_database
from .processes import Running, until
from .stage import SLOTS, Stage, running_stage

LINES_SHOWN: Final = 60
WORKER_START_SECONDS: Final = 180.0
_stage = pytest.StashKey[Stage]()


@pytest.fixture(scope="package")
def shared_stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Prefect on SQLite, or on PostgreSQL where E2E_DATABASE says so, with all that `variations deploy` makes."""
    with ExitStack() as stack:
        url = stack.enter_context(running_database())
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


class Workers:
    """Workers of the pool, of which two are kept alive from test to test.

    Args:
        stage: where they work.
        stack: ends them.
    """

    def __init__(self, stage: Stage, stack: ExitStack) -> None:
        self._stage = stage
        self._stack = stack
        self._started = 0
        self._alive: list[Running] = []

    def two(self) -> list[Running]:
        """Return two that are alive, and of which the server has heard."""
        self._alive = [worker for worker in self._alive if worker.code is None]
        while len(self._alive) < 2:
            self._started += 1
            self._alive.append(self._stack.enter_context(self._stage.worker(f"worker-{self._started}")))
        names = {worker.name for worker in self._alive}
        until(
            f"the workers {names}",
            lambda: names <= self._stage.online(),
            seconds=WORKER_START_SECONDS,
            processes=self._alive,
        )
        return self._alive


@pytest.fixture(scope="package")
def shared_workers(shared_stage: Stage) -> Iterator[Workers]:
    """The workers of all tests."""
    with ExitStack() as stack:
        yield Workers(shared_stage, stack)


@pytest.fixture
def workers(shared_workers: Workers) -> list[Running]:
    """Two workers of the pool, each a process."""
    return shared_workers.two()


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
