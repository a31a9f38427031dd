"""The account's request history as the API pages it, in simulated time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from variations.engine.lost_submits import HISTORY_DAYS, LostSubmits
from variations.models import HistoryRecord
from variations.parameters import Parameters

from .simulation import EPOCH, LoopClock, simulate

IMAGE = "https://photos.example/1.jpg"
# A simulation begins 1,000 s after its epoch; this is late on that day, where a window is widest.
NOON = EPOCH + timedelta(hours=12)
PAGE_SECONDS = 0.2


def seconds(count: float) -> timedelta:
    """Return a time span."""
    return timedelta(seconds=count)


def parameters(seed: int = 1, **others: Any) -> dict[str, Any]:
    """Return the fields as they are sent."""
    return Parameters(seed=seed, **others).as_sent()


def record(request_id: str, created_at: datetime | None, *, image: str = IMAGE, **inputs: Any) -> HistoryRecord:
    """Return a record of the history."""
    return HistoryRecord(
        request_id=request_id,
        status="COMPLETED",
        model="flux-redux-dev",
        cost_usd=0.031,
        inputs={"redux_image": image, **parameters(), **inputs},
        output_urls=(),
        latency_seconds=16.0,
        created_at=created_at,
        error=None,
    )


def others(count: int, *, newest: datetime, every_seconds: float = 1.0) -> list[HistoryRecord]:
    """Return records of other variations, newest first."""
    return [
        record(
            f"other-{number}", newest - seconds(number * every_seconds), image=f"https://photos.example/o{number}.jpg"
        )
        for number in range(count)
    ]


@dataclass
class FakeHistory:
    """The history as the API pages it, in simulated time.

    `records` come newest first; `lands_at` (the loop's seconds) says of some when they land; `pages` are the numbers
    that were asked for, at `times`; `fails` makes a call fail, by its number from 0.
    """

    records: list[HistoryRecord] = field(default_factory=list)
    lands_at: dict[str, float] = field(default_factory=dict)
    per_page: int = 100
    fails: Callable[[int], Exception | None] = lambda _: None
    beyond_the_end: Callable[[int, int], int] = lambda number, _: number
    pages: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    windows: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, number: int, *, from_date: str, to_date: str) -> list[HistoryRecord]:
        """Return a page."""
        loop = asyncio.get_running_loop()
        self.pages.append(number)
        self.times.append(loop.time())
        self.windows.append((from_date, to_date))
        first, last = date.fromisoformat(from_date), date.fromisoformat(to_date)
        assert 1 <= (last - first).days + 1 <= HISTORY_DAYS
        error = self.fails(len(self.pages) - 1)
        await asyncio.sleep(PAGE_SECONDS)
        if error is not None:
            raise error
        landed = [
            one
            for one in self.records
            if self.lands_at.get(one.request_id, 0) <= loop.time()
            and (one.created_at is None or first <= one.created_at.date() <= last)
        ]
        number = self.beyond_the_end(number, -(-len(landed) // self.per_page))
        return landed[(number - 1) * self.per_page : number * self.per_page]


def at_noon(history: FakeHistory, look: Callable[[LostSubmits], Awaitable[Any]]) -> Any:
    """Run something with the history, beginning at noon of the simulated day."""

    async def main() -> Any:
        clock = LoopClock()
        await clock.sleep((NOON - clock.now()).total_seconds())
        return await look(LostSubmits(history, clock=clock))

    return simulate(main())
