"""The moment that costs money: what is durable before a POST leaves, and before anything is done with its answer."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.variations.chaos.store import Store
from tests.variations.ledger.stores import View
from variations import errors
from variations.api.client import Client, Endpoint
from variations.clock import Clock
from variations.engine.budget import Budget
from variations.engine.calls import REFUSED_SECONDS, Calls
from variations.engine.limits import Limits
from variations.engine.lost_submits import LostSubmits
from variations.engine.progress import Progress
from variations.engine.rate import NoMoreNew, RateLimit
from variations.engine.request import Request
from variations.engine.sources import SourceUrls
from variations.engine.submitter import Submitter
from variations.ledger.journal import Journal, read_notes
from variations.ledger.records import Accepted, FoundIn, Intended, Record, Settled, Withdrawn
from variations.models import HistoryRecord

from .simulation import (
    BASE_URL,
    EPOCH,
    KEY,
    PRICE_USD,
    FakeApi,
    LoopClock,
    lost,
    refused,
    simulate,
    staged,
    variation,
    variations,
)


def loop_time() -> float:
    """Return the loop's seconds."""
    return asyncio.get_running_loop().time()


@dataclass
class TimedLog:
    """A log in memory; `seconds` is how long each write takes, by its number from 1, `fails` what it raises."""

    seconds: Callable[[int], float] = lambda _: 0.01
    fails: Callable[[Record], Exception | None] = lambda _: None
    begun: list[tuple[float, Record]] = field(default_factory=list)
    durable: list[tuple[float, Record]] = field(default_factory=list)

    async def append(self, *records: Record) -> datetime:
        """Write records."""
        self.begun += [(loop_time(), record) for record in records]
        for record in records:
            error = self.fails(record)
            if error is not None:
                raise error
        await asyncio.sleep(self.seconds(len(self.begun)))
        self.durable += [(loop_time(), record) for record in records]
        return EPOCH + timedelta(seconds=loop_time())

    async def accept(self, variation_id: str, request_id: str, *, found_in: FoundIn = "answer") -> None:
        """Write down that a submit was accepted."""
        await self.append(Accepted(variation_id=variation_id, request_id=request_id, found_in=found_in))

    def kinds(self) -> list[str]:
        """Return what is durable, in its order."""
        return [record.kind for _, record in self.durable]

    def times(self, kind: str) -> list[float]:
        """Return when records of a kind became durable."""
        return [at for at, record in self.durable if record.kind == kind]


@dataclass
class Bench:
    """A submitter with everything around it; `is_stopped` may be set."""

    api: FakeApi
    clock: Clock
    history: list[HistoryRecord] = field(default_factory=list)
    is_stopped: bool = False
    budget: Budget = field(default_factory=lambda: Budget(0, price_usd=PRICE_USD))
    made: Submitter | None = None

    async def submit(self, log: Any, request: Request | None = None) -> Request:
        """Submit a request."""
        request = request or Request(variation(1))
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx.AsyncClient(transport=self.api))
            endpoint = Endpoint(KEY, BASE_URL, f"{BASE_URL}/request-history", f"{BASE_URL}/upload-asset")
            calls = Calls(
                RateLimit(0, clock=self.clock),
                count_all=True,
                progress=Progress(),
                clock=self.clock,
                random=lambda: 0.5,
                stop=lambda _: None,
                found_counted=lambda: None,
            )
            submitter = Submitter(
                Client(http, endpoint=endpoint),
                calls,
                sources=SourceUrls(self._upload, presign_seconds=60),
                budget=self.budget,
                lost=LostSubmits(self._page, clock=self.clock),
                limits=Limits(),
                clock=self.clock,
                is_stopped=lambda: self.is_stopped,
            )
            await submitter.submit(request, log)
        return request

    async def _page(self, page: int, **_: str) -> list[HistoryRecord]:
        await asyncio.sleep(0.1)
        return self.history if page == 1 else []

    async def _upload(self, *_: Any) -> str:
        raise AssertionError


def on_bench(test: Callable[[Bench], Coroutine[Any, Any, None]], **api: Any) -> None:
    """Run a test on simulated time."""

    async def main() -> None:
        await test(Bench(FakeApi(**api), LoopClock()))

    simulate(main())


def limited(seconds: float) -> httpx.Response:
    """Return a 429 that says how long the limit lasts."""
    headers = {
        "date": format_datetime(EPOCH, usegmt=True),
        "x-rate-limit-reset-at-utc": (EPOCH + timedelta(seconds=seconds)).isoformat(),
    }
    return httpx.Response(429, json={"error": "Rate limit exceeded."}, headers=headers)


