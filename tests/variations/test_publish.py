"""`metadata.parquet` is made of the runs' parts, by whoever comes, as often as they like."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.dataset import METADATA_KEY, SCHEMA, outcomes_table, parquet_bytes, rejected_table
from variations.errors import ObjectNotFound, PreconditionFailed, StorageError
from variations.known import Before
from variations.layout import part_key, shard_part
from variations.models import RejectedSource
from variations.publish import ATTEMPTS, part_keys, publish, read_known
from variations.storage import Storage, open_storage

from .examples import NO_LABELS, outcome, source, variation, write_part

RUNS = [f"2024010{day}T000000Z-{day}" for day in range(1, 10)]


async def rows_of(storage: Storage) -> list[dict[str, Any]]:
    """Read the dataset, and check what holds of each."""
    rows = pq.read_table(io.BytesIO(await storage.get(METADATA_KEY))).to_pylist()
    keys = [(row["variation_id"], row["output_index"]) for row in rows]
    assert len(set(keys)) == len(keys), "an image has two rows"
    return rows


async def statuses(storage: Storage) -> dict[str, str]:
    """Return each source's status."""
    return {row["source_id"]: row["status"] for row in await rows_of(storage)}


async def refuse(storage: Storage, run_id: str, *rows: RejectedSource) -> None:
    """Write the part of a run's refused rows."""
    table = rejected_table(rows, labels=pa.schema([]), manifest="m.csv", run_id=run_id, model="flux-redux-dev")
    await storage.put(part_key(run_id, "rejected"), parquet_bytes(table))


class Interleaved:
    """A storage on which something else happens once, just before a call of a method."""

    def __init__(self, storage: Storage, **before: Callable[[], Awaitable[Any]]) -> None:
        self._storage = storage
        self._before = before
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Hand out the method, with what happens before it."""
        method = getattr(self._storage, name)
        if name not in {"head", "get_to_file", "replace", "put_if_absent"}:
            return method

        async def called(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            happens = self._before.pop(name, None)
            if happens is not None:
                await happens()
            return await method(*arguments, **named)

        return called


async def test_the_first_publish_makes_the_metadata_of_all_parts(any_dataset: Storage) -> None:
    """Every shard's rows are in it, and it says how many there are."""
    await write_part(any_dataset, RUNS[0], [outcome(of=variation("a"))])
    await write_part(any_dataset, RUNS[0], [outcome("failed", of=variation("b"))], shard=1)
    assert await publish(any_dataset, RUNS[:1]) == 2
    assert await statuses(any_dataset) == {"a": "kept", "b": "failed"}


async def test_the_next_publish_adds_to_it(any_dataset: Storage) -> None:
    """A dataset grows run by run."""
    for run_id, name in zip(RUNS, "abc", strict=False):
        await write_part(any_dataset, run_id, [outcome(of=variation(name))])
        await publish(any_dataset, [run_id])
    assert await statuses(any_dataset) == dict.fromkeys("abc", "kept")


async def test_publishing_again_changes_nothing(dataset: Storage) -> None:
    """A run that was killed between its publish and its receipt is published twice."""
    await write_part(dataset, RUNS[0], [outcome(of=variation(name)) for name in "ab"])
    await refuse(dataset, RUNS[0], RejectedSource(3, "no URI"))
    await publish(dataset, RUNS[:1])
    before = await rows_of(dataset)
    assert await publish(dataset, RUNS[:1]) == 3
    assert sorted(map(str, await rows_of(dataset))) == sorted(map(str, before))


async def test_a_dataset_without_rows_has_an_empty_metadata(dataset: Storage) -> None:
    """Its first run may have found nothing to do."""
    assert await publish(dataset, []) == 0
    assert await rows_of(dataset) == []


