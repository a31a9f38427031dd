"""A clock that tests set."""

from datetime import UTC, datetime


class SetClock:
    """Time stands still until it is set."""

    seconds = 100.0

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.seconds += seconds
