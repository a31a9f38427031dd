"""What both backends promise alike."""

import asyncio
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from variations.errors import BadInput, ObjectNotFound, PreconditionFailed
from variations.storage import Storage, split_uri

REAL_ENDPOINT = os.environ.get("TEST_S3_ENDPOINT")
ODD_KEYS = [
    "with space/a b.png",
    "plus+and%20percent%/100%.png",
    "hash#and?question=mark&amp;.png",
    "ünï/文字/🙂.png",
    ".leading/.dots..png",
    "..hidden/...",
    "a'b\"c\\d.png",
    "tab\tand\x7fcontrol.png",
    "~tilde;semi:colon,comma=$@!*()[]{}|^`<>.png",
    " leading and trailing ",
    "long/" + "x" * 250 + "/" + "y" * 250 + "/" + "ü" * 120 + ".png",
]
BAD_KEYS = ["", "/absolute", "../escape", "a/../b", "a/..", "..", ".", "a/./b", "folder/", "nul\0", "half\ud800"]


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    """Return all keys of a listing."""
    return [entry.key async for entry in storage.list(prefix)]


async def folders_of(storage: Storage, prefix: str = "") -> list[str]:
    """Return the names of all folders directly below a prefix."""
    return [name async for name in storage.folders(prefix)]


async def test_what_was_put_is_what_is_got(storage: Storage) -> None:
    """An object comes back byte for byte, replaced by a second put, and gone after a delete."""
    await storage.put("a/b.bin", b"one")
    assert await storage.get("a/b.bin") == b"one"
    await storage.put("a/b.bin", b"")
    assert await storage.get("a/b.bin") == b""
    await storage.delete("a/b.bin")
    assert not await storage.exists("a/b.bin")


async def test_put_head_and_list_tell_the_same(storage: Storage) -> None:
    """The entry of a put, of a head and of a listing agree on size, ETag and, to the second, on the time."""
    put = await storage.put("a.bin", b"12345")
    head = await storage.head("a.bin")
    [listed] = [entry async for entry in storage.list()]
    assert head is not None
    assert (put.key, put.size, put.etag) == (head.key, head.size, head.etag) == (listed.key, listed.size, listed.etag)
    assert abs(put.modified - head.modified) <= timedelta(seconds=2)
    assert abs(listed.modified - head.modified) <= timedelta(seconds=1)
    assert abs(datetime.now(UTC) - head.modified) < timedelta(seconds=30)


async def test_the_store_tells_its_own_time(storage: Storage) -> None:
    """It is aware, in UTC, the time of an object that is written meanwhile, and asking for it leaves nothing."""
    before = await storage.now()
    written = (await storage.put("a.bin", b"1")).modified
    after = await storage.now()
    assert before.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) <= written <= after + timedelta(seconds=1)
    assert before <= after
    assert abs(datetime.now(UTC) - before) < timedelta(seconds=30)
    assert await keys_of(storage) == ["a.bin"]


async def test_a_missing_object_is_no_entry_and_an_error_to_get(storage: Storage, tmp_path: Path) -> None:
    """Head and exists say so, get and get_to_file raise in one line with the URI, delete does nothing."""
    assert await storage.head("none.bin") is None
    assert await storage.exists("none.bin") is False
    await storage.delete("none.bin")
    for call in (storage.get("none.bin"), storage.get_to_file("none.bin", tmp_path / "out")):
        with pytest.raises(ObjectNotFound) as caught:
            await call
        assert storage.uri_of("none.bin") in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


async def test_an_object_is_not_the_folder_of_another(storage: Storage) -> None:
    """A key that is only the beginning of others is not there."""
    await storage.put("a/b.bin", b"")
    assert await storage.head("a") is None
    with pytest.raises(ObjectNotFound):
        await storage.get("a")
    assert await storage.head("a/b.bin/c") is None


async def test_a_file_is_put_and_got_whole(storage: Storage, tmp_path: Path) -> None:
    """A path is streamed in and out; the target's folder is made, and holds nothing else."""
    content = bytes(range(256)) * 12_000
    source = tmp_path / "source"
    source.write_bytes(content)
    put = await storage.put("big.bin", source, content_type="image/png", metadata={"who": "me", "where": "Zürich 100%"})
    assert put.size == len(content)
    target = tmp_path / "new" / "folder" / "target"
    await storage.get_to_file("big.bin", target)
    assert target.read_bytes() == content
    assert sorted(path.name for path in target.parent.iterdir()) == ["target"]


