"""The plan's request limit: a number of calls in each minute of the sandbox's clock."""

from variations.sandbox.clock import iso_utc
from variations.sandbox.refusals import Refused

WINDOW_SECONDS = 60.0


class RateLimit:
    """Count calls in fixed windows of one minute; what does not fit is refused and not counted."""

    def __init__(self) -> None:
        self._window = -1
        self._used = 0

    def take(self, now: float, *, requests_per_minute: int) -> None:
        """Let one call through at `now` (epoch seconds); 0 requests a minute means no limit.

        Raises:
            Refused: 429, with the moment at which the window ends in `x-rate-limit-reset-at-utc`.
        """
        if requests_per_minute == 0:
            return
        window = int(now // WINDOW_SECONDS)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= requests_per_minute:
            reset_at = (window + 1) * WINDOW_SECONDS
            raise Refused(
                429,
                f"Rate limit of {requests_per_minute} requests a minute exceeded.",
                headers={"x-rate-limit-reset-at-utc": iso_utc(reset_at)},
            )
        self._used += 1
