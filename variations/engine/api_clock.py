"""The API's own time of day, as its answers tell it: what its history says of a moment is meant by that clock."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from variations.clock import Clock

# Answers tell whole seconds, and the history may be another machine's, kept by the same time service.
PRECISION: Final = timedelta(seconds=2)
# Where no answer told the time: the machine's own clock may be wrong by minutes.
BY_OUR_CLOCK: Final = timedelta(minutes=15)


class ApiClock:
    """Learns from the `Date` of answers how far the API's clock is from this machine's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: timedelta | None = None

    def heard(self, date: str | None) -> None:
        """Take in the `Date` of an answer that has just come; one that is none is left out."""
        try:
            told = parsedate_to_datetime(date) if date else None
        except (ValueError, TypeError, IndexError, OverflowError):
            return
        if told is None:
            return
        told = told.replace(tzinfo=UTC) if told.tzinfo is None else told
        ahead = told - self._told_by_ours()
        # An answer that was long under way makes the API's clock look late: the fastest one is the nearest.
        self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)

    def ago(self, seconds: float) -> tuple[datetime, timedelta]:
        """Return the moment so long ago by the API's clock, and by how much it may have been earlier."""
        if self._ahead is None:
            return self._clock.now() - timedelta(seconds=seconds), BY_OUR_CLOCK
        return self._told_by_ours() + self._ahead - timedelta(seconds=seconds), PRECISION

    def _told_by_ours(self) -> datetime:
        # The time of day of a machine may be set meanwhile, its monotonic clock goes on.
        return datetime.fromtimestamp(self._clock.monotonic(), UTC)
