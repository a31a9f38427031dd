"""The main flow: check, recover, plan, make shard by shard, publish."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from config import load_settings, options
from config.blocks import stored_settings
from flows.canary import canary as wait_for_somebody
from tasks import (
    augment_name,
    begun,
    check_deployment,
    day_of,
    ending,
    finish,
    look_ahead,
    make_plan,
    make_shards,
    make_with_workers,
    one_slot,
    place_of,
    shown_progress,
    started,
    try_canary,
)
from variations import parameters


@flow(name="augment", flow_run_name=augment_name, retries=0, persist_result=False)
@options.described
async def augment(  # noqa: PLR0917 - the fields of the form, in their order
    source: Annotated[
        str,
        Field(
            min_length=1,
            description="Manifest or prefix of images: s3://…, file://… or a path. May hold {date}, {year}, {month} "
            "and {day}.",
        ),
    ],
    destination: Annotated[
        str,
        Field(
            min_length=1,
            description="Where the dataset grows: s3://bucket/prefix or a folder. May hold {date}, {year}, {month} and "
            "{day}.",
        ),
    ],
    dry_run: options.DryRun = False,
    variations_per_source: options.VariationsPerSource = 1,
    sweep: options.SweepText = "",
    max_per_source: options.MaxPerSource = 0,
    max_cost_usd: options.MaxCostUsd = 0.0,
    canary: options.Canary = 0,
    max_canary_percent: options.MaxCanaryPercent = 20.0,
    split_ratios: options.SplitRatios = "",
    group_by: options.GroupBy = "",
    augment_splits: options.AugmentSplits = "train",
    leak_check: options.LeakCheckBy = "images",
    max_leak_distance: options.MaxLeakDistance = 6,
    fail_on_leak: options.FailOnLeak = False,
    date: options.Date = "",
    retry: options.Retry = "none",
    aspect_ratio: parameters.AspectRatio = "1:1",
    megapixels: parameters.Megapixels = "1",
    guidance: parameters.Guidance = 3.0,
    num_inference_steps: parameters.NumInferenceSteps = 28,
    outputs_per_request: parameters.NumOutputs = 1,
    output_format: parameters.OutputFormat = "jpg",
    output_quality: parameters.OutputQuality = 80,
    disable_safety_checker: parameters.DisableSafetyChecker = False,
    seed: options.FirstSeed = 0,
    on_flagged: options.OnFlagged = "keep",
    max_rolls: options.MaxRolls = 3,
    max_failed_percent: options.MaxFailedPercent = 20.0,
    workers: options.Workers = 0,
    wait: options.Wait = False,
    gallery: options.Gallery = True,
    gate_blank: options.GateBlank = 8.0,
    gate_copy: options.GateCopy = 6,
    gate_lost: options.GateLost = 0,
    gate_twin: options.GateTwin = 6,
    gate_size_percent: options.GateSizePercent = 10.0,
    gate_sources: options.GateSources = True,
    uri_column: options.UriColumn = "",
    id_column: options.IdColumn = "",
    requests_per_minute: options.RequestsPerMinute = 0.0,
    max_in_flight: options.MaxInFlight = 0,
    poll_interval_seconds: options.PollIntervalSeconds = 0.0,
    deadline_seconds: options.DeadlineSeconds = 600.0,
    unknown: options.Unknown = "hold",
    unknown_wait_seconds: options.UnknownWaitSeconds = 3600.0,
    profile: options.Profile = "",
) -> dict[str, Any]:
    """Turn a manifest of source images into a dataset of their variations. Returns the receipt; of a dry run, the plan.

    What is asked for here is what runs; hosts, key, price and the like are settings of the machine that runs it. A
    second run over the same destination fetches what the first one paid for and could not, and makes what is missing.

    Raises:
        SettingsError, ManifestError: what was given cannot be used; nothing was paid.
        RunStopped: it ended before it was done; what it made is published, and its receipt says how to go on.
        TooManyFailed: it is done, and more of its images failed than max_failed_percent; its receipt is in it.
    """
    # Every parameter but these is a setting of the same name.
    others = {"source", "destination", "dry_run", "date", "profile"}
    asked = {name: value for name, value in locals().items() if name not in {"others", *others}}
    if not max_cost_usd:
        # Who runs the machine may have set a limit for those who ask for none.
        del asked["max_cost_usd"]
    async with ending(max_failed_percent=max_failed_percent) as end:
        settings = load_settings(asked, profile=profile or None, stored=await stored_settings())
        day = day_of(date)
        job = settings.job(place_of(source, day, name="source"), place_of(destination, day, name="destination"))
        limits, lease_seconds = settings.limits(), settings.lease_seconds
        if dry_run:
            endpoint = settings.endpoint() if settings.has_key else None
            end.result = await look_ahead(job, limits=limits, endpoint=endpoint)
        else:
            endpoint = settings.endpoint()
            if workers:
                await check_deployment(settings.work_deployment)
            # The workers take a slot each, and this process submits nothing.
            slot = one_slot("" if workers else settings.concurrency_limit)
            opened = begun(job, endpoint=endpoint, limits=limits, lease_seconds=lease_seconds, wait=wait)
            async with slot, opened as run:
                end.run = run
                plan = await make_plan(run, workers=workers)
                started(run, plan)
                async with shown_progress(run.engine.progress):
                    await try_canary(
                        run,
                        plan,
                        limits=limits,
                        wait=wait_for_somebody,
                        wait_seconds=settings.canary_wait_seconds,
                        slot=settings.concurrency_limit if workers else "",
                        gallery=gallery,
                    )
                    if workers:
                        await make_with_workers(
                            run, workers=workers, deployment=settings.work_deployment, profile=profile
                        )
                    else:
                        await make_shards(run, plan, limits=limits)
                    end.result = await finish(run, plan, gallery=gallery)
    return end.state()  # type: ignore[no-any-return]
