"""The stream of requests: slots, rate, polls, and what becomes of each variation."""

import asyncio
from collections import Counter
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from variations import errors
from variations.engine.calls import OUTAGE_ITEMS
from variations.ledger.records import Record
from variations.models import Outcome

from .simulation import (
    KEY,
    PRICE_USD,
    ApiRequest,
    FakeApi,
    JumpingLoop,
    MemoryLog,
    MemoryStorage,
    Stage,
    failed,
    lost,
    only,
    picture,
    refused,
    run,
    statuses,
    variation,
    variations,
)


def test_every_variation_becomes_a_stored_image() -> None:
    """One row each, with everything that is known of it, and the counters agree."""
    outcomes, stage = run(FakeApi(), variations(20), max_in_flight=4, poll_interval_seconds=4.0)
    assert statuses(outcomes) == {"kept": 20}
    for outcome in outcomes:
        assert outcome.image is not None
        assert stage.storage.objects[outcome.image.file_name] == picture()
        assert outcome.image.file_name.endswith(f"/{outcome.variation.variation_id}.jpg")
        assert outcome.redux_image == outcome.variation.source.uri
        assert outcome.cost_usd == pytest.approx(PRICE_USD)
        assert outcome.polls == 4
        assert outcome.submitted_at is not None
        assert outcome.completed_at is not None
        assert 16 <= (outcome.completed_at - outcome.submitted_at).total_seconds() < 20
    assert len({outcome.request_id for outcome in outcomes}) == 20
    progress = stage.engine.progress
    assert (progress.kept, progress.failed, progress.unknown, progress.in_flight) == (20, 0, 0, 0)
    assert progress.cost_usd == pytest.approx(20 * PRICE_USD)
    assert progress.requests == {"submit": 20, "poll": 80}
    assert stage.engine.stopped_by is None


def test_the_key_goes_to_the_api_and_not_with_an_output() -> None:
    """Nor does any call go where an answer's `status_url` points."""
    _, stage = run(FakeApi(), variations(2))
    assert stage.api.keys == {KEY}
    assert stage.api.output_keys == {None}


def test_a_slot_is_refilled_the_moment_it_is_free() -> None:
    """There is no barrier: one request of an hour does not hold the others up, and no slot stays empty."""
    api = FakeApi(latency=lambda number: 500.0 if number == 1 else 16.0)
    outcomes, _ = run(api, variations(61), max_in_flight=4)
    assert statuses(outcomes) == {"kept": 61}
    assert api.most_in_flight == 4
    # Sixty of them share three slots: twenty rounds of about seventeen seconds.
    others = sorted(api.times("submit"))
    assert others[-1] - others[0] < 19 * 18.0
    done = sorted(request.told_at or 0.0 for request in api.requests.values())
    for told_at, submitted in zip(done, others[4:], strict=False):
        assert submitted - told_at < 0.5


def test_slots_are_shared_by_the_runs_of_an_engine() -> None:
    """Two shards together have no more in flight than one alone."""
    api = FakeApi()
    more: list[Outcome] = []

    async def second_shard(stage: Stage) -> None:
        more.extend(await stage.engine.run(variation(number) for number in range(100, 110)))

    outcomes, _ = run(api, variations(10), max_in_flight=3, meanwhile=second_shard)
    assert statuses(outcomes + more) == {"kept": 20}
    assert api.most_in_flight == 3


def test_a_shard_that_is_cancelled_gives_all_its_slots_back() -> None:
    """At whatever step it was: the other shards of the process go on with every slot."""
    api = FakeApi()
    ends: list[asyncio.Task[list[Outcome]]] = []

    async def cancelled_shard(stage: Stage) -> None:
        for steps in range(6):
            shard = asyncio.create_task(stage.engine.run(variations(3)))
            for _ in range(steps):
                await asyncio.sleep(0)
            shard.cancel()
            await asyncio.wait([shard])
            ends.append(shard)

    outcomes, _ = run(api, variations(12), max_in_flight=3, meanwhile=cancelled_shard)
    assert all(shard.cancelled() for shard in ends)
    assert statuses(outcomes) == {"kept": 12}
    times = sorted(api.times("submit"))
    assert times[-1] - times[0] < 5 * 18.0


def test_the_rate_binds_and_polls_go_before_new_submits() -> None:
    """A request that is due to be polled never waits for one that is not yet paid for."""
    api = FakeApi()
    outcomes, stage = run(api, variations(30), max_in_flight=16, requests_per_minute=60, poll_interval_seconds=4.0)
    assert statuses(outcomes) == {"kept": 30}
    times = sorted(api.times())
    for index, at in enumerate(times):
        assert sum(1 for other in times[index:] if other < at + 60) <= 62
    # 60 a minute: about six calls an image, no call wasted and no minute idle.
    assert (times[-1] - times[0]) / len(times) == pytest.approx(1.0, abs=0.05)
    polls: dict[str, list[float]] = {}
    for at, kind, request_id in api.calls:
        if kind == "status":
            polls.setdefault(request_id, []).append(at)
    waits = [later - earlier for found in polls.values() for earlier, later in pairwise(found)]
    # Sixteen in flight, each polled every 4 s, is more than the rate carries: the polls share it, submits wait.
    assert max(waits) < 17
    assert stage.engine.progress.requests["submit"] == 30


