"""`prefect flow-run execute` for a container: SIGTERM reaches the flow, and the flow run goes on in another container.

The stop signal of a container, of an eviction or a spot machine that is taken away, goes to its first process alone.
Prefect's command does not pass it on. As a first process it does not even see it, and the flow is killed when the grace
period is over. Told to reschedule, which is what Prefect's Kubernetes worker tells it, it kills the flow at once, for
the flow answers SIGTERM itself; nothing is lost then, but the dataset stays held until the lease is over.

Here the flow gets the signal and stops in order. Then the flow run is scheduled again, if Prefect's variable says so.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final
from uuid import UUID

BEHAVIOUR: Final = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
RUN_ID: Final = "PREFECT__FLOW_RUN_ID"
TERMINATED: Final = 128 + signal.SIGTERM


def main() -> None:
    """Execute the flow run that the environment names, as Prefect does, and exit with its code."""
    # Prefect's command would put a handler of its own in the place of this one.
    goes_on = os.environ.pop(BEHAVIOUR, "") == "reschedule"
    is_begun = is_stopped = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopped
        del frame
        is_stopped = True
        children = _children()
        for pid in children:
            os.kill(pid, number)
        if is_begun and not children:
            # There is no flow yet, or none any more.
            sys.exit(TERMINATED)

    # Now, for Prefect takes seconds to import.
    signal.signal(signal.SIGTERM, pass_on)

    from prefect.cli import app  # noqa: PLC0415 - see above

    sys.argv[1:] = ["flow-run", "execute"]
    try:
        is_begun = True
        if not is_stopped:
            app()
    except BaseException:
        if not is_stopped:
            raise
    if is_stopped:
        # An orderly end: to the infrastructure it is none that it has to repeat or to report.
        sys.exit(asyncio.run(_schedule_again(UUID(os.environ[RUN_ID]))) if goes_on else TERMINATED)


def _children() -> list[int]:
    """Return the numbers of the processes that this one has started: the flow's, once it is there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program stands in brackets, and may hold anything, brackets too.
            parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == os.getpid():
            found.append(int(path.parent.name))
    return found


async def _schedule_again(flow_run_id: UUID) -> None:
    """Let a worker take the flow run up again, unless it was done or had come to another end."""
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - see above
    from prefect.states import AwaitingRetry  # noqa: PLC0415

    async with get_client() as client:
        state = (await client.read_flow_run(flow_run_id)).state
        if state is None or not state.is_final() or state.is_crashed():
            message = "its container was told to end; it goes on in another one"
            await client.set_flow_run_state(flow_run_id, AwaitingRetry(message=message))


if __name__ == "__main__":
    main()
