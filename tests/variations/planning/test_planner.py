"""From sources to shards: what is wanted, what is there already, and what of it reaches a worker."""

import datetime as dt
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.variations.examples import (
    NO_LABELS,
    SIGNATURE,
    SIGNED,
    nameless,
    planned,
    shards_of,
    source,
    spool_in,
    with_parameters,
)
from variations.engine.limits import LATENCY_SECONDS, Limits
from variations.errors import StoppedByUser
from variations.known import Before, Known
from variations.models import Attempt, RejectedSource, Source, Variation
from variations.parameters import Parameters
from variations.planning.expansion import expand
from variations.planning.plan_shards import Spool, cut, label_schema_of, variations_of
from variations.planning.planner import MAX_SHARDS, Counts, Planner
from variations.planning.recipe import Recipe


def key_of(made: Variation) -> bytes:
    """Return an id as the planner holds it."""
    return bytes.fromhex(made.variation_id)


def keys_of(*names: str, recipe: Recipe | None = None) -> list[bytes]:
    """Return the ids of the first variations of sources."""
    return [key_of(next(expand(source(name), recipe or Recipe()))) for name in names]


def before(attempt: int = 1, *, shard: int | None = 4) -> Before:
    """Return an attempt of an earlier run."""
    return Before(attempt, "earlier-run", shard, "r-1")


