"""The flow that looks after what earlier runs paid for: it submits nothing, and can be run at any time."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from config import load_settings, options
from config.blocks import stored_settings
from tasks import begun, day_of, ending, finish_recovery, place_of, recover_name, started


@flow(name="recover", flow_run_name=recover_name, retries=0, persist_result=False)
@options.described
async def recover(
    destination: Annotated[
        str,
        Field(
            min_length=1,
            description="The dataset whose runs are looked after: s3://bucket/prefix or a folder. May hold {date}, "
            "{year}, {month} and {day}.",
        ),
    ],
    wait: options.Wait = False,
    date: options.Date = "",
    profile: options.Profile = "",
) -> dict[str, Any] | None:
    """Close a run that died, and fetch what was paid for and is not in the dataset yet. Returns the receipt.

    Nothing is submitted: an automation may run it whenever a run crashes. Where that one had written nothing there is
    no dataset, nothing to recover, and no receipt.

    Raises:
        DatasetBusy: a run works on the dataset, and will do this itself the next time.
        RunStopped: it ended before it was done.
    """
    async with ending() as end:
        settings = load_settings({}, profile=profile or None, stored=await stored_settings())
        job, limits = settings.recovery(place_of(destination, day_of(date), name="destination")), settings.limits()
        endpoint, lease_seconds = settings.endpoint(), settings.lease_seconds
        async with begun(job, endpoint=endpoint, limits=limits, lease_seconds=lease_seconds, wait=wait) as run:
            end.run = run
            started(run)
            end.result = await finish_recovery(run, gallery=settings.gallery)
    return end.state()  # type: ignore[no-any-return]
