"""A cache that holds a number of bytes, whatever the number of entries."""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Keep the entries that were used last, up to a budget in bytes.

    An entry larger than the whole budget is still kept, alone, until the next one comes.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[str, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Value | None:
        """Return an entry and mark it as used, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: str, value: Value, *, size_bytes: int) -> None:
        """Add or replace an entry and drop the longest unused ones that no longer fit."""
        previous = self._entries.pop(key, None)
        if previous is not None:
            self.used_bytes -= previous[1]
        self._entries[key] = (value, size_bytes)
        self.used_bytes += size_bytes
        while self.used_bytes > self.budget_bytes and len(self._entries) > 1:
            _, (_, dropped_bytes) = self._entries.popitem(last=False)
            self.used_bytes -= dropped_bytes

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self.used_bytes = 0
