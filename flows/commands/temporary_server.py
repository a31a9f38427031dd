"""Prefect's temporary server, for a run on a machine that has no other."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from flows.commands.terminal import status
from variations.errors import SettingsError

DRAIN_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 20.0
# It ends by itself in five.
STOP_SECONDS: Final = 10.0
_PROGRAM: Final = Path(__file__).with_name("server_process.py")


def has_server() -> bool:
    """Return whether a Prefect server is configured, so that no temporary one is started."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - Prefect takes 2 s to import

    return bool(PREFECT_API_URL.value())


@contextmanager
def prefect_server() -> Iterator[None]:
    """Make sure that a run has a Prefect server: the one that is configured, else a temporary one for as long as this
    lasts.

    Raises:
        SettingsError: the configured one does not answer.
    """
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - Prefect takes 2 s to import
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    if url := PREFECT_API_URL.value():
        try:
            httpx.get(f"{url}/health", timeout=ANSWER_SECONDS)
        except httpx.HTTPError as error:
            name = type(error).__name__
            raise SettingsError(f"no Prefect server answers at PREFECT_API_URL, {url} ({name})") from error
        yield
        return
    with _temporary_server() as url, temporary_settings({PREFECT_API_URL: url}):
        try:
            yield
        finally:
            # What the run said last is still on its way; without a server Prefect would wait for it at the exit.
            APILogWorker.drain_all(timeout=DRAIN_SECONDS)
            EventsWorker.drain_all(timeout=DRAIN_SECONDS)


@contextmanager
def _temporary_server() -> Iterator[str]:
    """Yield the address of the API of a server that ends with this, or with this process, however that ends.

    Prefect would start one by itself. But a terminal sends Ctrl-C, and a service manager SIGTERM, to every process of a
    group, and a server that ends before the flow cannot be told how the flow ended; and if the run is killed, it stays
    behind.

    Raises:
        RuntimeError: it does not start.
    """
    from prefect.settings import get_current_settings  # noqa: PLC0415 - Prefect takes 2 s to import

    settings = get_current_settings()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = _started(listener, {**os.environ, **settings.to_environment_variables(exclude_unset=True)})
    try:
        with status("Starting a temporary Prefect server (some 40 s the first time on a machine, then 15)"):
            _wait_for(url, seconds=settings.server.ephemeral.startup_timeout_seconds)
        yield url
    finally:
        _stop(server)


def _started(listener: socket.socket, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-P", str(_PROGRAM), str(listener.fileno())]
    # What a thread holds back when it starts a process is held back from that process, too.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return subprocess.Popen(  # noqa: S603 - Python, and a file of ours
            arguments, env=environment, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),)
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(url: str, *, seconds: float) -> None:
    # The socket takes the request at once, and the server answers as soon as it can; should it end before, the system
    # closes the socket.
    try:
        httpx.get(f"{url}/health", timeout=seconds).raise_for_status()
    except httpx.HTTPError as error:
        raise RuntimeError(f"Prefect's temporary server did not start ({type(error).__name__})") from error


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None  # noqa: S101 - for the type checker
    server.stdin.close()
    try:
        server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
