"""What every flow begins with: the run is opened, its key checked, and what earlier ones left open looked after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tasks.steps import check_key, recover_earlier
from variations.api.client import Endpoint
from variations.engine.limits import Limits
from variations.engine.progress import watched
from variations.engine.stopping import stop_on_signals
from variations.job import Job
from variations.run import Run, open_run


@asynccontextmanager
async def begun(
    job: Job, *, endpoint: Endpoint, limits: Limits, lease_seconds: float, wait: bool
) -> AsyncIterator[Run]:
    """Yield a run that has the dataset in hand, and close it afterwards; Ctrl-C and SIGTERM stop it in order.

    Args:
        job: what to do.
        endpoint: the API and its key.
        limits: how hard to go.
        lease_seconds: after so long without a sign of life another run may take this one over.
        wait: whether to wait while another run works on the dataset.

    Raises:
        DatasetBusy: another run works on it, and `wait` was not asked for.
        VariationsError: the key or the store is refused.
    """
    async with open_run(job, endpoint=endpoint, limits=limits, progress=watched(), lease_seconds=lease_seconds) as run:
        with stop_on_signals(run.engine):
            await check_key(run)
            await recover_earlier(run, wait=wait)
            yield run
