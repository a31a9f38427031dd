"""The rate limit, and how latencies are drawn and scaled."""

import random
import statistics
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest

from variations.sandbox import Sandbox, SandboxSettings
from variations.sandbox.latency import draw_latency_seconds

SUBMIT = "/v2/flux-redux-dev"


def align(sandbox: Sandbox) -> None:
    """Move the clock to the beginning of a minute, so that no test runs over its end."""
    sandbox.advance_clock(60 - sandbox.now() % 60)


def test_429_names_the_moment_at_which_the_limit_resets(api: httpx.Client, sandbox: Sandbox) -> None:
    """The header is an ISO-8601 time in UTC, there is no Retry-After, and at that moment calls go through."""
    sandbox.configure(requests_per_minute=2)
    align(sandbox)
    answers = [api.get("/v1/get-user-credits") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json().keys() == {"error"}
    assert "retry-after" not in answers[2].headers
    reset_at = datetime.fromisoformat(answers[2].headers["x-rate-limit-reset-at-utc"])
    assert reset_at.utcoffset() == datetime.now(UTC).utcoffset()
    # The answer tells its own time by the same clock, so that the wait can be told without another.
    told_at = parsedate_to_datetime(answers[2].headers["date"])
    left_seconds = reset_at.timestamp() - sandbox.now()
    assert (reset_at - told_at).total_seconds() == pytest.approx(left_seconds, abs=2)
    assert 50 < left_seconds <= 60
    sandbox.advance_clock(left_seconds)
    assert api.get("/v1/get-user-credits").status_code == 200


def test_a_submit_that_is_rate_limited_is_not_accepted(api: httpx.Client, sandbox: Sandbox, photo: str) -> None:
    """With `submits` only submits count, and a 429 costs nothing."""
    sandbox.configure(requests_per_minute=1, rate_limit_counts="submits")
    align(sandbox)
    answers = [api.post(SUBMIT, json={"redux_image": photo}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert all(api.get(answers[0].json()["status_url"]).status_code == 200 for _ in range(5))
    bill = sandbox.bill()
    assert bill.accepted == 1
    assert bill.calls_of("submit", 429) == 1


@pytest.mark.parametrize("shape", ["lognormal", "normal", "bimodal"])
def test_latencies_have_the_mean_and_the_spread_that_were_asked_for(shape: str) -> None:
    """Whatever the shape, the mean is the real API's divided by the speed."""
    settings = SandboxSettings(latency_shape=shape, latency_spread=0.2, speed=4)  # type: ignore[arg-type]
    rng = random.Random(1)  # noqa: S311 - it is a simulation
    drawn = [draw_latency_seconds(settings, rng) for _ in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(15.84 / 4, rel=0.02)
    assert min(drawn) > 0
    if shape != "bimodal":
        assert statistics.stdev(drawn) / statistics.fmean(drawn) == pytest.approx(0.2, rel=0.05)


def test_without_spread_or_latency_nothing_is_left_to_chance() -> None:
    """Zero stays zero, and a spread of zero is the mean."""
    rng = random.Random(1)  # noqa: S311 - it is a simulation
    assert draw_latency_seconds(SandboxSettings(latency_seconds=0), rng) == 0
    assert draw_latency_seconds(SandboxSettings(latency_spread=0, speed=2), rng) == 7.92


@pytest.mark.parametrize(
    "change", [{"speed": 0}, {"workers": 0}, {"latency_spread": -1}, {"latency_shape": "flat"}, {"price_usd": -1}]
)
def test_a_setting_out_of_bounds_is_named(change: dict[str, object]) -> None:
    """At the start and while running alike."""
    with pytest.raises(ValueError, match=next(iter(change))):
        SandboxSettings(**change)  # type: ignore[arg-type]
