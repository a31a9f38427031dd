"""The API's clock: learned from its answers, whatever this machine's own one says."""

from datetime import UTC, datetime, timedelta

import pytest

from variations.engine.api_clock import BY_OUR_CLOCK, PRECISION, ApiClock


class WrongClock:
    """A machine's clock whose time of day is minutes off."""

    def __init__(self) -> None:
        self.seconds = 5000.0

    def now(self) -> datetime:
        """Return the wrong time of day."""
        return datetime(2026, 1, 1, 12, 7, tzinfo=UTC)

    def monotonic(self) -> float:
        """Return the seconds since some moment."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


NOON = "Thu, 01 Jan 2026 12:00:00 GMT"


@pytest.mark.parametrize("date", [None, "", "noon", "Thu, 99 Jan 2026 12:00:00 GMT"])
def test_who_was_told_nothing_goes_by_its_own_clock(date: str | None) -> None:
    """It may be wrong by minutes, so what is looked for may be minutes older."""
    clock = ApiClock(WrongClock())
    clock.heard(date)
    assert clock.ago(60) == (datetime(2026, 1, 1, 12, 6, tzinfo=UTC), BY_OUR_CLOCK)


async def test_the_time_is_that_of_the_api() -> None:
    """Told once, it goes on with the seconds that pass here."""
    machine = WrongClock()
    clock = ApiClock(machine)
    clock.heard(NOON)
    await machine.sleep(30)
    assert clock.ago(10) == (datetime(2026, 1, 1, 12, 0, 20, tzinfo=UTC), PRECISION)


async def test_an_answer_that_was_long_under_way_changes_nothing() -> None:
    """It tells a time that has passed meanwhile; one that was faster than all before is nearer."""
    machine = WrongClock()
    clock = ApiClock(machine)
    clock.heard(NOON)
    await machine.sleep(40)
    clock.heard(NOON)
    assert clock.ago(0)[0] == datetime(2026, 1, 1, 12, 0, 40, tzinfo=UTC)
    clock.heard("Thu, 01 Jan 2026 12:00:42 GMT")
    assert clock.ago(0)[0] == datetime(2026, 1, 1, 12, 0, 40, tzinfo=UTC) + timedelta(seconds=2)
