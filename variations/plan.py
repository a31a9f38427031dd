"""Expand sources into variations, leave out what the dataset has, and cut the rest into shards.

A plan is written to the destination before anything is paid, so that any machine can take a shard of it. It holds no
signature: a source whose URL came signed is remembered beside the plan, in memory.
"""

import gc
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import metadata_writer, rejected_table
from variations.engine.forecast import Forecast, forecast
from variations.engine.limits import Limits
from variations.gate import Gate
from variations.identity import derived_seed, parameters_identity, rerolled, source_identity, variation_id
from variations.known import Before, Known
from variations.models import Attempt, RejectedSource, Source, Variation
from variations.parameters import MODEL, Parameters
from variations.receipt import SAMPLES
from variations.splits import Groups, SplitRule, Splitter
from variations.sweep import NO_SWEEP, Setting, Sweep

# So many task runs a run at the most.
MAX_SHARDS: Final = 200
# A run of so many has one variation a task, so that each shows in the Prefect UI.
SMALL_RUN: Final = 40
# Beyond that shards grow to this size before there are more of them: what is in flight in one shard shares the objects
# of its journal, and a PUT is what costs most.
FULL_SHARD: Final = 50
SPOOL_ROWS: Final = 10_000
_LARGEST_SEED: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is wanted of every source.

    Attributes:
        parameters: for every variation, where neither the sweep nor a row of the manifest sets something else; its seed
            is not used.
        variations_per_source: how many, with each setting of the sweep.
        sweep: the settings that each source is varied with.
        max_per_source: of all settings and seeds, so many at the most; 0: all.
        splits: which sources are varied, where they are split.
        seed: of the first variation, the next ones count up from it; derived from the source if None.
        retry_failed: whether variations that failed in earlier runs are tried again.
        canary: so many variations are made and looked at before the rest; 0: none.
        max_canary_percent: the rest is made where no more of their images failed, are unknown or flagged.
        retry_flagged: whether variations whose image was flagged and dropped are made again as they are.
        gate: which images are flagged, and what becomes of those.
        resubmit_after_seconds: variations of which it is not known whether they were accepted are submitted again when
            the request history has not shown them for so long; None holds them.
    """

    parameters: Parameters = field(default_factory=Parameters)
    variations_per_source: int = 1
    sweep: Sweep = NO_SWEEP
    max_per_source: int = 0
    splits: SplitRule = field(default_factory=SplitRule)
    seed: int | None = None
    retry_failed: bool = False
    retry_flagged: bool = False
    gate: Gate = field(default_factory=Gate)
    resubmit_after_seconds: float | None = None
    canary: int = 0
    max_canary_percent: float = 20.0
    model: str = MODEL


@dataclass(slots=True)
class Counts:
    """What a manifest comes to.

    Attributes:
        sources: usable rows, duplicates included.
        rejected: rows that cannot be used.
        duplicates: rows that ask for nothing that an earlier row does not.
        variations: wanted in all, each counted once.
        done: of them in the dataset already.
        partly: of those that are done or were flagged before, that lack some of their images; they are left alone, since
            the others were paid for.
        failed_before: of them failed in an earlier run, and left alone.
        flagged_before: of them made in an earlier run, flagged, dropped, and left alone.
        unknown_before: of them unknown since an earlier run: perhaps paid for, and held.
        rerolls: of the new ones those that take the place of one that was flagged and dropped.
        resubmitted: of the new ones that are unknown since an earlier run, and were not found for long enough.
        new: of them to be made.
        images: that the new ones come to, one for each output.
        most_rerolled: images that may be made besides, at the most, where all that is made is flagged.
        uploads: new sources that are local files.
        splits: usable rows by split, where they are split.
    """

    sources: int = 0
    rejected: int = 0
    duplicates: int = 0
    variations: int = 0
    done: int = 0
    partly: int = 0
    failed_before: int = 0
    flagged_before: int = 0
    unknown_before: int = 0
    rerolls: int = 0
    resubmitted: int = 0
    new: int = 0
    images: int = 0
    most_rerolled: int = 0
    uploads: int = 0
    splits: dict[str, int] = field(default_factory=dict)

    def shard_size(self) -> int:
        """Return how many variations a shard holds: one in a small run, more in a large one."""
        of_its_size = min(FULL_SHARD, math.ceil(self.new / SMALL_RUN))
        return max(1, of_its_size, math.ceil(self.new / MAX_SHARDS))

    def shards(self) -> int:
        """Return how many shards the new variations make."""
        return math.ceil(self.new / self.shard_size())

    def cost_usd(self, limits: Limits) -> float:
        """Return the price of the new images."""
        return self.images * limits.price_usd

    def forecast(self, limits: Limits) -> Forecast:
        """Return about how long the new ones take."""
        return forecast(limits, requests=self.new, uploads=self.uploads)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the variations of a source have in common: their parameters, those as identity, and those as JSON.

    The seed is in none of the texts.
    """

    parameters: Parameters
    identity: str
    text: str


