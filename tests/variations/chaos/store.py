"""The object store of the world, and the storage through which a process sees it."""

import asyncio
import hashlib
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.variations.engine.simulation import EPOCH
from variations import errors
from variations.storage import Entry
from variations.storage.keys import check_key, check_prefix

from .wire import Plan

if TYPE_CHECKING:
    from .process import Process
    from .world import World

URI: Final = "memory://dataset"
# How long the store's client tries before it gives up, and before it sends a write again.
_GIVES_UP_SECONDS: Final = 20.0
_REPEAT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it lies there."""

    data: bytes
    etag: str
    modified: datetime


class Store:
    """The objects. Its methods take effect at once: a driver may use them to prepare and to look.

    As in S3 an ETag is the content's MD5, times are whole seconds, and a listing is of the moment of its page.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.objects: dict[str, StoredObject] = {}
        self._now = now
        self._keys: list[str] = []

    def now(self) -> datetime:
        """Return the store's own time, to the second, as the `Date` of its answers."""
        return EPOCH + timedelta(seconds=int(self._now()))

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys with a prefix, in order."""
        keys = self._keys[bisect_left(self._keys, prefix) :]
        return [key for key in keys if key.startswith(prefix)]

    def page(self, prefix: str, after: str, size: int) -> list[Entry]:
        """Return the next objects after a key."""
        at = bisect_left(self._keys, max(prefix, f"{after}\0" if after else ""))
        found = []
        for key in self._keys[at : at + size]:
            if not key.startswith(prefix):
                break
            found.append(self._entry(key))
        return found

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix in which something lies, in order."""
        names = (key[len(prefix) :].split("/", 1) for key in self.keys(prefix))
        return sorted(dict.fromkeys(parts[0] for parts in names if len(parts) > 1))

    def head(self, key: str) -> Entry | None:
        """Return what is known of an object."""
        return self._entry(key) if key in self.objects else None

    def get(self, key: str) -> bytes:
        """Return an object's content."""
        if key not in self.objects:
            raise errors.ObjectNotFound(f"{URI}/{key}: there is no such object")
        return self.objects[key].data

    def put(self, key: str, data: bytes) -> Entry:
        """Write an object."""
        if key not in self.objects:
            insort(self._keys, key)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.objects[key] = StoredObject(data, etag, self.now())
        return self._entry(key)

    def put_if_absent(self, key: str, data: bytes) -> Entry | None:
        """Write an object that is not there."""
        return None if key in self.objects else self.put(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> Entry:
        """Write an object that is still the one it was."""
        if key not in self.objects or self.objects[key].etag != etag:
            raise errors.PreconditionFailed(f"{URI}/{key}: it was replaced or removed by somebody else")
        return self.put(key, data)

    def delete(self, key: str) -> None:
        """Remove an object."""
        if self.objects.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def _entry(self, key: str) -> Entry:
        found = self.objects[key]
        return Entry(key, len(found.data), found.modified, found.etag)


class ProcessStorage:
    """The store as one process reaches it: a `Storage`, with delays and faults."""

    uri = URI

    def __init__(self, world: "World", process: "Process") -> None:
        self._world = world
        self._process = process
        self._signed = 0

    def uri_of(self, key: str) -> str:
        """Return the whole URI of a key."""
        return f"{URI}/{key}"

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield every object whose key starts with `prefix`, in key order, page by page."""
        check_prefix(prefix, root=URI)
        world = self._world
        size = world.rates.page_sizes[int(len(world.rates.page_sizes) * world.random.random())]

        async def page(after: Entry | None) -> tuple[Any, bool]:
            after_key = after.key if after else ""
            found = await self._call("list", prefix, partial(world.store.page, prefix, after_key, size))
            return found, len(found) < size

        return _Pages(page)

    def folders(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the names of the folders directly below `prefix`, in order, without a slash."""
        check_prefix(prefix, root=URI)
        if prefix and not prefix.endswith("/"):
            raise errors.BadInput(f"{URI}: {prefix!r} names no folder to look in: end it in '/'")

        async def page(_: str | None) -> tuple[Any, bool]:
            return await self._call("folders", prefix, partial(self._world.store.folders, prefix)), True

        return _Pages(page)

    async def now(self) -> datetime:
        """Return the store's own time, to the second."""
        return await self._call("now", "", self._world.store.now)

    async def head(self, key: str) -> Entry | None:
        """Return what the store says of one object, or None if there is none."""
        check_key(key, root=URI)
        return await self._call("head", key, partial(self._world.store.head, key))

    async def exists(self, key: str) -> bool:
        """Return whether the object is there."""
        return await self.head(key) is not None

    async def get(self, key: str) -> bytes:
        """Return the whole object."""
        check_key(key, root=URI)
        return await self._call("get", key, partial(self._world.store.get, key))

    async def get_to_file(self, key: str, path: Path) -> None:
        """Write the object to `path`."""
        content = await self.get(key)
        await asyncio.to_thread(_write, path, content)

    async def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Entry:
        """Write the object, replacing what is there."""
        del content_type, metadata
        check_key(key, root=URI)
        return await self._call("put", key, partial(self._world.store.put, key, _content(data)), is_write=True)

    async def put_if_absent(self, key: str, data: bytes, *, content_type: str | None = None) -> Entry | None:
        """Write the object if there is none, atomically; None says that somebody was first, this call maybe."""
        del content_type
        check_key(key, root=URI)
        effect = partial(self._world.store.put_if_absent, key, bytes(data))
        return await self._call("put_if_absent", key, effect, is_write=True)

    async def replace(self, key: str, data: bytes | Path, *, etag: str, content_type: str | None = None) -> Entry:
        """Write the object if it is still the one with `etag`, atomically."""
        del content_type
        check_key(key, root=URI)
        effect = partial(self._world.store.replace, key, _content(data), etag)
        return await self._call("replace", key, effect, is_write=True)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        check_key(key, root=URI)
        await self._call("delete", key, partial(self._world.store.delete, key), is_write=True)

    async def presigned_url(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL of the object, another one each time; it is made in the process, without a call."""
        check_key(key, root=URI)
        self._signed += 1
        signature = f"{self._process.name}{self._signed}".encode().hex()
        return (
            f"https://store.example/dataset/{key}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=made-up"
            f"&X-Amz-Date=20260101T000000Z&X-Amz-Expires={expires_seconds}&X-Amz-SignedHeaders=host"
            f"&X-Amz-Signature={signature}"
        )

    async def aclose(self) -> None:
        """Do nothing."""

    async def _call(self, call: str, key: str, effect: Callable[[], Any], *, is_write: bool = False) -> Any:
        await self._process.leave(call, key)
        # A call that is cancelled may still take effect: in reality its thread goes on.
        return await self._world.wire.send(
            self._process,
            (call, key),
            partial(self._checked, effect),
            self._plan(key, is_write=is_write),
            is_write=is_write,
            goes_on_if_cancelled=True,
        )

    def _checked(self, effect: Callable[[], Any]) -> Any:
        expired_at = self._process.credentials_expire_at
        if expired_at is not None and self._world.now >= expired_at:
            raise errors.CredentialsRefused(f"{URI}: the store does not accept the credentials (ExpiredToken)")
        return effect()

    def _plan(self, key: str, *, is_write: bool) -> Plan:
        world, rates, draw = self._world, self._world.rates, self._world.random.random
        request_seconds, answer_seconds = world.request_delay(), world.answer_delay()
        answers_after = request_seconds + answer_seconds
        fate = draw()
        if fate < rates.unavailable:
            answers_after += _GIVES_UP_SECONDS * draw()
            error = errors.StorageUnavailable(f"{URI}/{key}: the store does not answer (SlowDown)")
            landed = draw() if is_write else 1.0
            if landed < rates.unavailable_landed:
                return Plan((request_seconds,), answers_after, error)
            if landed < rates.unavailable_landed + rates.unavailable_lands_late:
                return Plan((answers_after + rates.late_seconds * draw(),), answers_after, error)
            return Plan((), answers_after, error)
        if is_write and fate < rates.unavailable + rates.lost_reply:
            again = request_seconds + 0.05 + _REPEAT_SECONDS * draw()
            return Plan((request_seconds, again), again + answer_seconds)
        return Plan((request_seconds,), answers_after)


class _Pages(AsyncIterator[Any]):
    """What a listing yields. No generator: nothing of it is left to be finalized when it is abandoned."""

    def __init__(self, page: Callable[[Any], Any]) -> None:
        self._page = page
        self._found: list[Any] = []
        self._last: Any = None
        self._is_whole = False

    async def __anext__(self) -> Any:
        if not self._found and not self._is_whole:
            found, self._is_whole = await self._page(self._last)
            self._found = found[::-1]
        if not self._found:
            raise StopAsyncIteration
        self._last = self._found.pop()
        return self._last

    async def aclose(self) -> None:
        """Yield no more."""
        self._found, self._is_whole = [], True


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _content(data: bytes | Path) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else bytes(data)
