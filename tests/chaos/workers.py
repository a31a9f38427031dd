"""The handle on workers: start one, wait for it, kill it, and read what it said."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from .worker import Order

REPOSITORY: Final = Path(__file__).parents[2]
START_TIMEOUT_SECONDS: Final = 30.0
END_TIMEOUT_SECONDS: Final = 90.0


class WorkerHangs(Exception):
    """A worker did not end in time; the message ends with what it wrote to standard error."""


class Worker:
    """A worker's process.

    Attributes:
        pid: its number.
        code: how it ended, below 0 by a signal; None while it runs.
    """

    def __init__(self, order: Order, pid: int, output: Path, errors: Path) -> None:
        self.order = order
        self.pid = pid
        self.code: int | None = None
        self._output = output
        self._errors = errors
        self._ended = threading.Event()

    def __repr__(self) -> str:
        return f"Worker({self.pid}, code={self.code}, die_at={self.order.die_at!r})"

    def ended(self, code: int) -> None:
        """Take in how it ended."""
        self.code = code
        self._ended.set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.code is None:
            # Its parent may have reaped it a moment ago; a number is not used again so soon.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def is_over(self, *, within_seconds: float) -> bool:
        """Return whether it ends within some time."""
        return self._ended.wait(within_seconds)

    def wait(self, timeout_seconds: float = END_TIMEOUT_SECONDS) -> "Worker":
        """Return once it has ended.

        Raises:
            WorkerHangs: it has not; it is killed then.
        """
        if not self._ended.wait(timeout_seconds):
            self.signal(signal.SIGKILL)
            raise WorkerHangs(f"{self!r} did not end in {timeout_seconds:.0f} s\n{self.errors()[-4000:]}")
        return self

    def errors(self) -> str:
        """Return what it wrote to standard error."""
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def said(self) -> dict[str, Any]:
        """Return its answer: a `receipt`, or an `error` and what there is to it; nothing if it was killed."""
        lines = self._output.read_text().splitlines() if self._output.exists() else []
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return found

    @property
    def receipt(self) -> dict[str, Any]:
        """Its receipt; empty if it came to none."""
        found: dict[str, Any] = self.said().get("receipt", {})
        return found


class Workers:
    """Start workers; from any thread.

    Args:
        server: the process that forks them.
        folder: where they write.
    """

    def __init__(self, server: "subprocess.Popen[bytes]", folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._writing = threading.Lock()
        self._count = 0
        self._pids: dict[int, queue.Queue[int]] = {}
        self._workers: dict[int, Worker] = {}
        self._early: dict[int, int] = {}
        self._is_ready = threading.Event()
        threading.Thread(target=self._listen, name="workers", daemon=True).start()
        if not self._is_ready.wait(START_TIMEOUT_SECONDS):
            raise WorkerHangs("the server of workers did not start")

    def start(self, order: Order) -> Worker:
        """Start a worker."""
        told: queue.Queue[int] = queue.Queue()
        with self._writing:
            self._count += 1
            number = self._count
            self._pids[number] = told
            output, errors = (self._folder / f"{number}.{name}" for name in ("out", "err"))
            call = {"number": number, "order": asdict(order), "output": str(output), "errors": str(errors)}
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(call).encode() + b"\n")
            self._server.stdin.flush()
        worker = Worker(order, told.get(timeout=START_TIMEOUT_SECONDS), output, errors)
        with self._writing:
            self._workers[number] = worker
            if (code := self._early.pop(number, None)) is not None:
                worker.ended(code)
        return worker

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            answer = json.loads(line)
            if "pid" in answer:
                self._pids.pop(answer["number"]).put(answer["pid"])
            elif "code" in answer:
                with self._writing:
                    worker = self._workers.pop(answer["number"], None)
                    if worker is None:
                        self._early[answer["number"]] = answer["code"]
                    else:
                        worker.ended(answer["code"])
            else:
                self._is_ready.set()


@contextlib.contextmanager
def running_workers() -> Iterator[Workers]:
    """Run the process that forks workers; on leaving, those that are left are killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SEGMIND_"))}
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.worker", "--serve"],
            cwd=REPOSITORY,
            env={**environment, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Workers(server, Path(folder))
        finally:
            server.stdin.close()
            try:
                server.wait(START_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            server.stdout.close()
