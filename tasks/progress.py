"""Say in the run's log how far it is, while it moves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from prefect import get_run_logger

from variations.engine.progress import Progress

EVERY_SECONDS: Final = 10.0


@asynccontextmanager
async def logged_progress(progress: Progress) -> AsyncIterator[None]:
    """Log a line every ten seconds in which something happened."""
    logger = get_run_logger()

    async def log() -> None:
        said = ""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            if (line := progress.line()) != said:
                logger.info(said := line)

    lines = asyncio.create_task(log())
    try:
        yield
    finally:
        lines.cancel()
        with suppress(asyncio.CancelledError):
            await lines
