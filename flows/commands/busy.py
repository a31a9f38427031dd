"""Whether another run works on a dataset: asked before anything is started for one that would be refused."""

import asyncio
from typing import Final

from variations.errors import DatasetBusy
from variations.ledger.lock import check_is_free
from variations.storage import open_storage

# A store that takes longer is left to the run, which waits for it with patience.
LOOK_SECONDS: Final = 5.0


def refuse_if_busy(destination: str) -> None:
    """Refuse a dataset on which a run works, in the words of the run that would find it so.

    Whatever else is wrong with it, the run says better: then this does nothing.

    Raises:
        DatasetBusy: a run works on it.
    """
    try:
        asyncio.run(_look(destination))
    except DatasetBusy:
        raise
    except Exception:  # noqa: BLE001 - see above
        return


async def _look(destination: str) -> None:
    storage = open_storage(destination, missing_ok=True)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await check_is_free(storage)
    finally:
        await storage.aclose()
