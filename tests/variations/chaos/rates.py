"""How bad the world is: the delays, and how often each thing goes wrong."""

from dataclasses import dataclass, replace
from typing import Final

_FAULTS: Final = (
    "slow",
    "lost_reply",
    "unavailable",
    "broken",
    "bad_gateway",
    "no_answer",
    "refused",
    "limited",
    "submit_500",
    "inference_failed",
    "slow_inference",
    "get_fails",
    "output_missing",
    "fewer_outputs",
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Chances from 0 to 1 a call, and seconds; pairs of seconds are the least and the most.

    Attributes:
        request_seconds, answer_seconds: each way of a call; a call takes effect between the two.
        slow, slow_seconds: one way takes up to so long instead.
        late_seconds: what is said to be lost, or left by a killed process, takes effect at most so much later.

        lost_reply: a storage write takes effect, its answer is lost, and the store's client sends it again.
        unavailable: a storage call ends in `StorageUnavailable`.
        unavailable_landed, unavailable_lands_late: such a write took effect, or will within `late_seconds`; else never.
        page_sizes: one is drawn for each listing.

        kill_drops, kill_delays: what a killed process had on the wire is lost, or late; else it lands in its time.
        skew_seconds: a process's wall clock is off by up to so much, either way.

        broken, bad_gateway, no_answer: a submit ends in a `ReadError`, in 502 or 504, in a `ReadTimeout`.
        lost_accepted, lost_accepted_late: such a submit was accepted, or will be within `late_seconds`; else never.
        refused, limited, submit_500: a submit is not accepted: no connection, 429, 500.
        inference_failed: a request fails, and costs nothing.
        latency_seconds, latency_spread, slow_inference: a request's mean and relative deviation; or ten times as long.
        get_fails: a GET ends in 500, 502, 429, a `ReadError` or a `ConnectError`.
        output_missing: the first one to three fetches of an output are a 404.
        fewer_outputs: a request for several images makes fewer.
        history_delay_seconds: what happens to a request shows in the history so much later, drawn for each request.
        api_skew_seconds: the API's clock is off from the store's by up to so much, either way.
    """

    request_seconds: tuple[float, float] = (0.005, 0.08)
    answer_seconds: tuple[float, float] = (0.005, 0.08)
    slow: float = 0.01
    slow_seconds: float = 30.0
    late_seconds: float = 60.0

    lost_reply: float = 0.01
    unavailable: float = 0.01
    unavailable_landed: float = 0.3
    unavailable_lands_late: float = 0.2
    page_sizes: tuple[int, ...] = (3, 1000, 1000)

    kill_drops: float = 1 / 3
    kill_delays: float = 1 / 3
    skew_seconds: float = 600.0

    broken: float = 0.01
    bad_gateway: float = 0.01
    no_answer: float = 0.005
    lost_accepted: float = 0.6
    lost_accepted_late: float = 0.1
    refused: float = 0.01
    limited: float = 0.01
    submit_500: float = 0.01
    inference_failed: float = 0.02
    latency_seconds: float = 16.0
    latency_spread: float = 0.2
    slow_inference: float = 0.01
    get_fails: float = 0.02
    output_missing: float = 0.05
    fewer_outputs: float = 0.05
    history_delay_seconds: tuple[float, float] = (1.0, 40.0)
    api_skew_seconds: float = 2.0

    def times(self, factor: float) -> "Rates":
        """Return the same with every fault so many times as often; 0 is a world without faults."""
        return replace(self, **{name: min(1.0, factor * getattr(self, name)) for name in _FAULTS})


CALM: Final = Rates().times(0)