async def test_the_parts_of_a_killed_run_are_picked_up_by_the_next(any_dataset: Storage) -> None:
    """Who closes it names it: what it paid for is known before anything else is planned, and merged with the rest."""
    await write_part(any_dataset, RUNS[0], [outcome(of=variation("a"))])
    await publish(any_dataset, [RUNS[0]])
    await write_part(any_dataset, RUNS[1], [outcome(of=variation("b"))])
    known = await read_known(any_dataset, runs=[RUNS[1]])
    assert known.done == {bytes.fromhex(variation(name).variation_id) for name in "ab"}
    await write_part(any_dataset, RUNS[2], [outcome(of=variation("c"))])
    await publish(any_dataset, RUNS[1:3])
    assert await statuses(any_dataset) == dict.fromkeys("abc", "kept")


async def test_published_parts_are_not_read_again(dataset: Storage) -> None:
    """A thousand days of runs are one file to fetch."""
    for run_id, name in zip(RUNS[:3], "abc", strict=True):
        await write_part(dataset, run_id, [outcome(of=variation(name))])
        await publish(dataset, [run_id])
    await write_part(dataset, RUNS[3], [outcome(of=variation("d"))])
    watched = Interleaved(dataset)
    assert len((await read_known(watched)).done) == 3
    assert watched.calls.count("get_to_file") == 1
    watched = Interleaved(dataset)
    assert len((await read_known(watched, runs=[RUNS[3]])).done) == 4
    assert watched.calls.count("get_to_file") == 2
    watched = Interleaved(dataset)
    assert await publish(watched, [RUNS[3]]) == 4
    assert watched.calls.count("get_to_file") == 2


async def test_of_each_shard_the_newest_part_counts(dataset: Storage) -> None:
    """A shard's rows are written anew when more is known of it; the part before lies there still."""
    await write_part(dataset, RUNS[0], [outcome("unknown", of=variation("a"))], number=9)
    await write_part(dataset, RUNS[0], [outcome("failed", of=variation("a"))], number=10)
    await write_part(dataset, RUNS[0], [outcome(of=variation("b"))], shard=1, number=2)
    await refuse(dataset, RUNS[0], RejectedSource(3, "no URI"))
    parts = [shard_part(0, 10), shard_part(1, 2), "rejected"]
    assert await part_keys(dataset, RUNS[0]) == [part_key(RUNS[0], part) for part in parts]
    assert await publish(dataset, RUNS[:1]) == 3
    assert sorted((await statuses(dataset)).items(), key=str) == [("a", "failed"), ("b", "kept"), (None, "rejected")]


async def test_a_plan_and_a_journal_are_no_parts(dataset: Storage) -> None:
    """They lie beside them."""
    for key in ("plan/shard-00000.parquet", "journal/00000/00000001.jsonl", "metadata/other.txt", "report.html"):
        await dataset.put(f"_runs/{RUNS[0]}/{key}", b"x")
    assert await part_keys(dataset, RUNS[0]) == []


async def test_the_metadata_is_rebuilt_where_it_was_deleted(any_dataset: Storage) -> None:
    """It is derived, and never the truth: all parts are read, those of published runs too."""
    for run_id, name in zip(RUNS[:3], "abc", strict=True):
        await write_part(any_dataset, run_id, [outcome(of=variation(name))])
        await publish(any_dataset, [run_id])
    before = await rows_of(any_dataset)
    await any_dataset.delete(METADATA_KEY)
    known = await read_known(any_dataset)
    assert len(known.done) == 3
    assert await publish(any_dataset, []) == 3
    assert sorted(map(str, await rows_of(any_dataset))) == sorted(map(str, before))


@pytest.mark.parametrize("between", [publish, None], ids=["published before", "in one merge"])
@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [
        ("failed", "kept", "kept"),
        ("failed", "failed", "failed"),
        ("failed", "unknown", "unknown"),
        ("unknown", "failed", "failed"),
    ],
)
async def test_the_later_attempt_stands(dataset: Storage, between: Any, first: str, second: str, stands: str) -> None:
    """A failed image that is tried again has one row, its last."""
    await write_part(dataset, RUNS[0], [outcome(first)])
    if between:
        await between(dataset, RUNS[:1])
    await write_part(dataset, RUNS[1], [outcome(second, of=variation(attempt=2))])
    await publish(dataset, RUNS[:2])
    (row,) = await rows_of(dataset)
    assert (row["status"], row["attempt"], row["run_id"]) == (stands, 2, RUNS[1])


