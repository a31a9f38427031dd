"""Values that the tests of several modules begin with."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from variations.dataset import outcomes_table, parquet_bytes
from variations.known import Known
from variations.layout import part_key, shard_part
from variations.models import Outcome, RejectedSource, Source, StoredImage, Variation
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.expansion import expand
from variations.planning.plan_shards import Spool, cut, variations_of
from variations.planning.planner import Planner
from variations.planning.recipe import Recipe
from variations.receipt import Receipt
from variations.storage import Storage

SIGNATURE = "0123456789abcdef0123456789abcdef"
SIGNED = f"https://bucket.example.com/cat.jpg?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}"
NO_LABELS = pa.schema([])
PLAN = Plan(
    run_id="run-1",
    source="s3://b/m.csv",
    destination="s3://b/d",
    sources=1200,
    rejected=0,
    duplicates=0,
    variations=1200,
    already_done=0,
    failed_before=0,
    unknown_before=0,
    new=1200,
    images=2400,
    shards=200,
    shard_size=6,
    cost_usd=74.4,
    seconds=7200,
    requests_per_minute=60,
    requests_counted="polls counted",
    max_in_flight=16,
)
RECEIPT = Receipt(
    run_id="run-1",
    source="s3://b/m.csv",
    destination="s3://b/d",
    started_at="2024-02-29T12:30:15+00:00",
    seconds=42.4,
    sources=3,
    rejected=0,
    duplicates=0,
    already_done=0,
    failed_before=0,
    unknown_before=0,
    wanted=3,
    paid=3,
    kept=3,
    failed=0,
    unknown=0,
    left=0,
    cost_usd=0.093,
    cost_at_risk_usd=0.0,
    requests={"submit": 3, "status": 9},
    requests_per_image=4.0,
    errors={},
    error_samples={},
    notes={},
    rejected_rows=(),
    stopped_by=None,
    stopped_because=None,
    dataset_rows=1003,
    accepted=3,
)


def source(name: str = "cat", **changes: Any) -> Source:
    """Return a source with an id."""
    uri = changes.pop("uri", f"https://images.example.com/{name}.jpg")
    plain = Source(row=1, source_id=name, uri=uri, public_uri=uri.partition("?")[0], has_id=True)
    return replace(plain, **changes)


def nameless(uri: str) -> Source:
    """Return a source that has nothing but its URI."""
    public = uri.partition("?")[0]
    return Source(row=1, source_id=public, uri=uri, public_uri=public)


def variation(name: str = "cat", **changes: Any) -> Variation:
    """Return the first variation of a source."""
    (made,) = expand(source(name), Recipe())
    return replace(made, **changes)


def image(of: Variation, *, notes: tuple[str, ...] = ()) -> StoredImage:
    """Return an image as it is stored."""
    key = f"images/{of.variation_id[:2]}/{of.variation_id}.jpg"
    return StoredImage(key, width=1024, height=1024, bytes=5, format="jpg", sha256="0" * 64, notes=notes)


def outcome(status: str = "kept", *, of: Variation | None = None, **changes: Any) -> Outcome:
    """Return what became of a variation, kept if nothing else is said."""
    wanted = of or variation()
    made = Outcome(variation=wanted, output_index=0, status="kept", image=image(wanted), cost_usd=0.031, request_id="r")
    if status != "kept":
        made = replace(made, status=status, image=None, error_code=status, error=f"it was {status}", cost_usd=0.0)
    return replace(made, **changes)


def spool_in(folder: Path) -> Spool:
    """Return a spool of a run in a folder."""
    return Spool(folder, source="s3://bucket/manifest.csv", run_id="run", model="flux-redux-dev")


def planned(
    spool: Spool | None,
    sources: Iterable[Source | RejectedSource],
    recipe: Recipe | None = None,
    *,
    known: Known | None = None,
    labels: pa.Schema = NO_LABELS,
    resubmit: Collection[bytes] = (),
) -> Planner:
    """Return a planner that has read the sources."""
    planner = Planner(recipe or Recipe(), known=known or Known(), labels=labels, spool=spool, resubmit=resubmit)
    planner.read([list(sources)])
    return planner


def shards_of(spool: Spool, planner: Planner, *, size: int | None = None) -> Iterator[list[Variation]]:
    """Yield the variations of each shard, as they come out of the files."""
    for table in cut(spool.variations, size or planner.counts.shard_size()):
        yield list(variations_of(table, signed=planner.signed))


async def write_part(
    storage: Storage,
    run_id: str,
    outcomes: Iterable[Outcome],
    *,
    shard: int = 0,
    number: int = 1,
    labels: pa.Schema = NO_LABELS,
) -> None:
    """Write the rows of a shard, as the first `number` objects of its journal tell them."""
    table = outcomes_table(list(outcomes), labels=labels, run_id=run_id, shard=shard, model="flux-redux-dev")
    await storage.put(part_key(run_id, shard_part(shard, number)), parquet_bytes(table))


def with_parameters(**changes: Any) -> Recipe:
    """Return a recipe of one variation with other parameters than the API's defaults."""
    return Recipe(parameters=Parameters(**changes))