def test_the_intent_is_durable_before_the_post_leaves() -> None:
    """However slow the log is, no byte leaves before the intent is written, and the id is written before it is used."""

    async def test(bench: Bench) -> None:
        log = TimedLog(seconds=lambda _: 7.0)
        request = await bench.submit(log)
        assert log.kinds() == ["intended", "accepted"]
        (posted,) = bench.api.times("submit")
        assert posted == pytest.approx(log.times("intended")[0] + bench.api.network_seconds)
        assert request.request_id == "request-1"
        assert log.times("accepted") == [loop_time()]
        (_, intent) = log.durable[0]
        assert intent == Intended(
            variation_id=request.variation.variation_id, attempt=1, redux_image="https://photos.example/1.jpg"
        )
        assert request.intended_at == EPOCH + timedelta(seconds=log.times("intended")[0])

    on_bench(test)


def test_a_signature_is_never_written_down() -> None:
    """The journal has the source without its query; the API has it whole."""

    async def test(bench: Bench) -> None:
        log = TimedLog()
        await bench.submit(log, Request(variation(1, uri="https://photos.example/1.jpg?X-Amz-Signature=secret")))
        assert "secret" not in repr(log.durable)
        assert bench.api.submitted[0]["redux_image"].endswith("secret")

    on_bench(test)


def test_an_intent_that_expired_while_it_was_written_is_written_again() -> None:
    """A log that takes longer than an intent lives does not let the POST leave on a stale one."""

    async def test(bench: Bench) -> None:
        log = TimedLog(seconds=lambda number: 70.0 if number < 3 else 0.5)
        await bench.submit(log)
        assert log.kinds() == ["intended"] * 3 + ["accepted"]
        (posted,) = bench.api.times("submit")
        begun = log.begun[2][0]
        assert begun < posted <= begun + Limits().intent_seconds

    on_bench(test)


@pytest.mark.parametrize(("seconds", "intents"), [(20.0, 1), (59.0, 1), (61.0, 2), (119.0, 2), (3600.0, 1)])
def test_a_429_that_outlasts_the_intent_renews_it(seconds: float, intents: int) -> None:
    """A refused submit is repeated on a fresh intent only, each written before its POST; an hour is not believed."""

    async def test(bench: Bench) -> None:
        bench.api.on_submit = lambda number, _: limited(seconds) if number == 1 else None
        log = TimedLog()
        request = await bench.submit(log)
        assert log.kinds() == ["intended"] * intents + ["accepted"]
        assert len(bench.api.submitted) == 2
        assert len(bench.api.requests) == 1
        assert request.may_be_accepted
        assert request.intended_at == EPOCH + timedelta(seconds=log.times("intended")[-1])

    on_bench(test)


@example([59.9, 59.9, 200.0, 200.0, 200.0, 200.0], [0.5, 0.5, 0.5])
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0.01, 1.0, 30.0, 59.9, 60.0, 61.0, 200.0]), min_size=1, max_size=6),
    st.lists(st.sampled_from([0.5, 10.0, 59.0, 61.0, 300.0]), max_size=4),
)
def test_every_post_leaves_on_an_intent_that_is_durable_and_fresh(writes: list[float], waits: list[float]) -> None:
    """Whatever the log and the limit take: at each POST there is a durable intent, begun less than a minute before."""

    async def test(bench: Bench) -> None:
        bench.api.on_submit = lambda number, _: limited(waits[number - 1]) if number <= len(waits) else None
        log = TimedLog(seconds=lambda number: writes[number - 1] if number <= len(writes) else 0.01)
        try:
            await bench.submit(log)
            assert len(bench.api.times("submit")) == len(waits) + 1
        except errors.ServiceDown:
            # A log this slow makes a quarter of an hour of a few refusals, and that ends the run.
            posts = bench.api.times("submit")
            assert posts[-1] - posts[0] > REFUSED_SECONDS - 1
        begun = [at for at, record in log.begun if record.kind == "intended"]
        durable = log.times("intended")
        for arrived in bench.api.times("submit"):
            left = arrived - bench.api.network_seconds
            assert any(
                at <= left + 1e-6 and left <= start + Limits().intent_seconds
                for start, at in zip(begun, durable, strict=True)
            )

    on_bench(test)


def test_a_stop_between_intent_and_post_lets_nothing_leave() -> None:
    """The run was stopped while the intent was written: it was not submitted, and the request says so."""

    async def test(bench: Bench) -> None:
        log = TimedLog(seconds=lambda _: 5.0)
        request = Request(variation(1))
        submitting = asyncio.create_task(bench.submit(log, request))
        await asyncio.sleep(1)
        bench.is_stopped = True
        with pytest.raises(NoMoreNew):
            await submitting
        assert bench.api.submitted == []
        assert not request.may_be_accepted
        assert request.intended_at is not None
        assert log.kinds() == ["intended"]

    on_bench(test)


