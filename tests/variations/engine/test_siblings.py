"""Images of a source that are nearly the same."""

from variations.appearance import Appearance, Nearest
from variations.engine.siblings import REMEMBERED_SOURCES, Siblings

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


def test_what_is_remembered_is_bounded() -> None:
    """The sources that were longest ago are forgotten."""
    siblings = Siblings()
    for number in range(REMEMBERED_SOURCES + 1):
        siblings.add(str(number), "a", look())
    assert siblings.nearest("0", "b", look()).distance is None
    assert siblings.nearest("1", "b", look()).distance == 0
