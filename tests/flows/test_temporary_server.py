"""The temporary Prefect server lives as long as the command that started it: no shorter, and no longer."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from variations.sandbox import Sandbox, sample_photos

# Whether a server outlives its command is seen in the table of processes, which only Linux has as files: CI runs on it.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")

IMAGES = 3


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: the first server makes its database, which takes it the most time."""
    return tmp_path_factory.mktemp("prefect")


@contextmanager
def running_command(environment: dict[str, str], prefect_home: Path) -> Iterator[subprocess.Popen[str]]:
    """Run over some photos, in a process group of its own, where no server is configured."""
    Path("photos").mkdir()
    for photo in sample_photos()[:IMAGES]:
        shutil.copy(photo, "photos")
    command = subprocess.Popen(
        [sys.executable, "-m", "flows", "run", "photos", "dataset", "--json"],
        env={**os.environ, **environment, "PREFECT_API_URL": "", "PREFECT_HOME": str(prefect_home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with command:
        try:
            yield command
        finally:
            command.kill()


def server_of(command: subprocess.Popen[str]) -> int | None:
    """Return the number of the server's process; None if there is none yet.

    Other processes that the command has started are over in a moment, such as one that asks for the machine's name.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        if status_of(int(folder.name))[1:] == (command.pid,) and b"server_process.py" in words_of(folder):
            return int(folder.name)
    return None


def words_of(process: Path) -> bytes:
    """Return how a process was called; nothing if it is gone."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def status_of(pid: int) -> tuple[str, int] | tuple[()]:
    """Return the state of a process and its parent's number; nothing if there is no such process."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ()
    return state, int(parent)


def is_over(pid: int) -> bool:
    """Return whether a process has ended, be it that nobody has asked yet how."""
    return status_of(pid)[:1] in {(), ("Z",)}


def until(happens: Callable[[], object], *, seconds: float) -> None:
    """Wait for what another process brings about."""
    give_up_at = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_sigterm_to_the_whole_group_leaves_the_flow_its_server(
    environment: dict[str, str], prefect_home: Path, sandbox: Sandbox
) -> None:
    """As a container that stops sends it: what is in flight is finished, and the server is told how the flow ended."""
    sandbox.configure(latency_seconds=2.0)
    with running_command(environment, prefect_home) as command:
        until(lambda: sandbox.bill().accepted, seconds=150)
        server = server_of(command)
        assert server is not None
        os.killpg(command.pid, signal.SIGTERM)
        out, err = command.communicate(timeout=60)
    receipt = json.loads(out)
    assert (command.returncode, receipt["stopped_by"]) == (4, "stopped_by_user")
    assert receipt["kept"] == sandbox.bill().accepted
    assert "Traceback" not in err
    assert is_over(server)
    with sqlite3.connect(prefect_home / "prefect.db") as database:
        states = database.execute("SELECT state_type FROM flow_run ORDER BY created DESC").fetchone()
    database.close()
    assert states == ("CRASHED",)


@pytest.mark.parametrize("at_work", [True, False], ids=["at work", "starting"])
def test_who_is_killed_leaves_no_server_behind(
    environment: dict[str, str], prefect_home: Path, sandbox: Sandbox, *, at_work: bool
) -> None:
    """It ends by itself within seconds, be it that it has only been started."""
    sandbox.configure(latency_seconds=30.0)
    with running_command(environment, prefect_home) as command:
        until(lambda: server_of(command), seconds=60)
        server = server_of(command)
        assert server is not None
        if at_work:
            until(lambda: sandbox.bill().accepted == IMAGES, seconds=150)
        command.kill()
        assert command.wait() == -signal.SIGKILL
    until(lambda: is_over(server), seconds=20)


def test_a_server_that_does_not_start_says_why(environment: dict[str, str], tmp_path: Path) -> None:
    """What it printed is told, which is kept back otherwise."""
    no_folder = "sqlite+aiosqlite:////proc/prefect.db"
    with running_command({**environment, "PREFECT_SERVER_DATABASE_CONNECTION_URL": no_folder}, tmp_path) as command:
        _, err = command.communicate(timeout=150)
    assert command.returncode == 2
    assert "unable to open database file" in err
    assert err.splitlines()[-1].startswith("variations: Prefect's temporary server did not start")