def test_a_run_that_is_stopped_writes_no_more_intents() -> None:
    """A log that is slower than an intent lives does not keep a stopped run busy for ever."""

    async def test(bench: Bench) -> None:
        log = TimedLog(seconds=lambda _: 61.0)
        submitting = asyncio.create_task(bench.submit(log))
        await asyncio.sleep(100)
        bench.is_stopped = True
        await asyncio.sleep(600)
        is_done = submitting.done()
        submitting.cancel()
        (result,) = await asyncio.gather(submitting, return_exceptions=True)
        assert is_done, f"{len(log.begun)} intents"
        assert isinstance(result, NoMoreNew)
        assert bench.api.submitted == []

    on_bench(test)


def test_a_refused_request_may_not_be_accepted() -> None:
    """A refusal proves that it was not; a lost answer proves nothing."""

    async def test(bench: Bench) -> None:
        for answer, expected, may_be in (
            (refused(400), errors.InvalidRequest, False),
            (refused(401), errors.Unauthorized, False),
            (refused(406, "Insufficient credits."), errors.InsufficientCredits, False),
            (refused(502), errors.SubmitUnknown, True),
            (refused(504), errors.SubmitUnknown, True),
            (httpx.Response(200, json={"status": "QUEUED"}), errors.SubmitUnknown, True),
            (httpx.Response(200, text="<html>"), errors.SubmitUnknown, True),
            (lost(accepted=False), errors.SubmitUnknown, True),
            (ValueError("a bug in a transport"), errors.SubmitUnknown, True),
            (httpx.ConnectError("refused"), errors.ServiceDown, False),
        ):
            bench.api.on_submit = lambda *_, answer=answer: answer
            request = Request(variation(1))
            posts = len(bench.api.submitted)
            with pytest.raises(expected):
                await bench.submit(TimedLog(), request)
            assert request.may_be_accepted is may_be, answer
            if may_be:
                assert len(bench.api.submitted) == posts + 1

    on_bench(test)


def test_a_lost_answer_is_looked_for_and_adopted() -> None:
    """A submit whose answer was lost is not repeated: its record lands in the history, and its id in the log."""

    async def test(bench: Bench) -> None:
        bench.api.on_submit = lambda *_: lost()
        log = TimedLog()
        request = Request(variation(1))
        submitting = asyncio.create_task(bench.submit(log, request))
        await asyncio.sleep(20)
        inputs = bench.api.submitted[0]
        created_at = EPOCH + timedelta(seconds=loop_time())
        bench.history.append(HistoryRecord("found", "PENDING", None, None, inputs, (), None, created_at, None))
        await submitting
        assert log.durable[-1][1] == Accepted(
            variation_id=request.variation.variation_id, request_id="found", found_in="history"
        )
        assert request.request_id == "found"
        assert len(bench.api.submitted) == 1

    on_bench(test)


def test_no_money_is_no_intent() -> None:
    """Where the budget does not cover it nothing is written down and nothing leaves."""

    async def test(bench: Bench) -> None:
        bench.budget = Budget(PRICE_USD / 2, price_usd=PRICE_USD)
        log = TimedLog()
        request = Request(variation(1))
        with pytest.raises(errors.BudgetReached):
            await bench.submit(log, request)
        assert (log.begun, bench.api.submitted, request.reserved_images) == ([], [], 0)

    on_bench(test)


@pytest.mark.parametrize("error", [errors.Replaced("taken over"), errors.CredentialsRefused("expired")])
def test_an_intent_that_cannot_be_written_lets_nothing_leave(error: Exception) -> None:
    """No POST without a durable intent, whatever is in its way."""

    async def test(bench: Bench) -> None:
        log = TimedLog(fails=lambda _: error)
        request = Request(variation(1))
        with pytest.raises(type(error)):
            await bench.submit(log, request)
        assert bench.api.submitted == []
        assert not request.may_be_accepted

    on_bench(test)


def test_an_acceptance_that_cannot_be_written_is_used_for_nothing() -> None:
    """The id is in no journal: the request stays what it was, perhaps accepted, and has no id."""

    async def test(bench: Bench) -> None:
        log = TimedLog(fails=lambda record: errors.StorageUnavailable("away") if isinstance(record, Accepted) else None)
        request = Request(variation(1))
        with pytest.raises(errors.StorageUnavailable):
            await bench.submit(log, request)
        assert request.may_be_accepted
        assert request.request_id is None
        assert len(bench.api.requests) == 1

    on_bench(test)


