"""Writers: this process lives, one that was killed is dead, and of any other nothing is known."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from variations.ledger.writer import Writer

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
PROGRAM = """
import datetime, sys
from pydantic import TypeAdapter
from variations.ledger.writer import Writer
writer = Writer.this_process(since=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
sys.stdout.write(TypeAdapter(Writer).dump_json(writer).decode() + chr(10))
sys.stdout.flush()
sys.stdin.read()
"""

# Only Linux has /proc. Elsewhere no process is ever certainly dead, and the lease alone decides: CI runs on Linux.
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system tells nothing of processes")


@contextmanager
def another_process() -> Iterator[tuple["subprocess.Popen[str]", Writer]]:
    """Start a process, and give what it says of itself."""
    command = [sys.executable, "-c", PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:  # noqa: S603 - it is ours
        assert process.stdout is not None
        try:
            yield process, TypeAdapter(Writer).validate_json(process.stdout.readline())
        finally:
            process.kill()


def test_this_process_is_not_dead() -> None:
    """A process is alive, however often it is asked, and each start of a run is a writer of its own."""
    one, other = Writer.this_process(since=SINCE), Writer.this_process(since=SINCE)
    assert not one.is_certainly_dead()
    assert (one.pid, one.place, one.started) == (other.pid, other.place, other.started)
    assert one.place
    assert one.started.isdigit()
    assert one.token != other.token
    assert str(os.getpid()) in str(one)


def test_a_process_that_was_killed_is_dead() -> None:
    """It lives, then it is what is left until its parent looks at it, then it is gone: dead from the kill on."""
    with another_process() as (process, writer):
        assert writer.pid == process.pid
        assert not writer.is_certainly_dead()
        process.kill()
        # Left for its parent, which does not look: nothing of it runs any more.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert writer.is_certainly_dead()
        process.wait()
        assert writer.is_certainly_dead()


def test_a_number_that_is_used_again_is_another_process() -> None:
    """Where the number lives and the start is another, it is not that process any more."""
    writer = replace(Writer.this_process(since=SINCE), started="1")
    assert writer.is_certainly_dead()


@pytest.mark.parametrize("changes", [{"place": "another boot"}, {"place": ""}])
def test_elsewhere_nothing_is_known(changes: dict[str, Any]) -> None:
    """On another machine, after another boot, in another container, and where the system is silent: not certain."""
    nobody = replace(Writer.this_process(since=SINCE), pid=2**22 + 1)
    assert nobody.is_certainly_dead()
    assert not replace(nobody, **changes).is_certainly_dead()


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
def test_a_process_that_the_system_hides_is_not_dead(error: type[OSError], monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines of many users /proc may show no process but one's own (hidepid): that is no death."""
    with another_process() as (process, writer):
        read = Path.read_text

        def hidden(self: Path, *arguments: Any, **options: Any) -> str:
            if str(self) == f"/proc/{process.pid}/stat":
                raise error(self)
            return read(self, *arguments, **options)

        monkeypatch.setattr(Path, "read_text", hidden)
        assert not writer.is_certainly_dead()


def test_a_writer_survives_json() -> None:
    """What is read from the lock is who wrote it."""
    writer = Writer.this_process(since=SINCE)
    adapter = TypeAdapter(Writer)
    assert adapter.validate_json(adapter.dump_json(writer)) == writer
