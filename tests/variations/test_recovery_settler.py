"""What a closed run left open is looked for: fetched, held, or failed."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any

import pytest

from tests.variations.chaos.store import Store
from tests.variations.engine.simulation import EPOCH, ApiRequest, FakeApi, LoopClock, refused, staged
from tests.variations.ledger.stores import View, in_memory
from variations import errors
from variations.engine.limits import Limits
from variations.known import Before, Known
from variations.layout import note_key
from variations.ledger.journal import read_notes
from variations.ledger.records import Record, Settled
from variations.models import ImageOutcome, Variation
from variations.publish import publish
from variations.recovery import Settler, peek

from .dead_run import PRICE, RUN, accepted, close, intended, journal, plan_run, rows, wrote


def holding(*items: Variation, request_id: str | None = None) -> Known:
    """Return what a dataset knows that holds these."""
    known = Known()
    for one in items:
        known.note("unknown", bytes.fromhex(one.variation_id), Before(1, RUN, 0, request_id))
    return known


def settle(
    records: Callable[[list[Variation]], Iterable[Record]],
    test: Callable[[View, Any, list[Variation], Settler], Coroutine[Any, Any, None]],
    *,
    later_seconds: float = 1000.0,
    **api: Any,
) -> None:
    """Let a run die after its records, close it, and settle what it held, so much later."""

    async def main(_: Store, view: View) -> None:
        (only,) = await plan_run(view, 1)
        await wrote(view, 0, *records(only))
        await close(view)
        await asyncio.sleep(later_seconds)
        async with staged(FakeApi(**api), view) as stage:
            settler = Settler(view, engine=stage.engine, writer="new", limits=Limits(price_usd=PRICE))
            await test(view, stage, only, settler)

    in_memory(main)


def is_done(api: FakeApi, request_id: str, of: Variation) -> None:
    """Let the API have made a request."""
    inputs = {"redux_image": of.source.uri, **of.parameters.as_sent()}
    now = LoopClock().monotonic()
    api.requests[request_id] = ApiRequest(request_id, inputs, now - 100, now - 80)


def test_a_note_is_adopted_and_its_image_fetched() -> None:
    """What a replaced writer learned too late is written into the journal, polled, kept, and in the rows."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        is_done(stage.api, "late", only[0])
        content = {"variation_id": only[0].variation_id, "request_id": "late", "shard": 0}
        await view.put(note_key(RUN, only[0].variation_id, "late"), json.dumps(content).encode())
        recovery = await settler.settle(holding(only[0], only[1]))
        assert (recovery.kept, recovery.still_unknown) == (1, 1)
        assert settler.touched == {RUN}
        found = journal(view, 0)
        await found.replay()
        item = found.story.items[only[0].variation_id]
        assert (item.request_ids, [image.status for image in item.images]) == (["late"], ["kept"])
        assert dict(await rows(view)) == {only[0].variation_id: "kept", only[1].variation_id: "unknown"}
        assert stage.api.submitted == []
        assert set(settler.not_found) == {bytes.fromhex(only[1].variation_id)}

    settle(lambda only: [intended(only[0]), intended(only[1])], test)


def test_a_lost_submit_is_found_however_long_its_journal_takes_to_read() -> None:
    """Its time is that of its intent, not of the look: a store that is slow does not make it younger."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        found = journal(view, 0)
        await found.replay()
        intended_at = found.story.items[only[0].variation_id].intended_at
        assert intended_at is not None
        is_done(stage.api, "lost", only[0])
        stage.api.requests["lost"].accepted_at = (intended_at - EPOCH).total_seconds() + 0.1
        # The API tells its time, so that it is not looked for in a quarter of an hour.
        await stage.engine.check_key()
        quick = view.get

        async def slow(key: str) -> bytes:
            await asyncio.sleep(5)
            return await quick(key)

        view.get = slow  # type: ignore[method-assign]
        recovery = await settler.settle(holding(only[0]))
        assert (recovery.kept, recovery.still_unknown) == (1, 0)

    settle(lambda only: [intended(only[0])], test, landed=lambda api: api.requests.values())


def test_notes_of_the_closed_process_itself_are_found_by_the_next_run() -> None:
    """From the sleeping process that wakes after its replacement to the image: nothing of it is lost."""

    async def main(store: Store, view: View) -> None:
        (only,) = await plan_run(view, 1)
        sleeper = await wrote(view, 0, intended(only[0]))
        await close(View(store))
        with pytest.raises(errors.Replaced):
            await sleeper.accept(only[0].variation_id, "late")
        assert [note.request_id for note in await read_notes(view, RUN)] == ["late"]
        async with staged(FakeApi(), view) as stage:
            is_done(stage.api, "late", only[0])
            settler = Settler(view, engine=stage.engine, writer="new", limits=Limits(price_usd=PRICE))
            assert (await settler.settle(holding(only[0]))).kept == 1
        await publish(view, [RUN])
        assert bytes.fromhex(only[0].variation_id) in (await peek(view)).done

    in_memory(main)


def test_what_the_history_does_not_show_may_be_submitted_again_later() -> None:
    """It was looked for, and not found, with the seconds since its intent."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        await settler.settle(holding(only[0]))
        assert stage.api.times("history page")
        (seconds,) = settler.not_found.values()
        assert 1000 <= seconds <= 1200
        assert stage.api.submitted == []

    settle(lambda only: [intended(only[0])], test)


