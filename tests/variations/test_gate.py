"""The verdict on an image, by its measures and the thresholds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.gate import PASSED, Gate, reasons_of
from variations.models import Measures

SIZE = (1024, 1024)
EVERYTHING = Gate(lost_bits=40)


def judged(
    gate: Gate = EVERYTHING,
    *,
    size: tuple[int, int] = SIZE,
    copy: int | None = None,
    twin: int | None = None,
    **measures: object,
) -> str:
    """Return the verdict on an image that is as it should be, but for what is given."""
    values = {"contrast": 180.0, "phash": "0" * 16, "source_distance": 20, "sibling_distance": 24} | measures
    verdict, _ = gate.judge(Measures(**values), size=size, expected_size=SIZE, copy_distance=copy, twin_distance=twin)  # type: ignore[arg-type]
    return verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({}, "passed"),
        ({"contrast": 7.9}, "flagged: blank"),
        ({"contrast": 8.0}, "passed"),
        ({"copy": 6}, "flagged: copy"),
        ({"copy": 7}, "passed"),
        ({"source_distance": 0, "copy": None}, "passed"),
        ({"source_distance": None, "sibling_distance": None}, "passed"),
        ({"source_distance": 40}, "flagged: lost"),
        ({"source_distance": 39}, "passed"),
        ({"twin": 6}, "flagged: twin"),
        ({"twin": 7}, "passed"),
        ({"twin": None, "sibling_distance": 0}, "passed"),
        ({"size": (1136, 1024)}, "flagged: size"),
        ({"size": (1120, 930)}, "passed"),
        ({"contrast": 0.0, "size": (64, 64), "copy": 0}, "flagged: blank, size, copy"),
    ],
)
def test_an_image_is_flagged_for_what_is_beyond_a_threshold(found: dict[str, object], verdict: str) -> None:
    """And for all of it, in a fixed order."""
    assert judged(**found) == verdict  # type: ignore[arg-type]


@given(st.floats(0, 255), st.none() | st.integers(0, 64), st.none() | st.integers(0, 64), st.integers(1, 5000))
def test_thresholds_of_zero_flag_nothing(contrast: float, to_source: int | None, twin: int | None, side: int) -> None:
    """Whatever was measured."""
    off = Gate(blank=0, size_percent=0, copy_bits=0, lost_bits=0, twin_bits=0)
    assert (
        judged(off, size=(side, 1), contrast=contrast, source_distance=to_source, copy=to_source, twin=twin) == PASSED
    )


def test_what_is_not_known_is_not_held_against_an_image() -> None:
    """Where the size depends on the source, any may be right."""
    measures = Measures(contrast=100.0, phash="0" * 16)
    assert Gate().judge(measures, size=(7, 9), expected_size=None) == (PASSED, "")


def test_the_reason_has_the_figures_and_the_settings_name() -> None:
    """So that a person knows what to change."""
    measures = Measures(contrast=1.5, phash="0" * 16, source_distance=2)
    _, reason = Gate().judge(measures, size=(512, 512), expected_size=SIZE, copy_distance=2)
    assert reason == (
        "blank: its contrast is 1.5 of 255, and gate_blank 8; size: it is 512×512, and not 1024×1024; "
        "copy: 2 bits from its source, and gate_copy is 6"
    )


def test_the_reasons_are_read_out_of_a_verdict() -> None:
    """None of one that passed."""
    assert list(reasons_of("flagged: blank, twin")) == ["blank", "twin"]
    assert list(reasons_of(PASSED)) == []


@pytest.mark.parametrize(("on_flagged", "rolls"), [("keep", 1), ("drop", 1), ("reroll", 5)])
def test_only_a_reroll_makes_anything_again(on_flagged: str, rolls: int) -> None:
    """The limit is of no account elsewhere."""
    assert Gate(on_flagged=on_flagged, max_rolls=5).rolls == rolls  # type: ignore[arg-type]