def many(count: int) -> list[Source]:
    """Return so many different sources."""
    return [source(f"s{number}") for number in range(count)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Name files for what a manifest comes to."""
    return spool_in(tmp_path)


def test_what_the_dataset_has_is_not_made_again(spool: Spool) -> None:
    """A run is a set difference."""
    planner = planned(spool, [source("a"), source("b"), source("c")], known=Known(done=set(keys_of("a", "c"))))
    assert [made.source.source_id for shard in shards_of(spool, planner) for made in shard] == ["b"]
    assert (planner.counts.variations, planner.counts.done, planner.counts.new) == (3, 2, 1)


def test_more_variations_of_a_source_leave_the_first_ones(spool: Spool) -> None:
    """Who asked for one and now asks for three pays for two."""
    planner = planned(spool, [source("a")], Recipe(variations_per_source=3), known=Known(done=set(keys_of("a"))))
    assert [made.number for shard in shards_of(spool, planner) for made in shard] == [1, 2]
    assert planner.counts.done == 1


def test_what_failed_is_left_alone(spool: Spool) -> None:
    """Trying again costs requests, and is asked for."""
    planner = planned(spool, [source("a"), source("b")], known=Known(failed=dict.fromkeys(keys_of("a"), before())))
    assert (planner.counts.failed_before, planner.counts.new) == (1, 1)
    assert [made.source.source_id for shard in shards_of(spool, planner) for made in shard] == ["b"]


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_a_failed_one_that_is_tried_again_counts_its_attempts(spool: Spool, attempts: int) -> None:
    """The next attempt is one more than the last; what never failed is at its first."""
    known = Known(failed=dict.fromkeys(keys_of("a"), before(attempts)))
    planner = planned(spool, [source("a"), source("b")], Recipe(retry_failed=True), known=known)
    (shard,) = [[(made.source.source_id, made.attempt) for made in rows] for rows in shards_of(spool, planner, size=9)]
    assert shard == [("a", attempts + 1), ("b", 1)]
    assert (planner.counts.failed_before, planner.counts.new) == (0, 2)


def test_what_is_unknown_is_held(spool: Spool) -> None:
    """It may be paid for, and is not submitted again, whatever is tried again otherwise."""
    known = Known(unknown=dict.fromkeys(keys_of("a"), before()))
    planner = planned(spool, [source("a"), source("b")], Recipe(retry_failed=True), known=known)
    assert (planner.counts.unknown_before, planner.counts.resubmitted, planner.counts.new) == (1, 0, 1)


def test_an_unknown_one_that_is_submitted_again_is_told_apart(spool: Spool) -> None:
    """Only those that were named, each as the next attempt, with the place where the one before is written down."""
    known = Known(unknown=dict.fromkeys(keys_of("a", "b"), before(2)))
    planner = planned(spool, [source("a"), source("b")], known=known, resubmit=set(keys_of("b")))
    assert (planner.counts.unknown_before, planner.counts.resubmitted, planner.counts.new) == (1, 1, 1)
    ((made,),) = shards_of(spool, planner)
    assert (made.source.source_id, made.attempt) == ("b", 3)
    assert made.before == Attempt("earlier-run", 4, "r-1")


def test_an_attempt_whose_rows_name_no_shard_is_followed_by_the_next(spool: Spool) -> None:
    """Datasets from before there were journals have such rows: they count, and there is no place to look at."""
    known = Known(failed=dict.fromkeys(keys_of("a"), before(2, shard=None)))
    planner = planned(spool, [source("a")], Recipe(retry_failed=True), known=known)
    ((made,),) = shards_of(spool, planner)
    assert (made.attempt, made.before) == (3, None)


def test_what_is_there_is_not_tried_again(spool: Spool) -> None:
    """Not even by request: a dataset may hold a failed output beside a kept one."""
    known = Known(done=set(keys_of("a")), failed=dict.fromkeys(keys_of("a"), before()))
    assert planned(spool, [source("a")], Recipe(retry_failed=True), known=known).counts.new == 0


def test_a_duplicate_is_counted_and_made_once(spool: Spool) -> None:
    """The first row of those that ask for the same is the one that is made."""
    rows = [source("a"), source("a", row=2), source("b", row=3), source("a", row=4)]
    planner = planned(spool, rows)
    assert [made.source.row for shard in shards_of(spool, planner) for made in shard] == [1, 3]
    assert (planner.counts.sources, planner.counts.duplicates, planner.counts.variations) == (4, 2, 2)


def test_a_row_that_asks_for_something_more_is_no_duplicate(spool: Spool) -> None:
    """A row's own parameters make it another request, though its source is the same."""
    planner = planned(spool, [source("a"), source("a", row=2, overrides={"guidance": 5.0})])
    assert (planner.counts.duplicates, planner.counts.new) == (0, 2)


def test_two_urls_that_differ_in_their_signature_are_one(spool: Spool) -> None:
    """A manifest that was appended to has the same image under yesterday's signature."""
    planner = planned(spool, [nameless(SIGNED), nameless(SIGNED.replace("AKIA", "ASIA"))])
    assert planner.counts.duplicates == 1


def test_a_refused_row_is_counted_and_kept_for_its_row_in_the_dataset(spool: Spool) -> None:
    """Nothing is made of it, and it is not forgotten."""
    refused = RejectedSource(2, "no URI")
    planner = planned(spool, [source("a"), refused])
    assert planner.first_rejected == [refused]
    (row,) = pq.read_table(spool.rejected).to_pylist()
    assert (row["status"], row["error"], row["run_id"]) == ("rejected", "row 2: no URI", "run")
    assert (planner.counts.sources, planner.counts.rejected, planner.counts.new) == (1, 1, 1)


def test_of_many_refused_rows_a_few_are_held(spool: Spool) -> None:
    """All are written, and the first ones are told."""
    planner = planned(spool, [RejectedSource(number, "no URI") for number in range(1, 101)])
    assert planner.counts.rejected == pq.read_metadata(spool.rejected).num_rows == 100
    assert [row.row for row in planner.first_rejected] == list(range(1, 11))


def test_a_planner_that_is_told_to_stop_stops(spool: Spool) -> None:
    """What the check raises comes out, and what was begun is closed."""

    def check() -> None:
        raise StoppedByUser("stopped")

    planner = Planner(Recipe(), known=Known(), labels=NO_LABELS, spool=spool, check=check)
    with pytest.raises(StoppedByUser):
        planner.read([many(3)])
    assert planner.counts.sources == 0


def test_images_are_counted_by_output(spool: Spool) -> None:
    """A request for three images is three to pay for, whether the recipe or the row says so."""
    rows = [source("a"), source("b", overrides={"num_outputs": 4})]
    assert planned(spool, rows, with_parameters(num_outputs=3)).counts.images == 7


def test_uploads_are_counted_for_new_local_files(spool: Spool) -> None:
    """Only they are handed over in a request of their own."""
    rows = [
        source("a", uri="file:///a.jpg"),
        source("b", uri="file:///b.jpg"),
        source("c"),
        source("d", uri="s3://b/d"),
    ]
    assert planned(spool, rows, known=Known(done=set(keys_of("b")))).counts.uploads == 1


@given(
    names=st.lists(st.sampled_from("abcdefgh") | st.none(), max_size=30),
    done=st.sets(st.sampled_from("abcdefgh")),
    failed=st.sets(st.sampled_from("abcdefgh")),
    unknown=st.sets(st.sampled_from("abcdefgh")),
    resubmitted=st.sets(st.sampled_from("abcdefgh")),
    per_source=st.integers(1, 3),
    retry=st.booleans(),
)
@settings(deadline=None)
def test_the_counts_add_up(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str | None],
    done: set[str],
    failed: set[str],
    unknown: set[str],
    resubmitted: set[str],
    per_source: int,
    retry: bool,
) -> None:
    """Whatever a manifest repeats or refuses and whatever the dataset has, every variation is in one count."""
    spool = spool_in(tmp_path_factory.mktemp("plan"))
    recipe = Recipe(variations_per_source=per_source, retry_failed=retry)
    rows = [source(name) if name else RejectedSource(at, "refused") for at, name in enumerate(names)]
    known = Known(
        done=set(keys_of(*done)),
        failed=dict.fromkeys(keys_of(*failed - unknown), before()),
        unknown=dict.fromkeys(keys_of(*unknown), before()),
    )
    planner = planned(spool, rows, recipe, known=known, resubmit=set(keys_of(*resubmitted)))
    counts = planner.counts
    assert counts.variations == counts.done + counts.failed_before + counts.unknown_before + counts.new
    assert counts.resubmitted <= counts.new
    assert counts.variations == per_source * len({name for name in names if name})
    assert counts.sources + counts.rejected == len(rows)
    assert counts.sources - counts.duplicates == len({name for name in names if name})
    assert counts.images == counts.new
    made = [variation for shard in shards_of(spool, planner) for variation in shard]
    assert len({variation.variation_id for variation in made}) == len(made) == counts.new
    ids = {key_of(variation) for variation in made}
    assert not ids & known.done
    assert ids & set(known.unknown) <= set(keys_of(*resubmitted))


