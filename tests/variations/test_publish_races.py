"""Whoever publishes, as often as they like and all at once: no row is lost, and none is there twice."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations.dataset import METADATA_KEY
from variations.errors import PreconditionFailed
from variations.publish import ATTEMPTS, publish, read_known
from variations.storage import Storage, open_storage

from .examples import outcome, variation, write_part
from .published import RUNS, Interleaved, refuse, refused, rows_of, statuses


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