def test_where_the_history_cannot_be_read_nothing_is_not_found() -> None:
    """A history that fails every time says nothing: what it may hold must not be submitted, and paid for, again."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        await settler.settle(holding(only[0]))
        assert stage.api.times("history page")
        assert settler.not_found == {}

    settle(lambda only: [intended(only[0])], test, on_history_page=lambda _: refused(500))


def test_where_the_engine_was_stopped_before_the_look_nothing_is_not_found() -> None:
    """What was not looked for is not a thing that was not found."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        settling = asyncio.create_task(settler.settle(holding(only[0])))
        await asyncio.sleep(0.03)
        stage.engine.stop(errors.StoppedByUser("stopped"))
        await settling
        assert stage.api.times("history page") == []
        assert settler.not_found == {}
        await asyncio.sleep(60)

    settle(lambda only: [intended(only[0])], test)


def test_an_intent_that_is_not_over_is_not_not_found() -> None:
    """While its POST may still leave, from a process that slept, it must not be submitted again."""

    async def test(_: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        del stage
        await settler.settle(holding(only[0]))
        assert all(seconds > Limits().intent_is_over_seconds for seconds in settler.not_found.values())

    settle(lambda only: [intended(only[0])], test, later_seconds=5.0)


def test_an_accepted_request_is_fetched() -> None:
    """What was in flight when its process died is polled, kept and paid once."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        is_done(stage.api, "ra", only[0])
        recovery = await settler.settle(holding(only[0], request_id="ra"))
        assert (recovery.kept, recovery.still_unknown) == (1, 0)
        assert settler.not_found == {}
        assert await rows(view) == [(only[0].variation_id, "kept")]
        assert stage.api.submitted == []

    settle(lambda only: [intended(only[0]), accepted(only[0], "ra")], test)


def test_what_is_too_old_to_be_had_has_failed() -> None:
    """After nine days no output is left: nobody is asked for it, it was paid, and trying it again is up to the user."""

    async def test(view: View, stage: Any, only: list[Variation], settler: Settler) -> None:
        recovery = await settler.settle(holding(only[0], request_id="ra"))
        assert (recovery.failed, recovery.looked_for, recovery.still_unknown) == (1, 1, 0)
        assert recovery.cost_usd == PRICE
        assert recovery.has_changed
        assert stage.api.calls == []
        assert await rows(view) == [(only[0].variation_id, "failed")]
        found = journal(view, 0)
        await found.replay()
        (image,) = found.story.items[only[0].variation_id].images
        assert (image.error_code, image.request_id, image.cost_usd, image.can_retry) == (
            "request_gone",
            "ra",
            PRICE,
            True,
        )
        assert settler.not_found == {}

    settle(
        lambda only: [intended(only[0]), accepted(only[0], "ra")],
        test,
        later_seconds=timedelta(days=9).total_seconds(),
    )


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        # Another request would pay for the one that is there again.
        (ImageOutcome(output_index=0, status="kept", cost_usd=PRICE), [("kept", None), ("failed", False)]),
        (ImageOutcome(output_index=0, status="failed", can_retry=True), [("failed", True), ("failed", True)]),
        (
            ImageOutcome(output_index=0, status="rejected", can_retry=False, cost_usd=PRICE),
            [("rejected", False), ("failed", False)],
        ),
        # Their place is filled anew.
        (
            ImageOutcome(output_index=0, status="rejected", can_retry=True, cost_usd=PRICE),
            [("rejected", True), ("rejected", True)],
        ),
    ],
    ids=["kept", "failed", "dropped", "to be made again"],
)
def test_what_is_too_old_takes_nothing_from_what_its_request_brought(
    beside: ImageOutcome, expected: list[tuple[str, bool | None]]
) -> None:
    """A request for two, of which one was fetched in time: its row stays, and only the other one is given up."""
    lost = ImageOutcome(output_index=1, status="unknown", error_code="output_unavailable", cost_usd=PRICE)

    async def test(view: View, _: Any, only: list[Variation], settler: Settler) -> None:
        recovery = await settler.settle(holding(only[0], request_id="ra"))
        assert (recovery.kept, recovery.dropped, recovery.cost_usd) == (0, 0, PRICE)
        assert recovery.failed == (expected[1][0] == "failed")
        found = journal(view, 0)
        await found.replay()
        images = found.story.items[only[0].variation_id].images
        assert [(image.status, image.can_retry) for image in images] == expected
        assert [status for _, status in await rows(view)] == sorted(status for status, _ in expected)

    settle(
        lambda only: [
            intended(only[0]),
            accepted(only[0], "ra"),
            Settled(variation_id=only[0].variation_id, images=(beside, lost)),
        ],
        test,
        later_seconds=timedelta(days=9).total_seconds(),
    )


def test_the_epoch_is_the_stores() -> None:
    """The simulated store and the simulated API tell the same time."""

    async def test(store: Store, _: View) -> None:
        assert abs((store.now() - LoopClock().now()).total_seconds()) <= 1
        assert store.now() > EPOCH

    in_memory(test)
