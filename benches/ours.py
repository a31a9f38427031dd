"""This pipeline as a contestant: a run as the flow makes it, journal and all, without Prefect."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benches.apart import Ready, Times
from benches.made import Image, Made
from variations import read_dataset
from variations.api.client import Endpoint
from variations.engine.limits import Limits
from variations.errors import StoppedByUser
from variations.job import Job
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.recipe import Recipe
from variations.receipt import RunStopped
from variations.run import Run, open_run

SMALL: Final = Parameters(megapixels="0.25")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made.

    Attributes:
        source, destination: of the run.
        endpoint: the sandbox.
        environment: by which boto3 finds the store.
        limits: how hard to go.
        variations_per_source: of each photo.
    """

    source: str
    destination: str
    endpoint: Endpoint
    environment: Mapping[str, str] = field(repr=False)
    limits: Limits
    variations_per_source: int


def make(order: Order, ready: Ready) -> Made:
    """Make a run, and return its images; it is ready when it is planned, and stopped where there is a time to stop.

    Raises:
        RuntimeError: an image failed.
    """
    os.environ.update(order.environment)
    # On stopping, it says so.
    logging.disable(logging.WARNING)
    times = asyncio.run(_make(order, ready))
    rows: list[dict[Any, Any]] = read_dataset(order.destination).to_dict("records")
    others = [row["error"] for row in rows if row["status"] != "kept"]
    # What is in flight when a run is stopped is left to the next one.
    if others and times.stops_at == math.inf:
        raise RuntimeError(f"{len(others)} of {len(rows)} images were not kept, such as: {others[0]}")
    images = [
        Image(row["submitted_at"].timestamp(), row["completed_at"].timestamp(), row["total_seconds"])
        for row in rows
        if row["status"] == "kept"
    ]
    return Made(sorted(images, key=lambda image: image.submitted_at), cpu_seconds=time.process_time())


async def _make(order: Order, ready: Ready) -> Times:
    recipe = Recipe(parameters=SMALL, variations_per_source=order.variations_per_source)
    job = Job(order.source, order.destination, recipe)
    async with open_run(job, endpoint=order.endpoint, limits=order.limits) as run:
        await run.check()
        await run.recover()
        plan = await run.plan()
        times = await asyncio.to_thread(ready)
        await asyncio.sleep(times.starts_at - time.time())
        stopper = asyncio.create_task(_stop(run, times.stops_at))
        await _make_shards(run, plan, order.limits)
        stopper.cancel()
        try:
            await run.publish()
        except RunStopped as stopped:
            if not isinstance(stopped.reason, StoppedByUser):
                raise
        return times


async def _make_shards(run: Run, plan: Plan, limits: Limits) -> None:
    """Make every shard, as many at a time as the task of the flow does."""
    shards = iter(range(plan.shards))

    async def take() -> None:
        for shard in shards:
            if run.engine.stopped_by is not None:
                return
            await run.make(shard)

    at_once = math.ceil((limits.most_in_flight + limits.max_images_in_memory) / plan.shard_size) + 1
    await asyncio.gather(*(take() for _ in range(min(at_once, plan.shards))))


async def _stop(run: Run, stops_at: float) -> None:
    if stops_at < math.inf:
        await asyncio.sleep(stops_at - time.time())
        run.engine.stop(StoppedByUser("the bench is over"))
