"""What `augment` would do and cost, alone: nothing is paid, so it waits for no run, and no run waits for it."""

from typing import Any

from prefect import flow

from config import options
from flows.augment import augment
from tasks import plan_name


@flow(name="plan", flow_run_name=plan_name, retries=0, persist_result=False)
@options.like(augment.fn, without="dry_run")
async def plan(**asked: Any) -> Any:
    """Say what a run of `augment` would make, at what cost and in what time. Returns the plan.

    It is asked for with the fields of `augment`, and is never more than a dry run of it.
    """
    return await augment.fn(**asked, dry_run=True)
