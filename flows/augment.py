"""The main flow: check, recover, plan, make shard by shard, publish."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from config import load_settings, options
from tasks import begun, logged_progress, make_plan, make_shards, publish
from variations import parameters


@flow(name="augment", retries=0, persist_result=False)
@options.described
async def augment(  # noqa: PLR0917 - the fields of the form, in their order
    source: Annotated[
        str, Field(min_length=1, description="Manifest or prefix of images: s3://…, file://… or a path.")
    ],
    destination: Annotated[
        str, Field(min_length=1, description="Where the dataset grows: s3://bucket/prefix or a folder.")
    ],
    variations_per_source: options.VariationsPerSource = 1,
    retry: options.Retry = "none",
    seed: options.FirstSeed = 0,
    aspect_ratio: parameters.AspectRatio = "1:1",
    guidance: parameters.Guidance = 3.0,
    megapixels: parameters.Megapixels = "1",
    num_inference_steps: parameters.NumInferenceSteps = 28,
    num_outputs: parameters.NumOutputs = 1,
    output_format: parameters.OutputFormat = "jpg",
    output_quality: parameters.OutputQuality = 80,
    disable_safety_checker: parameters.DisableSafetyChecker = False,
    uri_column: options.UriColumn = "",
    id_column: options.IdColumn = "",
    max_in_flight: options.MaxInFlight = 0,
    requests_per_minute: options.RequestsPerMinute = 0.0,
    poll_interval_seconds: options.PollIntervalSeconds = 0.0,
    deadline_seconds: options.DeadlineSeconds = 600.0,
    max_cost_usd: options.MaxCostUsd = 0.0,
    unknown: options.Unknown = "hold",
    unknown_wait_seconds: options.UnknownWaitSeconds = 3600.0,
    wait: options.Wait = False,
    profile: Annotated[
        str, Field(description="Profile of variations.toml on the machine that runs; empty: none.")
    ] = "",
) -> dict[str, Any]:
    """Turn a manifest of source images into a dataset of their variations. Returns the receipt.

    What is asked for here is what runs; hosts, key, price and the like are settings of the machine that runs it. A
    second run over the same destination fetches what the first one paid for and could not, and makes what is missing.

    Raises:
        SettingsError, ManifestError: what was given cannot be used; nothing was paid.
        RunStopped: it ended before it was done; what it made is published, and its receipt says how to go on.
    """
    # Every parameter but these three is a setting of the same name.
    asked = {name: value for name, value in locals().items() if name not in {"source", "destination", "profile"}}
    settings = load_settings(asked, profile=profile or None)
    job, limits = settings.job(source, destination), settings.limits()
    lease_seconds = settings.lease_seconds
    async with begun(job, endpoint=settings.endpoint(), limits=limits, lease_seconds=lease_seconds, wait=wait) as run:
        plan = await make_plan(run)
        async with logged_progress(run.engine.progress):
            await make_shards(run, plan, limits=limits)
        receipt = await publish(run)
    return receipt.as_dict()
