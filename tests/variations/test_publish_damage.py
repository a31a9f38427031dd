"""Files among the metadata that are damaged, missing, or another program's, are named and left alone."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variations.dataset import METADATA_KEY, SCHEMA, outcomes_table, parquet_bytes
from variations.errors import ObjectNotFound, StorageError
from variations.layout import part_key, shard_part
from variations.publish import publish, read_known
from variations.storage import Storage

from .examples import NO_LABELS, outcome, write_part
from .published import RUNS, Interleaved


async def test_a_part_that_is_gone_is_an_error(dataset: Storage) -> None:
    """A row that was paid for is not passed over in silence."""
    await write_part(dataset, RUNS[0], [outcome()])
    watched = Interleaved(dataset, get_to_file=lambda: dataset.delete(part_key(RUNS[0], shard_part(0, 1))))
    with pytest.raises(ObjectNotFound):
        await publish(watched, RUNS[:1])


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
