"""A folder of the local file system with the semantics of a bucket. Its calls run in threads.

What differs from S3, because of the file system: content type and metadata are not kept; `a` and `a/b` cannot both
be objects; an empty segment (`a//b`) and a part of a name above 255 bytes are no keys; storing equal content again
makes a new ETag (on S3 it may be the same). Symbolic links to files are followed, links to folders are not listed.
Needs a POSIX system; processes on several machines may share a folder if its file system keeps `flock` between them.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from variations.errors import (
    AccessDenied,
    BadInput,
    BucketNotFound,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
)
from variations.storage.base import Entry
from variations.storage.files import TemporaryFile, is_temporary, open_for_upload, temporary_beside, writing_locally
from variations.storage.keys import LocalLocation, check_key, check_prefix, local_uri, printable

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PAGE_ENTRIES = 1000
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_MILLISECOND_NS = 1_000_000


class LocalStorage:
    """A folder.

    Args:
        location: the folder, absolute.
        missing_ok: read a folder that is not there as an empty one, instead of raising BucketNotFound. Writing makes
            it in either case.
    """

    def __init__(self, location: LocalLocation, *, missing_ok: bool = False) -> None:
        self._root = Path(location.path)
        self._missing_ok = missing_ok

    def __repr__(self) -> str:
        return f"LocalStorage({self.uri!r})"

    @property
    def uri(self) -> str:
        """The root, as `file:///folder`, percent-encoded."""
        return local_uri(str(self._root))

    def uri_of(self, key: str) -> str:
        """Return the whole URI of a key, percent-encoded."""
        return local_uri(f"{str(self._root).rstrip('/')}/{key}")

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield every file whose key starts with `prefix`, in the order of their UTF-8, a thousand at a time.

        A file that is written or removed meanwhile may be left out. Memory holds the names of the open folders only.

        Raises:
            BucketNotFound: there is no such folder.
        """
        check_prefix(prefix, root=self.uri)
        with self._errors(prefix):
            entries = self._walk(prefix)
            while page := await asyncio.to_thread(lambda: [*islice(entries, _PAGE_ENTRIES)]):
                for entry in page:
                    yield entry
        await asyncio.to_thread(self._missing_root)

    async def folders(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the names of the folders directly below `prefix`, in the order of their UTF-8, without a slash.

        Empty ones are among them, which S3 does not have, and links to folders are not.

        Raises:
            BadInput: the prefix does not end in `/`.
            BucketNotFound: there is no such folder as the root.
        """
        check_prefix(prefix, root=self.uri)
        if prefix and not prefix.endswith("/"):
            raise BadInput(f"{printable(self.uri)}: {prefix!r} names no folder to look in: end it in '/'")
        with self._errors(prefix):
            names = await asyncio.to_thread(self._folders, prefix)
        for name in names:
            yield name

    async def now(self) -> datetime:
        """Return the file system's own time in UTC, which another machine's clock may give: that of a new file.

        Where the folder is not there and need not be, it is this machine's time, and nothing is made.

        Raises:
            AccessDenied: no file can be made in the folder.
            BucketNotFound: there is no such folder.
        """
        with self._errors(""):
            return await asyncio.to_thread(self._now)

    async def head(self, key: str) -> Entry | None:
        """Return what the file system says of one file, or None if there is none.

        Raises:
            BucketNotFound: there is no such folder.
        """
        return await self._run(key, partial(self._head, key))

    async def exists(self, key: str) -> bool:
        """Return whether the file is there."""
        return await self.head(key) is not None

    async def get(self, key: str) -> bytes:
        """Return the whole file.

        Raises:
            ObjectNotFound: there is no such file.
        """
        return await self._run(key, self._path(key).read_bytes)

    async def get_to_file(self, key: str, path: Path) -> None:
        """Write the file to `path`, whole or not at all, a chunk at a time; missing folders are made.

        Raises:
            ObjectNotFound: there is no such file.
        """
        await self._run(key, partial(self._get_to_file, key, path))

    async def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        content_type: str | None = None,  # noqa: ARG002 - a file has none
        metadata: dict[str, str] | None = None,  # noqa: ARG002 - same
    ) -> Entry:
        """Write the file, replacing what is there, folders made as needed; content type and metadata are not kept.

        Raises:
            BadInput: the file to store cannot be read.
        """
        return await self._run(key, partial(self._put, key, data))

    async def put_if_absent(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,  # noqa: ARG002 - a file has none
    ) -> Entry | None:
        """Write the file if there is none, atomically; None says that somebody was first."""
        return await self._run(key, partial(self._put_if_absent, key, data))

    async def replace(
        self,
        key: str,
        data: bytes | Path,
        *,
        etag: str,
        content_type: str | None = None,  # noqa: ARG002 - a file has none
    ) -> Entry:
        """Write the file if it is still the one with `etag`, atomically among all processes that use this class.

        Raises:
            PreconditionFailed: it has been replaced or removed since.
        """
        return await self._run(key, partial(self._replace, key, data, etag))

    async def delete(self, key: str) -> None:
        """Remove the file; removing what is not there is no error."""
        await self._run(key, partial(self._delete, key))

    async def presigned_url(self, key: str, *, expires_seconds: int) -> str:  # noqa: ARG002 - there are none
        """Raise, for the API cannot fetch a local file.

        Raises:
            StorageError: always.
        """
        raise StorageError(f"{printable(self.uri_of(key))}: a local file has no presigned URL: store it in S3")

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    def _path(self, key: str) -> Path:
        check_key(key, root=self.uri)
        if "//" in key:
            raise BadInput(f"{printable(self.uri)}: {key!r} has an empty folder name, which no file can have")
        if is_temporary(key.rpartition("/")[2]):
            raise BadInput(f"{printable(self.uri)}: {key!r} is a name for temporary files")
        return self._root / key

    async def _run(self, key: str, call: Callable[[], T]) -> T:
        self._path(key)
        with self._errors(key):
            return await asyncio.to_thread(call)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        uri = printable(self.uri_of(key))
        try:
            yield
        except OSError as error:
            if error.errno in _NOT_THERE:
                self._missing_root()
                raise ObjectNotFound(f"{uri}: there is no such file") from error
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise AccessDenied(f"{uri}: access denied: allow this user to use the file and its folder") from error
            if error.errno == errno.ENAMETOOLONG:
                raise BadInput(f"{uri}: the name is longer than the file system takes") from error
            raise StorageError(f"{uri}: {error.strerror or type(error).__name__}") from error

    def _missing_root(self) -> None:
        if not self._missing_ok and not self._root.is_dir():
            raise BucketNotFound(f"{printable(self.uri)}: there is no such folder: check its name, or make it")

    def _folders(self, prefix: str) -> Sequence[str]:
        found = [] if "//" in prefix else _names(self._root / prefix, "")
        self._missing_root()
        # Without its slash a name may sort elsewhere: `a-b/` is before `a/`.
        return sorted((name[:-1] for name in found if name.endswith("/")), key=str.encode)

    def _now(self) -> datetime:
        if not self._root.is_dir():
            self._missing_root()
            return datetime.now(UTC)
        try:
            with temporary_beside(self._root / "now") as temporary:
                return _entry("now", os.fstat(temporary.file.fileno())).modified
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise
            # Who may only read has no other clock than this machine's.
            return datetime.now(UTC)

    def _head(self, key: str) -> Entry | None:
        entry = _entry_at(self._root / key, key)
        if entry is None:
            self._missing_root()
        return entry

    def _get_to_file(self, key: str, path: Path) -> None:
        with (
            (self._root / key).open("rb") as source,
            writing_locally(path, uri=self.uri_of(key)),
            temporary_beside(path) as temporary,
        ):
            shutil.copyfileobj(source, temporary.file)
            temporary.file.flush()
            temporary.path.replace(path)

    def _put(self, key: str, data: bytes | Path) -> Entry:
        with self._written(key, data) as (temporary, entry), _locked(temporary.path.parent):
            temporary.path.replace(self._root / key)
        return entry

    def _put_if_absent(self, key: str, data: bytes) -> Entry | None:
        path = self._root / key
        with self._written(key, data) as (temporary, entry), _locked(path.parent):
            try:
                path.hardlink_to(temporary.path)
            except FileExistsError:
                return None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # A file system without hard links: the lock alone keeps other processes of this class away.
                if os.path.lexists(path):
                    return None
                temporary.path.replace(path)
        return entry

    def _replace(self, key: str, data: bytes | Path, etag: str) -> Entry:
        path = self._root / key
        before = _entry_at(path, key)
        if before is not None and before.etag == etag:
            with self._written(key, data) as (temporary, entry), _locked(path.parent):
                before = _entry_at(path, key)
                if before is not None and before.etag == etag:
                    temporary.path.replace(path)
                    return entry
        elif before is None:
            self._missing_root()
        raise PreconditionFailed(
            f"{printable(self.uri_of(key))}: it was replaced or removed by somebody else: read it again"
        )

    def _delete(self, key: str) -> None:
        path = self._root / key
        try:
            with _locked(path.parent):
                path.unlink()
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            self._missing_root()

    @contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[tuple[TemporaryFile, Entry]]:
        """Write the data to a temporary file in the key's folder, durably; it is left to the caller to name it."""
        path = self._root / key
        uri = self.uri_of(key)
        try:
            with temporary_beside(path) as temporary:
                if isinstance(data, bytes):
                    temporary.file.write(data)
                else:
                    with open_for_upload(data, uri=uri) as source:
                        shutil.copyfileobj(source, temporary.file)
                temporary.file.flush()
                _mark(temporary.file.fileno())
                os.fsync(temporary.file.fileno())
                yield temporary, _entry(key, os.fstat(temporary.file.fileno()))
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise StorageError(
                f"{printable(uri)}: a file is where a folder has to be, or a folder where the file has to be"
            ) from error

    def _walk(self, prefix: str) -> Iterator[Entry]:
        folder, _, beginning = prefix.rpartition("/")
        if "//" in prefix:
            return
        yield from self._walk_folder(f"{folder}/" if folder else "", beginning)

    def _walk_folder(self, folder: str, beginning: str) -> Iterator[Entry]:
        for name in _names(self._root / folder, beginning):
            key = folder + name
            if name.endswith("/"):
                yield from self._walk_folder(key, "")
            elif entry := _entry_at(self._root / key, key):
                yield entry


def _names(folder: Path, beginning: str) -> list[str]:
    """Return the names in a folder in the order of the keys under it; a folder's ends in `/`, and sorts with it."""
    names: list[bytes] = []
    try:
        with os.scandir(folder) as found:
            for item in found:
                if not item.name.startswith(beginning) or is_temporary(item.name):
                    continue
                name = os.fsencode(item.name)
                names.append(name + b"/" if item.is_dir(follow_symlinks=False) else name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names.sort()
    return [text for name in names if (text := _decoded(name, folder)) is not None]


def _decoded(name: bytes, folder: Path) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        _log.warning("%s: %r is left out, its name is not UTF-8", printable(str(folder)), name)
        return None


def _entry_at(path: Path, key: str) -> Entry | None:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    return _entry(key, found) if stat.S_ISREG(found.st_mode) else None


def _entry(key: str, found: os.stat_result) -> Entry:
    return Entry(
        key=key,
        size=found.st_size,
        modified=datetime.fromtimestamp(found.st_mtime_ns // _MILLISECOND_NS / 1000, tz=UTC),
        etag=f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}",
    )


def _mark(descriptor: int) -> None:
    """Make a file's time its own, so that the ETag made of it is, too.

    The kernel's clock ticks every few milliseconds and inodes are used again: three quick writes of one size could
    look alike. The milliseconds stay the file system's, what is below them is random.
    """
    found = os.fstat(descriptor)
    modified_ns = found.st_mtime_ns // _MILLISECOND_NS * _MILLISECOND_NS + secrets.randbelow(_MILLISECOND_NS)
    os.utime(descriptor, ns=(found.st_atime_ns, modified_ns))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep every other writer of this folder out, in this process and in others; make what was done durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)  # which gives the lock back