@pytest.mark.parametrize(
    ("new", "shards", "size"),
    [
        *((0, 0, 1), (1, 1, 1), (40, 40, 1), (41, 21, 2), (400, 40, 10), (2_000, 40, 50), (4_000, 80, 50)),
        *((10_000, 200, 50), (10_001, 197, 51), (1_000_000, 200, 5000), (1_000_001, 200, 5001)),
    ],
)
def test_a_small_run_has_one_image_a_shard_and_a_large_one_few_shards(new: int, shards: int, size: int) -> None:
    """Each image shows in the Prefect UI while they can be counted by eye; later, task runs are dear."""
    counts = Counts(new=new)
    assert (counts.shards(), counts.shard_size()) == (shards, size)


@given(new=st.integers(0, 10**9))
def test_there_are_never_more_shards_than_the_most(new: int) -> None:
    """And they hold all."""
    counts = Counts(new=new)
    assert counts.shards() <= MAX_SHARDS
    assert counts.shards() * counts.shard_size() >= new > (counts.shards() - 1) * counts.shard_size() or new == 0


@given(count=st.integers(1, 60), size=st.integers(1, 70))
@settings(deadline=None, max_examples=40)
def test_no_variation_is_lost_or_repeated_by_cutting(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int
) -> None:
    """Shards hold all that was planned, in order, each but the last of the wanted size."""
    spool = spool_in(tmp_path_factory.mktemp("plan"))
    planner = planned(spool, many(count))
    shards = [[made.source.source_id for made in shard] for shard in shards_of(spool, planner, size=size)]
    assert [name for shard in shards for name in shard] == [f"s{number}" for number in range(count)]
    assert {len(shard) for shard in shards[:-1]} <= {size}
    assert 0 < len(shards[-1]) <= size


