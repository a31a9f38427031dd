"""Stories: what follows from records, however they were grouped and whoever replays them."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.variations import examples
from tests.variations.engine.simulation import EPOCH
from variations.ledger.records import Accepted, Ended, Group, Header, Record
from variations.ledger.story import Item, Story
from variations.models import Attempt, Outcome
from variations.tally import Tally, UnknownItem

from .stores import accepted, intended, name, settled, withdrawn

PRICE = 0.031
RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(intended, st.integers(1, 3), attempt=st.integers(1, 2)),
    st.builds(withdrawn, st.integers(1, 3)),
    st.builds(lambda number, turn: accepted(number, f"r{number}-{turn}"), st.integers(1, 3), st.integers(1, 2)),
    st.builds(
        lambda number, statuses: settled(number, *statuses),
        st.integers(1, 3),
        st.lists(st.sampled_from(["kept", "failed", "unknown"]), min_size=1, max_size=3),
    ),
    st.builds(lambda kept: Ended(tally={"kept": kept}), st.integers(0, 3)),
)


def story(*records: Record) -> Story:
    """Return what records add up to, one a second."""
    told = Story()
    for second, record in enumerate(records):
        told.add(record, EPOCH + timedelta(seconds=second))
    return told


def item(*records: Record) -> Item:
    """Return what they say of the first variation."""
    return story(*records).items[name(1)]


def rows(*records: Record, num_outputs: int = 1) -> list[Outcome]:
    """Return the rows of the first variation."""
    return list(item(*records).outcomes(variation(num_outputs), price_usd=PRICE))


def variation(num_outputs: int = 1) -> Any:
    """Return the first variation."""
    wanted = examples.variation(variation_id=name(1))
    parameters = wanted.parameters.model_copy(update={"num_outputs": num_outputs})
    return examples.variation(variation_id=name(1), parameters=parameters)


def facts(told: Story) -> tuple[dict[str, Item], list[str], Any]:
    """Return everything that a story says."""
    return told.items, list(told.items), told.tally


@given(st.lists(RECORDS, max_size=20))
def test_the_same_records_tell_the_same_story(records: list[Record]) -> None:
    """A replay, from bytes too, is the story that the writer had."""
    written = Group(Header(writer="w", number=0), tuple(records)).to_bytes()
    assert facts(story(*records)) == facts(story(*records)) == facts(story(*Group.of_bytes(written).records))


@given(st.lists(RECORDS, max_size=20), st.data())
def test_variations_do_not_touch_each_other(records: list[Record], data: Any) -> None:
    """What a journal says of one variation is what its own records say, in whatever order others' come between."""
    number = data.draw(st.integers(1, 3))
    own = [record for record in records if getattr(record, "variation_id", None) == name(number)]
    found, alone = story(*records).items.get(name(number)), story(*own).items.get(name(number))
    if found is None or alone is None:
        assert found is alone
        return
    assert (found.request_ids, found.images, found.is_withdrawn, found.is_open, found.attempt) == (
        alone.request_ids,
        alone.images,
        alone.is_withdrawn,
        alone.is_open,
        alone.attempt,
    )


@given(st.lists(RECORDS, max_size=20))
def test_what_may_be_paid_for_has_rows(records: list[Record]) -> None:
    """Every item that is open or settled has a row for each image; one that has none was certainly not paid for."""
    for found in story(*records).items.values():
        made = list(found.outcomes(variation(), price_usd=PRICE))
        assert bool(made) == (found.is_open or bool(found.images))
        if not made:
            assert found.is_withdrawn
            assert not found.request_ids


@given(st.lists(RECORDS, max_size=20))
def test_an_accepted_request_is_never_forgotten(records: list[Record]) -> None:
    """Whatever comes before and after it, every request id of the journal is its item's, once."""
    told = story(*records)
    for found in told.items.values():
        wanted = [
            record.request_id
            for record in records
            if isinstance(record, Accepted) and record.variation_id == found.variation_id
        ]
        assert found.request_ids == list(dict.fromkeys(wanted))
        if wanted:
            assert not found.is_withdrawn
    assert {found.variation_id for found in told.accepted_twice()} == {
        found.variation_id for found in told.items.values() if len(found.request_ids) == 2
    }


