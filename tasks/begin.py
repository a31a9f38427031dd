"""What every flow begins with: the run is opened, its key checked, and what earlier ones left open looked after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect import get_run_logger

from tasks.steps import check_key, recover_earlier
from variations.api.client import Endpoint
from variations.engine.limits import Limits
from variations.engine.progress import watched
from variations.engine.stopping import stop_on_signals
from variations.job import Job
from variations.run import Run, open_run
from variations.workers.worker import WorkerRun, open_worker


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


@asynccontextmanager
async def joined(
    destination: str, run_id: str, *, endpoint: Endpoint, limits: Limits, label: str
) -> AsyncIterator[WorkerRun]:
    """Yield a worker that has joined a planned run, and leave it afterwards; SIGTERM stops it in order.

    Args:
        destination: the dataset.
        run_id: of the run.
        endpoint: the API and its key.
        limits: how hard to go, where the run does not say so itself.
        label: the worker's name for the one that started it.

    Raises:
        BadInput: no such run is planned there.
        RunOver: it is closed.
        VariationsError: the key or the store is refused.
    """
    async with open_worker(
        destination, run_id, endpoint=endpoint, limits=limits, progress=watched(), label=label
    ) as worker:
        with stop_on_signals(worker.engine):
            await check_key(worker)
            await worker.join()
            get_run_logger().info("Joined the run %s, one of %d workers", run_id, worker.workers)
            yield worker