async def test_a_file_that_cannot_be_read_is_bad_input(storage: Storage, tmp_path: Path) -> None:
    """The message names the file and the object, and nothing is stored."""
    with pytest.raises(BadInput, match="absent") as caught:
        await storage.put("a.bin", tmp_path / "absent")
    assert storage.uri_of("a.bin") in str(caught.value)
    assert await keys_of(storage) == []


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_an_odd_key_is_taken_literally(storage: Storage, reopen: Callable[[str], Storage], key: str) -> None:
    """It is listed as it was given, and its URI, split and opened again, finds the object."""
    await storage.put(key, key.encode())
    assert await keys_of(storage) == [key]
    assert await storage.get(key) == key.encode()
    root, name = split_uri(storage.uri_of(key))
    again = reopen(root)
    assert again.uri_of(name) == storage.uri_of(key)
    assert await again.get(name) == key.encode()
    assert await again.exists(name)


numbers = count()
# moto's own routes do not match a line feed; real stores and file systems take it.
segments = st.text(
    st.characters(exclude_characters="/\0" if REAL_ENDPOINT else "/\0\n", exclude_categories=["Cs"]),
    min_size=1,
    max_size=30,
).filter(lambda text: text not in {".", ".."})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(segments, min_size=1, max_size=3), data=st.binary(max_size=40))
async def test_any_key_survives_a_round_trip(storage: Storage, parts: list[str], data: bytes) -> None:
    """Put, list and get agree on whatever Unicode the key is made of."""
    folder = f"{next(numbers)}/"
    key = folder + "/".join(parts)
    await storage.put(key, data)
    assert await keys_of(storage, folder) == [key]
    assert await storage.get(key) == data
    assert split_uri(storage.uri_of(key))[1] == parts[-1]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_key_that_leads_elsewhere_is_refused(storage: Storage, tmp_path: Path, key: str) -> None:
    """Every method refuses it before anything is asked of the store."""
    calls = [
        lambda: storage.get(key),
        lambda: storage.get_to_file(key, tmp_path / "out"),
        lambda: storage.put(key, b""),
        lambda: storage.put_if_absent(key, b""),
        lambda: storage.replace(key, b"", etag="x"),
        lambda: storage.head(key),
        lambda: storage.exists(key),
        lambda: storage.delete(key),
    ]
    for call in calls:
        with pytest.raises(BadInput):
            await call()


@pytest.mark.parametrize("prefix", ["/", "/a", "../", "a/../b", "./"])
async def test_a_prefix_that_leads_elsewhere_is_refused(storage: Storage, prefix: str) -> None:
    """A listing does not leave the root, neither of objects nor of folders."""
    with pytest.raises(BadInput):
        await keys_of(storage, prefix)
    with pytest.raises(BadInput):
        await folders_of(storage, prefix)


async def test_a_key_that_is_too_long_is_bad_input(storage: Storage) -> None:
    """Neither store takes 1,100 bytes in one name."""
    with pytest.raises(BadInput):
        await storage.put("x" * 1100, b"")


async def test_a_listing_is_in_the_order_of_utf8(storage: Storage) -> None:
    """The slash of a folder sorts among the other characters, as S3 has it."""
    keys = ["a-b/1", "a.txt", "a0", "b/a/x", "b/a.x", "b/a-", "Z", "é", "文", "🙂", "\uffee", "~", "a/1", "a/0/z"]
    await asyncio.gather(*(storage.put(key, b"") for key in keys))
    assert await keys_of(storage) == sorted(keys, key=str.encode)


async def test_a_prefix_is_text_and_no_folder(storage: Storage) -> None:
    """A prefix may end in the middle of a name, and one that nothing has yields nothing."""
    for key in ("img/1.png", "img/12.png", "img/2.png", "img.txt", "other"):
        await storage.put(key, b"")
    assert await keys_of(storage, "img") == ["img.txt", "img/1.png", "img/12.png", "img/2.png"]
    assert await keys_of(storage, "img/1") == ["img/1.png", "img/12.png"]
    assert await keys_of(storage, "img/1.png") == ["img/1.png"]
    assert await keys_of(storage, "img/1.png/") == []
    assert await keys_of(storage, "..") == []
    assert await keys_of(storage, "img//") == []
    assert await keys_of(storage, "nothing/here") == []


