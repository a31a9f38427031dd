"""What closes the door to new submits, and what becomes of what is in flight then."""

import asyncio
import signal
from typing import Any

import httpx
import pytest

from variations import errors
from variations.engine.calls import OUTAGE_ITEMS
from variations.engine.stopping import stop_on_signals
from variations.ledger.records import Settled
from variations.models import Outcome

from .simulation import (
    PRICE_USD,
    FakeApi,
    MemoryLog,
    MemoryStorage,
    Stage,
    lost,
    refused,
    run,
    simulate,
    staged,
    statuses,
    variation,
    variations,
)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (401, "invalid_api_key", errors.Unauthorized),
        (403, "not allowed", errors.Forbidden),
        (404, "Model not found", errors.ModelUnavailable),
        (405, "<h1>Method Not Allowed</h1>", errors.UnexpectedAnswer),
        (406, "Insufficient credits.", errors.InsufficientCredits),
        (406, "Team spend limit reached.", errors.SpendLimitReached),
        (410, "retired", errors.ModelUnavailable),
    ],
)
def test_an_answer_that_condemns_the_run_stops_it_at_once(
    code: int, text: str, expected: type[errors.VariationsError]
) -> None:
    """Nothing more is submitted, what is in flight is finished and kept, and the rest has no row."""
    api = FakeApi(on_submit=lambda number, _: refused(code, text) if number >= 7 else None)
    outcomes, stage = run(api, variations(50), max_in_flight=4)
    assert type(stage.engine.stopped_by) is expected
    assert statuses(outcomes) == {"kept": 6}
    # Those that left in the same moment as the first refused one are all that followed it.
    assert 7 <= len(api.submitted) <= 6 + 4
    assert stage.engine.progress.stopping


def test_a_refusal_ends_those_that_wait_for_the_rate() -> None:
    """They were not sent and are not sent."""
    api = FakeApi(on_submit=lambda number, _: refused(401) if number == 3 else None)
    outcomes, stage = run(api, variations(40), max_in_flight=16, requests_per_minute=30)
    assert statuses(outcomes) == {"kept": 2}
    assert len(api.submitted) == 3
    assert isinstance(stage.engine.stopped_by, errors.Unauthorized)


def test_an_api_that_cannot_be_reached_is_down_and_no_item_has_a_row() -> None:
    """None of them left."""
    api = FakeApi(on_submit=lambda *_: httpx.ConnectError("refused"))
    outcomes, stage = run(api, variations(50), max_in_flight=8)
    assert outcomes == []
    assert isinstance(stage.engine.stopped_by, errors.ServiceDown)
    assert len(api.submitted) <= 8 * 8


def test_an_api_that_refuses_many_in_a_row_is_down() -> None:
    """The manifest is not used up on an outage."""
    api = FakeApi(on_submit=lambda *_: refused(500))
    outcomes, stage = run(api, variations(1000), max_in_flight=4)
    assert isinstance(stage.engine.stopped_by, errors.ServiceDown)
    assert statuses(outcomes)["failed"] == OUTAGE_ITEMS - 1
    assert stage.engine.progress.cost_usd == 0


@pytest.mark.parametrize("answer", ["502", "lost"])
def test_an_api_that_loses_every_answer_is_down(answer: str) -> None:
    """Those that left are unknown, once each, and were looked for; the rest of the manifest is left for later."""
    api = FakeApi(on_submit=lambda *_: lost() if answer == "lost" else refused(502))
    outcomes, stage = run(api, variations(1000), max_in_flight=4)
    assert isinstance(stage.engine.stopped_by, errors.ServiceDown)
    assert statuses(outcomes) == {"unknown": len(api.submitted)}
    assert OUTAGE_ITEMS <= len(api.submitted) < OUTAGE_ITEMS + 4
    assert stage.engine.progress.cost_usd == pytest.approx(PRICE_USD * len(api.submitted))


def test_a_destination_that_takes_nothing_stops_the_run() -> None:
    """What was accepted by then is unknown, with its request id and its cost: its output can still be fetched."""
    storage = MemoryStorage()
    storage.fails = lambda number: errors.AccessDenied("s3://bucket: denied") if number > 4 else None
    outcomes, stage = run(FakeApi(), variations(100), storage=storage, max_in_flight=4)
    assert isinstance(stage.engine.stopped_by, errors.AccessDenied)
    counted = statuses(outcomes)
    assert counted["kept"] == 4
    assert counted == {"kept": 4, "unknown": len(stage.api.requests) - 4}
    rows = [outcome for outcome in outcomes if outcome.status == "unknown"]
    assert all(row.error_code == "access_denied" and row.request_id for row in rows)
    assert sum(outcome.cost_usd for outcome in outcomes) == pytest.approx(PRICE_USD * len(stage.api.requests))
    assert len(stage.api.requests) <= 12


