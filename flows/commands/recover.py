"""`variations recover`: look after what earlier runs paid for, without Prefect, so in a second or two."""

import asyncio
from typing import Annotated

from cyclopts import Parameter

from config import Settings, load_settings
from flows.commands.exits import exit_code
from flows.commands.terminal import print_json, print_lines, status
from variations.engine.stopping import stop_on_signals
from variations.receipt import Receipt, RunStopped
from variations.run import open_run


def recover(
    destination: str,
    *,
    wait: Annotated[bool, Parameter(negative="")] = False,
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Close a run that died, and fetch what was paid for and is not in the dataset yet; nothing is submitted.

    Exit codes: 0 nothing is open any more, 3 some is still unknown, 4 stopped or busy, 2 bad input.

    Args:
        destination: the dataset: s3://bucket/prefix or a folder.
        wait: wait while a run works on it.
        profile: profile of variations.toml.
        json: print the receipt for machines, as the last line of standard output.
    """
    settings = load_settings({}, profile=profile)
    with status("Looking after what is open"):
        receipt = asyncio.run(_recover(settings, destination, wait=wait or settings.wait))
    print_lines("Receipt", receipt.lines(), to_stderr=json)
    if json:
        print_json(receipt.as_dict())
    return exit_code(receipt)


async def _recover(settings: Settings, destination: str, *, wait: bool) -> Receipt:
    async with open_run(
        settings.recovery(destination),
        endpoint=settings.endpoint(),
        limits=settings.limits(),
        lease_seconds=settings.lease_seconds,
    ) as run:
        with stop_on_signals(run.engine):
            try:
                await run.check()
                await run.recover(wait=wait)
                return await run.publish()
            except RunStopped as stopped:
                return stopped.receipt
