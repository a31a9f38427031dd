"""Keep the engine busy with shards, a bounded number of task runs at a time."""

import asyncio
import math

from prefect import get_run_logger

from tasks.steps import make_shard
from variations.engine.limits import Limits
from variations.errors import RunError
from variations.receipt import Plan
from variations.run import Run


async def make_shards(run: Run, plan: Plan, *, limits: Limits) -> None:
    """Make every shard of a plan, or those that were begun when the engine is stopped.

    A task run that fails stops the run, and the others finish all the same: what is in flight is paid for.
    """
    shards = iter(range(plan.shards))

    async def take() -> None:
        for shard in shards:
            if run.engine.stopped_by is not None:
                return
            try:
                await make_shard(run, shard=shard)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other shards have paid requests in flight
                get_run_logger().exception("Shard %d failed", shard)
                run.engine.stop(RunError(f"shard {shard} failed: {type(error).__name__}: {error}"))

    # So many at once that a slot never waits for a shard, though each of those before it may be storing still.
    at_once = math.ceil((limits.max_in_flight + limits.max_images_in_memory) / plan.shard_size) + 1
    await asyncio.gather(*(take() for _ in range(min(at_once, plan.shards))))
