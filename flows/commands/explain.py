"""`variations explain`: the whole story of one variation."""

import asyncio
from typing import Annotated

from cyclopts import Parameter

from flows.commands.exits import ALL_KEPT
from flows.commands.terminal import print_json, print_lines, status
from variations.explain import Explanation
from variations.explain import explain as explained
from variations.storage import open_storage


def explain(
    destination: str,
    variation: str,
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Tell the whole story of a variation from the journals: each attempt, what was accepted, and what became of it.

    Args:
        destination: the dataset: s3://bucket/prefix or a folder.
        variation: its id, the beginning of it, or the name of its image.
        json: print it for machines, as the last line of standard output.
    """
    with status("Reading the journals"):
        found = asyncio.run(_explain(destination, variation))
    print_lines("Story", found.lines(), to_stderr=json)
    if json:
        print_json(found.as_dict())
    return ALL_KEPT


async def _explain(destination: str, variation: str) -> Explanation:
    storage = open_storage(destination, missing_ok=True)
    try:
        return await explained(storage, variation)
    finally:
        await storage.aclose()
