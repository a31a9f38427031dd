"""The end of a run's work: it is published, and what people and loaders look at is written beside it."""

from dataclasses import replace

from tasks.steps import describe, publish, write_gallery
from variations.errors import RunPaused, StoppedByUser
from variations.plan import Plan
from variations.receipt import Receipt, RunStopped
from variations.run import Run


async def finish(run: Run, plan: Plan, *, gallery: bool) -> Receipt:
    """Publish a run, and write the dataset's card and, if wanted, its gallery, where there is anything new in it.

    Raises:
        RunStopped: it ended before it was done; where a person has to act, what is there is shown all the same.
    """
    try:
        return await _look_after(run, plan, await publish(run), gallery=gallery)
    except RunStopped as stopped:
        if not isinstance(stopped.reason, RunPaused) or isinstance(stopped.reason, StoppedByUser):
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