@pytest.mark.parametrize("settled", ["kept", "failed"])
@pytest.mark.parametrize("between", [publish, None], ids=["published before", "in one merge"])
async def test_what_is_known_stands_for_what_was_not(dataset: Storage, between: Any, settled: str) -> None:
    """In the same attempt, whoever wrote it: what a later run found out, and not what an earlier merge still says."""
    await write_part(dataset, RUNS[0], [outcome(settled)])
    if between:
        await between(dataset, RUNS[:1])
    await write_part(dataset, RUNS[1], [outcome("unknown")])
    await publish(dataset, RUNS[:2])
    assert await statuses(dataset) == {"cat": settled}
    await dataset.delete(METADATA_KEY)
    await write_part(dataset, RUNS[0], [outcome("unknown")], number=1)
    await publish(dataset, RUNS[:1])
    await write_part(dataset, RUNS[0], [outcome(settled)], number=2)
    await publish(dataset, RUNS[:1])
    assert await statuses(dataset) == {"cat": settled}


@pytest.mark.parametrize("between", [publish, None], ids=["published before", "in one merge"])
async def test_an_image_that_is_kept_is_never_given_up(dataset: Storage, between: Any) -> None:
    """Two runs at once may both have wanted it: the one that paid and stored it has the row."""
    await write_part(dataset, RUNS[0], [outcome("kept")])
    if between:
        await between(dataset, RUNS[:1])
    await write_part(dataset, RUNS[1], [outcome("failed")])
    await publish(dataset, RUNS[:2])
    assert await statuses(dataset) == {"cat": "kept"}
    assert (await read_known(dataset)).failed == {}


async def test_each_output_of_a_request_has_its_row(dataset: Storage) -> None:
    """A request that delivered one of two is done, and not tried again."""
    await write_part(dataset, RUNS[0], [outcome("failed", output_index=1), outcome("kept", output_index=0)])
    await publish(dataset, RUNS[:1])
    assert [row["status"] for row in await rows_of(dataset)] == ["failed", "kept"]
    known = await read_known(dataset)
    assert (len(known.done), known.failed) == (1, {})


async def test_what_is_known_of_a_dataset(dataset: Storage) -> None:
    """What is kept is done, what is unknown is held, failed ones have their last attempt, refused rows are nothing."""
    made = [outcome("kept", of=variation("a")), outcome("unknown", of=variation("b"))]
    made.append(outcome("failed", of=variation("c", attempt=3), request_id=None))
    await write_part(dataset, RUNS[0], made, shard=7)
    await refuse(dataset, RUNS[0], RejectedSource(3, "no URI"))
    for _ in range(2):
        known = await read_known(dataset, runs=RUNS[:1])
        assert known.done == {bytes.fromhex(variation("a").variation_id)}
        assert known.unknown == {bytes.fromhex(variation("b").variation_id): Before(1, RUNS[0], 7, "r")}
        assert known.held == known.unknown
        assert known.failed == {bytes.fromhex(variation("c").variation_id): Before(3, RUNS[0], 7, None)}
        await publish(dataset, RUNS[:1])


async def test_an_image_that_is_unknown_beside_a_kept_one_is_held(dataset: Storage) -> None:
    """Its request is done, and not made again; the missing image is looked for all the same."""
    await write_part(dataset, RUNS[0], [outcome("kept", output_index=0), outcome("unknown", output_index=1)])
    known = await read_known(dataset, runs=RUNS[:1])
    key = bytes.fromhex(variation().variation_id)
    assert (known.done, known.unknown, known.held) == ({key}, {}, {key: Before(1, RUNS[0], 0, "r")})