# The rows of a manifest that override the same share one of these.
@lru_cache(maxsize=4096)
def _shared(parameters: Parameters, overrides: tuple[tuple[str, Any], ...]) -> _Shared:
    if overrides:
        parameters = Parameters.model_validate({**dict(parameters), **dict(overrides)})
    fields = {name: value for name, value in parameters if name != "seed"}
    return _Shared(parameters, parameters_identity(parameters), json.dumps(fields, sort_keys=True))


def _shared_of(source: Source, recipe: Recipe, setting: Setting) -> _Shared:
    # What a row sets for itself is not swept.
    overrides = {**dict(setting), **source.overrides} if setting else source.overrides
    return _shared(recipe.parameters, tuple(sorted(overrides.items())) if overrides else ())


def _wanted_of(source: Source, recipe: Recipe) -> Iterator[tuple[str, int, _Shared]]:
    """Yield id, seed and parameters of each variation of a source, in the order of their numbers."""
    identity = source_identity(source)
    most = recipe.max_per_source
    settings = recipe.sweep.settings_of(identity, at_most=most)
    first_seed = source.overrides.get("seed", recipe.seed)
    count = recipe.variations_per_source * len(settings)
    shared = [_shared_of(source, recipe, setting) for setting in settings]
    # Every setting has the same seeds, so that images differ by their setting alone; and where there are not enough for
    # all seeds, each setting has had its first one.
    for number in range(min(most or count, count)):
        of = shared[number % len(settings)]
        nth = number // len(settings)
        seed = derived_seed(identity, nth) if first_seed is None else (first_seed - 1 + nth) % _LARGEST_SEED + 1
        yield variation_id(model=recipe.model, source=identity, parameters=of.identity, seed=seed), seed, of


def expand(source: Source, recipe: Recipe) -> Iterator[Variation]:
    """Yield the variations of a source."""
    for number, (name, seed, shared) in enumerate(_wanted_of(source, recipe)):
        parameters = shared.parameters.model_copy(update={"seed": seed})
        yield Variation(variation_id=name, source=source, number=number, parameters=parameters)


class _Row(NamedTuple):
    """A variation that is to be made, as it is spooled: a `Variation` of each would be most of the time."""

    variation_id: str
    number: int
    seed: int
    parameters: str
    source: Source
    before: Before | None
    roll: int = 0
    paid_before_usd: float = 0.0

    @property
    def attempt(self) -> int:
        return self.before.attempt + 1 if self.before else 1


