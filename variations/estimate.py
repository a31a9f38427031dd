"""What a run would do, and what it would cost: the manifest read against what the dataset has."""

import asyncio
from collections.abc import Callable, Collection, Iterable

from variations.dataset import check_labels
from variations.engine.limits import Limits
from variations.errors import BadInput
from variations.job import Job
from variations.known import Known
from variations.manifest import fetch_manifest
from variations.models import RejectedSource, Source
from variations.plan import Planner, Spool
from variations.receipt import SAMPLES, Plan
from variations.recovery import peek
from variations.splits import named_leaks, shown_splits
from variations.storage import open_storage


async def estimate(job: Job, *, limits: Limits) -> Plan:
    """Say what a run would do, without paying and without writing anything.

    Raises:
        ManifestError: the manifest is missing, empty or unusable.
        StorageError: the source or the destination cannot be read.
    """
    storage = open_storage(job.destination, missing_ok=True)
    try:
        known = await peek(storage)
        _, plan = await read_manifest(job, known=known, limits=limits, run_id="", spool=None)
    finally:
        await storage.aclose()
    return plan


async def read_manifest(
    job: Job,
    *,
    known: Known,
    limits: Limits,
    run_id: str,
    spool: Spool | None,
    resubmit: Collection[bytes] = (),
    check: Callable[[], None] = lambda: None,
) -> tuple[Planner, Plan]:
    """Read a job's manifest, and count what it comes to; what is to be made is spooled, if a spool is given.

    Raises:
        ManifestError: the manifest is missing, empty or unusable.
        StorageError: the source cannot be read.
    """
    if job.source is None:
        raise BadInput("no source: name a manifest, or a prefix of images")
    async with fetch_manifest(job.source, uri_column=job.uri_column, id_column=job.id_column) as manifest:
        check_labels(manifest.label_schema)
        splits = job.recipe.splits
        planner = Planner(
            job.recipe,
            known=known,
            labels=manifest.label_schema,
            splitter=splits.among(manifest.label_schema),
            spool=spool,
            resubmit=resubmit,
            check=check,
        )
        await asyncio.to_thread(planner.read, manifest.batches())
        leaking = planner.groups.leaking()
        again = (source for batch in manifest.batches() for source in planner.split(batch)) if leaking else ()
        only_sources = (source for source in again if isinstance(source, Source))
        leaks = await asyncio.to_thread(named_leaks, leaking, only_sources, most=SAMPLES)
    counts = planner.counts
    if counts.splits and not counts.splits.keys() & set(splits.augmented):
        raise BadInput(
            f"augment_splits: no source is in {' or '.join(splits.augmented)}; the manifest has "
            f"{shown_splits(counts.splits, tuple(counts.splits))}"
        )
    expected = counts.forecast(limits)
    plan = Plan(
        run_id=run_id,
        source=job.source,
        destination=job.destination,
        sources=counts.sources,
        rejected=counts.rejected,
        duplicates=counts.duplicates,
        variations=counts.variations,
        already_done=counts.done,
        failed_before=counts.failed_before,
        flagged_before=counts.flagged_before,
        max_rolls=job.recipe.gate.rolls,
        rerolls=counts.rerolls,
        unknown_before=counts.unknown_before,
        partly_there=counts.partly,
        resubmitted=counts.resubmitted,
        new=counts.new,
        images=counts.images,
        shards=counts.shards(),
        shard_size=counts.shard_size(),
        cost_usd=round(counts.cost_usd(limits), 6),
        seconds=round(expected.seconds, 1),
        requests_per_minute=limits.requests_per_minute or limits.first_requests_per_minute,
        is_limit_told=bool(limits.requests_per_minute),
        requests_counted="polls counted" if limits.count_all_requests else "submits alone",
        max_in_flight=expected.in_flight,
        max_cost_usd=limits.max_cost_usd,
        sweep=str(job.recipe.sweep) if job.recipe.sweep else "",
        max_per_source=job.recipe.max_per_source,
        splits=shown_splits(counts.splits, splits.augmented),
        split_rule=str(splits) if counts.splits else "",
        leaking_groups=len(leaking),
        leaks=tuple(leaks),
        rejected_rows=tuple(f"row {row.row}: {row.reason}" for row in planner.first_rejected),
    )
    return planner, plan


async def read_signed(job: Job) -> dict[str, str]:
    """Read from a job's manifest which sources carry a signature: public URI → URI. No plan holds them.

    Raises:
        ManifestError: the manifest is missing, empty or unusable.
        StorageError: it cannot be read.
    """
    if job.source is None:
        return {}

    def read(batches: Iterable[list[Source | RejectedSource]]) -> dict[str, str]:
        sources = (source for batch in batches for source in batch if isinstance(source, Source))
        return {source.public_uri: source.uri for source in sources if source.uri != source.public_uri}

    async with fetch_manifest(job.source, uri_column=job.uri_column, id_column=job.id_column) as manifest:
        return await asyncio.to_thread(read, manifest.batches())