def test_shards_that_straddle_the_spools_row_groups_lose_nothing(spool: Spool) -> None:
    """The spool is written ten thousand rows at a time, and cut at any other number."""
    planner = planned(spool, many(25_001))
    assert pq.ParquetFile(spool.variations).metadata.num_rows == 25_001
    for size in (126, 7_000, 12_000, 25_001):
        names = [name for table in cut(spool.variations, size) for name in table.column("source_id").to_pylist()]
        assert names == [f"s{number}" for number in range(25_001)]
    assert len(list(cut(spool.variations, planner.counts.shard_size()))) == planner.counts.shards() == 199


SOURCES = st.builds(
    lambda name, version, overrides, signed: source(
        name, version=version, overrides=overrides, **({"uri": SIGNED} if signed else {})
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.none() | st.text("ab1", max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "guidance": st.floats(0, 10),
            "seed": st.integers(1, 2**31 - 1),
            "num_outputs": st.integers(1, 4),
            "output_format": st.sampled_from(["png", "webp"]),
            "disable_safety_checker": st.booleans(),
        },
    ),
    st.booleans(),
)


@given(sources=st.lists(SOURCES, max_size=8), per_source=st.integers(1, 3), seed=st.none() | st.integers(1, 2**31 - 1))
@settings(deadline=None)
def test_what_comes_out_of_a_shard_is_what_was_planned(
    tmp_path_factory: pytest.TempPathFactory, sources: list[Source], per_source: int, seed: int | None
) -> None:
    """Every field, but the overrides of a row, which are in its parameters then."""
    spool = spool_in(tmp_path_factory.mktemp("plan"))
    recipe = Recipe(parameters=Parameters(guidance=2.5), variations_per_source=per_source, seed=seed)
    planner = planned(spool, sources, recipe)
    expected = {made.variation_id: made for one in reversed(sources) for made in reversed(list(expand(one, recipe)))}
    made = [variation for shard in shards_of(spool, planner) for variation in shard]
    assert {variation.variation_id for variation in made} == set(expected)
    for variation in made:
        wanted = expected[variation.variation_id]
        assert variation == replace(wanted, source=replace(wanted.source, overrides={}))


DAY = dt.date(2024, 2, 29)
TIME = dt.datetime(2024, 2, 29, 12, 30, 15, 123456)  # noqa: DTZ001 - a label without a zone
LABELS: dict[str, tuple[pa.DataType, Any]] = {
    "text": (pa.string(), "naïve \0 \n"),
    "integer": (pa.int64(), -(2**63)),
    "small": (pa.int8(), -128),
    "unsigned": (pa.uint64(), 2**64 - 1),
    "number": (pa.float64(), 0.1),
    "half": (pa.float16(), 1.5),
    "truth": (pa.bool_(), False),
    "bytes": (pa.binary(), b"\xff\x00"),
    "fixed": (pa.binary(2), b"\xff\x00"),
    "date": (pa.date32(), DAY),
    "time": (pa.time64("us"), dt.time(1, 2, 3, 4)),
    "moment": (pa.timestamp("us"), TIME),
    "nanoseconds": (pa.timestamp("ns"), TIME),
    "zoned": (pa.timestamp("ms", "Europe/Berlin"), TIME.replace(microsecond=123000, tzinfo=dt.UTC)),
    "seconds": (pa.duration("us"), dt.timedelta(days=-1, microseconds=7)),
    "decimal": (pa.decimal128(38, 10), Decimal("-12345678901234567890.0123456789")),
    "wide": (pa.decimal256(60, 2), Decimal("1.25")),
    "list": (pa.list_(pa.int32()), [1, None, 3]),
    "large list": (pa.large_list(pa.string()), ["a", None]),
    "object": (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), {"a": None, "b": ["x"]}),
    "map": (pa.map_(pa.string(), pa.int64()), [("a", 1)]),
    "a.b": (pa.string(), "a name with a dot"),
    "seed": (pa.string(), "a name of the plan's own"),
    "labels": (pa.string(), "the name of the struct itself"),
}


def test_labels_of_every_type_survive(spool: Spool) -> None:
    """As they were, and as null where a row has none."""
    labels = pa.schema([pa.field(name, kind) for name, (kind, _) in LABELS.items()])
    full = {name: value for name, (_, value) in LABELS.items()}
    rows = [source("full", labels=full), source("none", labels=dict.fromkeys(LABELS)), source("absent")]
    planner = planned(spool, rows, labels=labels)
    (table,) = cut(spool.variations, 10)
    assert label_schema_of(table) == labels
    first, second, third = variations_of(table, signed=planner.signed)
    assert first.source.labels == full
    assert second.source.labels == third.source.labels == dict.fromkeys(LABELS)