def test_a_limit_that_counts_submits_alone_lets_polls_through() -> None:
    """As a setting says."""
    api = FakeApi()
    pace = {"requests_per_minute": 5, "count_all_requests": False, "poll_interval_seconds": 4.0}
    outcomes, _ = run(api, variations(6), max_in_flight=6, **pace)
    assert statuses(outcomes) == {"kept": 6}
    submits = sorted(api.times("submit"))
    assert [later - earlier for earlier, later in pairwise(submits)] == pytest.approx([12.0] * 5)
    assert all(outcome.polls == 4 for outcome in outcomes)


@pytest.mark.parametrize("count_all", [True, False])
def test_a_429_pauses_everything_until_the_reset_and_then_it_goes_on(*, count_all: bool) -> None:
    """A plan that is smaller than the setting costs waiting, and nothing else."""
    api = FakeApi(limit=(20, 60.0))
    outcomes, stage = run(api, variations(20), max_in_flight=8, requests_per_minute=600, count_all_requests=count_all)
    assert statuses(outcomes) == {"kept": 20}
    assert len(api.requests) == 20
    assert len(api.submitted) == 20
    # Twenty a minute are let in; each minute has a few refusals beside them: those that were under way, no more.
    minutes = Counter(int(at // 60) for at in api.times())
    assert max(minutes.values()) <= 20 + 2 * 8
    assert stage.engine.stopped_by is None


def test_a_500_on_submit_is_repeated_and_then_that_row_fails() -> None:
    """The others are made."""
    api = FakeApi(on_submit=lambda _, inputs: refused(500) if inputs["seed"] == 3 else None)
    outcomes, stage = run(api, variations(6), max_in_flight=2)
    assert statuses(outcomes) == {"kept": 5, "failed": 1}
    row = next(outcome for outcome in outcomes if outcome.status == "failed")
    assert (row.error_code, row.cost_usd, row.request_id) == ("service_unavailable", 0.0, None)
    assert sum(1 for inputs in api.submitted if inputs["seed"] == 3) == 5
    assert stage.engine.stopped_by is None


@pytest.mark.parametrize(("code", "expected"), [(400, "invalid_request"), (406, "invalid_request")])
def test_a_value_that_is_refused_fails_its_item_at_once(code: int, expected: str) -> None:
    """It is sent once."""
    api = FakeApi(on_submit=lambda number, _: refused(code, "guidance out of range") if number == 2 else None)
    outcomes, _ = run(api, variations(4), max_in_flight=1)
    assert statuses(outcomes) == {"kept": 3, "failed": 1}
    assert [outcome.error_code for outcome in outcomes if outcome.status == "failed"] == [expected]
    assert len(api.submitted) == 4


@pytest.mark.parametrize("answer", ["lost", "refused"])
def test_a_lost_answer_to_a_submit_is_unknown_and_sent_exactly_once(answer: str) -> None:
    """It is counted at its full price, all its images."""

    def on_submit(number: int, _: dict[str, Any]) -> httpx.Response | Exception | None:
        if number != 1:
            return None
        return lost() if answer == "lost" else refused(502, "Bad gateway")

    api = FakeApi(on_submit=on_submit)
    outcomes, stage = run(api, variations(3, num_outputs=2), max_in_flight=1)
    assert statuses(outcomes) == {"unknown": 2, "kept": 4}
    assert len(api.submitted) == 3
    rows = [outcome for outcome in outcomes if outcome.status == "unknown"]
    assert [row.output_index for row in rows] == [0, 1]
    assert all(row.error_code == "submit_unknown" and row.request_id is None for row in rows)
    assert sum(row.cost_usd for row in rows) == pytest.approx(2 * PRICE_USD)
    assert stage.engine.progress.cost_usd == pytest.approx(6 * PRICE_USD)
    # It was looked for in the history, for a minute and in a few looks.
    looks = api.times("history page")
    assert 4 <= len(looks) <= 8
    assert 30 < looks[-1] - looks[0] <= 61


def test_a_lost_submit_that_shows_in_the_history_is_adopted() -> None:
    """However late in the minute it lands there: it is fetched as if its answer had come, and sent once."""

    def on_submit(number: int, _: dict[str, Any]) -> Exception | None:
        return lost() if number in {1, 3} else None

    def landed(api: FakeApi) -> list[ApiRequest]:
        return [request for request in api.requests.values() if api.times()[-1] >= request.accepted_at + 25]

    log = MemoryLog()
    outcomes, stage = run(FakeApi(on_submit=on_submit, landed=landed), variations(4), log=log, max_in_flight=2)
    assert statuses(outcomes) == {"kept": 4}
    assert len(stage.api.submitted) == len(stage.api.requests) == 4
    assert log.accepted() == {outcome.variation.variation_id: outcome.request_id for outcome in outcomes}
    seeds = {request.request_id: request.inputs["seed"] for request in stage.api.requests.values()}
    assert all(seeds[outcome.request_id or ""] == outcome.variation.parameters.seed for outcome in outcomes)


def test_a_history_that_is_out_of_order_makes_no_lost_submit_worse() -> None:
    """It stays unknown, and the run goes on."""
    api = FakeApi(
        on_submit=lambda number, _: lost() if number == 1 else None,
        on_history_page=lambda number: refused(500) if number % 2 else httpx.Response(200, json={"what": "is this"}),
    )
    outcomes, stage = run(api, variations(3), max_in_flight=1)
    assert statuses(outcomes) == {"unknown": 1, "kept": 2}
    assert stage.engine.stopped_by is None


def test_each_step_is_written_down_before_the_next() -> None:
    """The intent before the request leaves, its id before it is polled, what became of it once the image is stored."""
    api, storage, told = FakeApi(), MemoryStorage(), []

    class Watching(MemoryLog):
        async def append(self, *records: Record) -> datetime:
            kinds = [record.kind for record in records]
            told.append((*kinds, len(api.times("submit")), len(api.times("status")), len(storage.objects)))
            return await super().append(*records)

    outcomes, _ = run(api, variations(1), storage=storage, log=Watching(), poll_interval_seconds=4.0)
    assert only(outcomes).status == "kept"
    assert told == [("intended", 0, 0, 0), ("accepted", 1, 0, 0), ("settled", 1, 4, 1)]


def test_paying_in_vain_stops_the_run() -> None:
    """Where request after request is paid for and none brings an image, going on would only cost."""
    api = FakeApi(on_output=lambda *_: httpx.Response(200, content=b"<html>"))
    outcomes, stage = run(api, variations(60), max_in_flight=4)
    assert isinstance(stage.engine.stopped_by, errors.ServiceDown)
    assert "output_invalid" in stage.engine.stopped_by.message
    assert OUTAGE_ITEMS <= len(outcomes) == len(api.submitted) <= OUTAGE_ITEMS + 8


def test_images_in_memory_are_bounded() -> None:
    """However many requests end at once, so many are fetched, checked and stored at a time."""
    outcomes, stage = run(
        FakeApi(),
        variations(24, num_outputs=4),
        max_in_flight=24,
        max_images_in_memory=3,
        storage=MemoryStorage(put_seconds=1.0),
    )
    assert statuses(outcomes) == {"kept": 96}
    assert stage.api.most_fetching == 3


def test_fetching_and_storing_hold_no_slot() -> None:
    """A slow dataset does not keep the API idle while there are places for images."""
    api = FakeApi()
    run(api, variations(8), max_in_flight=1, storage=MemoryStorage(put_seconds=100.0))
    submits = sorted(api.times("submit"))
    assert submits[-1] - submits[0] < 8 * 18


@pytest.mark.parametrize("asleep_seconds", [100.0, 700.0, 4000.0])
def test_a_process_that_was_asleep_gives_nothing_up(asleep_seconds: float) -> None:
    """A machine that was halted has not waited: neither for an answer nor for a file."""
    api = FakeApi(output_seconds=1.0, network_seconds=1.0)

    async def sleep(stage: Stage) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        for _ in range(4):
            await stage.clock.sleep(20.0)
            loop.fall_asleep(asleep_seconds)

    outcomes, stage = run(api, variations(400), requests_per_minute=600.0, meanwhile=sleep)
    assert statuses(outcomes) == {"kept": 400}
    assert stage.engine.stopped_by is None


def test_a_presigned_url_goes_to_the_api_and_into_no_row() -> None:
    """Not even where the API repeats it in its error."""
    signed = "https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Signature=secret&X-Amz-Credential=me"
    python_error = "HTTPSConnectionPool(host='bucket.s3.amazonaws.com'): url: /a.jpg?X-Amz-Signature=secret (Caused by"
    for text in (f"Failed to fetch {signed}", python_error):
        api = FakeApi(on_status=lambda *_, text=text: failed(text))
        outcomes, _ = run(api, [variation(1, uri=signed)])
        assert api.submitted[0]["redux_image"] == signed
        row = only(outcomes)
        assert row.redux_image == "https://bucket.s3.amazonaws.com/a.jpg"
        assert "secret" not in repr(row)
        assert "a.jpg" in (row.error or "")


def test_the_balance_is_told_and_a_silent_one_is_none() -> None:
    """A wrong key is an error, an answer without a number is not."""

    async def balance(stage: Stage) -> None:
        balances.append(await stage.engine.check_key())

    balances: list[float | None] = []
    run(FakeApi(), [], meanwhile=balance)
    assert balances == [6.0]


def test_nothing_wanted_is_nothing_done() -> None:
    """An empty shard ends at once."""
    outcomes, stage = run(FakeApi(), [])
    assert (outcomes, stage.api.calls) == ([], [])