# With the engine around it.


def test_the_engine_takes_back_what_did_not_leave() -> None:
    """Stopped between intent and POST, a variation is withdrawn, has no row, and its money is given back."""

    async def main() -> None:
        log = TimedLog(seconds=lambda _: 5.0)
        async with staged(FakeApi()) as stage:
            running = asyncio.create_task(stage.engine.run(variations(3), log))
            await asyncio.sleep(1)
            stage.engine.stop(errors.StoppedByUser("stopped"))
            assert await running == []
            assert stage.api.submitted == []
            assert sorted(log.kinds()) == ["intended"] * 3 + ["withdrawn"] * 3
            assert stage.engine.budget.committed_usd == 0
            await asyncio.sleep(60)

    simulate(main())


def test_nothing_is_polled_before_the_acceptance_is_durable() -> None:
    """A log that takes half a minute delays the first poll, and not the other way round."""

    async def main() -> None:
        log = TimedLog(seconds=lambda number: 30.0 if number == 2 else 0.01)
        async with staged(FakeApi()) as stage:
            (outcome,) = await stage.engine.run([variation(1)], log)
            assert outcome.status == "kept"
            assert min(stage.api.times("status")) >= log.times("accepted")[0]
            assert log.kinds() == ["intended", "accepted", "settled"]

    simulate(main())


def test_a_refused_submit_is_settled_as_failed_and_costs_nothing() -> None:
    """What the API refuses has its row, and holds no money back."""

    async def main() -> None:
        log = TimedLog()
        async with staged(FakeApi(on_submit=lambda *_: refused(400))) as stage:
            (outcome,) = await stage.engine.run([variation(1)], log)
            assert (outcome.status, outcome.cost_usd) == ("failed", 0.0)
            assert log.kinds() == ["intended", "settled"]
            assert stage.engine.budget.committed_usd == 0

    simulate(main())


def test_who_is_replaced_at_an_acceptance_submits_nothing_more() -> None:
    """The engine stops, the accepted request is left as a note, and neither withdrawn nor settled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = Store(loop.time)
        journal = Journal(View(store), run_id="run", shard=0, writer="old")
        await journal.claim()
        new = Journal(View(store), run_id="run", shard=0, writer="new")
        async with staged(FakeApi(network_seconds=1.0), max_in_flight=3) as stage:
            running = asyncio.create_task(stage.engine.run(variations(20), journal))
            while not stage.api.submitted:  # noqa: ASYNC110 - it is simulated
                await asyncio.sleep(0.1)
            await new.take_over()
            outcomes = await running
            assert isinstance(stage.engine.stopped_by, errors.Replaced)
            assert len(stage.api.submitted) == 3
            assert outcomes == []
            notes = await read_notes(View(store), "run")
            assert {note.request_id for note in notes} == set(stage.api.requests)
            assert stage.api.times("status") == []
            reader = Journal(View(store), run_id="run", shard=0, writer="reader")
            await reader.replay()
            assert len(reader.story.open_items()) == 3
            assert stage.engine.budget.committed_usd == pytest.approx(3 * PRICE_USD)

    simulate(main())


def test_who_cannot_write_an_acceptance_down_leaves_its_intent_open() -> None:
    """A store that is away stops the run; what was accepted meanwhile stays open in the journal."""

    async def main() -> None:
        log = TimedLog(fails=lambda r: errors.StorageUnavailable("away") if isinstance(r, Accepted) else None)
        async with staged(FakeApi(), max_in_flight=2) as stage:
            assert await stage.engine.run(variations(10), log) == []
            assert isinstance(stage.engine.stopped_by, errors.StorageUnavailable)
            assert len(stage.api.requests) == 2
            assert not any(isinstance(record, Withdrawn | Settled) for _, record in log.durable)

    simulate(main())


@pytest.mark.parametrize("cancel_after", [0.005, 0.03, 0.08, 0.115, 1.0])
def test_who_is_cancelled_in_the_middle_leaves_an_open_intent(cancel_after: float) -> None:
    """Cancelled while it writes, posts, or writes the answer: what may have left is never withdrawn or failed."""

    async def main() -> None:
        log = TimedLog()
        async with staged(FakeApi()) as stage:
            running = asyncio.create_task(stage.engine.run([variation(1)], log))
            await asyncio.sleep(cancel_after)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await asyncio.sleep(1)
            if stage.api.requests:
                assert log.kinds()[0] == "intended"
                assert not any(isinstance(record, Withdrawn | Settled) for _, record in log.durable)

    simulate(main())
