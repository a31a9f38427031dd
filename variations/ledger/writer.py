"""Who writes a journal: this process, told apart from every other one, and whether it is still there."""

import os
import platform
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A process that works on a dataset.

    Attributes:
        token: random, new with every start.
        host: its machine's name, for people.
        pid: its number there.
        place: where such a number means a process: the boot of a machine and its process namespace; empty where the
            system does not tell.
        started: when the process was started, in the system's own ticks; numbers of processes are used again.
        since: when it began, by its own clock, for people.
    """

    token: str
    host: str
    pid: int
    place: str = ""
    started: str = ""
    since: datetime | None = None

    @classmethod
    def this_process(cls, *, since: datetime) -> "Writer":
        """Return this process as a new writer."""
        return cls(
            token=secrets.token_hex(8),
            host=platform.node() or "unknown",
            pid=os.getpid(),
            place=_place(),
            started=_started(os.getpid()),
            since=since,
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_certainly_dead(self) -> bool:
        """Return whether it ran where this process runs, and is gone; False wherever that cannot be known."""
        if not self.place or self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            # It is another user's, and there.
            return False
        started = _started(self.pid)
        # Where the system hides a process, it is not known, and not dead for certain.
        return bool(started and self.started) and started != self.started


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start time of a process; a word of its own for what is left of one, and nothing if it is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name of the program stands in brackets, and may hold anything, brackets too.
    state, *fields = text.rpartition(")")[2].split()
    return "ended" if state in {"Z", "X"} else fields[18]
