"""What holds whatever the API does."""

import random
from collections import Counter
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from variations.ledger.records import Settled

from .simulation import (
    PRICE_USD,
    ApiRequest,
    FakeApi,
    MemoryLog,
    failed,
    history_row,
    lost,
    picture,
    refused,
    run,
    variations,
)
from .turns import most_allowed, most_in_a_minute


class Whims:
    """Answers drawn from a seed; nothing here condemns the run, and no five submits in a row fail."""

    def __init__(self, seed: int, trouble: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._trouble = trouble
        self._in_a_row = 0

    def _draws(self) -> bool:
        return self._random.random() < self._trouble

    def latency(self, _: int) -> float:
        """Return seconds, a few of them beyond the deadline."""
        return self._random.choice([0.0, 2.0, 16.0, 16.0, 16.0, 60.0, 500.0])

    def submit(self, *_: object) -> httpx.Response | Exception | None:
        """Refuse, lose or take."""
        if self._in_a_row >= 3 or not self._draws():
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        limited = httpx.Response(429, json={"error": "slow down"})
        broke = [lost(), refused(502), httpx.ConnectError("refused"), refused(500), refused(406, "value"), limited]
        return self._random.choice(broke)

    def status(self, *_: object) -> httpx.Response | Exception | None:
        """Fail, forget or tell."""
        answers = [refused(500), lost(), failed(), refused(404), httpx.Response(200, content=b"?"), refused(429)]
        return self._random.choice(answers) if self._draws() else None

    def result(self, *_: object) -> httpx.Response | Exception | None:
        """Fail or tell."""
        return self._random.choice([refused(502), lost(), refused(404)]) if self._draws() else None

    def history(self, request_id: str, _: int) -> httpx.Response | None:
        """Have the record, or not."""
        answers = [history_row(request_id), history_row(request_id, "PENDING"), history_row(request_id, "FAILED"), None]
        return self._random.choice(answers)

    def landed(self, api: FakeApi) -> list[ApiRequest]:
        """Show each request, or not yet."""
        return [request for request in api.requests.values() if self._random.random() < 0.5]

    def output(self, *_: object) -> httpx.Response | Exception | None:
        """Damage it, or not."""
        answers = [refused(404), lost(), httpx.Response(200, content=picture()[:-100])]
        return self._random.choice(answers) if self._draws() else None

    def made(self, inputs: dict[str, Any]) -> int:
        """Leave images out, or not."""
        wanted = inputs["num_outputs"]
        return self._random.randint(1, wanted) if self._draws() else wanted


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.1, 0.4]),
    count=st.integers(0, 25),
    num_outputs=st.integers(1, 4),
    max_in_flight=st.integers(1, 20),
    requests_per_minute=st.sampled_from([0, 20, 60, 300]),
    max_images=st.integers(1, 5),
)
def test_every_variation_has_its_rows_and_no_limit_is_exceeded(
    *,
    seed: int,
    trouble: float,
    count: int,
    num_outputs: int,
    max_in_flight: int,
    requests_per_minute: int,
    max_images: int,
) -> None:
    """Exactly `num_outputs` rows for each, at most one accepted submit, all the money counted, every bound held."""
    whims = Whims(seed, trouble)
    api = FakeApi(
        latency=whims.latency,
        on_submit=whims.submit,
        on_status=whims.status,
        on_result=whims.result,
        on_history=whims.history,
        on_output=whims.output,
        landed=whims.landed,
        made=whims.made,
    )
    log = MemoryLog()
    outcomes, stage = run(
        api,
        variations(count, num_outputs=num_outputs),
        log=log,
        max_in_flight=max_in_flight,
        requests_per_minute=requests_per_minute,
        max_images_in_memory=max_images,
        deadline_seconds=200.0,
    )
    assert stage.engine.stopped_by is None
    rows = Counter((outcome.variation.variation_id, outcome.output_index) for outcome in outcomes)
    wanted = {(f"{number:032x}", index) for number in range(count) for index in range(num_outputs)}
    assert set(rows) == wanted
    assert set(rows.values()) <= {1}
    accepted = Counter(request.inputs["seed"] for request in api.requests.values())
    assert all(times == 1 for times in accepted.values())
    for variation_id, request_id in log.accepted().items():
        assert api.requests[request_id].inputs["seed"] == 1 + int(variation_id, 16)
    settled = {record.variation_id: record.images for record in log.records if isinstance(record, Settled)}
    assert Counter((one, image.output_index) for one, images in settled.items() for image in images) == rows
    assert api.most_fetching <= max_images
    if requests_per_minute:
        # Arrival is a network's way later than the departure that is counted.
        assert most_in_a_minute(api.times()) <= most_allowed(requests_per_minute)
    for outcome in outcomes:
        assert (outcome.status == "kept") == (outcome.image is not None)
        if outcome.image is not None:
            assert outcome.image.file_name in stage.storage.objects
            assert outcome.error_code is None
        if outcome.status == "unknown":
            assert outcome.cost_usd > 0
    assert len(stage.storage.objects) == sum(1 for outcome in outcomes if outcome.status == "kept")
    if trouble == 0:
        assert sum(outcome.cost_usd for outcome in outcomes) >= PRICE_USD * count * num_outputs - 1e-9
        told = [request for request in api.requests.values() if request.told_at is not None]
        assert len(told) == sum(1 for request in api.requests.values() if request.done_at < request.accepted_at + 190)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 40),
    max_in_flight=st.integers(1, 12),
    latencies=st.lists(st.floats(0, 40), min_size=1, max_size=10),
)
def test_no_more_are_in_flight_than_allowed(
    *, seed: int, count: int, max_in_flight: int, latencies: list[float]
) -> None:
    """Whatever the latencies, accepted and not yet told to be done are at most `max_in_flight`."""
    chances = random.Random(seed)  # noqa: S311 - no secret
    api = FakeApi(latency=lambda _: chances.choice(latencies))
    outcomes, _ = run(api, variations(count), max_in_flight=max_in_flight)
    assert len(outcomes) == count
    assert api.most_in_flight <= max_in_flight
    if min(latencies) > 0.2:
        assert api.most_in_flight == min(count, max_in_flight)
