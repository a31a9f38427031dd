"""Say how far a run is, while it moves: a log line, and an artifact with a bar."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import ProgressArtifact, aupdate_progress_artifact

from variations.engine.progress import Progress
from variations.texts import duration

LOG_SECONDS: Final = 10.0
# A dozen calls of Prefect's API a minute.
SHOW_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 20.0


@asynccontextmanager
async def shown_progress(
    progress: Progress, *, log_seconds: float = LOG_SECONDS, show_seconds: float = SHOW_SECONDS
) -> AsyncIterator[None]:
    """Log a line, and move the artifact `variations-progress`, every few seconds in which something happened."""
    bar = _Bar(progress)
    logger = get_run_logger()

    async def log() -> None:
        logger.info(progress.line())

    await bar.show()
    followers = [
        asyncio.create_task(_follow(progress, log, seconds=log_seconds)),
        asyncio.create_task(_follow(progress, bar.show, seconds=show_seconds)),
    ]
    try:
        yield
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        # Who is cancelled has no time for it.
        if not isinstance(sys.exception(), asyncio.CancelledError):
            await bar.show()


async def _follow(progress: Progress, say: Callable[[], Awaitable[None]], *, seconds: float) -> None:
    said = progress.line()
    while True:
        await asyncio.sleep(seconds)
        if (line := progress.line()) != said:
            said = line
            await say()


class _Bar:
    """The artifact of one run. That it cannot be shown is said once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = asyncio.get_running_loop().time()
        self._artifact_id: UUID | None = None
        self._is_refused = False

    async def show(self) -> None:
        progress = self._progress
        percent = 100 * progress.settled / progress.total if progress.total else 100.0
        text = progress.line() + self._left()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._artifact_id is None:
                    artifact = ProgressArtifact(key="variations-progress", progress=percent, description=text)
                    self._artifact_id = (await artifact.acreate()).id
                else:
                    await aupdate_progress_artifact(self._artifact_id, progress=percent, description=text)
        except Exception as error:  # noqa: BLE001 - the dataset does not depend on what Prefect shows of it
            if not self._is_refused:
                get_run_logger().warning("The progress could not be shown: %r", error)
            self._is_refused = True

    def _left(self) -> str:
        """Return about how long it takes yet, by how long it took until now."""
        progress = self._progress
        left = (progress.total or 0) - progress.settled
        if not progress.settled or left <= 0 or progress.stopping:
            return ""
        seconds = (asyncio.get_running_loop().time() - self._began) * left / progress.settled
        return f"; about {duration(seconds)} left"
