"""Find out what became of submits whose answer was lost, in the account's request history.

A submit has no idempotency key, and to repeat it blindly may pay twice. But the history's rows carry the inputs as
they were sent: source and seed make them unique, so a lost submit that was accepted can be found there, and adopted.

There, too, all images of a request for several are found, once the API forgot it: the history has a row for each, and
gives away only one of them where it is asked for the request by its id.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from variations import errors
from variations.clock import Clock
from variations.models import HistoryRecord
from variations.uris import public_uri

CLOCK_TOLERANCE: Final = timedelta(minutes=15)
# The widest window that the history answers, its first and its last day counted.
HISTORY_DAYS: Final = 31
# After a look, so long until the next; the last one stays.
LOOK_AGAIN_SECONDS: Final = (3.0, 5.0, 10.0, 15.0)
# A look through many pages is dear: it is not repeated sooner than this for each of them.
SECONDS_A_PAGE: Final = 2.0
# Of one look, however many are looked for.
MAX_PAGES: Final = 200
# Ids of other variations: more than any run has in flight, or accepts while a submit is looked for.
MAX_TAKEN: Final = 100_000

# Called as page(number, from_date="YYYY-MM-DD", to_date="YYYY-MM-DD"): newest first, none beyond the end.
HistoryPage = Callable[..., Awaitable[list[HistoryRecord]]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LostSubmit:
    """A submit of which it is not known whether it was accepted.

    Attributes:
        redux_image: the source's URL as it was sent, without its signature.
        parameters: the fields of `Parameters.as_sent()`.
        since, until: between these moments it may have been accepted, in UTC.
        early: by how much it may have been before, as clocks differ. What is older is another's with the same inputs.
        not_these: requests that are known to be something else, such as an earlier attempt with the same inputs.
    """

    redux_image: str
    parameters: Mapping[str, Any]
    since: datetime
    until: datetime
    not_these: frozenset[str] = frozenset()
    early: timedelta = CLOCK_TOLERANCE

    @property
    def key(self) -> str:
        """What its record is told by, among others."""
        return public_uri(self.redux_image)

    @property
    def earliest(self) -> datetime:
        """The first moment at which the API's clock may have seen it."""
        return self.since - self.early

    @property
    def latest(self) -> datetime:
        """The last moment at which the API's clock may have seen it."""
        return self.until + CLOCK_TOLERANCE

    def may_be(self, record: HistoryRecord) -> bool:
        """Return whether the record is of a request with these inputs, from that time.

        Source and seed must be there. Of the other inputs the record may lack some, and may have more.
        """
        inputs, sent, image = record.inputs, self.parameters, record.inputs.get("redux_image")
        return (
            isinstance(image, str)
            and public_uri(image) == public_uri(self.redux_image)
            and "seed" in inputs
            and "seed" in sent
            and all(inputs[name] == value for name, value in sent.items() if name in inputs)
            and (record.created_at is None or self.earliest <= record.created_at <= self.latest)
            and record.request_id not in self.not_these
        )


@dataclass(frozen=True, slots=True)
class ForgottenRequest:
    """A request for several images that the API forgot, and whose rows are wanted.

    Attributes:
        key: its id.
        images: that it was for: so many rows it has at the most.
        until: when it was accepted, in UTC, give or take `CLOCK_TOLERANCE`.
    """

    key: str
    images: int
    until: datetime

    @property
    def earliest(self) -> datetime:
        """The first moment at which the API's clock may have seen it."""
        return self.until - CLOCK_TOLERANCE

    @property
    def latest(self) -> datetime:
        """The last moment at which the API's clock may have seen it."""
        return self.until + CLOCK_TOLERANCE


