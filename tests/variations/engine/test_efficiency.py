"""What the limits are used for, on simulated time: nothing of them is wasted. Bounds, where chance plays, have room."""

import asyncio
import heapq
import math
import random
from collections.abc import Callable

import pytest

from .simulation import ApiRequest, FakeApi, Stage, run, variations

MEAN_SECONDS = 15.84


def lognormal(spread: float, *, mean: float = MEAN_SECONDS, seed: int = 1) -> Callable[[int], float]:
    """Return latencies by the number of the submit."""
    rng, variance = random.Random(seed), math.log1p(spread**2)  # noqa: S311 - it is a simulation
    return lambda _: mean * rng.lognormvariate(-variance / 2, math.sqrt(variance))


def bimodal(*, seed: int = 1) -> Callable[[int], float]:
    """Return latencies of which a fifth takes much longer."""
    rng = random.Random(seed)  # noqa: S311 - it is a simulation
    return lambda _: rng.gauss(mean := MEAN_SECONDS * (0.75 if rng.random() < 0.8 else 2.0), 0.05 * mean)


def made(
    count: int, latency: Callable[[int], float], *, limit: tuple[int, float] | None = None, **limits: float
) -> tuple[FakeApi, Stage]:
    """Make so many images, all of which are kept."""
    api = FakeApi(latency=latency, limit=limit, network_seconds=0.02)
    outcomes, stage = run(api, variations(count), **limits)
    assert [outcome.status for outcome in outcomes] == ["kept"] * count
    return api, stage


def requests_an_image(api: FakeApi) -> float:
    """Return how many calls an image took."""
    return len(api.times()) / len(api.requests)


def waiting(requests: list[ApiRequest]) -> float:
    """Return for how long, on average, a request was done and not noticed, as a share of the latency."""
    late = sum((request.told_at or 0.0) - request.done_at for request in requests)
    return late / sum(request.done_at - request.accepted_at for request in requests)


def seconds_in_all(api: FakeApi) -> float:
    """Return the time from the first submit to the last completion that was noticed."""
    requests = api.requests.values()
    return max(request.told_at or 0.0 for request in requests) - min(request.accepted_at for request in requests)


def used(api: FakeApi, *, after_seconds: float) -> float:
    """Return the calls a minute, from some time after the start until the last submit."""
    begin, end = api.times()[0] + after_seconds, max(api.times("submit"))
    return sum(1 for at in api.times() if begin <= at < end) / (end - begin) * 60


@pytest.mark.parametrize(
    ("latency", "most_requests"),
    [(lognormal(0.05), 4.5), (lognormal(0.2), 5.8), (lognormal(0.45), 7.5), (bimodal(), 5.8)],
    ids=["5 %", "20 %", "45 %", "bimodal"],
)
def test_a_few_polls_find_a_request_soon_after_it_is_done(
    latency: Callable[[int], float], most_requests: float
) -> None:
    """Whatever the latencies' shape, and what is spent on learning it counted; a poll a second takes 17."""
    api, _ = made(400, latency, requests_per_minute=3000.0, max_in_flight=64)
    assert requests_an_image(api) <= most_requests
    assert waiting(list(api.requests.values())) <= 0.08


@pytest.mark.parametrize(
    "told_seconds",
    [
        lambda _: None,
        lambda _: 0.0,
        lambda seconds: 1000 * seconds,
        lambda seconds: seconds / 60,
        lambda seconds: 0.2 * seconds,
        lambda seconds: 1.2 * seconds,
    ],
    ids=["nothing", "always 0", "milliseconds", "minutes", "without the queue", "too much"],
)
def test_where_the_api_does_not_tell_how_long_a_request_took_the_polls_do(
    told_seconds: Callable[[float], float | None],
) -> None:
    """It was done between the last two of them; what they belie is not believed."""
    api = FakeApi(latency=lognormal(0.2), network_seconds=0.02, told_seconds=told_seconds)
    outcomes, _ = run(api, variations(200), requests_per_minute=3000.0, max_in_flight=64)
    assert {outcome.status for outcome in outcomes} == {"kept"}
    assert requests_an_image(api) <= 7.2
    assert waiting(list(api.requests.values())) <= 0.1
    assert max((request.told_at or 0.0) - request.done_at for request in api.requests.values()) <= MEAN_SECONDS


def test_slots_are_hardly_ever_empty_or_held_for_what_is_done() -> None:
    """Where nothing else binds, the run takes little longer than the work that its slots have to do."""
    api, _ = made(640, lognormal(0.2), max_in_flight=64)
    free_at = [0.0] * 64
    for request in api.requests.values():
        heapq.heapreplace(free_at, free_at[0] + request.done_at - request.accepted_at)
    assert max(free_at) / seconds_in_all(api) >= 0.91
    assert requests_an_image(api) <= 8


def test_a_limit_that_is_told_is_used_up() -> None:
    """Not much more than a submit and a poll for each image; nothing is refused."""
    api, stage = made(300, lognormal(0.2), limit=(60, 60.0), requests_per_minute=60.0)
    assert requests_an_image(api) <= 2.6
    assert used(api, after_seconds=60) >= 0.97 * 60
    assert stage.engine.progress.refused == 0


@pytest.mark.parametrize(
    ("limit", "limits"),
    [
        (60, {"first_requests_per_minute": 60.0}),
        (600, {"first_requests_per_minute": 60.0}),
        (60, {"requests_per_minute": 600.0}),
        (250, {"requests_per_minute": 300.0}),
    ],
    ids=["60, not told", "600, not told", "60, told 600", "250, told 300"],
)
def test_a_limit_that_is_not_told_is_found(limit: int, limits: dict[str, float]) -> None:
    """Few calls are refused, and once it is found nearly all of it is used."""
    api, stage = made(1200 if limit > 100 else 300, lognormal(0.2), limit=(limit, 60.0), **limits)
    progress = stage.engine.progress
    assert 0 < progress.refused < 0.01 * len(api.times())
    assert progress.limit_found == pytest.approx(limit, rel=0.1)
    assert used(api, after_seconds=180) >= 0.88 * limit


