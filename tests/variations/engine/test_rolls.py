"""What is flagged is made again with the next seed: within the budget, so many times, and each of them once."""

import io
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from variations import errors
from variations.engine.in_vain import FLAGGED_ITEMS
from variations.gate import Gate
from variations.ledger.records import Accepted, Intended, Settled
from variations.rolls import next_roll

from .simulation import PRICE_USD, FakeApi, MemoryLog, picture, run, variation, variations

REROLL = Gate(on_flagged="reroll", max_rolls=3, size_percent=0)


def blank() -> bytes:
    """Return an image of nothing."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    return buffer.getvalue()


def flagging(is_flagged: Callable[[int], bool]) -> FakeApi:
    """Return an API that makes blank images of some of its requests, by their number from 1."""

    def output(target: str, _: int) -> httpx.Response:
        number = int(target.removeprefix("request-").partition("-")[0])
        return httpx.Response(200, content=blank() if is_flagged(number) else picture())

    return FakeApi(on_output=output)


def test_a_flagged_image_is_kept_with_its_verdict() -> None:
    """If nothing else is asked for."""
    (outcome,), stage = run(flagging(lambda _: True), variations(1), gate=Gate(size_percent=0))
    assert outcome.status == "kept"
    assert outcome.measures is not None
    assert (outcome.measures.verdict, outcome.measures.contrast) == ("flagged: blank", 0.0)
    assert len(stage.storage.objects) == 1


def test_a_flagged_image_is_dropped_where_that_is_asked_for() -> None:
    """It is paid, and its row says where it lay; nothing is stored, and nothing made again."""
    (outcome,), stage = run(flagging(lambda _: True), variations(1), gate=Gate(on_flagged="drop", size_percent=0))
    assert (outcome.status, outcome.error_code, outcome.image) == ("rejected", "flagged", None)
    assert outcome.error == "blank: its contrast is 0 of 255, and gate_blank 8"
    assert outcome.cost_usd == PRICE_USD
    assert outcome.output_url is not None
    assert not stage.storage.objects
    assert (stage.engine.progress.dropped, stage.engine.progress.failed, len(stage.api.submitted)) == (1, 0, 1)


def test_a_flagged_image_is_made_again_with_the_next_seed() -> None:
    """Both are paid, each has a row, and one image is stored."""
    log = MemoryLog()
    (first, second), stage = run(flagging(lambda number: number == 1), variations(1), log=log, gate=REROLL)
    assert (first.status, second.status) == ("rejected", "kept")
    assert second.variation == next_roll(first.variation)
    assert (second.variation.roll, second.variation.rolled_from) == (1, first.variation.variation_id)
    sent = [inputs["seed"] for inputs in stage.api.submitted]
    assert sent == [first.variation.parameters.seed, second.variation.parameters.seed]
    assert len(stage.storage.objects) == 1
    progress = stage.engine.progress
    assert (progress.kept, progress.dropped, progress.rerolled, progress.settled) == (1, 1, 1, 1)
    assert stage.engine.budget.spent_usd == pytest.approx(2 * PRICE_USD)


def test_a_reroll_is_written_down_before_it_is_submitted() -> None:
    """After the verdict on the one before, whose place it takes, with the seed that the plan does not know."""
    log = MemoryLog()
    run(flagging(lambda number: number == 1), variations(1), log=log, gate=REROLL)
    kinds = [type(record) for record in log.records]
    assert kinds == [Intended, Accepted, Settled, Intended, Accepted, Settled]
    before, after = (record for record in log.records if isinstance(record, Intended))
    assert (before.rolled_from, before.seed) == (None, None)
    assert after.rolled_from == before.variation_id
    assert after.seed == next_roll(variation(0)).parameters.seed


def test_a_place_is_filled_so_many_times_at_the_most() -> None:
    """The last one is what it comes to."""
    outcomes, stage = run(flagging(lambda _: True), variations(2), gate=REROLL)
    assert [outcome.status for outcome in outcomes] == ["rejected"] * 6
    assert len(stage.api.submitted) == 6
    last = [outcome for outcome in outcomes if outcome.variation.roll == 2]
    assert [outcome.can_retry for outcome in last] == [False, False]
    assert all(outcome.can_retry for outcome in outcomes if outcome.variation.roll < 2)
    assert stage.engine.progress.settled == 2


def test_a_reroll_stays_under_the_budget() -> None:
    """What it has not enough for is left: the run is paused, and nothing is accepted beyond."""
    outcomes, stage = run(flagging(lambda _: True), variations(2), gate=REROLL, max_cost_usd=3 * PRICE_USD)
    assert len(outcomes) == len(stage.api.requests) == 3
    assert isinstance(stage.engine.stopped_by, errors.BudgetReached)
    assert stage.engine.budget.committed_usd <= 3 * PRICE_USD + 1e-9


def test_nothing_is_made_again_once_the_run_is_stopped() -> None:
    """What was flagged is in the journal, and the next run makes the next one."""

    async def stop(stage: object) -> None:
        stage.engine.stop(errors.StoppedByUser("stopped"))  # type: ignore[attr-defined]

    async def later(stage: object) -> None:
        await stage.clock.sleep(5)  # type: ignore[attr-defined]
        await stop(stage)

    (outcome,), stage = run(flagging(lambda _: True), variations(1), gate=REROLL, meanwhile=later)
    assert (outcome.status, outcome.can_retry) == ("rejected", True)
    assert len(stage.api.submitted) == 1


def test_a_request_for_several_images_is_made_again_where_none_of_them_passed() -> None:
    """One that passed fills its place; what was flagged beside it is dropped."""

    def output(target: str, _: int) -> httpx.Response:
        return httpx.Response(200, content=blank() if target.endswith("-0.jpg") else picture())

    outcomes, stage = run(FakeApi(on_output=output), variations(1, num_outputs=2), gate=REROLL)
    assert [outcome.status for outcome in outcomes] == ["rejected", "kept"]
    assert len(stage.api.submitted) == 1
    outcomes, stage = run(
        flagging(lambda number: number == 1), variations(1, num_outputs=2), gate=replace(REROLL, twin_bits=0)
    )
    assert [outcome.status for outcome in outcomes] == ["rejected", "rejected", "kept", "kept"]
    assert len(stage.api.submitted) == 2


def test_what_fails_beside_what_was_flagged_is_made_again_with_it() -> None:
    """It is one request for both, and only what that comes to is counted."""

    def output(target: str, _: int) -> httpx.Response:
        return httpx.Response(200, content=blank() if target.endswith("-0.jpg") else b"no image")

    outcomes, stage = run(FakeApi(on_output=output), variations(1, num_outputs=2), gate=REROLL)
    assert [(outcome.status, outcome.can_retry) for outcome in outcomes] == [
        *[("rejected", True)] * 4,
        *[("rejected", False), ("failed", False)],
    ]
    progress = stage.engine.progress
    assert (progress.dropped, progress.failed, progress.settled) == (3, 1, 2)


def test_an_unknown_image_may_fill_its_place_yet() -> None:
    """So nothing is made again beside it."""

    def output(target: str, _: int) -> httpx.Response:
        return httpx.Response(200, content=blank()) if target.endswith("-0.jpg") else httpx.Response(404)

    outcomes, stage = run(FakeApi(on_output=output), variations(1, num_outputs=2), gate=REROLL)
    assert [outcome.status for outcome in outcomes] == ["rejected", "unknown"]
    assert len(stage.api.submitted) == 1


def test_two_images_that_are_the_same_are_twins() -> None:
    """Of one source; the first one passes, and so does the same image of another source."""
    same = [variation(0), replace(variation(1), source=variation(0).source), variation(2)]
    outcomes, _ = run(FakeApi(), same, gate=Gate(size_percent=0), max_in_flight=1)
    verdicts = [outcome.measures.verdict for outcome in outcomes if outcome.measures]
    assert verdicts == ["passed", "flagged: twin", "passed"]
    assert [outcome.measures.sibling_distance for outcome in outcomes if outcome.measures] == [None, 0, None]


def test_what_was_dropped_has_no_twin() -> None:
    """A blank one looks like every other blank one, and is not there."""
    same = [replace(variation(number), source=variation(0).source) for number in range(3)]
    outcomes, _ = run(flagging(lambda _: True), same, gate=Gate(on_flagged="drop", size_percent=0))
    assert {outcome.measures.verdict for outcome in outcomes if outcome.measures} == {"flagged: blank"}


def test_a_run_in_which_nothing_passes_is_stopped() -> None:
    """Before all of it is paid for nothing; a person is asked."""
    wanted = variations(3 * FLAGGED_ITEMS)
    outcomes, stage = run(flagging(lambda _: True), wanted, gate=replace(REROLL, on_flagged="drop"), max_in_flight=1)
    assert isinstance(stage.engine.stopped_by, errors.NothingPasses)
    assert FLAGGED_ITEMS <= len(outcomes) <= FLAGGED_ITEMS + 1
    outcomes, stage = run(flagging(lambda number: number % 4 > 0), wanted, gate=replace(REROLL, on_flagged="drop"))
    assert stage.engine.stopped_by is None
    assert len(outcomes) == len(wanted)


def test_a_run_in_which_nothing_passes_says_why_the_last_image_was_dropped() -> None:
    """And not why another one of its request, which is made again with it, could not be read."""

    def output(target: str, _: int) -> httpx.Response:
        return httpx.Response(200, content=blank() if target.endswith("-0.jpg") else b"no image")

    wanted = variations(FLAGGED_ITEMS, num_outputs=2)
    _, stage = run(FakeApi(on_output=output), wanted, gate=replace(REROLL, max_rolls=2), max_in_flight=1)
    assert isinstance(stage.engine.stopped_by, errors.NothingPasses)
    assert "in a row were flagged and dropped (blank: its contrast is 0 of 255, and" in stage.engine.stopped_by.message
