"""What sources look like, remembered beside a dataset: a cache that loses nothing to a second writer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.variations.examples import SIGNED, nameless, source
from variations.layout import SOURCE_HASHES_KEY
from variations.source_hashes import SAVED_EVERY, SourceHashes, key_of
from variations.source_images import Look
from variations.storage import Storage


async def remembered(storage: Storage, keys: list[int]) -> list[Look | None]:
    """Return what somebody who comes later knows."""
    hashes = SourceHashes(storage, is_kept=False)
    await hashes.load()
    return hashes.get(np.array(keys, np.uint64))


async def kept(storage: Storage, **looks: int) -> SourceHashes:
    """Remember looks by keys that are numbers, and write them."""
    hashes = SourceHashes(storage, is_kept=True)
    await hashes.load()
    for key, value in looks.items():
        hashes.add(int(key[1:]), Look(value, is_blank=value == 0))
    await hashes.save()
    return hashes


async def test_looks_come_back(any_dataset: Storage) -> None:
    """All 64 bits of them, and whether they show nothing."""
    hashes = await kept(any_dataset, _5=2**64 - 1, _18446744073709551615=0, _1=7)
    expected = [Look(7, is_blank=False), None, Look(2**64 - 1, is_blank=False), Look(0, is_blank=True)]
    keys = [1, 2, 5, 2**64 - 1]
    assert await remembered(any_dataset, keys) == hashes.get(np.array(keys, np.uint64)) == expected


async def test_two_who_write_at_once_lose_nothing(any_dataset: Storage) -> None:
    """Each adds to what the other has written meanwhile; what was seen last stands."""
    one, other = SourceHashes(any_dataset, is_kept=True), SourceHashes(any_dataset, is_kept=True)
    await one.load()
    await other.load()
    one.add(1, Look(10, is_blank=False))
    one.add(2, Look(20, is_blank=False))
    other.add(2, Look(21, is_blank=False))
    other.add(3, Look(30, is_blank=False))
    await one.save()
    await other.save()
    one.add(4, Look(40, is_blank=False))
    await one.save()
    found = await remembered(any_dataset, [1, 2, 3, 4])
    assert [look.hash for look in found if look] == [10, 21, 30, 40]


async def test_what_only_looks_writes_nothing(any_dataset: Storage) -> None:
    """A plan does not."""
    hashes = SourceHashes(any_dataset, is_kept=False)
    hashes.add(1, Look(1, is_blank=False))
    await hashes.save()
    assert not await any_dataset.exists(SOURCE_HASHES_KEY)
    assert hashes.get(np.array([1], np.uint64)) == [Look(1, is_blank=False)]


async def test_few_new_ones_wait(dataset: Storage) -> None:
    """A file is not written anew for each."""
    hashes = SourceHashes(dataset, is_kept=True)
    for key in range(SAVED_EVERY):
        assert not await dataset.exists(SOURCE_HASHES_KEY)
        hashes.add(key, Look(key, is_blank=False))
        if key in {0, SAVED_EVERY - 2}:
            await hashes.save(at_least=SAVED_EVERY)
    await hashes.save(at_least=SAVED_EVERY)
    assert (await remembered(dataset, [77]))[0] == Look(77, is_blank=False)


async def test_a_damaged_file_is_begun_anew(any_dataset: Storage) -> None:
    """It held what can be seen again."""
    await any_dataset.put(SOURCE_HASHES_KEY, b"PAR1 but not really")
    assert await remembered(any_dataset, [1]) == [None]
    await kept(any_dataset, _1=7)
    assert await remembered(any_dataset, [1]) == [Look(7, is_blank=False)]


def test_a_source_is_known_by_its_place_and_version() -> None:
    """Not by its signature, which changes daily, nor by its id."""
    assert key_of(nameless(SIGNED)) == key_of(nameless(SIGNED.partition("?")[0]))
    assert key_of(source("a", uri="https://a.com/x.jpg")) == key_of(source("b", uri="https://a.com/x.jpg"))
    assert key_of(source("a", version="1")) != key_of(source("a", version="2")) != key_of(source("a"))


@given(st.text(), st.text())
def test_different_places_are_different_sources(one: str, other: str) -> None:
    """Any text is a place, half a surrogate pair too."""
    same = key_of(nameless(one)) == key_of(nameless(other))
    assert same == (one.partition("?")[0] == other.partition("?")[0])
