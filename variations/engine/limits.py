"""How hard to go."""

from dataclasses import dataclass
from typing import Final

# The vendor's own figure for one image at its defaults, submit to result.
LATENCY_SECONDS: Final = 15.84
# Of requests in flight, where as many are wanted as the request limit can feed.
MOST_IN_FLIGHT: Final = 256
SPARE_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard to go, and what it costs.

    Attributes:
        max_in_flight: requests accepted and not yet done; 0 for as many as the request limit can feed.
        requests_per_minute: the plan's limit; 0 for as many as the API takes.
        first_requests_per_minute: where none is told, the pace at which finding it begins; 0 for none.
        count_all_requests: whether every call counts against it, or submits alone.
        poll_interval_seconds: between two polls of a request; 0 to learn when they are worth it.
        expected_latency_seconds: of a request, before any was seen.
        deadline_seconds: from a submit until it is given up as a time-out.
        max_images_in_memory: images fetched and not yet stored.
        presign_seconds: life of a presigned source URL.
        price_usd: of an image, where the API does not report it.
        max_cost_usd: what a run may cost at most; 0 for no limit.
        grace_seconds: from a signal to stop until what is in flight is left to the next run.
        intent_seconds: from its intent on, so long a POST may leave.
        submit_seconds: at the most a POST takes, from when it leaves until the client has given it up and nothing of it
            can arrive any more.
        output_hosts: from which outputs may be fetched besides the API's own.
    """

    max_in_flight: int = 0
    requests_per_minute: float = 0.0
    first_requests_per_minute: float = 0.0
    count_all_requests: bool = True
    poll_interval_seconds: float = 0.0
    expected_latency_seconds: float = LATENCY_SECONDS
    deadline_seconds: float = 600.0
    max_images_in_memory: int = 16
    presign_seconds: int = 6 * 3600
    price_usd: float = 0.031
    max_cost_usd: float = 0.0
    grace_seconds: float = 20.0
    intent_seconds: float = 60.0
    submit_seconds: float = 90.0
    output_hosts: tuple[str, ...] = ()

    @property
    def most_in_flight(self) -> int:
        """Requests in flight at the very most."""
        return self.max_in_flight or MOST_IN_FLIGHT

    @property
    def most_connections(self) -> int:
        """One for each request in flight, and some for what is being fetched."""
        return self.most_in_flight + SPARE_CONNECTIONS

    @property
    def intent_is_over_seconds(self) -> float:
        """How long after an intent became durable nothing can come of it any more that has not."""
        return self.intent_seconds + self.submit_seconds