def test_a_stop_by_the_user_ends_waiting_submits_and_finishes_what_is_in_flight() -> None:
    """At once for those that wait; each accepted request becomes its kept row."""
    ended: list[float] = []

    async def stop(stage: Stage) -> None:
        await asyncio.sleep(30)
        stage.engine.stop(errors.StoppedByUser("enough"))
        stage.engine.stop(errors.ServiceDown("a later reason"))
        ended.append(stage.clock.monotonic())

    api = FakeApi()
    outcomes, stage = run(api, variations(200), max_in_flight=16, requests_per_minute=30, meanwhile=stop)
    assert statuses(outcomes) == {"kept": len(api.requests)}
    assert max(api.times("submit")) <= ended[0] + 0.1
    assert str(stage.engine.stopped_by) == "enough"


def test_a_stop_does_not_wait_for_a_submit_that_backs_off() -> None:
    """It was not accepted: the run ends with it unsent."""

    async def stop(stage: Stage) -> None:
        await asyncio.sleep(20)
        stage.engine.stop(errors.StoppedByUser("enough"))

    api = FakeApi(on_submit=lambda *_: httpx.ConnectError("refused"))
    outcomes, stage = run(api, variations(3), meanwhile=stop)
    assert outcomes == []
    assert isinstance(stage.engine.stopped_by, errors.StoppedByUser)
    assert max(api.times("submit")) < 1000 + 20


def test_a_stopped_engine_takes_nothing_more() -> None:
    """A shard that begins afterwards ends with no row."""
    more: list[Outcome] = []

    async def stop(stage: Stage) -> None:
        stage.engine.stop(errors.StoppedByUser("enough"))
        more.extend(await stage.engine.run(variations(5)))

    outcomes, stage = run(FakeApi(), variations(5), meanwhile=stop)
    assert outcomes == more == []
    assert stage.api.calls == []


def test_a_key_that_is_revoked_leaves_what_is_in_flight_unknown() -> None:
    """Its polls are refused: it is counted, and its request id is there to fetch it later."""

    def on_status(_: str, number: int) -> httpx.Response | None:
        return refused(401) if number >= 3 else None

    api = FakeApi(on_status=on_status)
    outcomes, stage = run(api, variations(50), max_in_flight=4)
    assert statuses(outcomes) == {"unknown": 4}
    assert {outcome.request_id for outcome in outcomes} == set(api.requests)
    assert stage.engine.progress.cost_usd == pytest.approx(4 * PRICE_USD)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_engine_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    """The first one only stops it in order."""
    stopped: list[Any] = []

    class FakeEngine:
        stopped_by = None

        def stop(self, reason: errors.RunPaused) -> None:
            stopped.append(reason)

    before = signal.getsignal(number)
    with stop_on_signals(FakeEngine()):  # type: ignore[arg-type]
        signal.raise_signal(number)
        for _ in range(3):
            await asyncio.sleep(0)
    assert [type(reason) for reason in stopped] == [errors.StoppedByUser]
    assert signal.getsignal(number) is before


def test_many_shards_end_on_one_stop() -> None:
    """The reason is the engine's, so every shard ends."""
    more: list[Outcome] = []

    async def second_shard(stage: Stage) -> None:
        more.extend(await stage.engine.run(variation(100 + number) for number in range(100)))

    api = FakeApi(on_submit=lambda number, _: refused(406, "Insufficient credits") if number >= 9 else None)
    outcomes, _ = run(api, variations(100), max_in_flight=4, meanwhile=second_shard)
    assert statuses(outcomes + more) == {"kept": 8}


def test_a_cancelled_engine_has_written_down_what_may_be_paid_for() -> None:
    """Whoever reads its log finds those in flight by their ids; the kept are settled, the others not accepted."""

    def on_submit(number: int, _: object) -> httpx.Response | None:
        return httpx.Response(429, json={"error": "wait"}) if number >= 6 else None

    log = MemoryLog()

    async def main() -> list[str]:
        api = FakeApi(on_submit=on_submit, latency=lambda number: 10.0 if number <= 2 else 1000.0)
        async with staged(api, max_in_flight=10) as stage:
            making = asyncio.create_task(stage.engine.run(variations(8), log))
            await asyncio.sleep(300)
            making.cancel()
            await asyncio.wait({making})
            assert making.cancelled()
        return list(api.requests)

    accepted = simulate(main())
    assert len(accepted) == 5
    assert set(log.accepted().values()) == set(accepted)
    settled = [record for record in log.records if isinstance(record, Settled)]
    assert [image.status for record in settled for image in record.images] == ["kept", "kept"]
    assert len(set(log.intended())) == 8


