"""The first process of a container: SIGTERM reaches the flows that run in it, and their flow runs go on elsewhere.

The stop signal of a container, be it an update, an eviction or a spot machine that is taken away, goes to its first
process alone, and Prefect's commands do not let the flows have it. As a first process `prefect flow-run execute` does
not see it; told to reschedule, as Prefect's Kubernetes worker tells it, it kills the flow, for that answers SIGTERM
itself. `prefect worker start` kills its flows, too. Nothing that is paid for is lost by that, but it is left to others
to fetch it, after the lease is over.

    python -m deployments.container prefect worker start …

runs a command and passes the signal on: to the flows, which stop in order, and then to the command, if it answers it.
What became Crashed by it is scheduled again, if Prefect's own variable says so.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

BEHAVIOUR: Final = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
RUN_ID: Final = "PREFECT__FLOW_RUN_ID"
# What starts while everything is being stopped is stopped, too.
LOOK_SECONDS: Final = 1.0


async def contained(command: Sequence[str]) -> int:
    """Run a command and return its code, as a shell gives it; SIGTERM reaches the flows that it runs.

    Raises:
        OSError: there is no such command.
    """
    # Left where it is, `prefect flow-run execute` would act on it.
    goes_on = os.environ.pop(BEHAVIOUR, "") == "reschedule"
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    process = await asyncio.create_subprocess_exec(*command)
    ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        flow_runs = await _stop(process.pid, ended)
        if goes_on and flow_runs:
            await _schedule_again(flow_runs)
    stopped.cancel()
    code = await ended
    return code if code >= 0 else 128 - code


async def _stop(pid: int, ended: "asyncio.Task[int]") -> set[UUID]:
    """Tell the flows of a command to end, then the command, once each, and wait until it has; returns the flow runs."""
    told: set[int] = set()
    own = _flow_run(os.getpid())
    flow_runs = {own} if own else set()
    while not ended.done():
        flows = {child: run for child in _children(pid) if (run := _flow_run(child))}
        flow_runs |= set(flows.values())
        # A command without a handler would die of it before its flow has begun.
        for one in flows or ([pid] if _listens(pid) else []):
            if one not in told:
                told.add(one)
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGTERM)
        await asyncio.wait([ended], timeout=LOOK_SECONDS)
    return flow_runs


def _children(pid: int) -> Iterator[int]:
    """Yield the processes that a process has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of the program stands in brackets, and may hold anything, brackets too.
            parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == pid:
                yield int(path.parent.name)


def _flow_run(pid: int) -> UUID | None:
    """Return the flow run that a process was started for, if it was."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8", errors="replace").split("\0"):
            name, _, value = line.partition("=")
            if name == RUN_ID:
                return UUID(value)
    return None


def _listens(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "SigCgt":
                return bool(int(value, 16) >> (signal.SIGTERM - 1) & 1)
    return False


async def _schedule_again(flow_runs: set[UUID]) -> None:
    """Let a worker take flow runs up again, but for those that were done or had come to another end."""
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes 2 s to import, and 100 MB
    from prefect.states import AwaitingRetry  # noqa: PLC0415

    async with get_client() as client:
        for flow_run in flow_runs:
            state = (await client.read_flow_run(flow_run)).state
            if state is None or not state.is_final() or state.is_crashed():
                message = "its container was told to end; it goes on in another one"
                await client.set_flow_run_state(flow_run, AwaitingRetry(message=message))


if __name__ == "__main__":
    sys.exit(asyncio.run(contained(sys.argv[1:])))
