"""Images of a source that are nearly the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.appearance import Appearance, Nearest
from variations.engine.siblings import Siblings

COLOURS = bytes(192)


def look(bits: int = 0, *, colour: int = 0) -> Appearance:
    """Return what an image looks like, so many bits away from one of none, and of one level of colour."""
    return Appearance(contrast=200.0, hash=(1 << bits) - 1, colours=bytes([colour]) * 192)


def test_the_nearest_of_a_sources_images_is_found() -> None:
    """Not one of another source."""
    siblings = Siblings()
    siblings.add("cat", "a", look(20))
    siblings.add("cat", "b", look(9))
    siblings.add("dog", "c", look(1))
    assert siblings.nearest("cat", "d", look()) == Nearest(9, 9)
    assert siblings.nearest("bird", "d", look()) == Nearest(None, None)


def test_a_twin_has_the_same_colours() -> None:
    """One that is nearer, and of others, is none."""
    siblings = Siblings()
    siblings.add("cat", "a", look(1, colour=90))
    siblings.add("cat", "b", look(12, colour=3))
    assert siblings.nearest("cat", "c", look()) == Nearest(1, 12)


def test_an_image_is_not_its_own_sibling() -> None:
    """One that is fetched a second time is the same one."""
    siblings = Siblings()
    siblings.add("cat", "a", look())
    assert siblings.nearest("cat", "a", look()) == Nearest(None, None)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2**64 - 1), st.integers(0, 9)), max_size=12),
    st.integers(0, 2**64 - 1),
)
def test_all_at_once_says_what_each_by_itself_does(seen: list[tuple[str, int, int]], one: int) -> None:
    """However many there are, and whatever they look like; the last one of a name counts."""
    siblings, others = Siblings(), {}
    for name, bits, colour in seen:
        others[name] = Appearance(contrast=200.0, hash=bits, colours=bytes([colour]) * 192)
        siblings.add("cat", name, others[name])
    new = Appearance(contrast=200.0, hash=one, colours=COLOURS)
    expected = new.nearest(other for name, other in others.items() if name != "a")
    assert siblings.nearest("cat", "a", new) == expected


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have few images remembered."""
    monkeypatch.setattr("variations.engine.siblings.REMEMBERED_IMAGES", 1000)
    return 1000


@pytest.mark.parametrize("images_a_source", [1, 100])
def test_what_is_remembered_is_bounded(images_a_source: int, most: int) -> None:
    """The sources that were longest ago are forgotten, each with all its images."""
    siblings = Siblings()
    for number in range(most + 1):
        siblings.add(str(number // images_a_source), str(number), look())
    assert siblings.nearest("0", "new", look()).distance is None
    assert siblings.nearest("1", "new", look()).distance == 0


def test_the_images_of_one_source_stay_whatever_their_number(most: int) -> None:
    """They alone are what a new one is compared with."""
    siblings = Siblings()
    for number in range(most + 2):
        siblings.add("cat", str(number), look(5 if number else 0))
    assert siblings.nearest("cat", "new", look()) == Nearest(0, 0)