def test_what_is_in_flight_has_the_grace_period_to_finish() -> None:
    """After a signal: what is done by then is kept, what is not is left to the next run, which finds it in the log."""
    ended: list[float] = []

    async def stop(stage: Stage) -> None:
        await asyncio.sleep(10)
        stage.engine.stop(errors.StoppedByUser("enough"))
        ended.append(stage.clock.monotonic())

    log = MemoryLog()
    api = FakeApi(latency=lambda number: 16.0 if number <= 3 else 1000.0)
    outcomes, stage = run(api, variations(20), log=log, max_in_flight=5, grace_seconds=30.0, meanwhile=stop)
    assert statuses(outcomes) == {"kept": 3}
    assert len(api.submitted) == 5
    assert set(log.accepted().values()) == set(api.requests)
    assert sum(isinstance(record, Settled) for record in log.records) == 3
    assert max(api.times()) <= ended[0] + 30
    assert (stage.engine.progress.in_flight, stage.engine.progress.unknown) == (0, 0)
    assert str(stage.engine.stopped_by) == "enough"


def test_only_a_user_sets_a_period_of_grace() -> None:
    """Where the API or the money is the reason, what is in flight is finished, however long it takes."""

    async def stop(stage: Stage) -> None:
        await asyncio.sleep(10)
        stage.engine.stop(errors.ServiceDown("an outage"))

    api = FakeApi(latency=lambda _: 300.0)
    outcomes, _ = run(api, variations(20), max_in_flight=5, grace_seconds=1.0, meanwhile=stop)
    assert statuses(outcomes) == {"kept": 5}


def test_with_a_budget_what_costs_nothing_is_made_as_fast_as_without() -> None:
    """A price of 0 is one that the API told: there is nothing to wait for, and no image is held for paid."""
    outcomes, stage = run(FakeApi(price_usd=0.0), variations(20), max_in_flight=8, max_cost_usd=1.0)
    assert [outcome.status for outcome in outcomes] == ["kept"] * 20
    assert stage.api.most_in_flight == 8
    assert stage.engine.budget.committed_usd == 0


def test_a_budget_is_not_exceeded_by_what_is_in_flight() -> None:
    """Each request sets its price aside before it is sent; the run is paused, and says what to do."""
    api = FakeApi(latency=lambda number: 10.0 + 3 * number)
    outcomes, stage = run(api, variations(20), max_in_flight=2, max_cost_usd=5 * PRICE_USD)
    assert isinstance(stage.engine.stopped_by, errors.BudgetReached)
    assert statuses(outcomes) == {"kept": 5}
    assert len(api.submitted) == 5


def test_what_cannot_be_written_down_is_not_submitted() -> None:
    """A log that another writer took over stops the run before the next request leaves."""
    log = MemoryLog()
    log.fails = lambda number: errors.Replaced("another has it") if number > 3 else None
    outcomes, stage = run(FakeApi(), variations(20), log=log, max_in_flight=3)
    assert isinstance(stage.engine.stopped_by, errors.Replaced)
    assert len(stage.api.submitted) == 3
    assert outcomes == []


async def test_the_first_signal_is_the_first_though_the_engine_stopped_by_itself() -> None:
    """Who presses Ctrl-C while an outage is being waited out has not pressed it twice."""

    class FakeEngine:
        stopped_by = errors.ServiceDown("an outage")

        def stop(self, reason: errors.RunPaused) -> None:
            """Stay stopped."""

    with stop_on_signals(FakeEngine()):  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_interrupts_through_every_finally(number: signal.Signals) -> None:
    """What is in flight is cancelled at once, and what may be paid for was written down before."""
    before = signal.getsignal(number)
    api = FakeApi(latency=lambda _: 1000.0)
    log = MemoryLog()
    passed: list[str] = []

    async def main() -> None:
        async with staged(api, max_in_flight=4) as stage:
            try:
                with stop_on_signals(stage.engine):
                    making = asyncio.create_task(stage.engine.run(variations(9), log))
                    await asyncio.sleep(30)
                    signal.raise_signal(number)
                    await asyncio.sleep(1)
                    assert stage.engine.stopped_by is not None
                    assert not making.done()
                    signal.raise_signal(number)
                    await making
            finally:
                passed.append("finally")

    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(main())
    finally:
        signal.signal(number, before)
    assert passed == ["finally"]
    assert len(api.requests) == 4
    assert set(log.accepted().values()) == set(api.requests)
