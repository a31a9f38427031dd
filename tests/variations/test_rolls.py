"""What takes the place of a flagged image: found by whoever reads the journal, the same one each time."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.ledger.records import Accepted, Intended, Record, Settled, Withdrawn
from variations.ledger.story import Story
from variations.models import ImageOutcome, OutcomeStatus, Variation
from variations.rolls import is_vacant, next_roll, rolls_due, with_rolls

from .examples import variation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLANNED = {one.variation_id: one for one in (variation("cat"), variation("dog"))}
CAT = variation("cat")
SECOND = next_roll(CAT)
THIRD = next_roll(SECOND)


def images(*statuses: OutcomeStatus) -> tuple[ImageOutcome, ...]:
    """Return what became of the images of a request."""
    return tuple(ImageOutcome(output_index=at, status=status) for at, status in enumerate(statuses))


def made(of: Variation, *statuses: OutcomeStatus) -> list[Record]:
    """Return the records of a variation that was made."""
    name, seed = of.variation_id, of.parameters.seed if of.rolled_from else None
    return [
        Intended(variation_id=name, attempt=1, rolled_from=of.rolled_from, seed=seed),
        Accepted(variation_id=name, request_id=f"r-{name}"),
        Settled(variation_id=name, images=images(*statuses)),
    ]


def story_of(*records: Record) -> Story:
    """Return what records add up to."""
    story = Story()
    for record in records:
        story.add(record, NOW)
    return story


def due(*records: Record, most: int = 3) -> list[Variation]:
    """Return what is due after records."""
    story = story_of(*records)
    return list(rolls_due(with_rolls(PLANNED, story), story, most=most))


@given(st.integers(1, 10))
def test_a_chain_of_rolls_never_comes_back(length: int) -> None:
    """Each has an id and a seed of its own, within the bounds of a seed, and nothing else changes."""
    chain = [CAT]
    for _ in range(length):
        chain.append(next_roll(chain[-1]))
    assert len({one.variation_id for one in chain}) == len({one.parameters.seed for one in chain}) == length + 1
    assert [one.roll for one in chain] == list(range(length + 1))
    for before, after in pairwise(chain):
        assert after.rolled_from == before.variation_id
        assert 0 < after.parameters.seed < 2**31 - 1
        assert after.source == CAT.source
        assert after.parameters.model_copy(update={"seed": CAT.parameters.seed}) == CAT.parameters


def test_the_first_rolls_are_these() -> None:
    """Frozen: where they change, what was flagged is made and paid anew."""
    assert (SECOND.variation_id, SECOND.parameters.seed) == ("e52a53f26504d121f45fcfd46ffd5350", 791860015)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["rejected"], True),
        (["rejected", "rejected"], True),
        (["rejected", "failed"], True),
        (["rejected", "kept"], False),
        (["rejected", "unknown"], False),
        (["failed"], False),
        (["kept"], False),
        ([], False),
    ],
)
def test_a_place_is_vacant_where_all_that_was_made_is_flagged(statuses: list[OutcomeStatus], expected: bool) -> None:
    """What failed is tried again by request alone."""
    assert is_vacant(images(*statuses)) is expected


def test_a_journal_names_what_was_not_planned() -> None:
    """By what it took the place of, and its seed; one whose place is not known is left out."""
    story = story_of(*made(CAT, "rejected"), *made(SECOND, "rejected"), *made(THIRD, "kept"))
    assert with_rolls(PLANNED, story) == {**PLANNED, SECOND.variation_id: SECOND, THIRD.variation_id: THIRD}
    assert with_rolls({}, story) == {}


def test_what_is_due_is_what_was_flagged_last() -> None:
    """Each place once, and so many times in all."""
    assert due() == []
    assert due(*made(CAT, "kept")) == []
    assert due(*made(CAT, "rejected")) == [SECOND]
    assert due(*made(CAT, "rejected"), *made(SECOND, "rejected")) == [THIRD]
    assert due(*made(CAT, "rejected"), *made(SECOND, "rejected"), *made(THIRD, "rejected")) == []
    assert due(*made(CAT, "rejected"), most=1) == []


def test_what_may_be_accepted_is_not_due() -> None:
    """Be it intended alone; what was withdrawn is."""
    flagged, (intended, accepted, _) = made(CAT, "rejected"), made(SECOND, "kept")
    assert due(*flagged, intended) == []
    assert due(*flagged, intended, accepted) == []
    withdrawn = Withdrawn(variation_id=SECOND.variation_id, reason="stopped")
    assert due(*flagged, intended, withdrawn) == [SECOND]
