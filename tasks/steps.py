"""The steps of a run as Prefect tasks.

The run itself, an open thing, is handed from task to task in one process; nothing of it is hashed, cached or stored.
Nor is anything retried, whatever Prefect's defaults are: a shard that is made twice is paid twice.
"""

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from variations.receipt import Plan, Receipt, RunStopped
from variations.run import Run
from variations.tally import Recovery, Tally


@task(name="check key", task_run_name="check key", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def check_key(run: Run) -> float | None:
    """Check the key before anything is paid; returns the balance in USD if the API tells it."""
    balance = await run.check()
    told = "accepted" if balance is None else f"accepted, the balance is {balance:,.2f} USD"
    get_run_logger().info("The key is %s", told)
    return balance


@task(name="recover", task_run_name="recover", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def recover_earlier(run: Run, *, wait: bool = False) -> Recovery:
    """Take the dataset in hand, and fetch what earlier runs paid for and did not."""
    recovery = await run.recover(wait=wait)
    for name, value in recovery.lines():
        get_run_logger().info("%s: %s", name.capitalize(), value)
    return recovery


@task(name="plan", task_run_name="plan", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def make_plan(run: Run) -> Plan:
    """Plan the run and show the plan as an artifact."""
    plan = await run.plan()
    get_run_logger().info("Planned: %s", "; ".join(f"{name} {value}" for name, value in plan.lines()))
    await _show("variations-plan", plan.markdown())
    return plan


@task(name="shard", task_run_name="shard-{shard}", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def make_shard(run: Run, *, shard: int) -> Tally:
    """Make the variations of one shard."""
    tally = await run.make(shard)
    get_run_logger().debug("Shard %d: %d kept, %d failed, %d unknown", shard, tally.kept, tally.failed, tally.unknown)
    return tally


@task(name="publish", task_run_name="publish", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def publish(run: Run) -> Receipt:
    """Publish the dataset's metadata and show the receipt as an artifact, that of a stopped run too."""
    try:
        receipt = await run.publish()
    except RunStopped as stopped:
        await _show("variations-receipt", stopped.receipt.markdown())
        raise
    await _show("variations-receipt", receipt.markdown())
    return receipt


async def _show(key: str, markdown: str) -> None:
    try:
        await acreate_markdown_artifact(markdown, key=key)
    except Exception:  # noqa: BLE001 - the dataset does not depend on what Prefect shows of it
        get_run_logger().warning("The artifact %s could not be shown", key, exc_info=True)
