"""Records: what is written is what is read, and nothing else is taken for a journal's."""

import json
from datetime import UTC
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.ledger.records import (
    Accepted,
    Ended,
    FoundIn,
    Group,
    Header,
    Intended,
    Record,
    Settled,
    Withdrawn,
    lines_of,
)
from variations.models import Attempt, ImageOutcome, Measures, Metrics, OutcomeStatus, StoredImage

from .stores import accepted, intended, settled, withdrawn

TEXT = st.text(max_size=20)
NUMBERS = st.integers(min_value=0, max_value=2**53)
AMOUNTS = st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.datetimes(timezones=st.just(UTC))
MAYBE_TEXT = st.none() | TEXT
MAYBE_AMOUNT = st.none() | AMOUNTS

ATTEMPTS = st.builds(Attempt, TEXT, NUMBERS, MAYBE_TEXT)
IMAGES = st.builds(StoredImage, TEXT, NUMBERS, NUMBERS, NUMBERS, TEXT, TEXT, st.lists(TEXT, max_size=2).map(tuple))
METRICS = st.builds(Metrics, MAYBE_AMOUNT, MAYBE_AMOUNT, MAYBE_AMOUNT, MAYBE_AMOUNT, MAYBE_AMOUNT)
BITS = st.none() | st.integers(0, 64)
MEASURES = st.builds(Measures, contrast=AMOUNTS, phash=TEXT, source_distance=BITS, sibling_distance=BITS, verdict=TEXT)
OUTCOMES = st.builds(
    ImageOutcome,
    output_index=NUMBERS,
    status=st.sampled_from(get_args(OutcomeStatus)),
    image=st.none() | IMAGES,
    measures=st.none() | MEASURES,
    error_code=MAYBE_TEXT,
    error=MAYBE_TEXT,
    redux_image=MAYBE_TEXT,
    request_id=MAYBE_TEXT,
    output_url=MAYBE_TEXT,
    submitted_at=st.none() | MOMENTS,
    completed_at=st.none() | MOMENTS,
    metrics=METRICS,
    polls=NUMBERS,
    cost_usd=AMOUNTS,
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | AMOUNTS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        Intended,
        variation_id=TEXT,
        attempt=NUMBERS,
        redux_image=MAYBE_TEXT,
        before=st.none() | ATTEMPTS,
        rolled_from=MAYBE_TEXT,
        seed=st.none() | NUMBERS,
    ),
    st.builds(Withdrawn, variation_id=TEXT, reason=TEXT),
    st.builds(Accepted, variation_id=TEXT, request_id=TEXT, found_in=st.sampled_from(get_args(FoundIn))),
    st.builds(Settled, variation_id=TEXT, images=st.lists(OUTCOMES, max_size=3).map(tuple)),
    st.builds(Ended, tally=st.dictionaries(TEXT, VALUES, max_size=4)),
)
GROUPS = st.builds(Group, st.builds(Header, writer=TEXT, number=NUMBERS), st.lists(RECORDS, max_size=4).map(tuple))

HEADER = b'{"writer":"w","number":0,"format":1}\n'


@given(GROUPS)
def test_any_group_is_read_as_it_was_written(group: Group) -> None:
    """Whatever was recorded comes back equal, to the last digit of a price and a time."""
    assert Group.of_bytes(group.to_bytes()) == group


def test_a_journal_of_before_there_was_a_gate_is_read() -> None:
    """Nothing was measured, and nothing took the place of anything."""
    intent = b'{"variation_id":"a","attempt":1,"kind":"intended"}\n'
    made = b'{"variation_id":"a","images":[{"output_index":0,"status":"kept"}],"kind":"settled"}\n'
    before, after = Group.of_bytes(HEADER + intent + made).records
    assert before == Intended(variation_id="a", attempt=1)
    assert after == Settled(variation_id="a", images=(ImageOutcome(output_index=0, status="kept"),))


@given(GROUPS)
def test_a_record_is_a_line(group: Group) -> None:
    """Whatever texts hold, a group has one line for its header and one a record, each of them JSON."""
    content = group.to_bytes()
    assert content.endswith(b"\n")
    lines = content.removesuffix(b"\n").split(b"\n")
    assert len(lines) == 1 + len(group.records)
    assert all(isinstance(json.loads(line), dict) for line in lines)


