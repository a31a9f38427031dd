"""The end of a run's work: it is published, and what people and loaders look at is written beside it."""

import asyncio
from dataclasses import replace
from typing import Final

from prefect import get_run_logger

from tasks.steps import describe, publish, write_gallery
from variations.card import describe_dataset
from variations.errors import RunPaused, StoppedByUser, VariationsError
from variations.plan import Plan
from variations.receipt import Receipt, RunStopped
from variations.run import Run

# Who is told to end is killed before long.
HASTE_SECONDS: Final = 4.0


async def finish(run: Run, plan: Plan, *, gallery: bool) -> Receipt:
    """Publish a run, and write the dataset's card and, if wanted, its gallery, where there is anything new in it.

    Raises:
        RunStopped: it ended before it was done; what is there can be loaded all the same, and where a person has to
            act, it is shown.
    """
    try:
        return await _look_after(run, plan, await publish(run), gallery=gallery)
    except RunStopped as stopped:
        if not isinstance(stopped.reason, RunPaused) or isinstance(stopped.reason, StoppedByUser):
            await _describe_in_haste(run, plan, stopped.receipt)
            raise
        receipt = await _look_after(run, plan, stopped.receipt, gallery=gallery)
        raise RunStopped(receipt, stopped.reason) from None


async def finish_recovery(run: Run, *, gallery: bool) -> Receipt:
    """Publish what was recovered, and write the dataset's card and, if wanted, its gallery, where there is anything new
    in it.

    Raises:
        RunStopped: it ended before it was done.
    """
    return await _look_after(run, None, await publish(run), gallery=gallery)


async def _look_after(run: Run, plan: Plan | None, receipt: Receipt, *, gallery: bool) -> Receipt:
    if receipt.dataset_rows is None or not receipt.has_news:
        return receipt
    if receipt.has_new_images:
        await describe(run.job.destination, plan=plan)
    return replace(receipt, gallery=await write_gallery(run)) if gallery else receipt


async def _describe_in_haste(run: Run, plan: Plan, receipt: Receipt) -> None:
    """Write what loaders read of the dataset, if that is soon done; else the next run that makes anything does."""
    if not receipt.has_new_images:
        return
    try:
        async with asyncio.timeout(HASTE_SECONDS):
            await describe_dataset(run.job.destination, plan=plan)
    except (VariationsError, TimeoutError) as error:
        get_run_logger().warning("The dataset's card was not written: %s", str(error) or "there was no time")
