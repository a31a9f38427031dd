"""What looks alike across splits: all of it is found, and nothing else."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.leak_report import MOST_DISTANCE
from variations.near_duplicates import NearDuplicates, find_near_duplicates

BITS = st.integers(0, 63)


def found(
    hashes: list[int], splits: list[int], max_distance: int, *, most_samples: int = 1_000, **changes: int
) -> NearDuplicates:
    """Look among hashes that are plain numbers."""
    return find_near_duplicates(
        np.array(hashes, np.uint64),
        np.array(splits, np.uint16),
        max_distance=max_distance,
        most_samples=most_samples,
        **changes,  # type: ignore[arg-type]
    )


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Draw hashes of which many are near to each other, by a few bits here and there, and their splits."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    hashes = []
    for _ in range(draw(st.integers(0, 24))):
        one = draw(st.sampled_from(centres))
        for bit in draw(st.lists(BITS, max_size=MOST_DISTANCE + 2)):
            one ^= 1 << bit
        hashes.append(one)
    splits = draw(st.lists(st.integers(0, 3), min_size=len(hashes), max_size=len(hashes)))
    return hashes, splits


@given(crowds(), st.integers(0, MOST_DISTANCE))
def test_it_finds_what_comparing_each_with_each_would(crowd: tuple[list[int], list[int]], max_distance: int) -> None:
    """The same images, and pairs that are as near as they say."""
    hashes, splits = crowd
    pairs = {
        (one, other): (hashes[one] ^ hashes[other]).bit_count()
        for one, other in combinations(range(len(hashes)), 2)
        if splits[one] != splits[other] and (hashes[one] ^ hashes[other]).bit_count() <= max_distance
    }
    came = found(hashes, splits, max_distance)
    assert came.is_whole
    assert came.images == len({image for pair in pairs for image in pair})
    assert bool(came.samples) == bool(pairs)
    assert all(pairs[one.one, one.other] == one.distance for one in came.samples)
    # None that is alike goes without being named, but for copies of one that is.
    named = {hashes[image] for pair in came.samples for image in (pair.one, pair.other)}
    assert named == {hashes[image] for pair in pairs for image in pair}
    assert [one.distance for one in came.samples] == sorted(one.distance for one in came.samples)
    if pairs:
        assert came.samples[0].distance == min(pairs.values())


@given(crowds(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(crowd: tuple[list[int], list[int]], random: object) -> None:
    """Nor does how the splits are numbered."""
    hashes, splits = crowd
    order = list(range(len(hashes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = found([hashes[at] for at in order], [5 - splits[at] for at in order], 6)
    assert shuffled.images == found(hashes, splits, 6).images


def test_few_of_very_many_are_named() -> None:
    """Though a hundred thousand are all alike, and so five thousand million pairs."""
    came = found([7] * 50_000 + [6] * 50_000, [0, 1] * 50_000, 4, most_samples=10)
    assert came.images == 100_000
    assert 1 <= len(came.samples) <= 10
    assert came.is_whole


def test_very_many_that_are_nearly_alike_are_not_all_compared() -> None:
    """It says so: what it counts is then the least that there is."""
    # All of these are the same in two bands of three.
    near = [sum(1 << 3 * bit for bit in range(20) if number >> bit & 1) for number in range(4_000)]
    came = found(near, [0, 1] * 2_000, 3, most_samples=10, most_compared=1_000_000)
    assert not came.is_whole
    assert 0 < came.images <= 4_000


def test_a_pair_among_many_is_found() -> None:
    """Of 200,000 images that have nothing in common."""
    random = np.random.default_rng(20)
    hashes = random.integers(0, 2**64, 200_000, dtype=np.uint64)
    splits = random.choice(3, 200_000, p=[0.8, 0.1, 0.1]).astype(np.uint16)
    hashes[123_456] = hashes[77] ^ np.uint64(0b1000000001000000000010000000000000000000001)
    splits[77], splits[123_456] = 0, 2
    came = find_near_duplicates(hashes, splits, max_distance=6, most_samples=10)
    assert (came.images, [(one.one, one.other, one.distance) for one in came.samples]) == (2, [(77, 123_456, 4)])


def test_nothing_is_alike_alone() -> None:
    """None, and one."""
    assert found([], [], 6) == found([5], [0], 6) == NearDuplicates()


@pytest.mark.parametrize("distance", [-1, MOST_DISTANCE + 1])
def test_a_distance_that_takes_too_long_is_refused(distance: int) -> None:
    """At the other end everything would be alike."""
    with pytest.raises(ValueError, match="max_distance"):
        found([1, 2], [0, 1], distance)
