"""The steps of a run as Prefect tasks.

The run itself, an open thing, is handed from task to task in one process; nothing of it is hashed, cached or stored.
Nor is anything retried, whatever Prefect's defaults are: a shard that is made twice is paid twice.
"""

import logging

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks import shown
from variations.api.client import Endpoint
from variations.balance import with_balance
from variations.canary import Canary
from variations.card import describe_dataset
from variations.engine.limits import Limits
from variations.errors import LeakFound, StoppedByUser, VariationsError
from variations.estimate import estimate
from variations.job import Job
from variations.plan import Plan, check_leaks
from variations.receipt import Receipt, RunStopped
from variations.report import write_after_run
from variations.run import Run
from variations.tally import Recovery, Tally
from variations.workers.worker import WorkerRun


@task(name="check key", task_run_name="check key", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def check_key(run: Run | WorkerRun) -> float | None:
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
async def make_plan(run: Run, *, workers: int = 0) -> Plan:
    """Plan the run, for so many machines or for this process, and show the plan as an artifact."""
    try:
        plan = await run.plan(workers=workers)
    except LeakFound as leak:
        await shown.show_plan(leak.plan)
        raise
    get_run_logger().info("Planned: %s", plan.summary())
    await shown.show_plan(plan)
    return plan


@task(name="plan", task_run_name="plan", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def look_ahead(job: Job, *, limits: Limits, endpoint: Endpoint | None) -> Plan:
    """Say what a run would do, and show it as an artifact; with a key, the balance too. Nothing is paid or written."""
    plan = await with_balance(await estimate(job, limits=limits), endpoint)
    get_run_logger().info("Nothing is paid or written. Planned: %s", plan.summary())
    await shown.show_plan(plan)
    check_leaks(plan, job.leaks)
    return plan


@task(
    name="shard",
    task_run_name="shard {shard:05d} of {shards}",
    retries=0,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def make_shard(run: Run | WorkerRun, *, shard: int, shards: int) -> Tally:
    """Make the variations of one shard; it has the number that its journal has in the dataset."""
    tally = await run.make(shard)
    level = logging.WARNING if tally.failed or tally.unknown else logging.DEBUG
    said = "Shard %05d of %d: %d kept, %d failed, %d unknown"
    get_run_logger().log(level, said, shard, shards, tally.kept, tally.failed, tally.unknown)
    return tally


@task(name="canary", task_run_name="canary", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def look_at_canary(run: Run) -> Canary | None:
    """Publish what the canary came to, and say how it stands; None where that cannot be, which stops the engine."""
    canary = await run.look_at_canary()
    if canary is not None:
        level = logging.INFO if canary.is_good else logging.WARNING
        get_run_logger().log(level, "Canary: %s, and max_canary_percent is %g", canary.summary(), canary.most_percent)
    return canary


@task(name="publish", task_run_name="publish", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def publish(run: Run) -> Receipt:
    """Publish the dataset's metadata and show the receipt as an artifact, that of a stopped run too."""
    try:
        receipt = await run.publish()
    except RunStopped as stopped:
        await shown.show_receipt(stopped.receipt)
        raise
    await shown.show_receipt(receipt)
    return receipt


@task(name="describe", task_run_name="describe", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def describe(destination: str, *, plan: Plan | None) -> None:
    """Write the dataset's card, and what `datasets` reads of its splits; without them it is a dataset all the same.

    How it is split the plan says; that of the last run, where there is none.
    """
    try:
        await describe_dataset(destination, plan=plan)
    except VariationsError as error:
        get_run_logger().warning("The dataset's card was not written: %s", error)


@task(name="gallery", task_run_name="gallery", retries=0, cache_policy=NO_CACHE, persist_result=False)
async def write_gallery(run: Run) -> str:
    """Write the dataset's gallery, and show where it lies; returns its URI, or "" where it could not be written.

    Without a gallery it is a dataset all the same.
    """
    logger = get_run_logger()
    try:
        written = await write_after_run(
            run.job.destination,
            own_run=run.run_id if run.job.is_source_local else "",
            is_stopped=lambda: isinstance(run.engine.stopped_by, StoppedByUser),
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, what was paid for is published, and no gallery is worth it
        logger.warning("The gallery was not written: %s", str(error) or type(error).__name__)
        return ""
    logger.info("Gallery: %s, %d of %d rows, %d pictures", written.uri, written.shown, written.rows, written.pictures)
    await shown.show_gallery(run.job.destination, written)
    return written.uri
