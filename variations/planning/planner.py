"""Read sources, leave out of their variations what the dataset has, count, and spool the rest."""

import gc
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from variations.engine.forecast import Forecast, forecast
from variations.engine.limits import Limits
from variations.identity import rerolled
from variations.known import Before, Known
from variations.models import RejectedSource, Source
from variations.planning.expansion import wanted_of
from variations.planning.plan_shards import SPOOL_ROWS, PlannedRow, Spool
from variations.planning.recipe import Recipe
from variations.splits import Groups, Splitter
from variations.texts import SAMPLES

# So many task runs a run at the most.
MAX_SHARDS: Final = 200
# A run of so many has one variation a task, so that each shows in the Prefect UI.
SMALL_RUN: Final = 40
# Beyond that shards grow to this size before there are more of them: what is in flight in one shard shares the objects
# of its journal, and a PUT is what costs most.
FULL_SHARD: Final = 50


@dataclass(slots=True)
class Counts:
    """What a manifest comes to.

    Attributes:
        sources: usable rows, duplicates included.
        rejected: rows that cannot be used.
        duplicates: rows that ask for nothing that an earlier row does not.
        variations: wanted in all, each counted once.
        done: of them in the dataset already.
        partly: of those that are done or were flagged before, that lack some of their images; they are left alone,
            since the others were paid for.
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
        not_swept: usable rows that set a parameter of the sweep themselves, by its name.
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
    not_swept: dict[str, int] = field(default_factory=dict)

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
        self._swept = recipe.sweep.names
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
        wanted: list[PlannedRow] = []
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

    def _wanted(self, source: Source) -> list[PlannedRow]:
        counts = self.counts
        wanted = []
        for name in sorted(self._swept & source.overrides.keys()) if source.overrides else ():
            counts.not_swept[name] = counts.not_swept.get(name, 0) + 1
        most_rolls = self._recipe.gate.rolls
        is_duplicate = True
        for number, (name, seed, shared) in enumerate(wanted_of(source, self._recipe)):
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
            wanted.append(PlannedRow(name, number, seed, shared.text, source, before, roll, paid_usd))
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
