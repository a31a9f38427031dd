"""The probe: a store that ignores a condition is found out, an honest one is left as it was."""

from typing import Any

import pytest

from tests.variations.engine.simulation import simulate
from variations import errors
from variations.layout import PROBE_KEY
from variations.ledger.probe import check_conditional_writes
from variations.storage import Entry, Storage

from .stores import View, Wrapped, memory, unavailable


class IgnoresIfNoneMatch(Wrapped):
    """Writes though there is something."""

    async def put_if_absent(self, key: str, data: bytes, **options: Any) -> Entry | None:
        """Write it."""
        found: Entry = await self.inner.put(key, data, **options)
        return found


class IgnoresIfMatch(Wrapped):
    """Replaces whatever is there."""

    async def replace(self, key: str, data: bytes, *, etag: str, **options: Any) -> Entry:
        """Write it."""
        del etag
        found: Entry = await self.inner.put(key, data, **options)
        return found


async def keys(storage: Storage) -> list[str]:
    """Return what lies there."""
    return [entry.key async for entry in storage.list()]


async def test_an_honest_store_passes_however_often(any_dataset: Storage) -> None:
    """Folders and S3 honour both conditions, the first time and the next ones; one object stays."""
    for _ in range(3):
        await check_conditional_writes(any_dataset)
    assert await keys(any_dataset) == [PROBE_KEY]


@pytest.mark.parametrize(("kind", "header"), [(IgnoresIfNoneMatch, "If-None-Match"), (IgnoresIfMatch, "If-Match")])
async def test_a_store_that_ignores_a_condition_is_found_out(
    any_dataset: Storage, kind: type[Wrapped], header: str
) -> None:
    """It is named with its header, the first time and each time after it, also where a probe lies already."""
    for _ in range(2):
        with pytest.raises(errors.StoreUnsafe, match=f"{any_dataset.uri}.*ignores {header} "):
            await check_conditional_writes(kind(any_dataset))
    await check_conditional_writes(any_dataset)
    with pytest.raises(errors.StoreUnsafe, match=header):
        await check_conditional_writes(kind(any_dataset))


@pytest.mark.parametrize("call", ["put_if_absent", "replace"])
def test_a_store_that_is_away_is_not_called_unsafe(call: str) -> None:
    """What the store cannot say now is its own error, and no verdict."""

    async def main() -> None:
        async def fail(found: str, key: str) -> None:
            if found == call:
                raise unavailable(key)

        with pytest.raises(errors.StorageUnavailable):
            await check_conditional_writes(View(memory(), before=fail))

    simulate(main())


def test_lost_answers_are_no_verdict() -> None:
    """A store that wrote and lost its answer says that somebody was first: it honours the condition."""

    async def main() -> None:
        class Loses(Wrapped):
            async def put_if_absent(self, key: str, data: bytes, **options: Any) -> Entry | None:
                await self.inner.put_if_absent(key, data, **options)
                return None

        await check_conditional_writes(Loses(View(memory())))

    simulate(main())