class LostSubmits:
    """Look for lost submits, one look for all that wait: every page costs a request of the plan.

    Args:
        page: asks for a page of the history. What it raises ends one look, and nothing else.
        clock: time.
    """

    def __init__(self, page: HistoryPage, *, clock: Clock) -> None:
        self._page = page
        self._clock = clock
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._waiting: list[_Waiting] = []
        self._came = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._pages_read = 0
        self._has_warned = False

    def taken(self, request_id: str) -> None:
        """Remember that this request is some other variation's: it is never found."""
        self._taken[request_id] = None
        self._taken.move_to_end(request_id)
        if len(self._taken) > MAX_TAKEN:
            self._taken.popitem(last=False)

    async def find(self, lost: LostSubmit | ForgottenRequest, *, patience_seconds: float) -> HistoryRecord | None:
        """Return the newest record that it may be, which is then taken; None says that the history was read, and does
        not show it. That proves little, for records land late.

        It looks at once and then at growing intervals, and returns None after `patience_seconds`, though not in the
        middle of a look: with 0 it looks once. Beyond the history's 31 days it does not look. Of a lost submit the
        record's id is certain, and its `output_urls` may lack those that stood on the next page; of a forgotten request
        they are all there.

        Raises:
            ServiceUnavailable: the history could not be read, or not far enough back.
        """
        if lost.latest < self._clock.now() - timedelta(days=HISTORY_DAYS):
            return None
        found: asyncio.Future[HistoryRecord | None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(lost, found, give_up_at=self._clock.monotonic() + patience_seconds)
        self._waiting.append(waiting)
        self._came.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_someone_waits())
        try:
            return await found
        except asyncio.CancelledError:
            # It may have been found in the same moment: then nobody has it.
            if isinstance(lost, LostSubmit) and not found.cancelled() and not found.exception():
                record = found.result()
                self._taken.pop(record.request_id if record is not None else "", None)
            raise
        finally:
            self._waiting.remove(waiting)
            if not self._waiting:
                self._looking.cancel()
                self._looking = None

    async def _look_while_someone_waits(self) -> None:
        looked_at = self._clock.monotonic()
        while waiting := [one for one in self._waiting if one.is_open]:
            looks = min(one.looks for one in waiting)
            look_at = looked_at + self._rest_seconds(looks)
            if self._clock.monotonic() >= look_at:
                await self._look(waiting)
                looked_at = self._clock.monotonic()
            else:
                self._came.clear()
                await self._sleep_until(min(look_at, *(one.give_up_at for one in waiting)))
            for one in waiting:
                if one.is_open and one.looks and one.give_up_at <= self._clock.monotonic():
                    if one.was_read:
                        one.found.set_result(None)
                    else:
                        one.found.set_exception(errors.ServiceUnavailable("the request history cannot be read"))

    def _rest_seconds(self, looks: int) -> float:
        """Return the pause after so many looks; the one who had the fewest sets it for all."""
        if not looks:
            return 0.0
        interval = LOOK_AGAIN_SECONDS[min(looks, len(LOOK_AGAIN_SECONDS)) - 1]
        return max(interval, self._pages_read * SECONDS_A_PAGE)

    async def _sleep_until(self, moment: float) -> None:
        """Sleep, until somebody comes at the latest."""
        sleep = asyncio.ensure_future(self._clock.sleep(moment - self._clock.monotonic()))
        came = asyncio.ensure_future(self._came.wait())
        try:
            await asyncio.wait({sleep, came}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            came.cancel()

    async def _look(self, waiting: Sequence["_Waiting"]) -> None:
        self._pages_read = 0
        try:
            for window in _windows(waiting, today=self._clock.now().date()):
                await self._look_through(window)
                for one in window.waiting:
                    one.was_read |= self._pages_read < MAX_PAGES
        except Exception as error:
            # Whatever it was: it says nothing of what is looked for, and who waits must not wait forever.
            if not self._has_warned:
                is_bug = not isinstance(error, errors.VariationsError)
                logger.warning("lost submits cannot be looked for in the history: %s", error, exc_info=is_bug)
            self._has_warned = True
        for one in waiting:
            one.looks += 1

    async def _look_through(self, window: "_Window") -> None:
        """Page from new to old, until all are found or the rest is older."""
        by_key: dict[str, list[_Waiting]] = {}
        for one in window.waiting:
            by_key.setdefault(one.lost.key, []).append(one)
            one.rows = None
        page = _Page(0, [])
        while wanted := [one.lost for one in window.waiting if one.is_open and not page.reaches_before(one.lost)]:
            begun = [one for one in window.waiting if one.rows is not None]
            page = await self._next_page(window, page, latest=max(lost.latest for lost in wanted))
            if not page.records:
                break
            self._give(page.records, by_key)
            # What began on the page before has ended by now.
            for one in begun:
                one.give(one.rows)
        for one in window.waiting:
            if one.rows is not None:
                one.give(one.rows)

    def _give(self, records: Sequence[HistoryRecord], by_key: Mapping[str, Sequence["_Waiting"]]) -> None:
        for record in records:
            for one in by_key.get(record.request_id, ()):
                one.add(record, is_last=record is records[-1])
            image = record.inputs.get("redux_image")
            for one in by_key.get(public_uri(image), ()) if isinstance(image, str) else ():
                if one.is_open and record.request_id not in self._taken and one.may_be(record):
                    self.taken(record.request_id)
                    one.give(record)
                    break

    async def _next_page(self, window: "_Window", page: "_Page", *, latest: datetime) -> "_Page":
        """Return the page after this one, or where this one is too new for everybody, the first that is not.

        That one is found by doubling and bisecting. What is returned is what was asked for last, perhaps the page
        before it: while one asks, rows move on to later pages, and older answers would leave a gap.
        """
        if not page.is_newer_than(latest):
            return await self._read(window, page.number + 1, after=page)
        too_new, step = page, 1
        while (probe := await self._read(window, too_new.number + step, after=too_new)).is_newer_than(latest):
            too_new, step = probe, 2 * step
        end = probe.number
        while end - too_new.number > 1:
            probe = await self._read(window, (too_new.number + end) // 2, after=too_new)
            if probe.is_newer_than(latest):
                too_new = probe
            else:
                end = probe.number
        return probe

    async def _read(self, window: "_Window", number: int, *, after: "_Page") -> "_Page":
        """Return a page; it is empty at the end, which is also where a page repeats an earlier one."""
        if self._pages_read == MAX_PAGES:
            return _Page(number, [])
        self._pages_read += 1
        records = await self._page(number, from_date=window.first.isoformat(), to_date=window.last.isoformat())
        # Not by the number of records: a full page of rows has fewer where a request has several, and the last rows of
        # one may be a page of their own.
        known = {(record.request_id, record.output_urls) for record in after.records}
        is_new = any((record.request_id, record.output_urls) not in known for record in records)
        return _Page(number, records if is_new else [])


@dataclass(slots=True, eq=False)
class _Waiting:
    """Somebody who waits.

    Attributes:
        give_up_at: by the monotonic clock.
        was_read: a look reached far enough back.
        rows: of a forgotten request those that were found, where there may be more on the next page.
    """

    lost: LostSubmit | ForgottenRequest
    found: asyncio.Future[HistoryRecord | None]
    give_up_at: float
    looks: int = 0
    was_read: bool = False
    rows: HistoryRecord | None = None

    @property
    def is_open(self) -> bool:
        return not self.found.done()

    def may_be(self, record: HistoryRecord) -> bool:
        return isinstance(self.lost, LostSubmit) and self.lost.may_be(record)

    def add(self, record: HistoryRecord, *, is_last: bool) -> None:
        """Take rows of the request that is wanted; more of them may follow those that end a page."""
        before = self.rows.output_urls if self.rows is not None else ()
        self.rows = replace(record, output_urls=tuple(dict.fromkeys([*before, *record.output_urls])))
        if not is_last or not isinstance(self.lost, ForgottenRequest) or len(self.rows.output_urls) >= self.lost.images:
            self.give(self.rows)

    def give(self, record: HistoryRecord | None) -> None:
        if self.is_open:
            self.found.set_result(record)


class _Page:
    """A page of the history. Records without a date tell nothing of its age."""

    def __init__(self, number: int, records: list[HistoryRecord]) -> None:
        self.number = number
        self.records = records
        self._oldest = min((record.created_at for record in records if record.created_at is not None), default=None)

    def is_newer_than(self, moment: datetime) -> bool:
        return self._oldest is not None and self._oldest > moment

    def reaches_before(self, lost: LostSubmit | ForgottenRequest) -> bool:
        return self._oldest is not None and self._oldest < lost.earliest


@dataclass(slots=True)
class _Window:
    """The days, both included, that one walk through the pages covers, and who waits for something of them."""

    first: date
    last: date
    waiting: list[_Waiting]


def _windows(waiting: Iterable[_Waiting], *, today: date) -> list[_Window]:
    """Return windows for all who wait, newest first: where days overlap, one walk serves them.

    A window ends a day late, as clocks differ, and is never wider or older than what the history answers.
    """
    widest = timedelta(days=HISTORY_DAYS - 1)
    windows: list[_Window] = []
    for one in sorted(waiting, key=lambda one: one.lost.until, reverse=True):
        first = max(one.lost.earliest.date(), today - widest)
        last = min(max(first, one.lost.until.date() + timedelta(days=1)), first + widest)
        newer = windows[-1] if windows else None
        if newer and newer.first <= last and max(newer.last, last) - min(newer.first, first) <= widest:
            newer.first, newer.last = min(newer.first, first), max(newer.last, last)
            newer.waiting.append(one)
        else:
            windows.append(_Window(first, last, [one]))
    return windows
