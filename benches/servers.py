"""The sandbox and an S3 server, each a process of its own, and the CPU time that they take."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from variations.api.client import Endpoint
from variations.sandbox.settings import SandboxSettings

ROOT: Final = Path(__file__).parents[1]
STOP_SECONDS: Final = 10.0
CALL_SECONDS: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves on a loopback port.

    Attributes:
        url: its root.
        pid: its number.
    """

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has taken so far."""
        return cpu_seconds(self.pid)


class S3Server(Server):
    """moto, which keeps everything in memory."""

    __slots__ = ()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which boto3 finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URI."""
        httpx.put(f"{self.url}/{name}").raise_for_status()
        return f"s3://{name}"


class SandboxServer(Server):
    """The sandbox of the API."""

    __slots__ = ()

    @property
    def endpoint(self) -> Endpoint:
        """Where a run finds it, and the key that it accepts."""
        history_url = f"{self.url}/inference-request/request-history"
        return Endpoint(SandboxSettings().api_key, self.url, history_url, f"{self.url}/upload-asset")

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which settings name it."""
        endpoint = self.endpoint
        return {
            "SEGMIND_API_KEY": endpoint.api_key,
            "SEGMIND_BASE_URL": endpoint.base_url,
            "SEGMIND_HISTORY_URL": endpoint.history_url,
            "SEGMIND_UPLOAD_URL": endpoint.upload_url,
        }

    def bill(self, *, with_lines: bool = False) -> dict[str, Any]:
        """Return the bill as JSON: `accepted`, `paid`, `requests`, `calls` by kind and status, perhaps `lines`."""
        return self._told(httpx.get(f"{self._control}/bill?lines={with_lines:d}", timeout=CALL_SECONDS))

    def configure(self, **changes: Any) -> None:
        """Change settings while it runs."""
        self._told(httpx.put(f"{self._control}/config", json=changes, timeout=CALL_SECONDS))

    def now(self) -> float:
        """Return the time of its clock in epoch seconds."""
        return float(self._told(httpx.get(f"{self._control}/clock", timeout=CALL_SECONDS))["now"])

    def advance_clock(self, seconds: float) -> None:
        """Move its clock ahead."""
        self._told(httpx.post(f"{self._control}/clock", json={"advance_seconds": seconds}, timeout=CALL_SECONDS))

    @property
    def _control(self) -> str:
        return f"{self.url}/__sandbox"

    @staticmethod
    def _told(answer: httpx.Response) -> dict[str, Any]:
        told: dict[str, Any] = answer.raise_for_status().json()
        return told


@contextlib.contextmanager
def running_s3() -> Iterator[S3Server]:
    """Run moto on a free loopback port; nothing is in it."""
    with _running("s3") as (url, pid):
        yield S3Server(url, pid)


@contextlib.contextmanager
def running_sandbox(**settings: Any) -> Iterator[SandboxServer]:
    """Run the sandbox on a free loopback port.

    Args:
        **settings: of `SandboxSettings`, such as `speed=10`; much money unless it is told otherwise.
    """
    with _running("sandbox", json.dumps({"credits": 1e6, **settings})) as (url, pid):
        yield SandboxServer(url, pid)


@contextlib.contextmanager
def _running(*arguments: str) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "benches.serve", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        assert process.stdout is not None  # noqa: S101 - narrows the type
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"{' '.join(arguments)} did not start")
        yield url, process.pid
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            process.communicate(timeout=STOP_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of all its children, those that have ended included; 0 where it is gone.

    Read from /proc, so of this Linux machine only.
    """
    try:
        # The command's name stands in parentheses, and may hold both of them.
        values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    children: list[int] = []
    for task in tasks:
        # A thread may end while the process goes on.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, (task / "children").read_text(encoding="utf-8").split())
    # utime, stime, cutime and cstime, counted from the field after the name.
    own = sum(int(value) for value in values[11:15]) / _TICKS
    return own + sum(cpu_seconds(child) for child in children)
