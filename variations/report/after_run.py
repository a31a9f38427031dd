"""The gallery at the end of a run, or of what looks after one: each writes it anew, so it has a bound."""

import asyncio
from collections.abc import Callable
from typing import Final

from variations.report.writing import WrittenReport, write_report
from variations.storage import open_storage

# So long pictures are fetched for it; those that are left are the next one's.
PICTURES_SECONDS: Final = 60.0
# So long it may take in all, writing it included.
MOST_SECONDS: Final = 600.0
# Of so many rows at the most, some 7 kB each: the small pictures of the last one are fetched for each.
MOST_ROWS: Final = 5_000


async def write_after_run(destination: str, *, own_run: str = "", is_stopped: Callable[[], bool]) -> WrittenReport:
    """Write a dataset's gallery. Pictures of earlier ones are used again; new ones are fetched for a minute.

    Of a larger dataset it shows fewer sources than one that was asked for.

    Args:
        destination: the dataset.
        own_run: the run that read a manifest of this machine, if one did.
        is_stopped: whether the run was told to end: then nothing is fetched any more.

    Raises:
        TimeoutError: it took too long.
        StorageError: the store says no, or the metadata is damaged.
    """
    clock = asyncio.get_running_loop()
    until = clock.time() + PICTURES_SECONDS
    storage = open_storage(destination)
    try:
        async with asyncio.timeout(MOST_SECONDS):
            return await write_report(
                storage, own_run=own_run, most_rows=MOST_ROWS, is_enough=lambda: clock.time() > until or is_stopped()
            )
    finally:
        await storage.aclose()
