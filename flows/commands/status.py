"""`variations status`: who works on a dataset, what its runs came to, and what is open."""

import asyncio
from typing import Annotated

from cyclopts import Parameter

from flows.commands.exits import ALL_KEPT
from flows.commands.terminal import print_json, print_lines
from flows.commands.terminal import status as spinner
from variations.status import DatasetStatus, read_status
from variations.storage import open_storage


def status(
    destination: str,
    *,
    runs: int = 5,
    requests: int = 20,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show who works on a dataset, its last runs, its open requests, and how long the API still knows of them.

    Args:
        destination: the dataset: s3://bucket/prefix or a folder.
        runs: how many of its last runs.
        requests: how many open requests at most.
        json: print it for machines, as the last line of standard output.
    """
    with spinner("Looking at the dataset"):
        found = asyncio.run(_read(destination, runs=runs))
    print_lines("Status", found.lines(most=requests), to_stderr=json)
    if json:
        print_json(found.as_dict())
    return ALL_KEPT


async def _read(destination: str, *, runs: int) -> DatasetStatus:
    storage = open_storage(destination, missing_ok=True)
    try:
        return await read_status(storage, runs=runs)
    finally:
        await storage.aclose()
