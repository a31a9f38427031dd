"""Who works on a dataset: one run at a time is open, and one process at a time works on it.

`_runs/open.json` names both. It is created only if absent and replaced only by who read it last, so of several that
want it one gets it. While a process works it writes it anew every few seconds; one that was not written for a while is
anybody's to take, for its process is gone. That alone would not stop a process that only slept: who takes it closes the
journals of the run that it finds open before anything else, and the sleeper can submit nothing more.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from pydantic import TypeAdapter

from variations import errors
from variations.clock import Clock
from variations.layout import OPEN_KEY
from variations.ledger.writer import Writer
from variations.storage import Entry, Storage

LEASE_SECONDS: Final = 60.0
# Beats in a lease: three may be lost.
_BEATS: Final = 4
# A store tells its time in whole seconds, and may be a second apart from itself.
ROUNDING_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 2.0
# More than there can be who want it at the same moment.
_MOST_REFUSED: Final = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """The content of `_runs/open.json`.

    Attributes:
        run_id: the last run that was begun on this dataset.
        state: whether there is anything left to do for it.
        writer: who works on it; None where nobody does.
        beat: counts up with every sign of life.
        lease_seconds: after so long without one the writer counts as gone; by its own word, for only it knows how often
            it gives one.
        stopped_by, stopped_because: why nothing more is to be submitted, for the machines that work on the run.
    """

    run_id: str
    state: Literal["open", "closed"]
    writer: Writer | None = None
    beat: int = 0
    lease_seconds: float = LEASE_SECONDS
    stopped_by: str | None = None
    stopped_because: str | None = None


_OPEN_RUN: Final = TypeAdapter(OpenRun)


@dataclass(frozen=True, slots=True)
class Seen:
    """The lock as it was found; `age_seconds` since its last sign of life, by the store's clock."""

    run: OpenRun
    entry: Entry
    age_seconds: float

    @property
    def left_seconds(self) -> float:
        """How long the writer may still be silent before its lease has run out; negative once it has."""
        return self.run.lease_seconds + ROUNDING_SECONDS - self.age_seconds

    @property
    def is_at_work(self) -> bool:
        """Whether there is a writer that may live: its lease has not run out, and it is not certainly dead."""
        writer = self.run.writer
        return writer is not None and self.left_seconds >= 0 and not writer.is_certainly_dead()


async def look(storage: Storage) -> Seen | None:
    """Return who works on a dataset; None if nobody ever did.

    Raises:
        JournalDamaged: what lies there is not ours.
        StorageError: the store says no.
    """
    while True:
        entry = await storage.head(OPEN_KEY)
        if entry is None:
            return None
        try:
            content = await storage.get(OPEN_KEY)
        except errors.ObjectNotFound:
            continue
        again = await storage.head(OPEN_KEY)
        if again is not None and again.etag == entry.etag:
            break
    try:
        run = _OPEN_RUN.validate_json(content)
    except ValueError as error:
        raise errors.JournalDamaged(
            f"{storage.uri_of(OPEN_KEY)} does not say which run is open: make sure that none works on this dataset, "
            "move the file away, and run again"
        ) from error
    return Seen(run, entry, max(0.0, (await storage.now() - entry.modified).total_seconds()))


async def check_is_free(storage: Storage) -> None:
    """Refuse a dataset on which a process works, as `DatasetLock.acquire` does; nothing is written.

    Raises:
        DatasetBusy: a process works.
        StorageError: the store says no, or what lies there is not ours.
    """
    seen = await look(storage)
    if seen is not None and seen.is_at_work:
        raise _refusal(_told(storage, seen))


def _told(storage: Storage, seen: Seen) -> str:
    return (
        f"the run {seen.run.run_id} works on {storage.uri} ({seen.run.writer}); its last sign of life was "
        f"{seen.age_seconds:.0f} s ago, and without another one it can be taken over in {seen.left_seconds:.0f} s"
    )


def _refusal(told: str) -> errors.DatasetBusy:
    return errors.DatasetBusy(f"{told}. Wait for it with --wait, or run the same command again later")


