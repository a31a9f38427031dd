"""The journal of a shard: numbered objects, each created only if absent. The log is its own lock.

A writer that finds its next number taken by somebody else has been replaced, and writes nothing more. Records are
committed in groups: while one object is on its way the next ones gather. Against 16 s of inference that takes no time.
"""

import asyncio
import itertools
import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from variations import errors
from variations.layout import journal_key, journal_prefix, note_key, notes_prefix
from variations.ledger.records import Accepted, Ended, FoundIn, Group, Header, Record, content_of, lines_of
from variations.ledger.story import Story
from variations.storage import Storage

# A store that is busy or away for so long stops the run; until then nothing is submitted, and nothing is lost.
PATIENCE_SECONDS: Final = 180.0
READ_AT_ONCE: Final = 16
# Objects of a busy journal follow each other no sooner: a PUT costs more than all the rest of a record.
GATHER_SECONDS: Final = 0.06

logger = logging.getLogger(__name__)
_numbers = itertools.count()

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class Journal:
    """One shard's journal, as one writer sees it.

    Args:
        storage: the dataset.
        run_id, shard: whose journal it is.
        writer: the token of this writer.
        sleep: waits, between two tries at a store that is away.

    Attributes:
        story: what its records add up to, the durable ones only.
        next_number: of the object that is written next; so many lie there.
        last_writer: of the last object that was read; empty before.
    """

    def __init__(self, storage: Storage, *, run_id: str, shard: int, writer: str, sleep: Sleep = asyncio.sleep) -> None:
        self.run_id = run_id
        self.shard = shard
        self.story = Story()
        self.next_number = 0
        self.last_writer = ""
        self._storage = storage
        # Two of one process are two writers: what one wrote, the other did not.
        self._writer = f"{writer}.{next(_numbers)}"
        self._sleep = sleep
        self._gathered: list[_Gathered] = []
        self._committing: asyncio.Task[None] | None = None
        self._broken: errors.RunError | None = None
        self._committed_at = -math.inf

    async def replay(self) -> None:
        """Read what was written since the last time; writes nothing.

        Raises:
            JournalDamaged: an object is no journal's, or one is missing.
            StorageError: the store says no.
        """
        async for group, at in read_groups(self._storage, self.run_id, self.shard, first=self.next_number):
            self._take_in(group.records, at)
            self.last_writer = group.header.writer

    async def claim(self) -> None:
        """Become the first writer of a shard that nobody has touched.

        Raises:
            Replaced: somebody has.
            StorageError: the store says no.
        """
        await self._create(0)

    async def take_over(self) -> None:
        """Become the writer: whoever wrote before can write nothing more, and all that was written is in `story`.

        Raises:
            StorageError: the store says no.
        """
        while True:
            await self.replay()
            before = self.next_number
            try:
                await self._create(before)
            except errors.Replaced:
                # The old writer wrote one more in between; it belongs to the story.
                continue
            return

    async def succeed(self, writer: str) -> bool:
        """Become the writer after one that is gone; returns whether this one is, and no other came first.

        Raises:
            JournalDamaged, StorageError: as `replay`.
        """
        await self.replay()
        if self.last_writer != writer or self.story.tally is not None:
            return False
        try:
            await self._create(self.next_number)
        except errors.Replaced:
            return False
        return True

    async def append(self, *records: Record) -> datetime:
        """Return once the records are durable, with the time of the store's clock.

        A caller that is cancelled takes nothing back: what was handed over is written all the same.

        Raises:
            Replaced: another writer has the journal.
            StorageError: the store says no; nothing more is written, and of these records it is not known.
        """
        if self._broken is not None:
            raise self._broken
        gathered = _Gathered(records, lines_of(records), asyncio.get_running_loop().create_future())
        self._gathered.append(gathered)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())
        return await gathered.durable

    async def accept(self, variation_id: str, request_id: str, *, found_in: FoundIn = "answer") -> None:
        """Write down that a submit was accepted; who was replaced meanwhile leaves a note for the new writer.

        Raises:
            Replaced, StorageError: as `append`.
        """
        try:
            await self.append(Accepted(variation_id=variation_id, request_id=request_id, found_in=found_in))
        except errors.Replaced:
            await self._leave_note(variation_id, request_id)
            raise
        except errors.StorageError:
            logger.exception("accepted, and not to be written down: the request %s, for %s", request_id, variation_id)
            raise

    async def _leave_note(self, variation_id: str, request_id: str) -> None:
        key = note_key(self.run_id, variation_id, request_id)
        content = {"variation_id": variation_id, "request_id": request_id, "shard": self.shard}
        try:
            await self._patiently(lambda: self._storage.put(key, json.dumps(content).encode()))
        except errors.StorageError:
            logger.exception("accepted, and no note could be left: the request %s, for %s", request_id, variation_id)
        else:
            logger.warning("replaced; a note is left of the request %s, for %s", request_id, variation_id)

    async def end(self, tally: dict[str, object]) -> None:
        """Write down that the shard is done with."""
        await self.append(Ended(tally=tally))

    async def aclose(self) -> None:
        """Return once nothing is on its way."""
        if self._committing is not None:
            await asyncio.wait({self._committing})

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        while self._gathered:
            if (wait := self._committed_at + GATHER_SECONDS - loop.time()) > 0:
                await self._sleep(wait)
            self._committed_at = loop.time()
            group, self._gathered = self._gathered, []
            records = tuple(record for one in group for record in one.records)
            try:
                at = await self._create(self.next_number, records, [line for one in group for line in one.lines])
            except Exception as error:  # noqa: BLE001 - whatever it was, who waits must be told
                uri = self._uri(self.next_number)
                unforeseen = errors.StorageError(f"{uri} could not be written: {type(error).__name__}: {error}")
                self._broken = error if isinstance(error, errors.RunError) else unforeseen
                for one in [*group, *self._gathered]:
                    one.tell(self._broken)
                self._gathered = []
            else:
                for one in group:
                    one.tell(at)

    async def _create(self, number: int, records: tuple[Record, ...] = (), lines: Sequence[bytes] = ()) -> datetime:
        """Create an object, however often the store has to be asked; it is the same one each time."""
        key = journal_key(self.run_id, self.shard, number)
        content = content_of(Header(writer=self._writer, number=number), lines)

        async def create() -> datetime:
            entry = await self._storage.put_if_absent(key, content)
            if entry is None:
                # It may be ours: a PUT whose answer was lost finds its own object the next time.
                if await self._storage.get(key) != content:
                    raise errors.Replaced(f"{self._uri(number)} has another writer: this one was taken over")
                entry = await self._storage.head(key)
            if entry is None:
                raise errors.JournalDamaged(f"{self._uri(number)}: it was removed by somebody")
            return entry.modified

        at = await self._patiently(create)
        self._take_in(records, at)
        return at

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask a store that is busy or away again, for as long as there is patience."""
        loop = asyncio.get_running_loop()
        begun, waited, delay = loop.time(), 0.0, 0.5
        while True:
            try:
                return await call()
            except errors.StorageUnavailable as error:
                if max(waited, loop.time() - begun) >= PATIENCE_SECONDS:
                    raise
                logger.warning("the journal waits for its store: %s", error)
                await self._sleep(delay)
                waited += delay
                delay = min(2 * delay, 15.0)

    def _take_in(self, records: Iterable[Record], at: datetime) -> None:
        for record in records:
            self.story.add(record, at)
        self.next_number += 1

    def _uri(self, number: int) -> str:
        return self._storage.uri_of(journal_key(self.run_id, self.shard, number))


async def read_groups(
    storage: Storage, run_id: str, shard: int, *, first: int = 0
) -> AsyncIterator[tuple[Group, datetime]]:
    """Yield what lies in a journal from an object on, with the store's time of each.

    Raises:
        JournalDamaged: an object is no journal's, or one is missing.
        StorageError: the store says no.
    """
    wanted = journal_key(run_id, shard, first)
    found = {entry.key: entry async for entry in storage.list(journal_prefix(run_id, shard)) if entry.key >= wanted}
    last = max((_number(key) for key in found), default=first - 1)
    for start in range(first, last + 1, READ_AT_ONCE):
        numbers = range(start, min(start + READ_AT_ONCE, last + 1))
        keys = [journal_key(run_id, shard, number) for number in numbers]
        try:
            contents = await asyncio.gather(*map(storage.get, keys))
        except errors.ObjectNotFound as error:
            raise errors.JournalDamaged(f"a part of the journal is missing, and later ones are not: {error}") from error
        for number, key, content in zip(numbers, keys, contents, strict=True):
            # A listing may leave out what was written meanwhile, as that of a folder does.
            entry = found.get(key) or await storage.head(key)
            try:
                group = Group.of_bytes(content)
            except ValueError as error:
                raise errors.JournalDamaged(f"{storage.uri_of(key)}: {error}") from error
            if entry is None or group.header.number != number:
                raise errors.JournalDamaged(f"{storage.uri_of(key)}: it is not the object of that number")
            yield group, entry.modified


async def read_last(storage: Storage, run_id: str, shard: int) -> Group | None:
    """Return the last object of a journal, and that alone; None if nobody has begun it.

    Raises:
        JournalDamaged: it is no journal's.
        StorageError: the store says no.
    """
    last = None
    async for entry in storage.list(journal_prefix(run_id, shard)):
        last = entry.key
    if last is None:
        return None
    try:
        return Group.of_bytes(await storage.get(last))
    except ValueError as error:
        raise errors.JournalDamaged(f"{storage.uri_of(last)}: {error}") from error


async def read_tally(storage: Storage, run_id: str, shard: int) -> dict[str, Any] | None:
    """Return what a shard came to, if its end is the last thing that its journal tells; one object is read, not all.

    Raises:
        JournalDamaged, StorageError: as `read_last`.
    """
    last = await read_last(storage, run_id, shard)
    end = last.records[-1] if last is not None and last.records else None
    return end.tally if isinstance(end, Ended) else None


def _number(key: str) -> int:
    name = key.rpartition("/")[2].partition(".")[0]
    return int(name) if name.isascii() and name.isdigit() else -1


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Records that wait for the next object, and whoever waits for them."""

    records: tuple[Record, ...]
    lines: list[bytes]
    durable: asyncio.Future[datetime]

    def tell(self, result: datetime | errors.RunError) -> None:
        if self.durable.done():
            return
        if isinstance(result, datetime):
            self.durable.set_result(result)
        else:
            self.durable.set_exception(result)


@dataclass(frozen=True, slots=True)
class Note:
    """A request of which a replaced writer learned too late."""

    shard: int
    variation_id: str
    request_id: str


async def read_notes(storage: Storage, run_id: str) -> list[Note]:
    """Return the notes that replaced writers of a run left."""
    notes = []
    async for entry in storage.list(notes_prefix(run_id)):
        try:
            notes.append(Note(**json.loads(await storage.get(entry.key))))
        except (ValueError, TypeError) as error:
            raise errors.JournalDamaged(f"{storage.uri_of(entry.key)}: it is no note") from error
    return notes
