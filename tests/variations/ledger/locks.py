"""The lock of a dataset, as processes on machines of their own want it."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.variations.chaos.store import Store
from tests.variations.engine.simulation import LoopClock
from tests.variations.ledger import stores
from variations import errors
from variations.layout import OPEN_KEY
from variations.ledger.lock import LEASE_SECONDS, DatasetLock
from variations.ledger.writer import Writer

BEAT_SECONDS = LEASE_SECONDS / 4


def writer(name: str) -> Writer:
    """Return a process on another machine."""
    return Writer(token=name, host=f"host-{name}", pid=1)


class WrongClock(LoopClock):
    """A machine's clock that is off by years; its seconds are right."""

    def now(self) -> datetime:
        """Return what this machine takes for the time of day."""
        return super().now() - timedelta(days=4000)


@dataclass
class Holder:
    """A process that wants the lock; `lost` and `said` are what it is told."""

    lock: DatasetLock
    lost: list[errors.Replaced] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def holder(storage: Any, name: str = "a", *, who: Writer | None = None, **options: Any) -> Holder:
    """Return a process on a machine of its own."""
    lost: list[errors.Replaced] = []
    said: list[str] = []
    told: dict[str, Any] = {"lost": lost.append, "waiting": said.append}
    return Holder(DatasetLock(storage, writer=who or writer(name), clock=WrongClock(), **told, **options), lost, said)


def content(store: Store) -> dict[str, Any]:
    """Return what the lock says."""
    found: dict[str, Any] = json.loads(store.get(OPEN_KEY))
    return found


def in_memory(test: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    """Run a test on simulated time, with a store whose clock is years ahead of the machines'."""
    stores.in_memory(lambda store, _: test(store), behind_seconds=-1e8)