@pytest.mark.parametrize(
    ("records", "is_open"),
    [
        ([intended()], True),
        ([intended(), withdrawn()], False),
        ([intended(), withdrawn(), intended()], True),
        ([intended(), withdrawn(), intended(), withdrawn()], False),
        ([intended(), accepted()], True),
        ([intended(), accepted(), withdrawn()], True),
        ([intended(), withdrawn(), accepted()], True),
        ([intended(), accepted(), settled(1, "kept")], False),
        ([intended(), settled(1, "failed")], False),
        ([settled(1, "failed")], False),
        ([intended(), settled(1, "unknown")], True),
        ([intended(), settled(1, "unknown"), withdrawn()], True),
        ([intended(), settled(1, "unknown"), accepted()], True),
        ([intended(), settled(1, "unknown"), accepted(), settled(1, "kept")], False),
        ([intended(), accepted(), settled(1, "kept", "failed")], False),
        ([intended(), accepted(), settled(1, "kept", "unknown")], True),
        ([intended(), accepted(), settled(1, "unknown", "kept"), settled(1, "kept", "kept")], False),
    ],
)
def test_an_item_is_open_until_each_of_its_images_is_known(records: list[Record], *, is_open: bool) -> None:
    """What is or may be paid for stays open until it is known what became of each image."""
    told = story(*records)
    assert told.items[name(1)].is_open is is_open
    assert [found.variation_id for found in told.open_items()] == [name(1)] * is_open


def test_an_intent_that_is_renewed_counts_from_the_last_time() -> None:
    """The POST left after the last intent, if it left."""
    found = item(intended(), intended(attempt=2, before=Attempt("run", 3, "r")))
    assert found.intended_at == EPOCH + timedelta(seconds=1)
    assert (found.attempt, found.before) == (2, Attempt("run", 3, "r"))


def test_the_first_acceptance_is_the_request() -> None:
    """A second one is what must never be: it is counted, and the first stays the request."""
    found = item(intended(), accepted(1, "a"), accepted(1, "b"), accepted(1, "a"))
    assert (found.request_id, found.request_ids) == ("a", ["a", "b"])
    assert found.accepted_at == EPOCH + timedelta(seconds=1)


def test_an_end_is_an_end_until_something_is_written() -> None:
    """Who takes a shard over that was done with has to write its rows again."""
    end = Ended(tally={"kept": 1})
    assert story(intended(), end).tally == {"kept": 1}
    assert story(intended(), end, accepted()).tally is None
    assert story(end, Ended(tally={})).tally == {}


def test_a_settled_item_has_the_rows_that_were_settled() -> None:
    """Every image as it was written down, in its order."""
    told = settled(1, "kept", "failed", error="why", request_id="r", cost_usd=0.02)
    (first, second) = rows(intended(), accepted(1, "r"), told, num_outputs=2)
    assert (first.status, first.output_index, first.cost_usd) == ("kept", 0, 0.02)
    assert (second.status, second.output_index, second.error, second.request_id) == ("failed", 1, "why", "r")
    assert first.variation.variation_id == name(1)


def test_an_accepted_item_has_unknown_rows_at_the_full_price() -> None:
    """What is in flight when its process ends is counted as spent, and named with its request."""
    found = rows(intended(), accepted(1, "r"), num_outputs=3)
    assert [(row.output_index, row.status, row.error_code, row.request_id, row.cost_usd) for row in found] == [
        (index, "unknown", "interrupted", "r", PRICE) for index in range(3)
    ]
    assert {row.submitted_at for row in found} == {EPOCH}
    assert {row.redux_image for row in found} == {"https://photos.example/1.jpg"}


def test_a_lost_item_has_unknown_rows_at_the_full_price() -> None:
    """It is not known whether it was accepted, so it is counted as spent."""
    (row,) = rows(intended())
    assert (row.status, row.error_code, row.request_id, row.cost_usd) == ("unknown", "submit_unknown", None, PRICE)


def test_a_withdrawn_item_has_no_rows() -> None:
    """Nothing of it was paid: it is still to be made."""
    assert rows(intended(), withdrawn()) == []


def test_a_request_that_is_found_later_is_named() -> None:
    """An unknown submit that was looked for and found is told with its request, though it is not settled yet."""
    lost = settled(1, "unknown", error_code="submit_unknown", cost_usd=PRICE)
    found = rows(intended(), lost, Accepted(variation_id=name(1), request_id="r", found_in="history"))
    assert [row.request_id for row in found] == ["r"]
    tally = Tally()
    tally.add(found, run_id="run")
    assert isinstance(tally.unknowns[name(1)], UnknownItem)
    assert "accepted as request r" in tally.unknowns[name(1)].advice()


def test_rows_are_only_of_known_variations() -> None:
    """A variation that the plan of the shard does not have has no row, and takes none from the others."""
    told = story(intended(1), intended(2), intended(3))
    known = {name(1): variation(), name(3): examples.variation(variation_id=name(3))}
    assert [row.variation.variation_id for row in told.outcomes(known.get, price_usd=PRICE)] == [name(1), name(3)]
