"""Whatever happens, and in whatever order: nothing paid is lost, and nothing is paid twice."""

from pathlib import Path

import pytest

from .driver import a_manifest, run_chaos
from .sweep import sweep

RUNS = 240


def test_nothing_is_lost_and_nothing_paid_twice() -> None:
    """Runs that are killed, stalled, started twice and cut off end with a row an image, and each paid for once."""
    swept = sweep(range(RUNS))
    assert not swept.failing, "\n".join(swept.lines())
    # All of it did happen.
    for event in ("twins", "exit: killed", "exit: dataset_busy", "exit: replaced", "row: kept", "row: unknown"):
        assert swept.events[event], f"{event} never happened: {swept.events}"


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_replays_exactly(seed: int) -> None:
    """What a failing seed shows can be looked at as often as it takes."""
    with a_manifest(20) as manifest:
        first, again = (run_chaos(seed, manifest=Path(manifest), items=20, tell=True) for _ in range(2))
    assert first.story
    assert first.story == again.story