def refused(name: str, row: int = 1) -> RejectedSource:
    """Return a row that is refused, of a source with a name."""
    return RejectedSource(row, "guidance is 99", name, f"https://images.example.com/{name}.jpg")


@pytest.mark.parametrize("between", [publish, None], ids=["published before", "in one merge"])
async def test_an_old_refusal_ends_when_its_source_is_used(dataset: Storage, between: Any) -> None:
    """The manifest was put right, and the dataset says nothing else."""
    await refuse(dataset, RUNS[0], refused("a"), refused("b", row=2))
    if between:
        await between(dataset, RUNS[:1])
    await write_part(dataset, RUNS[1], [outcome(of=variation("a"))])
    await publish(dataset, RUNS[:2])
    assert await statuses(dataset) == {"a": "kept", "b": "rejected"}


@pytest.mark.parametrize("between", [publish, None], ids=["published before", "in one merge"])
async def test_an_old_refusal_ends_when_its_source_is_refused_again(dataset: Storage, between: Any) -> None:
    """In another row, after the manifest was sorted."""
    await refuse(dataset, RUNS[0], refused("a", row=1))
    if between:
        await between(dataset, RUNS[:1])
    await refuse(dataset, RUNS[1], refused("a", row=9))
    await publish(dataset, RUNS[:2])
    (row,) = await rows_of(dataset)
    assert (row["run_id"], row["error"]) == (RUNS[1], "row 9: guidance is 99")


async def test_a_killed_run_does_not_undo_what_later_ones_said(dataset: Storage) -> None:
    """Its rows are merged by whoever closes it, perhaps after those of later runs, and perhaps again and again."""
    await write_part(dataset, RUNS[0], [outcome("failed", of=variation("a")), outcome(of=variation("b"))])
    await refuse(dataset, RUNS[0], refused("c"), refused("d", row=2))
    await write_part(dataset, RUNS[1], [outcome(of=variation("a", attempt=2)), outcome(of=variation("c"))])
    await refuse(dataset, RUNS[1], refused("b", row=3), refused("d", row=2))
    await publish(dataset, RUNS[1:2])
    await publish(dataset, RUNS[:1])
    before = await rows_of(dataset)
    assert sorted((row["source_id"], row["status"], row["run_id"]) for row in before) == [
        ("a", "kept", RUNS[1]),
        ("b", "kept", RUNS[0]),
        ("b", "rejected", RUNS[1]),
        ("c", "kept", RUNS[1]),
        ("d", "rejected", RUNS[1]),
    ]
    await publish(dataset, RUNS[:2])
    assert sorted(map(str, await rows_of(dataset))) == sorted(map(str, before))


@pytest.mark.parametrize("between", [publish, None], ids=["published before", "in one merge"])
async def test_a_source_that_is_used_and_refused_in_one_run_has_both_rows(dataset: Storage, between: Any) -> None:
    """One row of a manifest does not speak for another."""
    await write_part(dataset, RUNS[0], [outcome(of=variation("a"))])
    await refuse(dataset, RUNS[0], refused("a"))
    if between:
        await between(dataset, RUNS[:1])
    await publish(dataset, RUNS[:1])
    assert sorted(row["status"] for row in await rows_of(dataset)) == ["kept", "rejected"]


async def test_a_refused_row_without_a_name_ends_no_other(dataset: Storage) -> None:
    """Blank cells of two manifests are two rows."""
    await refuse(dataset, RUNS[0], RejectedSource(1, "no URI"))
    await publish(dataset, [RUNS[0]])
    await refuse(dataset, RUNS[1], RejectedSource(2, "no URI"))
    await publish(dataset, [RUNS[1]])
    assert [row["error"] for row in await rows_of(dataset)] == ["row 1: no URI", "row 2: no URI"]


