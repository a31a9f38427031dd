"""Stores to try the journal and the lock on: one in memory that does what it is told to, and a real one, wrapped."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.variations.chaos.store import URI, Store
from tests.variations.engine.simulation import simulate
from variations import errors
from variations.ledger.records import Accepted, Intended, Settled, Withdrawn
from variations.models import Attempt, ImageOutcome
from variations.storage import Entry, Storage


def name(number: int) -> str:
    """Return the number-th variation's id."""
    return f"{number:032x}"


def intended(number: int = 1, *, attempt: int = 1, before: Attempt | None = None) -> Intended:
    """Return an intent."""
    return Intended(
        variation_id=name(number), attempt=attempt, redux_image=f"https://photos.example/{number}.jpg", before=before
    )


def accepted(number: int = 1, request_id: str | None = None) -> Accepted:
    """Return an acceptance."""
    return Accepted(variation_id=name(number), request_id=request_id or f"request-{number}")


def withdrawn(number: int = 1) -> Withdrawn:
    """Return an intent that was taken back."""
    return Withdrawn(variation_id=name(number), reason="the run stopped")


def settled(number: int = 1, *statuses: str, **fields: Any) -> Settled:
    """Return what became of the images, one failed if nothing is said."""
    images = tuple(
        ImageOutcome(output_index=index, status=status, **fields)  # type: ignore[arg-type]
        for index, status in enumerate(statuses or ("failed",))
    )
    return Settled(variation_id=name(number), images=images)


def unavailable(key: str = "") -> errors.StorageUnavailable:
    """Return what a store that is busy raises."""
    return errors.StorageUnavailable(f"{URI}/{key}: the store does not answer (SlowDown)")


async def _nothing(*_: Any) -> None:
    pass


Before = Callable[[str, str], Awaitable[None]]
After = Callable[[str, str], Awaitable[None]]


@dataclass
class View:
    """The store in memory as one process reaches it: a `Storage`.

    Attributes:
        seconds: a call is so long on its way, and its answer too.
        before: called with (call, key) before a call takes effect; what it raises keeps the call from it.
        after: called when it has taken effect; what it raises takes the answer's place.
        calls: every call that left.
    """

    store: Store
    seconds: float = 0.01
    before: Before = _nothing
    after: After = _nothing
    calls: list[tuple[str, str]] = field(default_factory=list)
    uri: str = URI

    def uri_of(self, key: str) -> str:
        """Return the whole URI of a key."""
        return f"{URI}/{key}"

    def puts(self, prefix: str = "") -> list[str]:
        """Return the keys that were to be written if absent."""
        return [key for call, key in self.calls if call == "put_if_absent" and key.startswith(prefix)]

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield every object, a page of three at a time."""
        after = ""
        while page := await self._call("list", prefix, partial(self.store.page, prefix, after, 3)):
            for entry in page:
                yield entry
            after = page[-1].key

    async def folders(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the folders directly below a prefix."""
        for folder in await self._call("folders", prefix, lambda: self.store.folders(prefix)):
            yield folder

    async def now(self) -> datetime:
        """Return the store's time."""
        found: datetime = await self._call("now", "", self.store.now)
        return found

    async def head(self, key: str) -> Entry | None:
        """Return what is known of an object."""
        found: Entry | None = await self._call("head", key, lambda: self.store.head(key))
        return found

    async def exists(self, key: str) -> bool:
        """Return whether it is there."""
        return await self.head(key) is not None

    async def get(self, key: str) -> bytes:
        """Return an object."""
        found: bytes = await self._call("get", key, lambda: self.store.get(key))
        return found

    async def get_to_file(self, key: str, path: Path) -> None:
        """Write an object to a file."""
        content = await self.get(key)
        await asyncio.to_thread(path.write_bytes, content)

    async def put(self, key: str, data: bytes, **_: Any) -> Entry:
        """Write an object."""
        found: Entry = await self._call("put", key, lambda: self.store.put(key, data))
        return found

    async def put_if_absent(self, key: str, data: bytes, **_: Any) -> Entry | None:
        """Write an object that is not there."""
        found: Entry | None = await self._call("put_if_absent", key, lambda: self.store.put_if_absent(key, data))
        return found

    async def replace(self, key: str, data: bytes, *, etag: str, **_: Any) -> Entry:
        """Write an object that is still the one it was."""
        found: Entry = await self._call("replace", key, lambda: self.store.replace(key, data, etag))
        return found

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await self._call("delete", key, lambda: self.store.delete(key))

    async def _call(self, call: str, key: str, effect: Callable[[], Any]) -> Any:
        self.calls.append((call, key))
        # As a thread does: it goes on when its caller is cancelled, and nobody hears then what came of it.
        landing = asyncio.ensure_future(self._effect(call, key, effect))
        landing.add_done_callback(lambda landed: landed.cancelled() or landed.exception())
        return await asyncio.shield(landing)

    async def _effect(self, call: str, key: str, effect: Callable[[], Any]) -> Any:
        await asyncio.sleep(self.seconds)
        await self.before(call, key)
        try:
            answer = effect()
        except errors.VariationsError as error:
            answer = error
        await self.after(call, key)
        await asyncio.sleep(self.seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer


def memory(*, behind_seconds: float = 0.0) -> Store:
    """Return an empty store on the running loop's time; its clock may be behind."""
    loop = asyncio.get_running_loop()
    return Store(lambda: loop.time() - behind_seconds)


class Wrapped:
    """A real storage; a test's class overrides what it wants to be otherwise."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Sleeps:
    """Stands in for a sleep: takes no time, and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Wait, but not at all."""
        self.seconds.append(seconds)
        await asyncio.sleep(0)


class Complaints(list[dict[str, Any]]):
    """What the running loop complains of: exceptions that nobody retrieved, tasks that were dropped."""

    def __init__(self) -> None:
        super().__init__()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.append(context))


def in_memory(test: Callable[[Store, View], Coroutine[Any, Any, None]], *, behind_seconds: float = 0.0) -> None:
    """Run a test on simulated time, with a store and one view of it.

    The loop is left with nothing to complain of, and no tasks. The store's clock may be behind.
    """

    async def main() -> None:
        complaints = Complaints()
        store = memory(behind_seconds=behind_seconds)
        await test(store, View(store))
        gc.collect()
        await asyncio.sleep(0)
        assert [(found["message"], found.get("exception")) for found in complaints] == []

    simulate(main())
