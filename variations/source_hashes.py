"""What the sources of a dataset look like, remembered beside it, so that a growing manifest has only new ones fetched.

It is a cache: losing some of it costs only work, and what cannot be read is begun anew.
"""

import hashlib
import logging
import tempfile
from asyncio import to_thread
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from variations.errors import ObjectNotFound, PreconditionFailed, StorageError
from variations.layout import SOURCE_HASHES_KEY
from variations.models import Source
from variations.source_images import Look
from variations.storage import Storage

ATTEMPTS: Final = 5
# What is lost if it is killed is fetched again: some seconds; of very many, a tenth.
SAVED_EVERY: Final = 2_000
_SAVED_SHARE: Final = 0.1
_SCHEMA: Final = pa.schema([("source", pa.uint64()), ("hash", pa.uint64()), ("is_blank", pa.bool_())])

_Keys = npt.NDArray[np.uint64]

logger = logging.getLogger(__name__)


def key_of(source: Source) -> int:
    """Return the 64 bits by which a source's look is remembered: of its place, without a signature, and its version.

    The same image under another id is the same image.
    """
    text = f"{source.version or ''}\0{source.public_uri}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


class SourceHashes:
    """The looks of sources by their keys, a million of them in 17 MB.

    Args:
        storage: the dataset.
        is_kept: whether what is new is written there; else it is only read.
    """

    def __init__(self, storage: Storage, *, is_kept: bool) -> None:
        self._storage = storage
        self._is_kept = is_kept
        self._table = _SCHEMA.empty_table()
        self._keys: _Keys = np.empty(0, np.uint64)
        self._hashes: _Keys = np.empty(0, np.uint64)
        self._blank: npt.NDArray[np.bool_] = np.empty(0, np.bool_)
        self._new: dict[int, Look] = {}

    async def load(self) -> None:
        """Take up what is remembered."""
        await self._read()

    def get(self, keys: _Keys) -> list[Look | None]:
        """Return what is known of each."""
        if not len(self._keys):
            return [self._new.get(key) for key in keys.tolist()]
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        is_there = self._keys[places] == keys
        hashes, blank = self._hashes[places].tolist(), self._blank[places].tolist()
        rows = zip(keys.tolist(), is_there.tolist(), hashes, blank, strict=True)
        return [Look(value, is_blank) if there else self._new.get(key) for key, there, value, is_blank in rows]

    def add(self, key: int, look: Look) -> None:
        """Remember one."""
        self._new[key] = look

    async def save(self, *, at_least: int = 1) -> None:
        """Write what is new to what others have written meanwhile; that it cannot be written does no harm.

        Args:
            at_least: new ones that are worth it; where very many are known, a tenth of them.
        """
        worth = at_least if at_least == 1 else max(at_least, _SAVED_SHARE * len(self._keys))
        if not self._is_kept or len(self._new) < worth:
            return
        try:
            for _ in range(ATTEMPTS):
                try:
                    if await self._save_once():
                        return
                except PreconditionFailed:
                    continue
        except StorageError as error:
            logger.warning("what the sources look like was not remembered: %s", error)

    async def _save_once(self) -> bool:
        etag = await self._read()
        writing = dict(self._new)
        table = await to_thread(_merged, self._table, writing)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "hashes.parquet")
            await to_thread(pq.write_table, table, path)
            if etag is not None:
                await self._storage.replace(SOURCE_HASHES_KEY, path, etag=etag)
            elif await self._storage.put_if_absent(SOURCE_HASHES_KEY, await to_thread(path.read_bytes)) is None:
                return False
        self._take(table)
        # What came in between is new still.
        self._new = {key: look for key, look in self._new.items() if key not in writing}
        return True

    async def _read(self) -> str | None:
        """Take up what is there; returns its ETag, if there is something."""
        entry = await self._storage.head(SOURCE_HASHES_KEY)
        if entry is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "hashes.parquet")
            try:
                await self._storage.get_to_file(SOURCE_HASHES_KEY, path)
                self._take(await to_thread(_read_table, path))
            except ObjectNotFound:
                return None
            except (pa.ArrowException, OSError, KeyError) as error:
                logger.warning("%s is looked at no more: %s", self._storage.uri_of(SOURCE_HASHES_KEY), error)
        return entry.etag

    def _take(self, table: pa.Table) -> None:
        self._table = table
        self._keys = table.column("source").to_numpy()
        self._hashes = table.column("hash").to_numpy()
        self._blank = table.column("is_blank").to_numpy()


def _read_table(path: Path) -> pa.Table:
    table = pq.read_table(path, columns=_SCHEMA.names).cast(_SCHEMA)
    if any(column.null_count for column in table.columns):
        raise pa.ArrowInvalid("a row lacks something")
    return table.sort_by("source")


def _merged(table: pa.Table, new: dict[int, Look]) -> pa.Table:
    columns = {
        "source": list(new),
        "hash": [look.hash for look in new.values()],
        "is_blank": [look.is_blank for look in new.values()],
    }
    # What was looked at last is what is there now.
    is_older = np.isin(table.column("source").to_numpy(), np.array(list(new), np.uint64), invert=True)
    older = table.filter(pa.array(is_older))
    return pa.concat_tables([older, pa.table(columns, schema=_SCHEMA)]).combine_chunks().sort_by("source")