class Spool:
    """Local files for what a manifest comes to: the variations that are to be made, and the rows of refused sources.

    Args:
        folder: where they are written.
        source: the manifest, by its URI.
        run_id, model: of the run, for the refused rows.
    """

    def __init__(self, folder: Path, *, source: str, run_id: str, model: str) -> None:
        self.variations = folder / "variations.parquet"
        self.rejected = folder / "rejected.parquet"
        self._of_run = {"manifest": source, "run_id": run_id, "model": model}
        self._writers: dict[Path, pq.ParquetWriter] = {}

    def add_variations(self, rows: "list[_Row]", labels: pa.Schema) -> None:
        """Write variations that are to be made."""
        batch = _batch(rows, labels)
        if self.variations not in self._writers:
            self._writers[self.variations] = pq.ParquetWriter(self.variations, batch.schema)
        self._writers[self.variations].write_batch(batch)

    def add_rejected(self, rows: list[RejectedSource], labels: pa.Schema) -> None:
        """Write rows of refused sources."""
        table = rejected_table(rows, labels=labels, **self._of_run)
        if self.rejected not in self._writers:
            self._writers[self.rejected] = metadata_writer(self.rejected, table.schema)
        self._writers[self.rejected].write_table(table)

    def __enter__(self) -> None:
        """Begin; the end finishes the files."""

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()


@contextmanager
def _not_collecting() -> Iterator[None]:
    # Millions of rows come and go, none in a cycle: looking for cycles among them takes a fifth of the time.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


