"""The shards of an export that are finished, as its folder itself tells.

    <split>-<number>.tar                 a shard, put whole
    __shards/<split>-<number>.tar.keys   which images it holds, put after it: with it the shard is finished
    __shards/export.json                 that this is an export, and of what

`datasets` and the Hub pass over folders that begin with two underscores.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from variations.errors import BadInput, ObjectNotFound, StorageError
from variations.export.formats import Format
from variations.export.rows import KEY
from variations.storage import Storage

FOLDER: Final = "__shards/"
MARK_KEY: Final = f"{FOLDER}export.json"
_SUFFIX: Final = ".keys"
_SHARD: Final = re.compile(r"(?P<split>[\w.]+)-(?P<number>\d{6,})\.(tar|parquet)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard.

    Attributes:
        name: its key.
        split: what its images belong to.
        keys: of its images, as `variations.export.rows.Row` has them.
        size_bytes: of its file.
        fingerprint: of its columns.
    """

    name: str
    split: str
    keys: pa.Array
    size_bytes: int
    fingerprint: str

    def content(self) -> bytes:
        """Return what is kept of it beside the shards."""
        about = {"split": self.split, "bytes": str(self.size_bytes), "fingerprint": self.fingerprint}
        sink = pa.BufferOutputStream()
        # Hashes do not compress; what reads them is this module alone.
        pq.write_table(pa.table({"key": self.keys}).replace_schema_metadata(about), sink, compression="none")
        return bytes(sink.getvalue())


def shard_name(split: str, number: int, extension: str) -> str:
    """Return the key of a shard."""
    return f"{split}-{number:06d}.{extension}"


async def claim(target: Storage, *, wanted: Format, dataset: str) -> None:
    """Make sure that a folder holds this export, or nothing.

    Args:
        target: the folder.
        wanted: the format.
        dataset: what is exported.

    Raises:
        BadInput: something else lies there.
    """
    mark = {"dataset": dataset, "format": wanted.name}
    try:
        found = json.loads(await target.get(MARK_KEY))
    except ObjectNotFound:
        async for entry in target.list():
            raise BadInput(
                f"{target.uri_of(entry.key)}: the folder of an export must be empty, or hold one; choose another"
            ) from None
        await target.put_if_absent(MARK_KEY, json.dumps(mark).encode(), content_type="application/json")
        return
    except ValueError as error:
        raise StorageError(f"{target.uri_of(MARK_KEY)} is damaged: {error}; export to another folder") from error
    if found != mark:
        raise BadInput(
            f"{target.uri} holds an export of {found.get('dataset')!r} as {found.get('format')!r}: "
            "choose another folder"
        )


async def read_shards(target: Storage) -> tuple[list[Shard], list[str]]:
    """Return the finished shards in the order of their names, and the keys of those that were broken off."""
    finished = []
    files = {entry.key async for entry in target.list() if _SHARD.fullmatch(entry.key)}
    async for entry in target.list(FOLDER):
        name = entry.key.removeprefix(FOLDER).removesuffix(_SUFFIX)
        # One that somebody removed is not there, whatever is known of it: its images are exported again.
        if entry.key.endswith(_SUFFIX) and name in files:
            finished.append(_shard(name, await target.get(entry.key), uri=target.uri_of(entry.key)))
            files.discard(name)
    return finished, sorted(files)


def _shard(name: str, content: bytes, *, uri: str) -> Shard:
    try:
        table = pq.read_table(pa.BufferReader(content))
        about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        keys = table.column("key").combine_chunks().cast(KEY)
        return Shard(name, about["split"], keys, int(about["bytes"]), about["fingerprint"])
    except (pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        raise StorageError(
            f"{uri} is damaged: {error}. Remove it and run again; its shard is then made anew"
        ) from error


async def put_shard(target: Storage, shard: Shard) -> None:
    """Note that a shard, which lies there whole, is finished."""
    await target.put(f"{FOLDER}{shard.name}{_SUFFIX}", shard.content())


async def remove_shard(target: Storage, name: str) -> None:
    """Remove a shard; broken off in between, it is one that was not finished."""
    await target.delete(f"{FOLDER}{name}{_SUFFIX}")
    await target.delete(name)
