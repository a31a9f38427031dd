"""How durations and tables are said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.texts import duration, markdown_table


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (3.25, "3.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (5 * 3600 + 12 * 60 + 30, "5 h 12 min"),
        (86_400, "1 d"),
        (3 * 86_400 + 4 * 3600, "3 d 4 h"),
        (400 * 86_400, "400 d"),
    ],
)
def test_a_duration_is_said_as_people_say_it(seconds: float, said: str) -> None:
    """Two units at the most, never 60 s and never 0 of the smaller one."""
    assert duration(seconds) == said


@given(st.floats(0, 10**9))
def test_a_duration_never_says_more_than_its_unit_holds(seconds: float) -> None:
    """No 60 s, no 60 min, no 24 h."""
    said = duration(seconds)
    for number, unit in re.findall(r"([\d.]+) (s|min|h|d)", said):
        assert float(number) < {"s": 60, "min": 60, "h": 24}.get(unit, 10**6)


@given(st.text() | st.text("|\\<>`*[]!_&\r\n\u2028 a"))
def test_no_value_breaks_a_table(value: str) -> None:
    """Neither bars nor line breaks nor markup of whatever an API or a manifest says."""
    text = markdown_table("Title", [("name", value)])
    lines = text.split("\n")
    assert len(lines) == len(text.splitlines()) + 1 == 6
    cell = lines[4].removeprefix("| name | ").removesuffix(" |")
    assert not re.search(r"[|`*\[\]]", re.sub(r"\\.", "", cell))
    assert "<" not in cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("<img src=x>", "&lt;img src=x>"),
        ("&lt;", "&amp;lt;"),
        ("one\ntwo\r\nthree\rfour", "one two three four"),
        ("![x](http://h)", "!\\[x\\](http://h)"),
        ("`code` *bold*", "\\`code\\` \\*bold\\*"),
        ("s3://my_bucket/a_b", "s3://my_bucket/a_b"),
    ],
)
def test_what_is_escaped(value: str, cell: str) -> None:
    """So that it shows as it is."""
    assert f"| name | {cell} |" in markdown_table("Title", [("name", value)])
