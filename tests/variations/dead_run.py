"""A run that ended without a word: its plan, its journals, and what closes it."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.variations import examples
from variations.dataset import parquet_bytes
from variations.layout import parts_prefix, plan_key, plan_shard_key
from variations.ledger.journal import Journal
from variations.ledger.records import Accepted, Intended, Record, Settled
from variations.models import ImageOutcome, Variation
from variations.plan import Plan
from variations.planning.plan_shards import cut, variations_of
from variations.recovery import close_run
from variations.shards import finish_shard, read_shard
from variations.tally import Tally
from variations.texts import json_bytes

RUN = "20260101T000000Z-abcdef"
PRICE = 0.031
EACH = 4


async def plan_run(storage: Any, shards: int) -> list[list[Variation]]:
    """Write a run's plan, so many shards of four variations each, and return them."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        spool = examples.spool_in(Path(folder))
        examples.planned(spool, [examples.source(f"source-{number}") for number in range(EACH * shards)])
        for number, table in enumerate(cut(spool.variations, EACH)):
            made.append(list(variations_of(table, signed={})))
            await storage.put(plan_shard_key(RUN, number), parquet_bytes(table))
    plan = Plan(RUN, "s3://bucket/manifest.csv", storage.uri, new=EACH * shards, images=EACH * shards, shards=shards)
    content = json_bytes({**asdict(plan), "recipe": {"model": "flux-redux-dev"}})
    assert await storage.put_if_absent(plan_key(RUN), content) is not None
    return made


def journal(storage: Any, shard: int, writer: str = "dead") -> Journal:
    """Return the journal of a shard."""
    return Journal(storage, run_id=RUN, shard=shard, writer=writer)


async def wrote(storage: Any, shard: int, *records: Record) -> Journal:
    """Return the journal of a shard whose process claimed it and wrote so much."""
    made = journal(storage, shard)
    await made.claim()
    if records:
        await made.append(*records)
    return made


def intended(of: Variation) -> Intended:
    """Return the intent of a variation."""
    return Intended(variation_id=of.variation_id, attempt=1, redux_image=of.source.public_uri)


def accepted(of: Variation, request_id: str) -> Accepted:
    """Return its acceptance."""
    return Accepted(variation_id=of.variation_id, request_id=request_id)


def settled(of: Variation, status: Any) -> Settled:
    """Return what became of it."""
    made = ImageOutcome(
        output_index=0,
        status=status,
        image=examples.image(of) if status == "kept" else None,
        error_code=None if status == "kept" else "inference_failed",
        request_id="r",
        cost_usd=PRICE if status == "kept" else 0.0,
    )
    return Settled(variation_id=of.variation_id, images=(made,))


async def close(storage: Any, writer: str = "new") -> Tally:
    """Close the run."""
    return await close_run(storage, RUN, writer=writer, price_usd=PRICE)


async def keys(storage: Any, prefix: str = "") -> list[str]:
    """Return what lies there."""
    return [entry.key async for entry in storage.list(prefix)]


async def rows(storage: Any) -> list[tuple[str, str]]:
    """Return variation and status of every row that the run has written."""
    newest: dict[str, str] = {}
    for key in await keys(storage, parts_prefix(RUN)):
        newest[key.rpartition("-")[0]] = key
    found = []
    for key in newest.values():
        table = pq.read_table(pa.BufferReader(await storage.get(key)))
        found += zip(table["variation_id"].to_pylist(), table["status"].to_pylist(), strict=True)
    return sorted(found)


async def end(storage: Any, made: Journal) -> Tally:
    """End a shard as its own process does."""
    shard = await read_shard(storage, RUN, made.shard)
    return await finish_shard(storage, made, shard, model="flux-redux-dev", price_usd=PRICE)
