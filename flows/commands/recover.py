"""`variations recover`: look after what earlier runs paid for, without Prefect, so in a second or two."""

import asyncio
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from config import Settings, load_settings
from flows.commands.busy import refuse_if_busy
from flows.commands.exits import exit_code
from flows.commands.options import day_of
from flows.commands.terminal import print_json, print_lines, say, status
from variations.api.client import Endpoint
from variations.card import describe_dataset
from variations.dates import filled
from variations.engine.stopping import stop_on_signals
from variations.errors import StoppedByUser, VariationsError
from variations.job import Job
from variations.receipt import Receipt, RunStopped
from variations.report import write_after_run
from variations.run import Run, open_run


def recover(
    destination: str,
    *,
    wait: Annotated[bool, Parameter(negative="")] = False,
    date: str = "",
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Close a run that died, and fetch what was paid for and is not in the dataset yet; nothing is submitted.

    Exit codes: 0 nothing is open any more; 3 some is still unknown; 4 stopped, before the end or before the start (key,
    bucket, network, a run at work); 2 bad input; 130 interrupted by a second Ctrl-C; 1 anything else.

    Args:
        destination: the dataset: s3://bucket/prefix or a folder; may hold {date}, {year}, {month} and {day}.
        wait: wait until it is known whether the run that works on it lives, a minute at the most.
        date: the day for {date} and its parts, YYYY-MM-DD [default: today, in UTC].
        profile: profile of variations.toml.
        json: print the receipt for machines, as the last line of standard output.
    """
    destination = filled(destination, day_of(date), name="destination")
    settings = load_settings({}, profile=profile)
    wait = wait or settings.wait
    # What is wrong with these is said first.
    job, endpoint = settings.recovery(destination), settings.endpoint()
    if not wait:
        refuse_if_busy(destination)
    with status("Looking after what is open"):
        receipt = asyncio.run(_recover(settings, job, endpoint, wait=wait))
    print_lines("Receipt", receipt.lines(), to_stderr=json)
    if json:
        print_json(receipt.as_dict())
    return exit_code(receipt)


async def _recover(settings: Settings, job: Job, endpoint: Endpoint, *, wait: bool) -> Receipt:
    limits, lease_seconds = settings.limits(), settings.lease_seconds
    async with open_run(job, endpoint=endpoint, limits=limits, lease_seconds=lease_seconds) as run:
        with stop_on_signals(run.engine):
            try:
                await run.check()
                await run.recover(wait=wait)
                receipt = await run.publish()
            except RunStopped as stopped:
                return stopped.receipt
            if receipt.dataset_rows is None or not receipt.has_news:
                return receipt
            if receipt.has_new_images:
                await _write_card(run)
            return replace(receipt, gallery=await _write_gallery(run)) if settings.gallery else receipt


async def _write_card(run: Run) -> None:
    try:
        await describe_dataset(run.job.destination)
    except VariationsError as error:
        say(f"The dataset's card was not written: {error}")


async def _write_gallery(run: Run) -> str:
    """Write the gallery and return its URI; "" where it could not be: it is a dataset all the same."""
    try:
        written = await write_after_run(
            run.job.destination, is_stopped=lambda: isinstance(run.engine.stopped_by, StoppedByUser)
        )
    except Exception as error:  # noqa: BLE001 - what was paid for is published, and no gallery is worth it
        say(f"The gallery was not written: {str(error) or type(error).__name__}")
        return ""
    return written.uri
