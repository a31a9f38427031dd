"""What is special about folders."""

import asyncio
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from variations.errors import AccessDenied, BadInput, BucketNotFound, PreconditionFailed, StorageError
from variations.storage import Storage, open_storage

NOBODY = 65534


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder of a user to whom rights apply, as whom the test runs: root may read and write everything."""
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        if was == 0:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(was)


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder."""
    return [path.name for path in folder.iterdir()]


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    """Return all keys of a listing."""
    return [entry.key async for entry in storage.list(prefix)]


async def folders_of(storage: Storage, prefix: str = "") -> list[str]:
    """Return the names of all folders directly below a prefix."""
    return [name async for name in storage.folders(prefix)]


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Reading raises BucketNotFound with the URI; writing makes the folder."""
    storage = open_storage(str(tmp_path / "new" / "folder"))
    for call in (
        keys_of(storage),
        keys_of(storage, "a/"),
        folders_of(storage),
        folders_of(storage, "a/"),
        storage.now(),
        storage.get("a"),
        storage.head("a"),
        storage.exists("a"),
        storage.delete("a"),
        storage.get_to_file("a", tmp_path / "out"),
        storage.replace("a", b"", etag="x"),
    ):
        with pytest.raises(BucketNotFound) as caught:
            await call
        assert storage.uri in str(caught.value)
        assert "\n" not in str(caught.value)
    assert await storage.put_if_absent("a/b", b"1") is not None
    assert await keys_of(storage) == ["a/b"]


async def test_a_missing_folder_may_read_as_an_empty_one(tmp_path: Path) -> None:
    """A destination that is not there yet lists nothing, and reading makes nothing."""
    storage = open_storage(str(tmp_path / "new"), missing_ok=True)
    assert await keys_of(storage) == []
    assert await folders_of(storage) == []
    assert await folders_of(storage, "a/") == []
    assert abs(datetime.now(UTC) - await storage.now()) < timedelta(seconds=30)
    assert await storage.head("a") is None
    await storage.delete("a")
    with pytest.raises(PreconditionFailed):
        await storage.replace("a", b"", etag="x")
    assert not (tmp_path / "new").exists()


async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A root that is a file is not found as a folder, and cannot be written into."""
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage(str(tmp_path / "file"))
    with pytest.raises(BucketNotFound):
        await keys_of(storage)
    with pytest.raises(BucketNotFound):
        await folders_of(storage)
    with pytest.raises(BucketNotFound):
        await storage.now()
    with pytest.raises(StorageError):
        await storage.put("a", b"")


async def test_a_file_and_a_folder_of_one_name_are_told_apart(local_storage: Storage) -> None:
    """Where the file system cannot hold both keys, the error says so and nothing is lost."""
    await local_storage.put("a", b"1")
    for call in (local_storage.put("a/b", b""), local_storage.put_if_absent("a/b/c", b"")):
        with pytest.raises(StorageError, match="folder"):
            await call
    await local_storage.put("b/c", b"2")
    with pytest.raises(StorageError, match="folder"):
        await local_storage.put("b", b"")
    assert await keys_of(local_storage) == ["a", "b/c"]


@pytest.mark.parametrize("key", ["a//b", ".variations-0123456789abcdef.tmp"])
async def test_a_name_that_no_object_can_have_here_is_refused(local_storage: Storage, key: str) -> None:
    """An empty folder name and the name of a temporary file are no keys."""
    with pytest.raises(BadInput):
        await local_storage.put(key, b"")


async def test_what_a_killed_writer_left_is_not_listed(local_storage: Storage, tmp_path: Path) -> None:
    """A temporary file is no object, and a finished put leaves none."""
    await local_storage.put("a", b"1")
    assert names_in(tmp_path / "root") == ["a"]
    (tmp_path / "root" / ".variations-0123456789abcdef.tmp").write_bytes(b"half")
    assert await keys_of(local_storage) == ["a"]


async def test_links_to_files_are_followed(local_storage: Storage, tmp_path: Path) -> None:
    """A link to a file is listed with the file's size, a broken one and a looping folder are not."""
    (tmp_path / "elsewhere").write_bytes(b"12345")
    root = tmp_path / "root"
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    (root / "loop").symlink_to(root)
    assert [(entry.key, entry.size) async for entry in local_storage.list()] == [("link", 5)]
    assert await local_storage.get("link") == b"12345"
    assert await local_storage.head("broken") is None


async def test_empty_folders_are_listed_and_links_to_folders_are_not(local_storage: Storage, tmp_path: Path) -> None:
    """A folder is one by itself here, and a link is not followed, as in a listing of objects."""
    root = tmp_path / "root"
    (root / "empty").mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / os.fsdecode(b"\xff")).mkdir()
    (root / "file").touch()
    assert await folders_of(local_storage) == ["empty"]


