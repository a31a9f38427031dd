"""What a sandbox is told: one frozen value, every field with its unit and its default."""

import math
from dataclasses import dataclass, field, fields
from typing import Final, Literal, get_args

LatencyShape = Literal["lognormal", "normal", "bimodal"]
CountedCalls = Literal["all", "submits"]

# Made up: the form of a real key, and no account behind it.
DEFAULT_API_KEY: Final = "SG_0123456789abcdef"
HEADLINE_LATENCY_SECONDS: Final = 15.84


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """Hold every knob of a sandbox; all but `image_threads` and the cache sizes can be turned while it runs.

    Attributes:
        api_key: the one key that is accepted.
        speed: divides every latency; nothing else is scaled.
        latency_seconds: mean time from the start of the work to its end, before `speed`.
        latency_spread: standard deviation of the latency, as a share of its mean.
        latency_shape: `bimodal` is four fifths at 0.75 and one fifth at 2 times the mean, each with the spread.
        workers: how many requests are worked on at once; the others queue, first come first served.
        requests_per_minute: 0 for no limit.
        rate_limit_counts: whether every call with a key counts against the limit, or submits only.
        credits: the balance in USD.
        free_credits: a second balance in USD, spent before the first.
        spend_limit_usd: a team's limit on what is spent in all, or None.
        price_usd: the price of one delivered image; a request costs this for each image it delivers.
        history_delay_seconds: how much later than it happened the request history shows a thing.
        result_lifetime_seconds: counted from the submission.
        output_lifetime_seconds: counted from the submission.
        source_cache_seconds: how long a fetched source is reused for further requests.
        models: the slugs that answer.
        retired_models: slugs that answer 410.
        forbidden_models: slugs that answer 403.
        seed: of the latencies and the faults.
        image_threads: threads that decode and make images.
        source_cache_bytes: decoded sources held.
        output_cache_bytes: finished files held; an evicted one is made again when it is fetched.
        asset_bytes: uploaded files held; the oldest go first.
    """

    api_key: str = field(default=DEFAULT_API_KEY, repr=False)
    speed: float = 1.0
    latency_seconds: float = HEADLINE_LATENCY_SECONDS
    latency_spread: float = 0.05
    latency_shape: LatencyShape = "lognormal"
    workers: int = 64
    requests_per_minute: int = 0
    rate_limit_counts: CountedCalls = "all"
    credits: float = 100.0
    free_credits: float = 0.0
    spend_limit_usd: float | None = None
    price_usd: float = 0.031
    history_delay_seconds: float = 3.0
    result_lifetime_seconds: float = 3600.0
    output_lifetime_seconds: float = 7 * 86400.0
    source_cache_seconds: float = 60.0
    models: tuple[str, ...] = ("flux-redux-dev",)
    retired_models: tuple[str, ...] = ()
    forbidden_models: tuple[str, ...] = ()
    seed: int = 0
    image_threads: int = 2
    source_cache_bytes: int = 192 << 20
    output_cache_bytes: int = 48 << 20
    asset_bytes: int = 192 << 20

    def __post_init__(self) -> None:
        """Check every type and bound: settings also arrive as JSON.

        Raises:
            ValueError: naming the field that is wrong.
        """
        for setting in fields(self):
            if not _fits(setting.type, getattr(self, setting.name)):
                raise ValueError(f"{setting.name} must be of type {setting.type}")
        problems = {
            "speed": self.speed <= 0,
            "latency_seconds": self.latency_seconds < 0,
            "latency_spread": not 0 <= self.latency_spread <= 1,
            "latency_shape": self.latency_shape not in get_args(LatencyShape),
            "workers": self.workers < 1,
            "requests_per_minute": self.requests_per_minute < 0,
            "rate_limit_counts": self.rate_limit_counts not in get_args(CountedCalls),
            "price_usd": self.price_usd < 0,
            "history_delay_seconds": self.history_delay_seconds < 0,
            "image_threads": self.image_threads < 1,
        }
        wrong = [name for name, is_wrong in problems.items() if is_wrong]
        if wrong:
            raise ValueError(f"out of bounds: {', '.join(f'{name}={getattr(self, name)!r}' for name in wrong)}")


def _fits(kind: object, value: object) -> bool:
    """Return whether a value is of a field's type, as far as JSON can get it wrong."""
    if value is None:
        return kind == float | None
    if kind in (float, float | None):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(entry, str) for entry in value)
    return isinstance(value, str)


SETTING_NAMES: Final = frozenset(setting.name for setting in fields(SandboxSettings))
# Sized once, when the service is built.
FIXED_SETTING_NAMES: Final = frozenset({"image_threads", "source_cache_bytes", "output_cache_bytes", "asset_bytes"})