class Planner:
    """Read sources, count, and spool what comes of them.

    Args:
        recipe: what is wanted of every source.
        known: what the dataset has.
        labels: names and types of the labels.
        splitter: says which split a source is in; None where they are not split.
        spool: where it is written; None to count only.
        resubmit: of the unknown variations those that are to be submitted again.
        check: called now and then; what it raises ends the reading.

    Attributes:
        counts: so far.
        first_rejected: the first few rows that cannot be used.
        signed: public URI → URI, of the sources whose URI carries a signature.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        known: Known,
        labels: pa.Schema,
        splitter: Splitter | None = None,
        spool: Spool | None,
        resubmit: Collection[bytes] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._resubmit = resubmit
        self._recipe = recipe
        self._known = known
        self._labels = labels if splitter is None else splitter.other_labels(labels)
        self._splitter = splitter
        self._spool = spool
        self._check = check
        self._planned: set[bytes] = set()
        self.counts = Counts()
        self.first_rejected: list[RejectedSource] = []
        self.signed: dict[str, str] = {}
        self.groups = Groups()

    def read(self, batches: Iterable[list[Source | RejectedSource]]) -> None:
        """Read every source; synchronous, for a thread."""
        wanted: list[_Row] = []
        refused: list[RejectedSource] = []
        with _not_collecting(), self._spool or nullcontext():
            for batch in batches:
                self._check()
                for source in self.split(batch):
                    if isinstance(source, RejectedSource):
                        refused.append(source)
                    elif not self._is_left_out(source):
                        wanted += self._wanted(source)
                self.counts.rejected += len(refused)
                self.first_rejected += refused[: SAMPLES - len(self.first_rejected)]
                if self._spool is None:
                    wanted.clear()
                elif refused:
                    self._spool.add_rejected(refused, self._labels)
                refused.clear()
                if self._spool is not None and len(wanted) >= SPOOL_ROWS:
                    self._spool.add_variations(wanted, self._labels)
                    wanted.clear()
            if self._spool is not None and wanted:
                self._spool.add_variations(wanted, self._labels)

    def split(self, batch: list[Source | RejectedSource]) -> Iterable[Source | RejectedSource]:
        """Return sources with their splits, where they are split."""
        if self._splitter is None:
            return batch
        assign = self._splitter.assign
        return (source if isinstance(source, RejectedSource) else assign(source) for source in batch)

    def _is_left_out(self, source: Source) -> bool:
        """Count a source, and take note of its split; returns whether that is not varied."""
        self.counts.sources += 1
        if source.split is None or self._splitter is None:
            return False
        self.counts.splits[source.split] = self.counts.splits.get(source.split, 0) + 1
        self.groups.add(source)
        return not self._splitter.is_augmented(source)

    def is_wanted(self, variation: str) -> bool:
        """Return whether a variation was wanted by what was read, be it in the dataset already."""
        return bytes.fromhex(variation) in self._planned

    def is_new(self, variation: str) -> bool:
        """Return whether a wanted variation is to be made."""
        key, known = bytes.fromhex(variation), self._known
        if key in known.done:
            return False
        if key in known.unknown:
            return key in self._resubmit
        if key in known.flagged:
            return self._recipe.retry_flagged
        return key not in known.failed or self._recipe.retry_failed

    def _wanted(self, source: Source) -> list[_Row]:
        counts = self.counts
        wanted = []
        most_rolls = self._recipe.gate.rolls
        is_duplicate = True
        for number, (name, seed, shared) in enumerate(_wanted_of(source, self._recipe)):
            key = bytes.fromhex(name)
            if key in self._planned:
                continue
            self._planned.add(key)
            is_duplicate = False
            counts.variations += 1
            roll = 0
            if self._known.flagged and self._known.is_vacant(key):
                name, seed, roll = self._last_roll(name, seed)  # noqa: PLW2901 - it is what its place comes to
            before, is_left_alone = self._before(bytes.fromhex(name))
            if is_left_alone:
                continue
            counts.new += 1
            counts.rerolls += roll > 0
            counts.images += shared.parameters.num_outputs
            if most_rolls > 1:
                counts.most_rerolled += max(0, most_rolls - 1 - roll) * shared.parameters.num_outputs
            _, paid_usd = self._known.paid.get(bytes.fromhex(name), (0, 0.0)) if before is not None else (0, 0.0)
            wanted.append(_Row(name, number, seed, shared.text, source, before, roll, paid_usd))
        counts.duplicates += is_duplicate
        if wanted:
            counts.uploads += not source.uri.startswith(("http://", "https://", "s3://"))
            if source.uri != source.public_uri:
                self.signed[source.public_uri] = source.uri
        return wanted

    def _last_roll(self, name: str, seed: int) -> tuple[str, int, int]:
        """Follow a place whose image was flagged to what was made in it last, or is to be: its id, seed and roll."""
        roll = 0
        while self._known.is_vacant(bytes.fromhex(name)):
            following, next_seed = rerolled(name)
            if roll + 1 >= self._recipe.gate.rolls and not self._known.knows(bytes.fromhex(following)):
                break
            name, seed, roll = following, next_seed, roll + 1
            # Wanted as the first one is: it may have been chosen for a canary.
            self._planned.add(bytes.fromhex(name))
        return name, seed, roll

    def _before(self, key: bytes) -> tuple[Before | None, bool]:
        """Count what a variation has come to so far; returns its last attempt, and whether it is left alone."""
        counts, known, recipe = self.counts, self._known, self._recipe
        if key in known.done:
            counts.done += 1
            counts.partly += known.is_partial(key)
            return None, True
        if key in known.unknown:
            is_left_alone = key not in self._resubmit
            counts.unknown_before += is_left_alone
            counts.resubmitted += not is_left_alone
            return known.unknown[key], is_left_alone
        if key in known.failed:
            counts.failed_before += not recipe.retry_failed
            return known.failed[key], not recipe.retry_failed
        if key in known.flagged:
            counts.flagged_before += not recipe.retry_flagged
            counts.partly += not recipe.retry_flagged and known.is_partial(key)
            return known.flagged[key], not recipe.retry_flagged
        return None, False


def plan_schema(labels: pa.Schema) -> pa.Schema:
    """Return the schema of a plan's shard; the labels are one struct, so that no name of theirs can collide."""
    fields = [
        pa.field("variation_id", pa.string(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("parameters", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("has_id", pa.bool_(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("group_id", pa.string()),
        pa.field("before_run", pa.string()),
        pa.field("before_shard", pa.int32()),
        pa.field("before_request", pa.string()),
        pa.field("roll", pa.int32()),
        pa.field("paid_before_usd", pa.float64()),
    ]
    if len(labels):
        fields.append(pa.field("labels", pa.struct(list(labels))))
    return pa.schema(fields)


def _batch(rows: list[_Row], labels: pa.Schema) -> pa.RecordBatch:
    schema = plan_schema(labels)
    columns: dict[str, list[Any]] = {
        "variation_id": [row.variation_id for row in rows],
        "number": [row.number for row in rows],
        "attempt": [row.attempt for row in rows],
        "seed": [row.seed for row in rows],
        "parameters": [row.parameters for row in rows],
        "row": [row.source.row for row in rows],
        "source_id": [row.source.source_id for row in rows],
        "source_uri": [row.source.public_uri for row in rows],
        "version": [row.source.version for row in rows],
        "has_id": [row.source.has_id for row in rows],
        "split": [row.source.split for row in rows],
        "group_id": [row.source.group for row in rows],
        "before_run": [row.before.run_id if row.before else None for row in rows],
        "before_shard": [row.before.shard if row.before else None for row in rows],
        "before_request": [row.before.request_id if row.before else None for row in rows],
        "roll": [row.roll for row in rows],
        "paid_before_usd": [row.paid_before_usd for row in rows],
    }
    if len(labels):
        columns["labels"] = [row.source.labels for row in rows]
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


@lru_cache(maxsize=4096)
def _parameters_of_json(text: str) -> Parameters:
    return Parameters.model_validate_json(text)


def cut(spool: Path, shard_size: int, *, first: Sequence[int] = ()) -> Iterator[pa.Table]:
    """Yield the spooled variations shard by shard, in bounded memory; synchronous, for a thread.

    Args:
        spool: the variations that are to be made.
        shard_size: how many a shard holds.
        first: numbers of those that make shards of their own, before all others; in their order.
    """
    if not spool.exists():
        return
    if first:
        yield from _shards(_batches(spool, shard_size, first=first, are_first=True), shard_size)
    yield from _shards(_batches(spool, shard_size, first=first, are_first=False), shard_size)


def _batches(spool: Path, shard_size: int, *, first: Sequence[int], are_first: bool) -> Iterator[pa.RecordBatch]:
    """Yield the first ones, or all others."""
    numbers = np.asarray(first, np.int64)
    at = 0
    for batch in pq.ParquetFile(spool).iter_batches(batch_size=min(shard_size, SPOOL_ROWS)):
        here = numbers[np.searchsorted(numbers, at) : np.searchsorted(numbers, at + batch.num_rows)] - at
        at += batch.num_rows
        if not len(here) and not are_first:
            yield batch
            continue
        is_in = np.full(batch.num_rows, not are_first)
        is_in[here] = are_first
        yield batch.filter(pa.array(is_in))


def _shards(batches: Iterable[pa.RecordBatch], shard_size: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= shard_size:
            table = pa.Table.from_batches(held)
            yield table.slice(0, shard_size)
            rest = table.slice(shard_size)
            held, rows = rest.to_batches(), rest.num_rows
    if rows:
        yield pa.Table.from_batches(held)


def variations_of(shard: pa.Table, *, signed: dict[str, str]) -> Iterator[Variation]:
    """Yield the variations of a shard as they were planned; what a row overrode is in its parameters alone.

    Args:
        shard: a table in the `plan_schema`.
        signed: from the planner; sources that are not in it are used under their public URI.
    """
    for row in shard.to_pylist():
        uri = row["source_uri"]
        yield Variation(
            variation_id=row["variation_id"],
            source=Source(
                row=row["row"],
                source_id=row["source_id"],
                uri=signed.get(uri, uri),
                public_uri=uri,
                version=row["version"],
                has_id=row["has_id"],
                labels=row.get("labels") or {},
                # A plan that an older version wrote has none.
                split=row.get("split"),
                group=row.get("group_id"),
            ),
            number=row["number"],
            parameters=_parameters_of_json(row["parameters"]).model_copy(update={"seed": row["seed"]}),
            attempt=row["attempt"],
            before=(
                Attempt(row["before_run"], row["before_shard"], row["before_request"])
                if row["before_shard"] is not None
                else None
            ),
            roll=row.get("roll") or 0,
            paid_before_usd=row.get("paid_before_usd") or 0.0,
        )


def label_schema_of(shard: pa.Table) -> pa.Schema:
    """Return names and types of the labels of a shard."""
    if "labels" not in shard.schema.names:
        return pa.schema([])
    return pa.schema(list(shard.schema.field("labels").type))
