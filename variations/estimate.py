"""What a run would do, and what it would cost: the manifest read against what the dataset has."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from variations.api.http import default_http_client
from variations.canary_choice import read_waiting
from variations.dataset import check_labels
from variations.engine.limits import Limits
from variations.errors import BadInput
from variations.job import Job
from variations.known import Known
from variations.leak_report import LeakReport
from variations.leaks import OnProgress, find_leaks
from variations.manifest import Manifest, fetch_manifest
from variations.models import RejectedSource, Source
from variations.plan import Plan
from variations.planning.plan_shards import Spool
from variations.planning.planner import Planner
from variations.planning.sweep import Sweep
from variations.recovery import peek
from variations.source_hashes import SourceHashes
from variations.source_images import SourceImages
from variations.splits import nothing_is_split
from variations.storage import open_storage


async def estimate(job: Job, *, limits: Limits, on_look: OnProgress = lambda done, of: None) -> Plan:  # noqa: ARG005 - same
    """Say what a run would do, without paying and without writing anything.

    Args:
        job: what the run would do.
        limits: how hard it would go.
        on_look: is told how many sources were looked at for leaks, of how many.

    Raises:
        ManifestError: the manifest is missing, empty or unusable.
        StorageError: the source or the destination cannot be read.
    """
    storage = open_storage(job.destination, missing_ok=True)
    try:
        known = await peek(storage)
        planner, plan = await read_manifest(
            job,
            known=known,
            limits=limits,
            run_id="",
            spool=None,
            hashes=SourceHashes(storage, is_kept=False),
            on_look=on_look,
        )
        if plan.canary:
            waiting = filter(planner.is_wanted, await read_waiting(storage, plan.source))
            plan = _with_waiting(plan, [planner.is_new(one) for one in waiting], count=job.recipe.canary)
    finally:
        await storage.aclose()
    return plan


def _with_waiting(plan: Plan, are_new: list[bool], *, count: int) -> Plan:
    """Return a plan whose canary has those first that an earlier run left waiting, of which some are to be made."""
    again = sum(are_new)
    others = min(max(0, count - len(are_new)), plan.new - again)
    return plan.with_canary(len(are_new) + others, new=again + others)


async def read_manifest(
    job: Job,
    *,
    known: Known,
    limits: Limits,
    run_id: str,
    spool: Spool | None,
    hashes: SourceHashes,
    resubmit: Collection[bytes] = (),
    check: Callable[[], None] = lambda: None,
    on_look: OnProgress = lambda done, of: None,  # noqa: ARG005 - whoever does not watch
) -> tuple[Planner, Plan]:
    """Read a job's manifest, and count what it comes to; what is to be made is spooled, if a spool is given.

    Where it is split, what leaks is looked for, and `hashes` remember what sources look like.

    Raises:
        ManifestError: the manifest is missing, empty or unusable.
        StorageError: the source cannot be read.
    """
    if job.source is None:
        raise BadInput("no source: name a manifest, or a prefix of images")
    async with fetch_manifest(job.source, uri_column=job.uri_column, id_column=job.id_column) as manifest:
        check_labels(manifest.label_schema)
        splits = job.recipe.splits
        splitter = splits.among(manifest.label_schema)
        if splitter is None and job.leaks.is_fatal:
            raise nothing_is_split("fail_on_leak", manifest.label_schema)
        planner = Planner(
            job.recipe,
            known=known,
            labels=manifest.label_schema,
            splitter=splitter,
            spool=spool,
            resubmit=resubmit,
            check=check,
        )
        await asyncio.to_thread(planner.read, manifest.batches())
        leaks = await _leaks(job, planner, manifest, known=known, hashes=hashes, check=check, on_look=on_look)
    counts = planner.counts
    if counts.splits and not counts.splits.keys() & set(splits.augmented):
        there = ", ".join(f"{name} {count:,}" for name, count in counts.splits.items())
        raise BadInput(f"augment_splits: no source is in {' or '.join(splits.augmented)}; the manifest has {there}")
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
        most_rerolled=counts.most_rerolled,
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
        sweep=_sweep_text(job.recipe.sweep, counts.not_swept),
        max_per_source=job.recipe.max_per_source,
        splits=splitter.shown(counts.splits) if splitter and counts.splits else "",
        split_rule=str(splitter) if counts.splits else "",
        leaks=leaks.as_dict() if leaks else {},
        max_canary_percent=job.recipe.max_canary_percent,
        rejected_rows=tuple(f"row {row.row}: {row.reason}" for row in planner.first_rejected),
    )
    canary = min(job.recipe.canary, counts.new)
    return planner, plan.with_canary(canary, new=canary)


def _sweep_text(sweep: Sweep, not_swept: Mapping[str, int]) -> str:
    """Return a sweep in words, and where a source sets one of its parameters itself: that is not swept."""
    if not sweep:
        return ""
    themselves = [f"{count:,} source{'s set' if count > 1 else ' sets'} {name}" for name, count in not_swept.items()]
    return f"{sweep}; {', '.join(themselves)} in the manifest" if themselves else str(sweep)


async def _leaks(
    job: Job,
    planner: Planner,
    manifest: Manifest,
    *,
    known: Known,
    hashes: SourceHashes,
    check: Callable[[], None],
    on_look: OnProgress,
) -> LeakReport | None:
    """Look for what leaks; None where nothing is split."""
    if not len(planner.groups):
        return None

    def sources() -> Iterator[list[Source]]:
        for batch in manifest.batches():
            yield [source for source in planner.split(batch) if isinstance(source, Source)]

    async with default_http_client() as http:
        return await find_leaks(
            sources,
            groups=planner.groups,
            before=known.groups,
            how=job.leaks,
            # A manifest that may name no files of this machine has had them refused.
            images=SourceImages(local_files=None, http=http),
            hashes=hashes,
            on_progress=on_look,
            check=check,
        )


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
