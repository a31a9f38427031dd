"""A temporary Prefect server as a process of its own, which counts what is asked of it.

`python -m benches.prefect_server PORT` serves until its standard input ends, so that it outlives nobody.
"""

import atexit
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn

ROOT: Final = Path(__file__).parents[1]
START_SECONDS: Final = 180.0
# As long as Prefect gives its own.
STOP_SECONDS: Final = 5.0
CALLS_PATH: Final = "/bench/calls"
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of the server: an HTTP request, or a message on a websocket (Prefect's events)."""

    at: float
    kind: str
    is_message: bool


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A server that runs."""

    pid: int
    root: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a flow finds it."""
        return {"PREFECT_API_URL": f"{self.root}/api", **_quiet()}

    def calls(self) -> list[Call]:
        """Return what was asked of it so far."""
        return [Call(*call) for call in httpx.get(f"{self.root}{CALLS_PATH}").raise_for_status().json()]

    def task_runs(self) -> int:
        """Return how many task runs it knows of."""
        return int(httpx.post(f"{self.root}/api/task_runs/count", json={}).raise_for_status().json())


@contextlib.contextmanager
def running_prefect() -> Iterator[PrefectServer]:
    """Run the server that Prefect starts for a flow without one, with its calls counted, until this is left.

    The first one of a process takes some 40 s, for it makes its database; later ones find it made.
    """
    port = _free_port()
    command = [sys.executable, "-m", "benches.prefect_server", str(port)]
    # As Prefect's own SubprocessASGIServer has it.
    variables = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    environment = {**_without_prefect(), **_quiet(), **variables, "PYTHONPATH": python_path()}
    process = subprocess.Popen(command, env=environment, cwd=prefect_home(), stdin=subprocess.PIPE)  # noqa: S603 - ours
    server = PrefectServer(process.pid, f"http://127.0.0.1:{port}")
    try:
        _wait_until_up(process, server)
        yield server
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=STOP_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()


@cache
def prefect_home() -> Path:
    """Return the folder that is Prefect's home for this process and its children; it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="variations-bench-prefect-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def main(port: str) -> None:
    """Serve until standard input ends."""
    # As Prefect's own SubprocessASGIServer calls it.
    config = uvicorn.Config(
        "benches.prefect_server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(port),
        log_level="error",
        lifespan="on",
    )
    server = uvicorn.Server(config)

    def end() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    server.run()


def create_app() -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return Prefect's server with a counter in front of it; called by uvicorn."""
    from prefect.server.api.server import create_app as prefect_app  # noqa: PLC0415 - takes seconds

    app = prefect_app()
    calls: list[tuple[float, str, bool]] = []

    async def counted(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == CALLS_PATH:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(calls).encode()})
            return
        if scope["type"] in {"http", "websocket"}:
            kind = f"{scope.get('method', 'WEBSOCKET')} {_ID.sub('{id}', scope['path'])}"
            calls.append((time.time(), kind, False))

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                calls.append((time.time(), kind, True))
            return message

        await app(scope, heard, send)

    return counted


def _wait_until_up(process: "subprocess.Popen[bytes]", server: PrefectServer) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise RuntimeError(f"the Prefect server ended with code {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.root}/api/health").is_success:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start in {START_SECONDS:.0f} s")


def _quiet() -> dict[str, str]:
    """Return the variables that keep the user's own Prefect out of a bench, and the bench out of it."""
    home = str(prefect_home())
    return {
        "PREFECT_HOME": home,
        "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _without_prefect() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def python_path() -> str:
    """Return where a process finds the packages that is started in another folder."""
    return os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
