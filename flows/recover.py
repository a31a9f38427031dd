"""The flow that looks after what earlier runs paid for: it submits nothing, and can be run at any time."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from config import load_settings, options
from tasks import begun, publish


@flow(name="recover", retries=0, persist_result=False)
@options.described
async def recover(
    destination: Annotated[
        str, Field(min_length=1, description="The dataset whose runs are looked after: s3://bucket/prefix or a folder.")
    ],
    wait: options.Wait = False,
    profile: Annotated[
        str, Field(description="Profile of variations.toml on the machine that runs; empty: none.")
    ] = "",
) -> dict[str, Any]:
    """Close a run that died, and fetch what was paid for and is not in the dataset yet. Returns the receipt.

    Nothing is submitted: an automation may run it whenever a run crashes.

    Raises:
        DatasetBusy: a run works on the dataset, and will do this itself the next time.
        RunStopped: it ended before it was done.
    """
    settings = load_settings({}, profile=profile or None)
    job, limits = settings.recovery(destination), settings.limits()
    lease_seconds = settings.lease_seconds
    async with begun(job, endpoint=settings.endpoint(), limits=limits, lease_seconds=lease_seconds, wait=wait) as run:
        receipt = await publish(run)
    return receipt.as_dict()
