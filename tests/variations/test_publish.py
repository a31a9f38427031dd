"""`metadata.parquet` is made of the runs' parts: which row stands, and what is known of the dataset."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from variations.dataset import METADATA_KEY
from variations.known import Before, Known
from variations.layout import part_key, shard_part
from variations.models import RejectedSource
from variations.publish import part_keys, publish, read_known
from variations.storage import Storage, open_storage

from .examples import outcome, source, variation, write_part
from .published import RUNS, Interleaved, refuse, refused, rows_of, statuses


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


@pytest.mark.parametrize("first", [[], RUNS[:1]], ids=["all in one", "one by one"])
async def test_who_publishes_need_not_read_what_is_known(dataset: Storage, first: list[str]) -> None:
    """It is told what the dataset has then, as reading it would tell, and the metadata is fetched once."""
    made = [outcome("kept", of=variation("a"), output_index=0), outcome("unknown", of=variation("a"), output_index=1)]
    made += [outcome("unknown", of=variation(name)) for name in "bc"]
    await write_part(dataset, RUNS[0], [*made, outcome("failed", of=variation("d"))])
    if first:
        await publish(dataset, first)
    # Found out since, of one in its own attempt, and of another in the next one.
    await write_part(dataset, RUNS[0], [*made[:2], outcome("failed", of=variation("b")), made[3]], number=2)
    await write_part(dataset, RUNS[1], [outcome("kept", of=variation("d", attempt=2))])
    watched, known = Interleaved(dataset), Known()
    await publish(watched, RUNS[:2], known=known)
    assert known == await read_known(dataset)
    assert {key.hex() for key in known.failed} == {variation("b").variation_id}
    assert watched.calls.count("get_to_file") == 2 + len(first)


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
    made.append(outcome("rejected", of=variation("d")))
    await write_part(dataset, RUNS[0], made, shard=7)
    await refuse(dataset, RUNS[0], RejectedSource(3, "no URI"))
    for _ in range(2):
        known = await read_known(dataset, runs=RUNS[:1])
        assert known.done == {bytes.fromhex(variation("a").variation_id)}
        assert known.unknown == {bytes.fromhex(variation("b").variation_id): Before(1, RUNS[0], 7, "r")}
        assert known.held == known.unknown
        assert known.failed == {bytes.fromhex(variation("c").variation_id): Before(3, RUNS[0], 7, None)}
        assert known.flagged == {bytes.fromhex(variation("d").variation_id): Before(1, RUNS[0], 7, "r")}
        await publish(dataset, RUNS[:1])


@pytest.mark.parametrize("statuses", [("rejected", "failed"), ("failed", "rejected")])
async def test_of_the_images_of_a_request_one_that_was_dropped_says_most(
    dataset: Storage, statuses: tuple[str, str]
) -> None:
    """But for one that is unknown, and one that is there."""
    of_request = [outcome(status, output_index=at) for at, status in enumerate(statuses)]
    await write_part(dataset, RUNS[0], of_request)
    key = bytes.fromhex(variation().variation_id)
    known = await read_known(dataset, runs=RUNS[:1])
    assert (set(known.flagged), known.failed, known.is_vacant(key)) == ({key}, {}, True)
    await write_part(dataset, RUNS[1], [*of_request, outcome("unknown", output_index=2)])
    known = await read_known(dataset, runs=RUNS[1:2])
    assert (set(known.unknown), known.flagged, known.is_vacant(key)) == ({key}, {}, False)
    await write_part(dataset, RUNS[2], [*of_request, outcome("kept", output_index=2)])
    known = await read_known(dataset, runs=RUNS[2:3])
    assert (known.done, known.is_vacant(key)) == ({key}, False)


async def test_what_was_dropped_is_no_refused_row(dataset: Storage) -> None:
    """A later run that uses its source does not end its row: it was paid."""
    await write_part(dataset, RUNS[0], [outcome("rejected", of=variation("a"), cost_usd=0.031)])
    await refuse(dataset, RUNS[0], RejectedSource(3, "no URI", source_id="b"))
    await write_part(
        dataset, RUNS[1], [outcome(of=variation(name, variation_id=f"{at:032x}")) for at, name in enumerate("ab")]
    )
    await publish(dataset, RUNS[:1])
    await publish(dataset, RUNS[1:2])
    rows = [(row["source_id"], row["status"]) for row in await rows_of(dataset)]
    assert sorted(rows) == [("a", "kept"), ("a", "rejected"), ("b", "kept")]


async def test_an_image_that_is_unknown_beside_a_kept_one_is_held(dataset: Storage) -> None:
    """Its request is done, and not made again; the missing image is looked for all the same."""
    await write_part(dataset, RUNS[0], [outcome("kept", output_index=0), outcome("unknown", output_index=1)])
    known = await read_known(dataset, runs=RUNS[:1])
    key = bytes.fromhex(variation().variation_id)
    assert (known.done, known.unknown, known.held) == ({key}, {}, {key: Before(1, RUNS[0], 0, "r")})


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