class _Wait:
    """The wait for another process.

    Args:
        say: called with a line for each run that is waited for.
        waits_for_living: whether a further sign of life does not end it.
    """

    def __init__(self, say: Callable[[str], None], *, waits_for_living: bool) -> None:
        self._say = say
        self._waits_for_living = waits_for_living
        self._said = ""
        self._heard: tuple[str, int] | None = None

    def look(self, seen: Seen, told: str) -> None:
        """Take note of who works.

        Raises:
            LookedAfter: it lives, and such a one is not waited for.
        """
        if seen.run.writer is not None and not self._waits_for_living:
            sign = (seen.run.writer.token, seen.run.beat)
            self._heard = self._heard or sign
            if sign != self._heard:
                raise errors.LookedAfter(f"{told}: it lives, and looks after what is open itself")
        if seen.run.run_id != self._said:
            self._said = seen.run.run_id
            self._say(f"Waiting: {told}")


class DatasetLock:
    """The right to work on a dataset.

    Args:
        storage: the dataset.
        writer: who wants it.
        clock: time.
        lease_seconds: after so long without a sign of life this writer counts as gone.
        lost: called once somebody else has it.
        waiting: called with a line to say while this waits for another.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        writer: Writer,
        clock: Clock,
        lease_seconds: float = LEASE_SECONDS,
        lost: Callable[[errors.Replaced], None] = lambda _: None,
        waiting: Callable[[str], None] = logger.warning,
    ) -> None:
        self._storage = storage
        self._writer = writer
        self._clock = clock
        self.lease_seconds = lease_seconds
        self._lost = lost
        self._waiting = waiting
        self._held: OpenRun | None = None
        self._etag = ""
        self._beating: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def acquire(
        self,
        run_id: str,
        *,
        wait: bool = False,
        waits_for_living: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> str | None:
        """Get the right to work, and return the id of the run that has to be closed first, if there is one.

        Until `begin` that run stays the open one.

        Args:
            run_id: of the run that is to be begun; it is named where nothing has to be closed.
            wait: whether to wait while another process works.
            waits_for_living: whether to wait on where that gives another sign of life, and not only until it is known
                to be dead.
            check: called now and then while this waits; what it raises ends the waiting.

        Raises:
            DatasetBusy: another process works, and `wait` was not asked for.
            LookedAfter: another process works, gives signs of life, and is not waited for.
            StorageError: the store says no.
        """
        wait_for = _Wait(self._waiting, waits_for_living=waits_for_living) if wait else None
        refused = 0
        seen: Seen | None = None
        unfinished: str | None = None
        while True:
            try:
                seen = await look(self._storage)
                if seen is not None and seen.run.writer is not None and seen.run.writer.token == self._writer.token:
                    # A write of this very call took effect, though the store said that it could not be reached.
                    self._held, self._etag = seen.run, seen.entry.etag
                    break
                if seen is None or not seen.is_at_work:
                    unfinished = seen.run.run_id if seen is not None and seen.run.state == "open" else None
                    if await self._take(self._open(unfinished or run_id), seen):
                        break
                    refused += 1
                    if refused >= _MOST_REFUSED:
                        raise errors.StoreUnsafe(
                            f"{self._storage.uri_of(OPEN_KEY)}: the store refused {refused} times to replace it under "
                            "its own ETag; use a store that honours conditional writes"
                        )
                    await self._clock.sleep(_POLL_SECONDS / 10)
                    continue
                told = _told(self._storage, seen)
            except errors.StorageUnavailable as error:
                if wait_for is None:
                    raise
                told = str(error)
            if wait_for is None:
                raise _refusal(told)
            if seen is not None:
                wait_for.look(seen, told)
            await self._clock.sleep(_POLL_SECONDS)
            check()
        self._beating = asyncio.create_task(self._beat())
        return unfinished

    async def begin(self, run_id: str) -> None:
        """Name the run that is open from here on; the one before is closed.

        Raises:
            Replaced: somebody else has the right to work.
        """
        await self._write(run_id=run_id)

    async def confirm(self) -> None:
        """Make sure that nobody else has the right to work by now.

        Raises:
            Replaced: somebody else has.
            StorageError: the store says no.
        """
        await self._write()

    async def announce(self, reason: errors.RunError | errors.RunPaused) -> None:
        """Tell the machines that work on this run that nothing more is to be submitted.

        Raises:
            Replaced: somebody else has the right to work.
            StorageError: the store says no.
        """
        await self._write(stopped=reason)

    async def release(self, *, is_closed: bool) -> None:
        """Give the right back; `is_closed` says that nothing is left to do for the run that is open."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
            self._beating = None
        if self._held is None:
            return
        try:
            await self._write(state="closed" if is_closed else "open", writer=None)
        except errors.RunError as error:
            # The next run finds the lease run out, and goes on from there.
            logger.warning("%s could not be given back: %s", self._storage.uri_of(OPEN_KEY), error)
        self._held = None

    def _open(self, run_id: str) -> OpenRun:
        return OpenRun(run_id=run_id, state="open", writer=self._writer, lease_seconds=self.lease_seconds)

    async def _take(self, run: OpenRun, seen: Seen | None) -> bool:
        content = _OPEN_RUN.dump_json(run, indent=2)
        if seen is None:
            entry = await self._storage.put_if_absent(OPEN_KEY, content)
        else:
            try:
                entry = await self._storage.replace(OPEN_KEY, content, etag=seen.entry.etag)
            except errors.PreconditionFailed:
                entry = None
        if entry is None:
            # Perhaps by this very call, whose first answer was lost.
            return await self._is_ours()
        self._held, self._etag = run, entry.etag
        return True

    async def _is_ours(self) -> bool:
        """Return whether what lies there is this writer's: a write whose answer was lost, or was not waited for."""
        seen = await look(self._storage)
        if seen is None or seen.run.writer is None or seen.run.writer.token != self._writer.token:
            return False
        self._held, self._etag = seen.run, seen.entry.etag
        return True

    async def _write(
        self,
        *,
        run_id: str | None = None,
        state: Literal["open", "closed"] = "open",
        writer: Writer | Literal["same"] | None = "same",
        stopped: errors.RunError | errors.RunPaused | None = None,
    ) -> None:
        async with self._writing:
            for _ in range(_MOST_REFUSED):
                if self._held is None:
                    break
                run = replace(
                    self._held,
                    run_id=run_id or self._held.run_id,
                    state=state,
                    writer=self._writer if writer == "same" else writer,
                    beat=self._held.beat + 1,
                    stopped_by=stopped.code if stopped else self._held.stopped_by,
                    stopped_because=stopped.message if stopped else self._held.stopped_because,
                )
                content = _OPEN_RUN.dump_json(run, indent=2)
                try:
                    entry = await self._storage.replace(OPEN_KEY, content, etag=self._etag)
                except errors.PreconditionFailed:
                    if await self._is_written(content):
                        return
                    if await self._is_ours():
                        continue
                    self._held = None
                    self._lost(self._replaced())
                else:
                    self._held, self._etag = run, entry.etag
                    return
            raise self._replaced()

    async def _is_written(self, content: bytes) -> bool:
        """Return whether a write took effect whose answer was lost, be it the one that gives the dataset back."""
        try:
            entry = await self._storage.head(OPEN_KEY)
            if entry is None or await self._storage.get(OPEN_KEY) != content:
                return False
        except errors.ObjectNotFound:
            return False
        self._held, self._etag = _OPEN_RUN.validate_json(content), entry.etag
        return True

    def _replaced(self) -> errors.Replaced:
        uri = self._storage.uri_of(OPEN_KEY)
        return errors.Replaced(f"{uri}: another process took over this run, and works on the dataset now")

    async def _beat(self) -> None:
        while self._held is not None:
            await self._clock.sleep(self.lease_seconds / _BEATS)
            try:
                # One that hangs must not keep the next ones from being written.
                async with asyncio.timeout(self.lease_seconds / _BEATS):
                    await self._write()
            except errors.Replaced:
                return
            except Exception as error:  # noqa: BLE001 - what keeps two apart is the journals: a beat may be lost
                logger.warning("no sign of life could be written: %s", str(error) or type(error).__name__)
