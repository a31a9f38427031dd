"""The flow that waits, below a run of `augment`, for somebody to look at its canary."""

from typing import Any

from prefect import flow

from tasks import wait_for_word


@flow(name="canary", flow_run_name="canary of {of}", retries=0, persist_result=False)
async def canary(of: str, came_to: str, seconds: float) -> Any:
    """Be paused until somebody resumes this flow run: then the rest of the run is made.

    Nothing is made here, and nothing is paid. It ends as Resumed, or as NotResumed.

    Args:
        of: the run's name.
        came_to: what its canary came to.
        seconds: how long to wait.
    """
    del of
    return await wait_for_word(came_to=came_to, seconds=seconds)