async def test_labels_of_two_runs_come_together(dataset: Storage) -> None:
    """Each run has its own; a row has null where its run had none, and types widen."""
    labels = {"a": pa.schema([("x", pa.int64())]), "b": pa.schema([("x", pa.float64()), ("y", pa.string())])}
    for run_id, (name, schema) in zip(RUNS, labels.items(), strict=False):
        made = variation(name, source=source(name, labels={"x": 1.0, "y": "text"}))
        await write_part(dataset, run_id, [outcome(of=made)], labels=schema)
        await publish(dataset, [run_id])
    rows = {row["source_id"]: (row["x"], row["y"]) for row in await rows_of(dataset)}
    assert rows == {"a": (1.0, None), "b": (1.0, "text")}


async def test_who_loses_the_first_publish_tries_again(any_dataset: Storage) -> None:
    """Another publisher made the file first, of what it saw: no row is lost."""
    await write_part(any_dataset, RUNS[0], [outcome(of=variation("a"))])

    async def other() -> None:
        await write_part(any_dataset, RUNS[1], [outcome(of=variation("b"))])
        await publish(any_dataset, [RUNS[1]])

    watched = Interleaved(any_dataset, put_if_absent=other)
    assert await publish(watched, RUNS[:1]) == 2
    assert watched.calls.count("replace") == 1
    assert await statuses(any_dataset) == {"a": "kept", "b": "kept"}


async def test_who_loses_the_replacement_tries_again(any_dataset: Storage) -> None:
    """An older view never overwrites a newer one."""
    await publish(any_dataset, [])
    await write_part(any_dataset, RUNS[0], [outcome(of=variation("a"))])

    async def other() -> None:
        await write_part(any_dataset, RUNS[1], [outcome(of=variation("b"))])
        await publish(any_dataset, [RUNS[1]])

    watched = Interleaved(any_dataset, replace=other)
    assert await publish(watched, RUNS[:1]) == 2
    assert watched.calls.count("replace") == 2
    assert await statuses(any_dataset) == {"a": "kept", "b": "kept"}


async def test_what_is_published_between_fetching_and_merging_is_not_lost(any_dataset: Storage) -> None:
    """It is the view that was merged that has to be the newest, not the one at the time of the replacement."""
    await publish(any_dataset, [])
    await write_part(any_dataset, RUNS[0], [outcome(of=variation("a"))])

    async def other() -> None:
        # The metadata was fetched; this is the fetch of the part.
        await write_part(any_dataset, RUNS[1], [outcome(of=variation("b"))])
        await publish(any_dataset, [RUNS[1]])

    class SecondFetch(Interleaved):
        async def get_to_file(self, key: str, path: Path) -> None:
            self.calls.append("get_to_file")
            if self.calls.count("get_to_file") == 2:
                await other()
            await any_dataset.get_to_file(key, path)

    assert await publish(SecondFetch(any_dataset), RUNS[:1]) == 2
    assert await statuses(any_dataset) == {"a": "kept", "b": "kept"}


async def test_metadata_that_is_deleted_meanwhile_is_rebuilt(any_dataset: Storage) -> None:
    """Between a publisher's look at it and its fetch, and between its fetch and its replacement."""
    for method in ("get_to_file", "replace"):
        await write_part(any_dataset, RUNS[0], [outcome(of=variation("a"))])
        await publish(any_dataset, [RUNS[0]])
        watched = Interleaved(any_dataset, **{method: lambda: any_dataset.delete(METADATA_KEY)})
        assert await publish(watched, RUNS[:1]) == 1
        assert await statuses(any_dataset) == {"a": "kept"}


async def test_a_part_that_is_gone_is_an_error(dataset: Storage) -> None:
    """A row that was paid for is not passed over in silence."""
    await write_part(dataset, RUNS[0], [outcome()])
    watched = Interleaved(dataset, get_to_file=lambda: dataset.delete(part_key(RUNS[0], shard_part(0, 1))))
    with pytest.raises(ObjectNotFound):
        await publish(watched, RUNS[:1])


