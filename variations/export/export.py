"""Export a dataset: what is new in it goes into new shards; a shard that no longer holds is made anew.

A repeated export with nothing new writes nothing; one that was broken off goes on behind the last finished shard. One
export at a time may write to a folder.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace
from itertools import accumulate, count
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from variations.card import card_text, put_card
from variations.dataset import METADATA_KEY
from variations.errors import BadInput, ObjectNotFound, StorageError
from variations.export.formats import FORMATS, Add, Format
from variations.export.images import fetched
from variations.export.rows import KEY, WITHOUT_SPLIT, Row, Rows, SortedRows, keys_of
from variations.export.shards import Shard, claim, put_shard, read_shards, remove_shard, shard_name
from variations.storage import Storage
from variations.summary import Summary, summarise

# Of more images that are missing only their number is told.
MOST_NAMED: Final = 1_000
_Numbers = np.ndarray[Any, np.dtype[np.int32]]


def export_key(name: str) -> str:
    """Return the folder in a dataset in which its exports lie: one that `datasets` passes over."""
    return f"__export/{name}"


@dataclass(slots=True)
class Progress:
    """How far an export is; `images` of `total` that were to be exported are in shards, or named as missing."""

    total: int = 0
    images: int = 0
    bytes: int = 0
    shard: str = ""


@dataclass(slots=True)
class Export:
    """What an export did, and what is there now.

    Attributes:
        uri: where.
        format: of the shards.
        splits: how many images of each split are in its shards.
        shards: how many there are.
        written: the shards that this export wrote.
        removed: those that it removed: what they held is no longer what the dataset says, or they were broken off.
        images: how many it wrote.
        bytes: of these images.
        missing: how many could not be exported.
        missing_images: their URIs and the reason, the first `MOST_NAMED`.
    """

    uri: str
    format: str
    splits: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    images: int = 0
    bytes: int = 0
    missing: int = 0
    missing_images: list[str] = field(default_factory=list)


async def export_dataset(
    storage: Storage,
    target: Storage,
    *,
    format: str,  # noqa: A002 - the word that everybody uses for it
    shard_bytes: int = 500_000_000,
    only: Collection[str] = (),
    tell: Callable[[Progress], object] = lambda _: None,
) -> Export:
    """Write the images of a dataset, and their rows, as shards by split.

    Args:
        storage: the dataset.
        target: the folder of the export: empty, or an earlier export of the same dataset in the same format.
        format: one of `FORMATS`.
        shard_bytes: of images in a shard.
        only: splits; all if empty, and the others' shards stay as they are.
        tell: is called after each image.

    Returns:
        What was done. Images that are missing or differ from their metadata are in it, and in no shard.

    Raises:
        BadInput: the folder holds something else, or would be taken for images of the dataset; a split is not there.
        ObjectNotFound: there is no dataset.
        StorageError: the store says no, or what lies there is damaged.
    """
    if format not in FORMATS:
        raise BadInput(f"{format!r} is no format of an export: choose {' or '.join(FORMATS)}")
    inside = _inside(storage, target)
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder, METADATA_KEY)
        try:
            await storage.get_to_file(METADATA_KEY, metadata)
        except ObjectNotFound as error:
            raise ObjectNotFound(
                f"no dataset at {storage.uri}: it has no {METADATA_KEY}, which a run publishes"
            ) from error
        try:
            summary = await asyncio.to_thread(summarise, metadata)
            await claim(target, wanted=FORMATS[format], dataset="" if inside else storage.uri)
            work = _Work(storage, target, FORMATS[format], Path(folder), shard_bytes, tell)
            return await work.run(Rows(metadata, frozenset(only)), summary)
        except (pa.ArrowException, KeyError) as error:
            raise StorageError(f"{storage.uri_of(METADATA_KEY)} cannot be read as metadata: {error}") from error


def _inside(storage: Storage, target: Storage) -> bool:
    """Return whether an export lies in its dataset, where `datasets` has to be kept from taking it for images."""
    root, place = f"{storage.uri.rstrip('/')}/", f"{target.uri.rstrip('/')}/"
    if not place.startswith(root):
        return False
    folders = place.removeprefix(root).split("/")
    if not any(name.startswith("__") for name in folders):
        raise BadInput(
            f"{target.uri} lies in the dataset, and would be loaded as a part of it: choose a folder outside of it, or "
            f"one whose name begins with two underscores, such as {storage.uri_of(export_key('…'))}"
        )
    return True


@dataclass(slots=True)
class _Work:
    storage: Storage
    target: Storage
    format: Format
    folder: Path
    shard_bytes: int
    tell: Callable[[Progress], object]
    progress: Progress = field(default_factory=Progress)

    async def run(self, rows: Rows, summary: Summary) -> Export:
        export = Export(self.target.uri, self.format.name)
        known, broken_off = await read_shards(self.target)
        schema = rows.schema()
        fingerprint = self.format.fingerprint(schema)
        in_scope = [shard for shard in known if not rows.only or shard.split in rows.only]
        ordered = SortedRows(self.folder, rows=summary.kept, schema=schema)
        stale = await asyncio.to_thread(_sort_what_is_new, rows, in_scope, ordered, fingerprint)
        self._check_splits(rows, summary, [*ordered.counts, *(shard.split for shard in in_scope)])
        # Before anything new is written: no image may be in two shards, least of all in those of two splits.
        for name in [*broken_off, *(shard.name for shard in stale)]:
            await remove_shard(self.target, name)
            export.removed.append(name)
        shards = [shard for shard in known if shard.name not in export.removed]
        self.progress.total = sum(ordered.counts.values())
        for split in sorted(ordered.counts):
            shards += await self._write_split(split, ordered, schema, taken={one.name for one in shards}, export=export)
        export.shards = len(shards)
        for shard in shards:
            export.splits[shard.split] = export.splits.get(shard.split, 0) + len(shard.keys)
        export.splits = dict(sorted(export.splits.items()))
        await self._write_card(summary, export, shards, schema)
        return export

    def _check_splits(self, rows: Rows, summary: Summary, found: Collection[str]) -> None:
        missing = sorted(set(rows.only) - set(found))
        if missing:
            there = sorted([*summary.images, *([WITHOUT_SPLIT] if summary.without_split else [])])
            raise BadInput(f"no image is in the split {missing[0]!r}; there are: {', '.join(there) or 'no images'}")

    async def _write_split(
        self, split: str, ordered: SortedRows, schema: pa.Schema, *, taken: set[str], export: Export
    ) -> list[Shard]:
        names = (shard_name(split, number, self.format.extension) for number in count())
        free = (name for name in names if name not in taken)
        written: list[Shard] = []
        with ExitStack() as stack:
            current: _OpenShard | None = None
            async with aclosing(fetched(self.storage, ordered.read(split))) as images:
                async for row, image in images:
                    if isinstance(image, str):
                        self._note_missing(row, image, export)
                    else:
                        if current is not None and current.size_bytes + len(image) > self.shard_bytes:
                            written.append(await self._finish(current, stack, schema, export))
                            current = None
                        if current is None:
                            path = self.folder / "shard"
                            current = _OpenShard(
                                next(free), split, path, stack.enter_context(self.format.open(path, schema))
                            )
                        await asyncio.to_thread(current.add, row, image)
                        self.progress.bytes += len(image)
                    self.progress.images += 1
                    self.tell(self.progress)
            if current is not None:
                written.append(await self._finish(current, stack, schema, export))
        return written

    async def _finish(self, done: "_OpenShard", stack: ExitStack, schema: pa.Schema, export: Export) -> Shard:
        await asyncio.to_thread(stack.close)
        size = done.path.stat().st_size
        shard = Shard(done.name, done.split, pa.array(done.keys, KEY), size, self.format.fingerprint(schema))
        await self.target.put(shard.name, done.path, content_type=self.format.content_type)
        await put_shard(self.target, shard)
        done.path.unlink()
        export.written.append(shard.name)
        export.images += len(done.keys)
        export.bytes += done.size_bytes
        self.progress.shard = shard.name
        self.tell(self.progress)
        return shard

    def _note_missing(self, row: Row, reason: str, export: Export) -> None:
        export.missing += 1
        if len(export.missing_images) < MOST_NAMED:
            export.missing_images.append(f"{self.storage.uri_of(row.file_name)} {reason}")

    async def _write_card(self, summary: Summary, export: Export, shards: list[Shard], schema: pa.Schema) -> None:
        if not export.splits:
            return
        # An export without splits is one split for `datasets`, by its own word for it.
        alone = "train" if set(export.splits) == {WITHOUT_SPLIT} else "unsplit"
        named = {alone if split == WITHOUT_SPLIT else split: split for split in export.splits}
        there = replace(
            summary,
            statuses=Counter(kept=sum(export.splits.values())),
            images={} if alone == "train" else {name: export.splits[split] for name, split in named.items()},
            without_split=0,
            elsewhere=0,
            bytes=sum(shard.size_bytes for shard in shards),
        )
        files = {name: f"{split}-*.{self.format.extension}" for name, split in named.items()}
        features = None
        # Of images of several kinds `datasets` makes no one column.
        if self.format.features is not None and len(summary.formats.counts) == 1:
            features = self.format.features(schema, next(iter(summary.formats.counts)))
        name = f"{self.storage.uri.rstrip('/').rpartition('/')[2]}, as {self.format.name}"
        await put_card(self.target, card_text(there, name=name, data_files=files, features=features))


@dataclass(slots=True)
class _OpenShard:
    name: str
    split: str
    path: Path
    write: Add
    keys: list[bytes] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, row: Row, image: bytes) -> None:
        self.write(row, image)
        self.keys.append(row.key)
        self.size_bytes += len(image)


def _sort_what_is_new(rows: Rows, shards: list[Shard], ordered: SortedRows, fingerprint: str) -> list[Shard]:
    """Put the rows that are in no shard that stands in order, and return the shards that do not stand."""
    if not shards:
        ordered.write(rows.batches())
        return []
    in_shard, stale = _compared(rows, shards, fingerprint)

    def new() -> Iterator[pa.RecordBatch]:
        for batch, numbers in zip(rows.batches(), in_shard, strict=True):
            yield batch.filter(pa.array((numbers < 0) | np.isin(numbers, stale)))

    ordered.write(new())
    return [shards[number] for number in stale]


def _compared(rows: Rows, shards: list[Shard], fingerprint: str) -> tuple[list[_Numbers], list[int]]:
    """Return for each batch in which shard each row is, -1 for none, and which shards do not stand: they have other
    columns, or hold what is gone or changed.
    """
    keys = pa.concat_arrays([shard.keys for shard in shards])
    shard_of = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.keys) for shard in shards])
    # In one go: what is looked up in is hashed anew with each call.
    wanted = pa.chunked_array([keys_of(batch) for batch in rows.batches()], KEY)
    places = pc.index_in(wanted, value_set=keys).fill_null(-1).to_numpy()
    in_shard = np.where(places < 0, np.int32(-1), shard_of[places])
    seen = np.zeros(len(keys), np.bool_)
    seen[places[places >= 0]] = True
    other_columns = [number for number, shard in enumerate(shards) if shard.fingerprint != fingerprint]
    stale = sorted({*shard_of[~seen].tolist(), *other_columns})
    lengths = [len(chunk) for chunk in wanted.chunks]
    return [in_shard[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)], stale
