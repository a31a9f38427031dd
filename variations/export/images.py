"""Fetch the images of rows, a bounded number at a time, in the order of the rows, each checked against its row."""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final

from variations.errors import ObjectNotFound
from variations.export.rows import Row
from variations.storage import Storage

AT_ONCE: Final = 16
_ROWS_AT_ONCE: Final = 200


async def fetched(
    storage: Storage, rows: Iterator[Row], *, at_once: int = AT_ONCE
) -> AsyncGenerator[tuple[Row, bytes | str]]:
    """Yield each row with its image, or with the reason why there is none that can be used.

    Raises:
        StorageError: the store says no, other than that an image is not there.
    """
    under_way: deque[tuple[Row, asyncio.Task[bytes | str]]] = deque()
    try:
        while page := await asyncio.to_thread(lambda: [*islice(rows, _ROWS_AT_ONCE)]):
            for row in page:
                under_way.append((row, asyncio.create_task(_image(storage, row))))
                if len(under_way) == at_once:
                    first, task = under_way.popleft()
                    yield first, await task
        while under_way:
            first, task = under_way.popleft()
            yield first, await task
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def _image(storage: Storage, row: Row) -> bytes | str:
    try:
        content = await storage.get(row.file_name)
    except ObjectNotFound:
        return "is not there"
    if await asyncio.to_thread(_sha256, content) != row.sha256:
        return f"is not the image that was stored: its sha256 differs, its {len(content):,} bytes may be damaged"
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
