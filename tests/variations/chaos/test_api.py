"""The world's API makes images, keeps a history, and loses, delays and refuses what is asked of it."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from tests.variations.engine.simulation import BASE_URL, EPOCH, PRICE_USD
from variations import errors
from variations.images import inspect_image
from variations.models import Completed, Failed

from .api import output_content
from .slow_world import DROPS, LANDS, LATE, SLOW, client, inputs, run
from .world import Process, Rates, World


@pytest.mark.parametrize(("rates", "accepted"), [(LANDS, 1), (LATE, 1), (DROPS, 0)])
def test_a_submit_on_the_wire_at_the_kill_is_accepted_or_not(rates: Rates, accepted: int) -> None:
    """A dead process's POST is accepted in its time, late, or never."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        process.spawn(client(process).submit(inputs()))
        await asyncio.sleep(0.5)
        process.kill()
        assert world.bill() == []
        await world.quiet()
        assert len(world.bill()) == accepted

    run(main, rates=rates)


def test_an_image_is_made_paid_for_and_forgotten() -> None:
    """A request runs its course: accepted, done after a while, forgotten after an hour, its output after a week."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        api = client(process)
        source = await process.storage.presigned_url("photos/1.jpg", expires_seconds=60)
        accepted = await api.submit(inputs(redux_image=source))
        assert [billed.cost_usd for billed in world.bill()] == [0.0]
        await asyncio.sleep(60)
        found = await api.status(accepted.request_id)
        assert isinstance(found, Completed)
        assert (found.outputs, found.metrics.cost_usd) == ((), PRICE_USD)
        found = await api.result(accepted.request_id)
        assert isinstance(found, Completed)
        answer = await process.http.get(found.outputs[0].url)
        assert answer.content == output_content(accepted.request_id)
        assert inspect_image(answer.content).format == "jpg"
        assert (await api.credits()).total == 1000 - PRICE_USD
        await asyncio.sleep(3600)
        with pytest.raises(errors.RequestGone):
            await api.result(accepted.request_id)
        record = await api.history_record(accepted.request_id)
        assert record.output_urls == (found.outputs[0].url,)
        assert (await process.http.get(found.outputs[0].url)).is_success
        await asyncio.sleep(7 * 86400)
        assert (await process.http.get(found.outputs[0].url)).status_code == 404
        assert world.accepted() == {("https://store.example/dataset/photos/1.jpg", 1): [accepted.request_id]}
        assert [(billed.state, billed.cost_usd) for billed in world.bill()] == [("COMPLETED", PRICE_USD)]

    run(main)


def test_a_failed_request_costs_nothing() -> None:
    """It is told as failed, by the API and by the history, and the bill has no cost for it."""

    async def main(world: World) -> None:
        api = client(Process(world, "one"))
        accepted = await api.submit(inputs())
        await asyncio.sleep(100)
        assert isinstance(await api.status(accepted.request_id), Failed)
        record = await api.history_record(accepted.request_id)
        assert (record.status, record.cost_usd) == ("FAILED", 0.0)
        assert [(billed.state, billed.cost_usd) for billed in world.bill()] == [("FAILED", 0.0)]

    run(main, rates=replace(SLOW, inference_failed=1.0))


def test_the_history_lags() -> None:
    """A request shows in the history only a while after it was accepted, and as done a while after it was done."""

    async def main(world: World) -> None:
        api = client(Process(world, "one"))
        accepted = await api.submit(inputs())
        request = world.api.requests[accepted.request_id]
        assert await api.history() == []
        with pytest.raises(errors.RequestGone):
            await api.history_record(accepted.request_id)
        await asyncio.sleep(request.accepted_at + 40 - world.now)
        (record,) = await api.history()
        assert (record.status, record.inputs, record.output_urls) == ("PENDING", inputs(), ())
        assert record.created_at == EPOCH + timedelta(seconds=request.accepted_at)
        await asyncio.sleep(request.done_at + 40 - world.now)
        assert (await api.history_record(accepted.request_id)).status == "COMPLETED"

    run(main, rates=replace(SLOW, history_delay_seconds=(38.0, 40.0)))


def test_the_history_is_paged_newest_first() -> None:
    """Pages hold rows, one an output, within the days that are asked for."""

    async def main(world: World) -> None:
        api = client(Process(world, "one"))
        ids = [(await api.submit(inputs(number, num_outputs=2))).request_id for number in range(5)]
        await asyncio.sleep(100)
        pages = [[record.request_id for record in await api.history(page=page, per_page=4)] for page in (1, 2, 3, 4)]
        assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]], []]
        assert len((await api.history())[0].output_urls) == 2
        assert len(await api.history(from_date="2026-01-01", to_date="2026-01-01")) == 5
        assert await api.history(from_date="2026-01-02", to_date="2026-01-03") == []
        assert await api.history(status="FAILED") == []

    run(main)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("broken", errors.SubmitUnknown),
        ("bad_gateway", errors.SubmitUnknown),
        ("no_answer", errors.SubmitUnknown),
        ("refused", errors.Unreachable),
        ("limited", errors.RateLimited),
        ("submit_500", errors.ServiceUnavailable),
    ],
)
def test_a_submit_goes_wrong_in_every_way(fault: str, error: type[errors.VariationsError]) -> None:
    """Those whose answer is lost were accepted, will be, or never are; of the others none is."""

    async def submit(world: World) -> tuple[int, int]:
        with pytest.raises(error) as raised:
            await client(Process(world, "one")).submit(inputs())
        if isinstance(raised.value, errors.RateLimited):
            assert 1 <= (raised.value.wait_seconds or 0) <= 22
        if fault == "no_answer":
            assert world.now == 1060
        before = len(world.bill())
        await world.quiet()
        return before, len(world.bill())

    def outcome(**fields: float) -> tuple[int, int]:
        return run(submit, rates=replace(SLOW, **{fault: 1.0}, **fields))

    unknown = error is errors.SubmitUnknown
    assert outcome(lost_accepted=1.0) == ((1, 1) if unknown else (0, 0))
    assert outcome(lost_accepted=0.0, lost_accepted_late=1.0) == ((0, 1) if unknown else (0, 0))
    assert outcome(lost_accepted=0.0, lost_accepted_late=0.0) == (0, 0)


def test_gets_fail_and_outputs_come_late() -> None:
    """GETs end in errors that are worth a repeat, and an output is a 404 for its first few fetches."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        api = client(process)
        accepted = await api.submit(inputs())
        seen = set()
        for _ in range(50):
            with pytest.raises(errors.Repeatable) as raised:
                await api.status(accepted.request_id)
            seen.add(type(raised.value))
        assert seen == {errors.ServiceUnavailable, errors.RateLimited, errors.Unreachable}
        world.rates = replace(world.rates, get_fails=0.0)
        found = await api.result(accepted.request_id)
        assert isinstance(found, Completed)
        codes = [(await process.http.get(found.outputs[0].url)).status_code for _ in range(5)]
        assert codes[0] == 404
        assert codes[3:] == [200, 200]

    run(main, rates=replace(SLOW, get_fails=1.0, output_missing=1.0))


def test_an_answer_that_takes_too_long_is_a_read_timeout() -> None:
    """A POST that is slower than the client's patience is accepted nevertheless."""

    async def main(world: World) -> None:
        process = Process(world, "one")
        with pytest.raises(httpx.ReadTimeout):
            await process.http.post(f"{BASE_URL}/v2/flux-redux-dev", json=inputs(), timeout=1.5)
        assert world.now == 1001.5
        assert len(world.bill()) == 1
        with pytest.raises(errors.ServiceUnavailable):
            await asyncio.wait_for(client(process).upload_asset([(b"", "image/jpeg")]), 1000)

    run(main, rates=replace(SLOW, answer_seconds=(90.0, 90.0)))
