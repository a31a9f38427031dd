"""What an earlier run left open is fetched, and what it has of it stays."""

from collections.abc import Callable

import httpx

from variations.engine.request import Unsettled
from variations.ledger.records import Settled
from variations.ledger.story import Item
from variations.models import Outcome
from variations.unsettled import unsettled_of

from .simulation import FakeApi, LoopClock, MemoryLog, picture, run, simulate, staged, variations


def serving(is_there: Callable[[int], bool]) -> FakeApi:
    """Return an API of whose outputs some are there, by their number in their request."""

    def output(target: str, _: int) -> httpx.Response:
        index = int(target.removesuffix(".jpg").rpartition("-")[2])
        return httpx.Response(200, content=picture()) if is_there(index) else httpx.Response(404)

    return FakeApi(on_output=output)


def left_open(*made: Outcome) -> list[Unsettled]:
    """Return a request as its journal tells of it, a moment after it was submitted."""
    variation, now = made[0].variation, LoopClock().now()
    images = tuple(outcome.without_variation() for outcome in made)
    item = Item(variation.variation_id, intended_at=now, request_ids=[str(made[0].request_id)], images=images)
    return unsettled_of([item], {variation.variation_id: variation}, now=now, asked=LoopClock().monotonic())


def test_of_several_images_only_those_that_are_unknown_are_fetched() -> None:
    """The others are written down as they were, though they are not to be had any more."""
    made, first = run(serving(lambda index: index == 0), variations(1, num_outputs=2))
    kept, unknown = made
    assert (kept.status, unknown.status) == ("kept", "unknown")
    api = serving(lambda index: index == 1)
    api.requests = first.api.requests
    log = MemoryLog()

    async def main() -> list[Outcome]:
        async with staged(api) as stage:
            found: list[Outcome] = await stage.engine.resume(left_open(kept, unknown), log)
            return found

    (outcome,) = simulate(main())
    assert (outcome.output_index, outcome.status) == (1, "kept")
    assert api.targets("output") == [f"{kept.request_id}-1.jpg"]
    (settled,) = log.records
    assert isinstance(settled, Settled)
    assert settled.images == (kept.without_variation(), outcome.without_variation())