def test_a_limit_that_rose_is_told_as_it_is_now() -> None:
    """The API need not refuse again for that."""
    api = FakeApi(latency=lognormal(0.2), network_seconds=0.02, limit=(60, 60.0))

    async def raise_it(stage: Stage) -> None:
        await stage.clock.sleep(300)
        api.limit = None

    outcomes, stage = run(api, variations(600), first_requests_per_minute=60.0, meanwhile=raise_it)
    assert len(outcomes) == 600
    assert (stage.engine.progress.limit_found or 0.0) >= 2 * 60


def test_refusals_of_one_burst_lower_the_pace_once() -> None:
    """Those that were under way when the first was refused say nothing new."""
    api, stage = made(60, lognormal(0.05), limit=(60, 60.0), max_in_flight=64)
    progress = stage.engine.progress
    assert progress.refused > 2
    assert progress.limit_found == pytest.approx(60, rel=0.1)
    del api


@pytest.mark.parametrize(
    "changed", [lognormal(0.2, mean=2.5 * MEAN_SECONDS, seed=7), bimodal(seed=7)], ids=["slower", "bimodal"]
)
def test_a_service_that_changes_is_known_again_after_some_dozens(changed: Callable[[int], float]) -> None:
    """Requests and waiting come down to what they would be had it always been so."""
    before = lognormal(0.2)
    api, _ = made(
        700,
        lambda number: before(number) if number <= 300 else changed(number),
        requests_per_minute=3000.0,
        max_in_flight=32,
    )
    order = sorted(api.requests.values(), key=lambda request: request.told_at or 0.0)
    polls = {request.request_id: 0 for request in order}
    for _, kind, request_id in api.calls:
        if kind == "status":
            polls[request_id] += 1
    settled = order[300 + 32 + 48 :]
    assert sum(polls[request.request_id] for request in settled) / len(settled) <= 5.2
    assert waiting(settled) <= 0.1


def test_one_that_takes_very_long_leaves_the_others_polled_as_before() -> None:
    """Those that come after it are noticed no later, also where they take longer than all but that one."""
    usual = lognormal(0.2)
    api, _ = made(600, lambda number: 400.0 if number == 60 else usual(number), max_in_flight=12)
    late = [(request.told_at or math.inf) - request.done_at for request in api.requests.values()]
    assert max(late) <= MEAN_SECONDS
    assert requests_an_image(api) <= 8


def by_the_clock(*phases: tuple[float, float]) -> Callable[[int], float]:
    """Return latencies of a mean that holds from some second after the start on."""
    shape, begun = lognormal(0.2, mean=1.0), None

    def latency(number: int) -> float:
        nonlocal begun
        now = asyncio.get_running_loop().time()
        begun = begun or now
        return shape(number) * next(mean for since, mean in reversed(phases) if since <= now - begun)

    return latency


@pytest.mark.parametrize(
    ("phases", "count", "most_late", "most_late_on_average", "most_requests"),
    [
        (((0, 15.84), (200, 158.4), (900, 15.84)), 1500, 130, 14, 9.3),
        (((0, 400.0), (800, 8.0)), 800, 290, 14, 9.9),
    ],
    ids=["158 s to 16 s", "400 s to 8 s"],
)
def test_a_service_that_becomes_faster_leaves_no_poll_where_it_was(
    phases: tuple[tuple[float, float], ...],
    count: int,
    most_late: float,
    most_late_on_average: float,
    most_requests: float,
) -> None:
    """None is noticed later than by the first poll that was set before, and most of them long before."""
    api = FakeApi(latency=by_the_clock(*phases), network_seconds=0.02)
    run(api, variations(count), max_in_flight=64)
    changed_at = next(iter(api.requests.values())).accepted_at + phases[-1][0]
    after = [request for request in api.requests.values() if request.accepted_at >= changed_at]
    late = [(request.told_at or math.inf) - request.done_at for request in after]
    assert max(late) <= most_late
    assert sum(late) / len(late) <= most_late_on_average
    assert requests_an_image(api) <= most_requests


def test_at_the_end_of_a_run_no_request_waits_for_a_dear_poll() -> None:
    """Nothing new needs the requests any more: what is in flight is looked at as if they were for nothing."""
    late, count = 0.0, 0
    for seed in range(4):
        api, _ = made(300, lognormal(0.3, mean=60.0, seed=seed), requests_per_minute=300.0, max_in_flight=128)
        last = max(request.accepted_at for request in api.requests.values())
        end = [
            told_at - request.done_at for request in api.requests.values() if (told_at := request.told_at or 0) > last
        ]
        late, count = late + sum(end), count + len(end)
    assert late / count <= 0.17 * 60


def test_a_setting_that_says_wrongly_that_polls_are_not_counted_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    """The first poll that is refused shows it; the run goes on as if it had been set rightly, and says so once."""
    limit = {"limit": (60, 60.0), "first_requests_per_minute": 60.0}
    right, _ = made(200, lognormal(0.2), **limit)
    assert not caplog.records
    wrong, stage = made(200, lognormal(0.2), **limit, count_all_requests=False)
    assert seconds_in_all(wrong) <= 1.25 * seconds_in_all(right)
    assert stage.engine.progress.limit_found == pytest.approx(60, rel=0.15)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "Set requests_counted to all" in record.getMessage()
    assert stage.engine.progress.all_found_counted
