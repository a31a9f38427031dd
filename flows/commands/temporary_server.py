"""Prefect's temporary server, for a run on a machine that has no other."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from flows.commands.terminal import status
from variations.errors import SettingsError

DRAIN_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 20.0


@contextmanager
def prefect_server() -> Iterator[None]:
    """Make sure that a run has a Prefect server: the one that is configured, else a temporary one for as long as this
    lasts.

    Prefect would start one by itself. But a terminal sends Ctrl-C, and a service manager SIGTERM, to every process of a
    group, and a server that ends before the flow cannot be told how the flow ended. So it is started from a thread that
    holds both back, which its child inherits; to stop it takes the five seconds after which Prefect kills it.
    """
    from prefect.events.worker import EventsWorker  # noqa: PLC0415
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415
    from prefect.server.api.server import SubprocessASGIServer  # noqa: PLC0415 - Prefect takes 2 s to import
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings  # noqa: PLC0415

    if url := PREFECT_API_URL.value():
        try:
            httpx.get(f"{url}/health", timeout=ANSWER_SECONDS)
        except httpx.HTTPError as error:
            name = type(error).__name__
            raise SettingsError(f"no Prefect server answers at PREFECT_API_URL, {url} ({name})") from error
        yield
        return
    server = SubprocessASGIServer()
    failures: list[BaseException] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            server.start(timeout=get_current_settings().server.ephemeral.startup_timeout_seconds)
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that waits
            failures.append(error)

    starter = threading.Thread(target=start, name="prefect-server-start", daemon=True)
    try:
        with status("Starting a temporary Prefect server (some 40 s the first time on a machine, then 15)"):
            starter.start()
            starter.join()
        if failures:
            raise RuntimeError("Prefect's temporary server did not start") from failures[0]
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            try:
                yield
            finally:
                # What the run said last is still on its way; without a server Prefect would wait for it at the exit.
                APILogWorker.drain_all(timeout=DRAIN_SECONDS)
                EventsWorker.drain_all(timeout=DRAIN_SECONDS)
    finally:
        server.stop()
