"""Shards that another process began, and left where an image was flagged."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from variations.gate import Gate
from variations.ledger.journal import Journal, read_last
from variations.ledger.records import Accepted, Intended, Settled, Withdrawn
from variations.ledger.writer import Writer
from variations.making import ShardMaker
from variations.models import ImageOutcome, Measures, Variation
from variations.rolls import next_roll
from variations.run import Run
from variations.shards import read_shard

from .scene import Scene, planned

REROLL = Gate(on_flagged="reroll", copy_bits=0, twin_bits=0)


def flagged(request_id: str) -> ImageOutcome:
    """Return an image that was dropped."""
    measures = Measures(contrast=0.0, phash="0" * 16, verdict="flagged: blank")
    return ImageOutcome(output_index=0, status="rejected", measures=measures, request_id=request_id, cost_usd=0.031)


async def left_by_another(run: Run, scene: Scene, *records: str) -> Variation:
    """Write a journal up to where a flagged image is settled, and then so far; returns the flagged variation."""
    journal = Journal(scene.dataset, run_id=run.run_id, shard=0, writer="gone")
    await journal.claim()
    shard = await read_shard(scene.dataset, run.run_id, 0)
    (variation,) = shard.variations(journal.story).values()
    name, second = variation.variation_id, next_roll(variation)
    await journal.append(Intended(variation_id=name, attempt=1))
    await journal.append(Accepted(variation_id=name, request_id="r"))
    await journal.append(Settled(variation_id=name, images=(flagged("r"),)))
    if "intended" in records:
        seed = second.parameters.seed
        await journal.append(Intended(variation_id=second.variation_id, attempt=1, rolled_from=name, seed=seed))
    if "withdrawn" in records:
        await journal.append(Withdrawn(variation_id=second.variation_id, reason="stopped"))
    await journal.aclose()
    return variation


async def taken_over(run: Run, scene: Scene) -> ShardMaker:
    """Return a maker of shards that has taken the shard over."""
    maker = ShardMaker(
        scene.dataset,
        engine=run.engine,
        writer=Writer.this_process(since=datetime.now(UTC)),
        run_id=run.run_id,
        model=run.job.recipe.model,
        signed={},
        is_shared=True,
    )
    last = await read_last(scene.dataset, run.run_id, 0)
    assert last is not None
    assert await maker.take_over(0, last.header.writer)
    return maker


@pytest.mark.parametrize("records", [(), ("intended", "withdrawn")], ids=["flagged", "withdrawn"])
async def test_who_takes_a_shard_over_fills_the_place_of_what_was_flagged(
    scene: Scene, records: tuple[str, ...]
) -> None:
    """In the same run, with the same seed as the one before would have; what was flagged is not made again."""
    await scene.furnish("a")
    job = replace(scene.job, recipe=replace(scene.job.recipe, gate=REROLL))
    async with scene.opened(job) as run:
        await planned(run)
        before = await left_by_another(run, scene, *records)
        tally = await (await taken_over(run, scene)).make(0)
    (line,) = scene.api.bill().lines
    assert line.seed == next_roll(before).parameters.seed
    assert (tally.kept, tally.dropped, tally.rerolled, tally.rerolls_left, tally.variations) == (1, 1, 1, 0, 1)


async def test_what_may_be_accepted_in_its_place_is_held(scene: Scene) -> None:
    """Nothing is made beside it."""
    await scene.furnish("a")
    job = replace(scene.job, recipe=replace(scene.job.recipe, gate=REROLL))
    async with scene.opened(job) as run:
        await planned(run)
        await left_by_another(run, scene, "intended")
        tally = await (await taken_over(run, scene)).make(0)
    assert scene.api.bill().accepted == 0
    assert (tally.unknown, tally.dropped, tally.rerolls_left) == (1, 1, 0)
