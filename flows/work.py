"""The flow of one machine among several: it takes shards of a run that `augment` has planned, until none is left."""

from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from config import load_settings, options
from config.blocks import stored_settings
from tasks import ending, joined, make_shards, one_slot, shown_progress, work_name


@flow(name="work", flow_run_name=work_name, retries=0, persist_result=False)
@options.described
async def work(
    destination: Annotated[str, Field(min_length=1, description="The dataset of the run: s3://bucket/prefix.")],
    run_id: Annotated[str, Field(min_length=1, description="The run, which another flow run has planned.")],
    profile: Annotated[
        str, Field(description="Profile of variations.toml on the machine that runs; empty: none.")
    ] = "",
) -> Any:
    """Take shards of a planned run until none is left. Returns what this machine's shards came to.

    It is started by `augment` with `workers`; several work side by side, and may come and go. What one that dies has
    begun is taken over by another.

    Raises:
        BadInput: no such run is planned there.
        RunOver: the run is closed.
        RunError, RunPaused: this machine could not go on; the others can.
    """
    async with ending() as end:
        settings = load_settings({}, profile=profile or None, stored=await stored_settings())
        endpoint, limits = settings.endpoint(), settings.limits()
        async with (
            one_slot(settings.concurrency_limit),
            joined(destination, run_id, endpoint=endpoint, limits=limits, label=str(flow_run.id)) as worker,
        ):
            async with shown_progress(worker.engine.progress):
                await make_shards(worker, worker.plan, limits=limits)
            end.result = await worker.leave()
            if worker.failed_by is not None:
                raise worker.failed_by
    return end.state()