@given(GROUPS)
def test_equal_groups_are_equal_bytes(group: Group) -> None:
    """A writer knows its own object by its content, so the content is the same each time."""
    assert group.to_bytes() == Group(group.header, group.records).to_bytes()


def test_two_writers_never_write_the_same() -> None:
    """Two groups that differ in their writer alone differ in their bytes, the empty ones too."""
    one, other = (Group(Header(writer=writer, number=0)).to_bytes() for writer in ("a", "b"))
    assert one != other


def test_a_group_is_readable_in_any_editor() -> None:
    """The words on disk are stable: a journal outlives the program that wrote it."""
    content = Group(Header(writer="w", number=3), (intended(1), accepted(1), withdrawn(2))).to_bytes()
    assert [json.loads(line) for line in content.splitlines()] == [
        {"writer": "w", "number": 3, "format": 1},
        {
            "variation_id": f"{1:032x}",
            "attempt": 1,
            "redux_image": "https://photos.example/1.jpg",
            "kind": "intended",
        },
        {"variation_id": f"{1:032x}", "request_id": "request-1", "found_in": "answer", "kind": "accepted"},
        {"variation_id": f"{2:032x}", "reason": "the run stopped", "kind": "withdrawn"},
    ]


def test_record_lines_are_the_same_words() -> None:
    """What people are shown is what lies in the journal."""
    records: list[Record] = [intended(1), settled(1, "kept"), Ended(tally={"kept": 1})]
    content = Group(Header(writer="w", number=0), tuple(records)).to_bytes()
    assert lines_of(records) == content.splitlines()[1:]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}\n",
        b"null\n",
        b"[]\n",
        b"probe",
        b"\xff\xfe\x00",
        b"PAR1\x00\x00PAR1",
        b"<html><body>403 Forbidden</body></html>",
        b'{"writer":"w"}\n',
        b'{"writer":1,"number":0}\n',
        b'{"writer":"w","number":"x"}\n',
        b"[" * 100_000,
        HEADER + b"\n",
        HEADER + b"{}\n",
        HEADER + b"null\n",
        HEADER + b'{"kind":"accepted","variation_id":"v"}\n',
        HEADER + b'{"kind":"accepted","variation_id":"v","request_id":"r","found_in":"dream"}\n',
        HEADER + b'{"kind":"refunded","variation_id":"v"}\n',
        HEADER + b'{"kind":"settled","variation_id":"v","images":[{"output_index":0,"status":"lost"}]}\n',
        HEADER + b'{"kind":"accepted","variation_id":"v","request_id":"r"',
        HEADER + HEADER,
        b'{"kind":"accepted","variation_id":"v","request_id":"r"}\n',
    ],
)
def test_what_is_no_journal_is_refused(content: bytes) -> None:
    """Foreign, torn and empty content is a ValueError, and never an empty group."""
    with pytest.raises(ValueError):  # noqa: PT011 - any of pydantic's
        Group.of_bytes(content)


def test_a_later_format_is_refused() -> None:
    """A program that does not know a format must not read half of it: what it overlooks may be paid for."""
    with pytest.raises(ValueError):  # noqa: PT011 - any of pydantic's
        Group.of_bytes(b'{"writer":"w","number":0,"format":2}\n')


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    """Whatever lies in a journal's place, reading it ends in a group or in a ValueError."""
    try:
        Group.of_bytes(content)
    except ValueError:
        return


@given(GROUPS.filter(lambda group: bool(group.records)), st.data())
def test_a_torn_record_is_refused(group: Group, data: Any) -> None:
    """An object that ends within a line is not a shorter journal."""
    content = group.to_bytes().removesuffix(b"\n")
    cut = data.draw(st.integers(1, len(content) - 1))
    torn = content[:cut]
    if content[cut : cut + 1] == b"\n":
        return
    if torn.endswith(b"\n"):
        torn += b"{"
    with pytest.raises(ValueError):  # noqa: PT011 - any of pydantic's
        Group.of_bytes(torn)