async def test_folders_are_those_directly_below(storage: Storage) -> None:
    """Neither objects nor what lies deeper are among them, and where nothing is there are none."""
    for key in ("top.png", "img/1.png", "img/2.png", "img/deep/er/3.png", "img/low/4.png", "runs/a/b/c", "img.txt/5"):
        await storage.put(key, b"")
    assert await folders_of(storage) == ["img", "img.txt", "runs"]
    assert await folders_of(storage, "img/") == ["deep", "low"]
    assert await folders_of(storage, "img/deep/") == ["er"]
    assert await folders_of(storage, "img/low/") == []
    assert await folders_of(storage, "img//") == []
    assert await folders_of(storage, "nothing/here/") == []
    assert await folders_of(storage, "top.png/") == []


async def test_folders_of_an_empty_storage_are_none(storage: Storage) -> None:
    """A root without an object has no folders."""
    assert await folders_of(storage) == []


async def test_folders_are_in_the_order_of_their_names(storage: Storage) -> None:
    """The slash that follows a name plays no part, and odd names are taken literally."""
    names = ["a", "a-b", "a.b", "a0", "Z", "é", "文", "🙂", "\uffee", "~", "100% +&?#", "tab\t", " space ", "%2F"]
    await asyncio.gather(*(storage.put(f"some where/{name}/x", b"") for name in names))
    assert await folders_of(storage, "some where/") == sorted(names, key=str.encode)


async def test_folders_below_half_a_name_are_refused(storage: Storage) -> None:
    """A prefix that does not end in a slash is a mistake, which the message names."""
    await storage.put("img/1.png", b"")
    for prefix in ("img", "img/1", ".."):
        with pytest.raises(BadInput, match=re.escape(repr(prefix))) as caught:
            await folders_of(storage, prefix)
        assert storage.uri in str(caught.value)


async def test_one_of_sixteen_creates_the_object(storage: Storage) -> None:
    """Of racing put_if_absent calls one gets an entry, the others None, and the winner's bytes are there."""
    entries = await asyncio.gather(*(storage.put_if_absent("lock.json", b"%d" % number) for number in range(16)))
    [winner] = [number for number, entry in enumerate(entries) if entry is not None]
    assert await storage.get("lock.json") == b"%d" % winner
    head = await storage.head("lock.json")
    assert head is not None
    assert head.etag == entries[winner].etag  # type: ignore[union-attr]


async def test_put_if_absent_may_win_again_after_a_delete(storage: Storage) -> None:
    """What was removed is absent."""
    assert await storage.put_if_absent("a", b"1") is not None
    assert await storage.put_if_absent("a", b"2") is None
    await storage.delete("a")
    assert await storage.put_if_absent("a", b"3") is not None
    assert await storage.get("a") == b"3"


async def test_replace_takes_the_etag_of_any_answer(storage: Storage, tmp_path: Path) -> None:
    """The ETag of a put, of a head, of a listing and of a replace all do."""
    etag = (await storage.put("a", b"1")).etag
    etag = (await storage.replace("a", b"22", etag=etag, content_type="text/plain")).etag
    assert etag == (await storage.head("a")).etag  # type: ignore[union-attr]
    (tmp_path / "file").write_bytes(b"333")
    etag = (await storage.replace("a", tmp_path / "file", etag=etag)).etag
    [listed] = [entry async for entry in storage.list()]
    await storage.replace("a", b"4444", etag=listed.etag)
    assert await storage.get("a") == b"4444"


async def test_replace_with_an_old_etag_changes_nothing(storage: Storage) -> None:
    """Neither an object that was replaced nor one that was removed is written."""
    old = (await storage.put("a", b"1")).etag
    await storage.put("a", b"2")
    with pytest.raises(PreconditionFailed) as caught:
        await storage.replace("a", b"3", etag=old)
    assert storage.uri_of("a") in str(caught.value)
    assert await storage.get("a") == b"2"
    await storage.delete("a")
    with pytest.raises(PreconditionFailed):
        await storage.replace("a", b"3", etag=old)
    assert not await storage.exists("a")


async def test_one_of_sixteen_replaces_the_object(storage: Storage) -> None:
    """Of racing replacements with one ETag exactly one is written."""
    etag = (await storage.put("a", b"first")).etag
    results = await asyncio.gather(
        *(storage.replace("a", b"%d" % number, etag=etag) for number in range(16)), return_exceptions=True
    )
    [winner] = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
    assert all(isinstance(r, PreconditionFailed) for number, r in enumerate(results) if number != winner)
    assert await storage.get("a") == b"%d" % winner


async def test_storages_at_one_root_see_the_same(storage: Storage, reopen: Callable[[str], Storage]) -> None:
    """A storage opened with another's URI is at the same place, and closing one leaves the other at work."""
    again = reopen(storage.uri)
    assert again.uri == storage.uri
    await storage.put("a", b"1")
    await storage.aclose()
    assert await again.get("a") == b"1"