async def test_the_time_is_that_of_a_new_file(local_storage: Storage, tmp_path: Path) -> None:
    """To the millisecond no file is older than the time that was told before it, and the folder is left as it was."""
    for _ in range(20):
        before = await local_storage.now()
        assert before <= (await local_storage.put("a", b"")).modified <= await local_storage.now()
    assert names_in(tmp_path / "root") == ["a"]


async def test_a_name_that_is_not_utf8_is_left_out_with_a_warning(
    local_storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One file with a broken name does not stop a listing."""
    (tmp_path / "root" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    await local_storage.put("a", b"")
    with caplog.at_level(logging.WARNING):
        assert await keys_of(local_storage) == ["a"]
    assert "xff.png" in caplog.text


async def test_many_files_are_listed_in_order(local_storage: Storage, tmp_path: Path) -> None:
    """More than a page of them, over several folders."""
    keys = [f"{number % 7}/{number:05}.png" for number in range(2500)]
    for folder in range(7):
        (tmp_path / "root" / str(folder)).mkdir()
    for key in keys:
        (tmp_path / "root" / key).touch()
    assert await keys_of(local_storage) == sorted(keys)
    assert await keys_of(local_storage, "3/000") == [key for key in sorted(keys) if key.startswith("3/000")]


async def test_equal_content_put_again_has_another_etag(local_storage: Storage) -> None:
    """Quick writes of one size are told apart, though the clock of files is coarse."""
    etags = [(await local_storage.put("a", b"same")).etag for _ in range(50)]
    assert len(set(etags)) == 50


async def test_a_local_file_has_no_presigned_url(local_storage: Storage) -> None:
    """The error names the file."""
    with pytest.raises(StorageError, match="presigned") as caught:
        await local_storage.presigned_url("a.png", expires_seconds=60)
    assert local_storage.uri_of("a.png") in str(caught.value)


async def test_a_folder_without_rights_is_access_denied(unprivileged_folder: Path) -> None:
    """Reading and writing both name the URI."""
    storage = open_storage(str(unprivileged_folder))
    await storage.put("a/b", b"")
    (unprivileged_folder / "a").chmod(0)
    try:
        for call in (
            storage.get("a/b"),
            storage.put("a/c", b""),
            keys_of(storage),
            folders_of(storage, "a/"),
        ):
            with pytest.raises(AccessDenied, match="file://"):
                await call
        # Who may only read has this machine's clock.
        now = await open_storage(str(unprivileged_folder / "a")).now()
        assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
    finally:
        (unprivileged_folder / "a").chmod(0o700)


async def test_a_target_that_cannot_be_written_is_named(local_storage: Storage, tmp_path: Path) -> None:
    """The error of a download names the local file, not only the object."""
    await local_storage.put("a", b"1")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/out"):
        await local_storage.get_to_file("a", tmp_path / "file" / "out")


COUNT_UP = """
import asyncio, sys
from variations.errors import PreconditionFailed
from variations.storage import open_storage

async def count_up(storage):
    for _ in range(20):
        while True:
            entry = await storage.head("counter")
            value = int(await storage.get("counter"))
            try:
                await storage.replace("counter", str(value + 1).encode(), etag=entry.etag)
            except PreconditionFailed:
                continue
            break
"""


async def test_processes_that_replace_lose_no_update(local_storage: Storage, tmp_path: Path) -> None:
    """Two processes count one file up by compare and swap, and end at the sum."""
    await local_storage.put("counter", b"0")
    here: dict[str, Any] = {}
    exec(COUNT_UP, here)  # noqa: S102 - the same code in both processes
    there = f"{COUNT_UP}\nprint(flush=True)\nasyncio.run(count_up(open_storage(sys.argv[1])))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", there, str(tmp_path / "root"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it has imported all it needs
    await here["count_up"](local_storage)
    assert await process.wait() == 0
    assert await local_storage.get("counter") == b"40"


async def test_a_reader_never_sees_half_an_object(local_storage: Storage) -> None:
    """While an object is replaced over and over, every read is one of the versions, whole."""
    versions = [bytes([number]) * 100_000 for number in range(4)]
    await local_storage.put("a", versions[0])

    async def write() -> None:
        for _ in range(5):
            for version in versions:
                await local_storage.put("a", version)

    writing = asyncio.create_task(write())
    while not writing.done():
        assert await local_storage.get("a") in versions
    await writing


async def test_the_event_loop_goes_on_meanwhile(local_storage: Storage, tmp_path: Path) -> None:
    """A read that hangs in the file system holds up nobody else."""
    os.mkfifo(tmp_path / "root" / "pipe")
    reading = asyncio.create_task(local_storage.get("pipe"))
    await local_storage.put("a", b"1")
    assert await local_storage.get("a") == b"1"
    assert not reading.done()
    threading.Thread(target=(tmp_path / "root" / "pipe").write_bytes, args=(b"late",)).start()
    assert await reading == b"late"
