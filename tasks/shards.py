"""Keep the engine busy with shards, a bounded number of task runs at a time."""

import asyncio
import math

from prefect import get_run_logger

from tasks.steps import make_shard
from variations.engine.limits import Limits
from variations.engine.slots import Slots
from variations.errors import RunError
from variations.receipt import Plan
from variations.run import Run


async def make_shards(run: Run, plan: Plan, *, limits: Limits) -> None:
    """Make every shard of a plan, or those that were begun when the engine is stopped.

    A task run that fails stops the run, and the others finish all the same: what is in flight is paid for.
    """

    def at_once() -> int:
        """Return so many that a slot never waits for a shard, though each of those before it may be storing still."""
        return math.ceil((run.engine.most_in_flight + limits.max_images_in_memory) / plan.shard_size) + 1

    places = Slots(at_once)

    async def make(shard: int) -> None:
        try:
            await make_shard(run, shard=shard)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other shards have paid requests in flight
            get_run_logger().exception("Shard %d failed", shard)
            run.engine.stop(RunError(f"shard {shard} failed: {type(error).__name__}: {error}"))
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for shard in range(plan.shards):
            await places.acquire()
            if run.engine.stopped_by is not None:
                return
            group.create_task(make(shard))
