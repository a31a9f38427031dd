"""Processes of a test: started with a log each, and ended by their number, with all that they started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

Found = TypeVar("Found")

LOOK_SECONDS: Final = 1.0
LEAVE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its number and the time of its start: numbers are used again."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return the process of a number; None if there is none, or nothing but its end is left of it."""
        state, *fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() or ["X"]
        return None if state in {"Z", "X"} else cls(pid, fields[18])

    @property
    def lives(self) -> bool:
        """Return whether it is there."""
        return Process.of(self.pid) == self

    def kill(self) -> None:
        """Kill it as `kill -9` does, if it is still there."""
        if self.lives:
            os.kill(self.pid, signal.SIGKILL)

    def below(self) -> list["Process"]:
        """Return what it started and what those started, itself left out."""
        found: list[Process] = []
        for children in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for pid in _read(children).split():
                if (child := Process.of(int(pid))) is not None:
                    found += [child, *child.below()]
        return found


def kill_all(name: str, value: str) -> None:
    """Kill every process that has a variable in its environment, whoever started it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and f"{name}={value}" in _read(folder / "environ").split("\0"):
            process = Process.of(int(folder.name))
            if process is not None:
                process.kill()


def _read(path: Path) -> str:
    """Return what the system tells of a process; nothing where it is gone, or not ours."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@contextmanager
def running(
    name: str, command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str], **more: Any
) -> Iterator["Running"]:
    """Run a command, and end it afterwards with all that it started.

    Args:
        name: of its log file.
        command: what to run.
        folder: where it runs, and where its log is.
        env: all of its environment.
        **more: of `subprocess.Popen`.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as file:
        popen = subprocess.Popen(  # noqa: S603
            command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, **more
        )
    process = Running(name, popen, log)
    try:
        yield process
    finally:
        process.end()


class Running:
    """A process that was started here.

    Args:
        name: for people.
        popen: the process.
        log: what it says.
    """

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def code(self) -> int | None:
        """Return the code with which it ended; None while it runs."""
        return self._popen.poll()

    def below(self) -> list[Process]:
        """Return what it started and what those started."""
        process = Process.of(self._popen.pid) if self.code is None else None
        return process.below() if process is not None else []

    def kill(self) -> None:
        """Take it away with all that it started, as a machine goes that loses its power."""
        self._end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Let it leave in order, and kill what is left of it and of what it started."""
        self._end(number)

    def _end(self, number: signal.Signals) -> None:
        below = self.below()
        if self.code is None:
            self._popen.send_signal(number)
            try:
                self._popen.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for one in below:
            one.kill()


def until(
    what: str,
    look: Callable[[], Found | None],
    *,
    seconds: float,
    every: float = LOOK_SECONDS,
    processes: Sequence[Running] = (),
) -> Found:
    """Look again and again until there is something to see, and return that.

    Args:
        what: is waited for.
        look: returns what is to be seen, or nothing.
        seconds: that it may take.
        every: seconds between two looks.
        processes: without which it would be waited for in vain.

    Raises:
        AssertionError: it took longer, or a process has ended.
    """
    began = time.monotonic()
    while not (found := look()):
        waited = time.monotonic() - began
        for process in processes:
            assert process.code is None, f"{process.name} ended with {process.code} before {what}; see {process.log}"
        assert waited < seconds, f"waited {waited:.0f} s in vain for {what}; the last look gave {found!r}"
        time.sleep(every)
    return found