def test_a_manifest_without_labels_has_none_in_its_plan(spool: Spool) -> None:
    """There is no struct without fields in parquet."""
    planner = planned(spool, [source("a")])
    (table,) = cut(spool.variations, 10)
    assert label_schema_of(table) == NO_LABELS
    assert next(variations_of(table, signed=planner.signed)).source.labels == {}


def test_a_signature_is_handed_on_in_memory_alone(spool: Spool) -> None:
    """The plan lies in object storage, and a signature is a secret."""
    planner = planned(spool, [nameless(SIGNED), source("cat", uri=SIGNED)])
    assert SIGNATURE.encode() not in spool.variations.read_bytes()
    tables = list(cut(spool.variations, 10))
    assert SIGNATURE not in str(tables[0].to_pylist())
    assert [made.source.uri for made in variations_of(tables[0], signed=planner.signed)] == [SIGNED, SIGNED]
    other_machine = [made.source.uri for made in variations_of(tables[0], signed={})]
    assert other_machine == ["https://bucket.example.com/cat.jpg"] * 2


def test_counting_writes_no_file(tmp_path: Path) -> None:
    """An estimate needs none."""
    assert planned(None, many(3)).counts.new == 3
    assert not list(tmp_path.iterdir())


def test_the_price_is_that_of_the_images() -> None:
    """Each output of a request is paid for."""
    assert Counts(new=10, images=40).cost_usd(Limits(price_usd=0.05)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        # 1,000 requests of a submit and a poll or two each, 60 a minute.
        (Limits(requests_per_minute=60), 2350),
        (Limits(first_requests_per_minute=60), 2350),
        (Limits(requests_per_minute=60, count_all_requests=False), 1000),
        (Limits(max_in_flight=16), 1000 * LATENCY_SECONDS / 16),
        (Limits(requests_per_minute=600, max_in_flight=1), 1000 * LATENCY_SECONDS),
        # And of four polls.
        (Limits(requests_per_minute=60, poll_interval_seconds=4), 5000),
    ],
    ids=["all calls count", "not told", "submits count", "no limit", "one slot", "set polls"],
)
def test_the_time_is_that_of_what_binds(limits: Limits, expected: float) -> None:
    """The request limit or the slots, and the latency of the last image."""
    assert Counts(new=1000).forecast(limits).seconds == pytest.approx(expected + LATENCY_SECONDS, rel=0.15)


def test_nothing_takes_no_time_and_one_image_its_latency() -> None:
    """At both ends the estimate is what it has to be."""
    assert Counts().forecast(Limits()).seconds == 0
    assert Counts(new=1).forecast(Limits(max_in_flight=1000)).seconds == pytest.approx(LATENCY_SECONDS, rel=0.01)


def test_uploads_take_requests_too() -> None:
    """Where all calls count, each local file is one call more."""
    limits = Limits(requests_per_minute=60)
    without = Counts(new=10).forecast(limits).seconds
    assert Counts(new=10, uploads=10).forecast(limits).seconds == pytest.approx(without + 10)


def test_a_large_plan_stays_in_bounded_memory(spool: Spool) -> None:
    """100,000 sources: of each, its id is held and nothing else. Looked at over the last fifth, for looking is slow."""

    def batches() -> Iterator[list[Source | RejectedSource]]:
        for first in range(0, 100_000, 2_000):
            if first == 80_000:
                tracemalloc.start()
            names = [f"https://images.example.com/a/long/folder/{at}.jpg" for at in range(first, first + 2_000)]
            yield [Source(1, name, name, name) for name in names]

    planner = Planner(Recipe(), known=Known(), labels=NO_LABELS, spool=spool)
    try:
        planner.read(batches())
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(table.num_rows for table in cut(spool.variations, planner.counts.shard_size())) == 100_000
    # An id and its place in the set are some 90 bytes, twice that while the set grows; a source that were held, 700.
    assert held < 20_000 * 250
    # Ten thousand rows wait to be written, and are written column by column.
    assert peak < 15_000_000
