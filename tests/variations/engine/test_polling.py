"""When to poll."""

import pytest

from variations.engine.polling import FixedInterval


@pytest.mark.parametrize(
    ("age_seconds", "expected"), [(0.0, 4.0), (595.9, 4.0), (598.0, 2.0), (600.0, 0.0), (700.0, 0.0)]
)
def test_a_fixed_interval_never_reaches_beyond_the_deadline(age_seconds: float, expected: float) -> None:
    """The last poll is due at the deadline itself."""
    assert FixedInterval(4.0, 600.0).next_poll_seconds(age_seconds, 3) == pytest.approx(expected)
