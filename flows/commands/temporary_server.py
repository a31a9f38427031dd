"""Prefect's temporary server, for a run on a machine that has no other."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import httpx

from flows.commands.terminal import say, status
from variations.errors import SettingsError

DRAIN_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 20.0
# It ends by itself in five.
STOP_SECONDS: Final = 10.0
# Of what it printed, where it ended by itself: the end of a traceback says why.
_LAST_BYTES: Final = 2_000
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
        SettingsError: the configured one does not answer, or the temporary one does not start.
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

    What it prints is kept back: its parts complain with a traceback each when a flow that stops cuts them off. It is
    shown where it matters, which is where the server ended by itself.

    Raises:
        SettingsError: it does not start.
    """
    from prefect.settings import get_current_settings  # noqa: PLC0415 - Prefect takes 2 s to import

    settings = get_current_settings()
    with tempfile.TemporaryFile() as printed:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            environment = {**os.environ, **settings.to_environment_variables(exclude_unset=True)}
            server = _started(listener, environment, printed)
        try:
            with status("Starting a temporary Prefect server (some 40 s the first time on a machine, then 15)"):
                _wait_for(server, url, seconds=settings.server.ephemeral.startup_timeout_seconds)
            yield url
        finally:
            if server.poll() is not None:
                _show_the_end_of(printed)
            _stop(server)


def _started(listener: socket.socket, environment: dict[str, str], printed: IO[bytes]) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-P", str(_PROGRAM), str(listener.fileno())]
    # What a thread holds back when it starts a process is held back from that process, too.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return subprocess.Popen(  # noqa: S603 - Python, and a file of ours
            arguments,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            pass_fds=(listener.fileno(),),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(server: subprocess.Popen[bytes], url: str, *, seconds: float) -> None:
    # The socket takes the request at once, and the server answers as soon as it can; should it end before, the system
    # closes the socket.
    try:
        httpx.get(f"{url}/health", timeout=seconds).raise_for_status()
    except httpx.HTTPError as error:
        # Its socket is closed a moment before it is gone, and what it printed is shown when it is.
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=STOP_SECONDS)
        raise SettingsError(f"Prefect's temporary server did not start ({type(error).__name__})") from error


def _show_the_end_of(printed: IO[bytes]) -> None:
    length = printed.seek(0, os.SEEK_END)
    printed.seek(max(0, length - _LAST_BYTES))
    last_words = printed.read().decode(errors="replace").strip() or "nothing"
    say(f"Prefect's temporary server ended by itself. It printed last:\n{last_words}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None  # noqa: S101 - for the type checker
    server.stdin.close()
    try:
        server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