async def test_who_loses_every_time_says_so(dataset: Storage) -> None:
    """After a number of attempts somebody has to look."""
    await publish(dataset, [])

    class Busy(Interleaved):
        async def replace(self, key: str, data: Any, **named: Any) -> Any:
            await dataset.put(METADATA_KEY, await dataset.get(METADATA_KEY) + b"")
            entry = await dataset.head(METADATA_KEY)
            assert entry is not None
            self.calls.append("lost")
            raise PreconditionFailed(f"{key} {len(named)} {bool(data)}")

    busy = Busy(dataset)
    with pytest.raises(PreconditionFailed, match=f"{ATTEMPTS} times; run it again"):
        await publish(busy, [])
    assert busy.calls.count("lost") == ATTEMPTS


async def test_many_publishers_at_once_lose_no_row(any_dataset: Storage) -> None:
    """Tasks of one process, each with a run of its own."""

    async def one(run_id: str, name: str) -> None:
        await write_part(any_dataset, run_id, [outcome(of=variation(name))])
        await publish(any_dataset, [run_id])

    await asyncio.gather(*(one(run_id, name) for run_id, name in zip(RUNS, "abcd", strict=False)))
    assert await statuses(any_dataset) == dict.fromkeys("abcd", "kept")


def test_publishers_in_threads_lose_no_row(tmp_path: Path) -> None:
    """Each with an event loop of its own, as other processes have."""
    start = threading.Barrier(6)
    failures: list[BaseException] = []

    async def one(number: int) -> None:
        storage = open_storage(str(tmp_path / "dataset"), missing_ok=True)
        await write_part(storage, RUNS[number], [outcome(of=variation(f"s{number}"))])
        start.wait(30)
        await publish(storage, [RUNS[number]])

    def run(number: int) -> None:
        try:
            asyncio.run(one(number))
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = asyncio.run(statuses(open_storage(str(tmp_path / "dataset"))))
    assert found == {f"s{number}": "kept" for number in range(6)}


RUN = st.tuples(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["kept", "failed", "unknown", "rejected"]), max_size=4),
    st.booleans(),
    st.sampled_from(["killed before its publish", "killed after its publish", "published", "metadata deleted"]),
)


@given(runs=st.lists(RUN, min_size=1, max_size=4))
@settings(deadline=None, max_examples=10)
def test_every_image_has_one_row_whatever_happens_to_runs(  # noqa: C901 - it is a model of the whole
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[dict[str, str], bool, str]]
) -> None:
    """Retried, killed at any point and merged late, or its metadata deleted: each image once, at its last attempt, and
    a rebuild of the metadata from nothing comes to the same rows.
    """
    storage = open_storage(str(tmp_path_factory.mktemp("dataset")))
    expected: dict[str, tuple[str, int, str]] = {}
    refusals: dict[str, str] = {}
    killed: list[str] = []

    async def one(run_id: str, wanted: dict[str, str], *, retry: bool, end: str) -> None:
        known = await read_known(storage, runs=killed)
        outcomes, refused_rows = [], []
        for name, status in wanted.items():
            made = variation(name)
            key = bytes.fromhex(made.variation_id)
            if status == "rejected":
                refused_rows.append(refused(name, row=ord(name)))
                refusals[name] = run_id
            elif key in known.done or key in known.unknown or (key in known.failed and not retry):
                assert name in expected
            else:
                attempt = known.failed[key].attempt + 1 if key in known.failed else 1
                assert attempt == (expected[name][1] + 1 if name in expected else 1)
                outcomes.append(outcome(status, of=variation(name, attempt=attempt)))
                expected[name] = (status, attempt, run_id)
                refusals.pop(name, None)
        await write_part(storage, run_id, outcomes)
        if refused_rows:
            await refuse(storage, run_id, *refused_rows)
        if end.startswith("killed"):
            killed.append(run_id)
        if end != "killed before its publish":
            await publish(storage, [run_id])
        if end == "metadata deleted":
            await storage.delete(METADATA_KEY)

    async def check() -> list[str]:
        assert await publish(storage, killed) == len(expected) + len(refusals)
        rows = await rows_of(storage)
        found = {row["source_id"]: row for row in rows if row["status"] != "rejected"}
        assert {name: (row["status"], row["attempt"], row["run_id"]) for name, row in found.items()} == expected
        assert {row["source_id"]: row["run_id"] for row in rows if row["status"] == "rejected"} == refusals
        return sorted(map(str, rows))

    async def everything() -> None:
        for run_id, (wanted, retry, end) in zip(RUNS, runs, strict=False):
            await one(run_id, wanted, retry=retry, end=end)
        before = await check()
        await storage.delete(METADATA_KEY)
        assert await check() == before

    asyncio.run(everything())


