"""A real Prefect server, a real S3 server and the sandbox, for flows and commands."""

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from config import load_settings
from config.prefect_defaults import set_prefect_defaults

set_prefect_defaults()

from prefect.settings import (  # noqa: E402 - it reads its settings once
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness  # noqa: E402

from deployments.server_checks import ON_DISK  # noqa: E402
from tests.e2e.postgres import running_database  # noqa: E402
from tests.e2e.prefect_server import running_server  # noqa: E402
from variations.run import Run, open_run  # noqa: E402
from variations.sandbox import Sandbox, running_sandbox  # noqa: E402
from variations.sandbox.s3_server import running_s3  # noqa: E402

ROOT = Path(__file__).parents[2]
START_SECONDS = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect leaves the sockets of its event and log clients to the garbage collector; ours are watched elsewhere."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What Prefect leaves is collected in the test that left it, where it is forgiven, and not in another's."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def prefect_api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a database of its own, whose leases lie where the README has them; on PostgreSQL where E2E_DATABASE
    says so, else by Prefect's own test harness.
    """
    home = tmp_path_factory.mktemp("prefect")
    with running_database() as database_url, temporary_settings({PREFECT_HOME: home}):
        served = _served(home, database_url) if database_url else _harnessed()
        with served as url:
            yield url
    # Prefect drops its clients as it ends, and pytest takes what is collected after the last test for an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextmanager
def _harnessed() -> Iterator[str]:
    settings = {PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE: ON_DISK.partition("=")[2]}
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=START_SECONDS):
        url = PREFECT_API_URL.value()
        assert url
        yield url


@contextmanager
def _served(home: Path, database_url: str) -> Iterator[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home)}
    with (
        running_server(home, env, database_url=database_url) as server,
        temporary_settings({PREFECT_API_URL: server.api_url}),
    ):
        yield server.api_url


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Moto's S3 server."""
    with running_s3() as url:
        yield url


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    """The sandbox API at half a second an image."""
    with running_sandbox(latency_seconds=0.5) as sandbox:
        yield sandbox


@pytest.fixture
def environment(sandbox: Sandbox, s3_url: str, prefect_api_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables by which a run finds everything, set in this process too."""
    variables = {
        "PREFECT_API_URL": prefect_api_url,
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "SEGMIND_API_KEY": sandbox.api_key,
        "SEGMIND_BASE_URL": sandbox.base_url,
        "SEGMIND_HISTORY_URL": f"{sandbox.base_url}/inference-request/request-history",
        "SEGMIND_UPLOAD_URL": f"{sandbox.base_url}/upload-asset",
        "VARIATIONS_REQUESTS_PER_MINUTE": "6000",
        "VARIATIONS_POLL_INTERVAL_SECONDS": "0.1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def bucket(s3_url: str, request: pytest.FixtureRequest) -> str:
    """A new bucket; its name."""
    name = "b" + format(abs(hash(request.node.nodeid)), "x")
    httpx.put(f"{s3_url}/{name}").raise_for_status()
    return name


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def one_line(ended: Ended) -> str:
    """Return the error, which is one line, the last of standard error."""
    assert ended.out == ""
    assert "Traceback" not in ended.err
    return ended.err.rstrip().splitlines()[-1]


Variations = Callable[..., Ended]


@pytest.fixture
def variations(environment: dict[str, str], tmp_path: Path) -> Variations:
    """Run the command line as a user does, as a process of its own, in a temporary folder."""

    def run(*arguments: str, **variables: str) -> Ended:
        env = {**os.environ, **environment, **variables}
        command = [sys.executable, "-m", "flows", *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)  # noqa: S603
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@asynccontextmanager
async def at_work(dataset: str) -> AsyncIterator[Run]:
    """Let this process work on the dataset."""
    settings = load_settings()
    parts = {"endpoint": settings.endpoint(), "limits": settings.limits()}
    async with open_run(settings.job(f"{dataset}-sources", dataset), **parts) as run:
        await run.recover()
        yield run
