"""Keep the engine busy with shards, a bounded number of task runs at a time."""

import asyncio
import math

from prefect import get_run_logger

from tasks.events import ItemEvents
from tasks.steps import make_shard
from variations.engine.limits import Limits
from variations.engine.slots import Slots
from variations.errors import RunError
from variations.plan import Plan
from variations.run import Run
from variations.workers.worker import WorkerRun


async def make_shards(run: Run | WorkerRun, plan: Plan, *, limits: Limits) -> None:
    """Make every shard of a plan that this process can take, or those that were begun when the engine is stopped.

    A task run that fails stops the run, and the others finish all the same: what is in flight is paid for.
    """
    # Alone, so many that a slot never waits for a shard, though each of those before it may be storing still. Among
    # others no more than can be in flight, and one: what lies here in wait, they cannot take.
    storing = 0 if isinstance(run, WorkerRun) else limits.max_images_in_memory

    def at_once() -> int:
        """Return how many shards are of use at the moment."""
        return math.ceil((run.engine.most_in_flight + storing) / plan.shard_size) + 1

    places = Slots(at_once)
    items = ItemEvents(run_id=run.run_id, destination=run.job.destination)

    async def make(shard: int) -> None:
        try:
            items.add((await make_shard(run, shard=shard, shards=plan.shards)).failures.values())
        except Exception as error:  # noqa: BLE001 - whatever it is, the other shards have paid requests in flight
            get_run_logger().exception("Shard %d failed", shard)
            run.engine.stop(RunError(f"shard {shard} failed: {type(error).__name__}: {error}"))
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        while True:
            await places.acquire()
            shard = await run.take()
            if shard is None:
                break
            group.create_task(make(shard))
    items.close()