async def test_only_keys_are_held_while_merging(tmp_path: Path) -> None:
    """The rows of a dataset pass through, a row group at a time: their texts are never all in memory."""
    import tracemalloc  # noqa: PLC0415 - of this test alone

    storage = open_storage(str(tmp_path))
    await write_part(storage, RUNS[0], [outcome(of=variation(f"s{number}")) for number in range(12_000)])
    await publish(storage, [RUNS[0]])
    await write_part(storage, RUNS[1], [outcome(of=variation("new"))])
    tracemalloc.start()
    try:
        assert await publish(storage, [RUNS[1]]) == 12_001
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The columns that are looked at, of one row group of ten thousand.
    assert peak < 12_000_000


def parquet_of(**columns: list[Any]) -> bytes:
    """Return a parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def damaged_page() -> bytes:
    """Return a part whose first page is rubbish, its footer whole."""
    content = parquet_bytes(outcomes_table([outcome()], labels=NO_LABELS, run_id=RUNS[0], model="m"))
    return content[:4] + b"\xff" * 40 + content[44:]


def foreign_values() -> bytes:
    """Return a file that has the metadata's columns, filled by somebody else."""
    return parquet_of(**{name: [1] for name in SCHEMA.names})


UNREADABLE = {
    "empty": b"",
    "no parquet": b"a,b\n1,2\n",
    "cut off": parquet_of(a=[1])[:-20],
    "damaged page": damaged_page(),
    "other columns": parquet_of(file_name=["a.jpg"], text=["a cat"]),
    "other values": foreign_values(),
}

Step = Callable[[Storage, list[str]], Awaitable[Any]]
STEPS: dict[str, Step] = {"read_known": lambda storage, runs: read_known(storage, runs=runs), "publish": publish}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_a_metadata_that_is_not_ours_is_named_and_left_alone(
    dataset: Storage, step: Step, content: bytes
) -> None:
    """In one line, with what to do: once it is moved away, it is rebuilt from the parts."""
    await write_part(dataset, RUNS[0], [outcome()])
    await dataset.put(METADATA_KEY, content)
    with pytest.raises(
        StorageError, match=r"/metadata\.parquet is damaged.*Move it away .*; it is rebuilt from"
    ) as said:
        await step(dataset, [])
    assert "\n" not in str(said.value)
    assert await dataset.get(METADATA_KEY) == content
    await dataset.delete(METADATA_KEY)
    assert await publish(dataset, []) == 1


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_a_part_that_is_damaged_is_named(dataset: Storage, step: Step, content: bytes) -> None:
    """In one line, with what to do; the metadata stays as it is."""
    await write_part(dataset, RUNS[0], [outcome()])
    await publish(dataset, [RUNS[0]])
    before = await dataset.get(METADATA_KEY)
    damaged = part_key(RUNS[1], shard_part(7, 3))
    await dataset.put(damaged, content)
    with pytest.raises(
        StorageError, match=r"part-00007-00000003\.parquet is damaged.*Move it away .*paid for again"
    ) as said:
        await step(dataset, RUNS[1:2])
    assert "\n" not in str(said.value)
    assert await dataset.get(METADATA_KEY) == before
    await dataset.delete(damaged)
    assert await publish(dataset, RUNS[1:2]) == 1
