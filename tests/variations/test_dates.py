"""Days in URIs: filled in where they are meant, refused where nobody knows them."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.dates import PLACEHOLDERS, days, filled, has_placeholder, parsed_day
from variations.errors import BadInput

DAY = date(2026, 11, 2)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/{date}/manifest.csv", "s3://b/2026-11-02/manifest.csv"),
        ("s3://b/{year}/{month}/{day}", "s3://b/2026/11/02"),
        ("s3://b/y={year}/{date}-{date}", "s3://b/y=2026/2026-11-02-2026-11-02"),
        ("photos", "photos"),
        ("s3://b/{{date}}/{{{day}}}", "s3://b/{date}/{02}"),
        ("s3://b/one{brace", "s3://b/one{brace"),
    ],
)
def test_a_day_is_filled_in(uri: str, expected: str) -> None:
    """Each placeholder with two digits or four; a brace that is doubled is one."""
    assert filled(uri, DAY, name="source") == expected


@pytest.mark.parametrize("placeholder", ["hour", "Date", "", "date:%H", "date.year"])
def test_an_unknown_placeholder_is_named_with_the_known_ones(placeholder: str) -> None:
    """And with the field that holds it."""
    with pytest.raises(BadInput) as refused:
        filled(f"s3://b/{{{placeholder}}}", DAY, name="destination")
    assert str(refused.value).startswith(
        f"destination: {{{placeholder}}} is no placeholder; known are {{date}}, {{year}}"
    )
    assert all(f"{{{name}}}" in str(refused.value) for name in PLACEHOLDERS)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://b/{date", "a brace is missing at {date; write {date}"),
        ("s3://b/{date/x", "a brace is missing at {date; write {date}"),
        ("s3://b/{year}/{month/{day}", "a brace is missing at {month; write {month}"),
        ("s3://b/day}/x", "a brace is missing at day}; write {day}"),
        ("s3://b/{{date}", "a brace is missing at date}; write {date}"),
    ],
)
def test_a_placeholder_that_lacks_a_brace_is_refused(uri: str, told: str) -> None:
    """Else every day of a schedule would go to one and the same place."""
    with pytest.raises(BadInput) as refused:
        filled(uri, DAY, name="destination")
    assert str(refused.value).startswith(f"destination: {told}, and {{{{ or }}}} for a brace")


@pytest.mark.parametrize("uri", ["s3://b/{dates", "s3://b/holiday}", "s3://b/date", "s3://b/{"])
def test_a_brace_at_another_word_is_itself(uri: str) -> None:
    """Keys may hold any."""
    assert filled(uri, DAY, name="source") == uri


def test_a_secret_in_braces_is_not_repeated() -> None:
    """What stands there was not meant to be shown."""
    with pytest.raises(BadInput) as refused:
        filled("s3://b/{key?X-Amz-Signature=0123abcd}", DAY, name="source")
    assert "0123abcd" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("s3://b/{date}", True), ("s3://b/{hour}", True), ("s3://b/{{date}}", False), ("s3://b", False)],
)
def test_it_is_known_whether_a_uri_differs_from_day_to_day(uri: str, expected: bool) -> None:
    """A doubled brace is none of a placeholder."""
    assert has_placeholder(uri) is expected


@given(st.text(st.characters(exclude_characters="{}")))
def test_a_uri_without_braces_stays_as_it_is(uri: str) -> None:
    """Whatever is in it."""
    assert filled(uri, DAY, name="source") == uri
    assert not has_placeholder(uri)


@given(st.text())
def test_every_text_can_be_written_with_doubled_braces(text: str) -> None:
    """So there is no place that cannot be named."""
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert filled(doubled, DAY, name="source") == text


@given(st.dates(date(1000, 1, 1)))
def test_a_day_is_read_as_it_is_written(day: date) -> None:
    """By ISO 8601."""
    assert parsed_day(day.isoformat()) == day


@pytest.mark.parametrize("text", ["2026-02-30", "2026-2-3", "20261102", "2026-W45-1", "yesterday", "", "2026-11-02 "])
def test_what_is_no_day_is_refused_with_the_name_of_the_field(text: str) -> None:
    """With how it is to be written."""
    with pytest.raises(BadInput, match=r"^--from is .*: no day, write it as YYYY-MM-DD$"):
        parsed_day(text, name="--from")


def test_days_come_oldest_first_with_both_ends() -> None:
    """Over the end of a month, too; none where the end is before the start."""
    assert [str(day) for day in days(date(2026, 2, 27), date(2026, 3, 1))] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert list(days(DAY, DAY)) == [DAY]
    assert list(days(DAY, date(2026, 11, 1))) == []
