"""Find out what a manifest's URI is, bring its files here, and read them as sources."""

import asyncio
import difflib
import gzip
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from variations.errors import BadInput, BucketNotFound, ManifestError, ObjectNotFound
from variations.manifest.columns import Roles, assign_roles, shown_names
from variations.manifest.formats import (
    COMPANIONS,
    KNOWN_EXTENSIONS,
    Format,
    extension_of,
    format_of,
    is_hidden,
)
from variations.manifest.labels import NULL, STRING, common_type
from variations.manifest.readers import open_table
from variations.manifest.rows import RowReader
from variations.manifest.tables import Table
from variations.manifest.text_table import ImagesTable
from variations.models import RejectedSource, Source
from variations.storage import Storage, open_storage, split_uri
from variations.uris import is_image_name, resolve_uri, shown_uri

_MAX_FILES: Final = 10_000
_DOWNLOADS_AT_ONCE: Final = 8
_NEIGHBOURS_LISTED: Final = 1_000
_NEIGHBOURS_SHOWN: Final = 5
_EXTENSIONS_SHOWN: Final = 10
_GZIP_MAGIC: Final = b"\x1f\x8b"
# What a gzip file may unpack to, whichever is less: tables of URLs shrink to a twentieth, not to a thousandth.
_MAX_UNPACKED_BYTES: Final = 64 * 2**30
_MAX_UNPACKED_RATIO: Final = 200
_UNPACKED_BYTES_TO_SPARE: Final = 64 * 2**20
_COPIED_AT_ONCE: Final = 2**20


class Manifest:
    """The rows of a manifest, ready to be read in batches for as long as `fetch_manifest` is entered.

    Attributes:
        uri: what was asked for.
        files: the URIs of the files that are read, or the prefix of images.
        label_schema: names and Arrow types of the labels over all files, in order of first appearance.
    """

    def __init__(self, uri: str, *, files: tuple[str, ...], tables: "list[_OpenedTable]") -> None:
        self.uri = uri
        self.files = files
        self._tables = tables
        self._label_types = _label_types(tables)
        self.label_schema = pa.schema([pa.field(name, kind) for name, kind in self._label_types.items()])

    def __repr__(self) -> str:
        return f"Manifest({shown_uri(self.uri)!r}, {len(self.files)} files, labels {self.label_schema.names})"

    def batches(self, *, batch_rows: int = 2_000) -> Iterator[list[Source | RejectedSource]]:
        """Yield the rows file by file in their order, at most `batch_rows` at a time.

        Larger batches are slower, not faster: the garbage collector goes through all that is alive in one.
        A source's labels are those of its own file; a label that only other files have is absent.

        Raises:
            ManifestError: a file turns out to be damaged further on.
        """
        for opened in self._tables:
            reader = RowReader(
                opened.table,
                opened.roles,
                label_types=self._label_types,
                resolve=partial(resolve_uri, folder=opened.folder),
                prefix=f"{opened.name}: " if len(self._tables) > 1 else "",
            )
            for chunk in opened.table.chunks(batch_rows):
                yield reader.read(chunk)


@asynccontextmanager
async def fetch_manifest(
    uri: str,
    *,
    uri_column: str | None = None,
    id_column: str | None = None,
    open_storage: Callable[[str], Storage] = open_storage,
) -> AsyncIterator[Manifest]:
    """Bring a manifest here, find its columns and types, and remove it again at the end.

    A URI that ends in `/`, or at which no object lies, is a prefix: of manifest files, or of images.

    Args:
        uri: `s3://…`, `file://…` or a path.
        uri_column: the column of the URIs, if it has none of the usual names.
        id_column: the column of the ids, likewise.
        open_storage: opens the folder that a URI names.

    Raises:
        ManifestError: it is missing, empty, unreadable or without a usable column; the message is one line that says
            what was found instead.
        StorageError: the store cannot be asked.
    """
    with tempfile.TemporaryDirectory(prefix="manifest-") as name:
        folder = Path(name)
        try:
            found = await _find(uri, folder, open_storage)
        except ManifestError:
            raise
        except (BadInput, BucketNotFound, ObjectNotFound) as error:
            raise ManifestError(f"manifest {shown_uri(uri)}: {_reason(error.message, uri=uri)}") from error
        # Reading a file for its types can take seconds, in which the event loop has others to serve.
        tables = await asyncio.to_thread(_open_all, uri, found, uri_column=uri_column, id_column=id_column)
        files = (found.prefix,) if found.images is not None else tuple(opened.uri for opened in tables)
        yield Manifest(uri, files=files, tables=tables)


@dataclass(frozen=True, slots=True)
class _File:
    """A manifest file that was fetched: `name` is its key under the prefix, `form` what its name announces."""

    uri: str
    name: str
    path: Path
    form: Format


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies at the manifest's URI: files, or a spooled list of images."""

    prefix: str
    files: list[_File] = field(default_factory=list)
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class _OpenedTable:
    """A file that has rows, with what its columns are for; `folder` is what its relative paths are relative to."""

    uri: str
    name: str
    folder: str
    table: Table
    roles: Roles


async def _find(uri: str, folder: Path, open_storage: Callable[[str], Storage]) -> _Found:
    file = None if uri.endswith("/") else await _fetch_object(uri, folder, open_storage)
    if file is not None:
        return _Found(prefix=uri, files=[file])
    storage = open_storage(uri)
    try:
        try:
            listing = await _list(storage, folder)
        except BucketNotFound:
            if storage.uri.startswith("s3://"):
                raise
            # In the file system a prefix is a folder, and the folder around it has more to tell.
            raise await _missing(uri, open_storage) from None
        if listing.images and listing.tables:
            raise ManifestError(
                f"manifest {shown_uri(uri)}: the prefix holds both {listing.count_tables:,} manifest files "
                f"({shown_names(listing.tables[:_NEIGHBOURS_SHOWN])}) and {listing.images:,} images: name the manifest "
                "file, or the folder of the images"
            )
        if listing.images:
            return _Found(prefix=storage.uri, images=listing.spool)
        keys = sorted(listing.tables + listing.companions)
        if listing.count_tables + listing.count_companions > _MAX_FILES:
            raise ManifestError(f"manifest {shown_uri(uri)}: the prefix holds more than {_MAX_FILES:,} manifest files")
        if keys:
            return _Found(prefix=storage.uri, files=await _fetch_keys(storage, keys, folder))
    finally:
        await storage.aclose()
    if listing.others:
        most = sorted(listing.others.items(), key=lambda item: (-item[1], item[0]))
        extensions = ", ".join(f"{name or 'no extension'} ({n:,})" for name, n in most[:_EXTENSIONS_SHOWN])
        raise ManifestError(
            f"manifest {shown_uri(uri)}: the prefix holds neither a manifest ({KNOWN_EXTENSIONS}) nor images, but "
            f"{extensions}"
        )
    raise await _missing(uri, open_storage)


async def _fetch_object(uri: str, folder: Path, open_storage: Callable[[str], Storage]) -> _File | None:
    """Fetch the one object at a URI, or return None if the URI can only be a prefix."""
    try:
        root, key = split_uri(uri)
    except BadInput:
        # A bucket or a folder; what is no URI at all is refused when it is opened.
        return None
    storage = open_storage(root)
    try:
        if await storage.head(key) is None:
            return None
        if format_of(key) is None:
            what = "an image: give the folder it is in" if is_image_name(key) else "not named like a manifest"
            raise ManifestError(f"manifest {shown_uri(uri)}: the object is {what} (known are {KNOWN_EXTENSIONS})")
        files = await _fetch_keys(storage, [key], folder)
    finally:
        await storage.aclose()
    return files[0]


@dataclass(slots=True)
class _Listing:
    """What a prefix holds; the URIs of images are in a file, so that a million of them take no memory."""

    spool: Path
    images: int = 0
    tables: list[str] = field(default_factory=list)
    count_tables: int = 0
    companions: list[str] = field(default_factory=list)
    count_companions: int = 0
    others: Counter[str] = field(default_factory=Counter)


async def _list(storage: Storage, folder: Path) -> _Listing:
    listing = _Listing(spool=folder / "images.jsonl")
    with listing.spool.open("w", encoding="utf-8") as spool:
        async for entry in storage.list():
            key = entry.key
            if is_hidden(key) or key.endswith("/"):
                continue
            if is_image_name(key):
                spool.write(json.dumps(storage.uri_of(key)) + "\n")
                listing.images += 1
            elif format_of(key) is None:
                listing.others[extension_of(key)] += 1
            elif extension_of(key) in COMPANIONS:
                listing.count_companions += 1
                if listing.count_companions <= _MAX_FILES:
                    listing.companions.append(key)
            else:
                listing.count_tables += 1
                if listing.count_tables <= _MAX_FILES:
                    listing.tables.append(key)
    return listing


async def _fetch_keys(storage: Storage, keys: list[str], folder: Path) -> list[_File]:
    free = asyncio.Semaphore(_DOWNLOADS_AT_ONCE)

    async def fetch(number: int, key: str) -> _File:
        path = folder / f"{number}"
        async with free:
            await storage.get_to_file(key, path)
        form = format_of(key)
        assert form is not None  # noqa: S101 - only such keys are asked for
        return _File(uri=storage.uri_of(key), name=key, path=path, form=form)

    return list(await asyncio.gather(*(fetch(number, key) for number, key in enumerate(keys))))


async def _missing(uri: str, open_storage: Callable[[str], Storage]) -> ManifestError:
    """Return the error that nothing is there, with what lies beside it."""
    start = f"manifest {shown_uri(uri)}: nothing is there"
    try:
        root, key = split_uri(uri.rstrip("/"))
    except BadInput:
        return ManifestError(f"{start}, the bucket is empty")
    storage = open_storage(root)
    names: dict[str, None] = {}
    try:
        async with aclosing(storage.list()) as entries:  # type: ignore[type-var]
            seen = 0
            async for entry in entries:
                names[entry.key.partition("/")[0]] = None
                seen += 1
                if seen >= _NEIGHBOURS_LISTED:
                    break
    finally:
        await storage.aclose()
    near = difflib.get_close_matches(key, names, n=_NEIGHBOURS_SHOWN, cutoff=0.5) or list(names)
    if not near:
        return ManifestError(f"{start}, and {root} is empty too")
    more = " and others" if len(names) > _NEIGHBOURS_SHOWN else ""
    return ManifestError(f"{start}; {root} holds {shown_names(near[:_NEIGHBOURS_SHOWN])}{more}")


def _open_all(uri: str, found: _Found, *, uri_column: str | None, id_column: str | None) -> list[_OpenedTable]:
    """Read every file for its columns and types; files without a row are passed over where others have some."""
    if found.images is not None:
        table: Table = ImagesTable(found.images, where=f"manifest {shown_uri(uri)}")
        roles = assign_roles(table.columns, where=table.where)
        return [_OpenedTable(uri=found.prefix, name="", folder=found.prefix, table=table, roles=roles)]
    opened: list[_OpenedTable] = []
    empty: list[str] = []
    for file in found.files:
        where = f"manifest {shown_uri(uri if len(found.files) == 1 else file.uri)}"
        _decompress(file, where=where)
        if not file.path.stat().st_size:
            empty.append(f"{where}: the file is empty (0 bytes)")
            continue
        table = open_table(file.path, file.form, where=where, uri_column=uri_column)
        if not table.rows_found:
            names = [column.name for column in table.columns]
            seen = f"columns ({shown_names(names)})" if file.form is not Format.TEXT else "comments or blank lines"
            empty.append(f"{where}: the file has {seen if names else 'blank lines'} and no rows")
            continue
        roles = (
            assign_roles(table.columns, where=where)
            if file.form is Format.TEXT
            else assign_roles(table.columns, where=where, uri_column=uri_column, id_column=id_column)
        )
        opened.append(
            _OpenedTable(uri=file.uri, name=file.name, folder=split_uri(file.uri)[0], table=table, roles=roles)
        )
    if not opened:
        raise ManifestError(
            empty[0] if len(empty) == 1 else f"manifest {shown_uri(uri)}: none of its {len(empty):,} files has a row"
        )
    return opened


def _decompress(file: _File, *, where: str) -> None:
    """Replace a gzipped file by what is in it, whether or not its name says so."""
    with file.path.open("rb") as packed:
        is_packed = packed.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if not is_packed:
        if file.name.lower().endswith(".gz") and file.path.stat().st_size:
            raise ManifestError(f"{where}: the name ends in .gz, and the file is not gzip")
        return
    plain = file.path.with_suffix(".plain")
    packed_bytes = file.path.stat().st_size
    left = min(_MAX_UNPACKED_BYTES, _MAX_UNPACKED_RATIO * packed_bytes + _UNPACKED_BYTES_TO_SPARE)
    try:
        with gzip.open(file.path) as packed, plain.open("wb") as target:
            while data := packed.read(_COPIED_AT_ONCE):
                left -= len(data)
                if left < 0:
                    raise ManifestError(
                        f"{where}: its {packed_bytes:,} bytes unpack to more than {target.tell():,}: no manifest"
                    )
                target.write(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ManifestError(f"{where}: the gzip file is damaged or cut off ({_one_line(str(error))})") from error
    plain.replace(file.path)


def _label_types(tables: list[_OpenedTable]) -> Mapping[str, Any]:
    types: dict[str, Any] = {}
    for opened in tables:
        for at in opened.roles.labels:
            column = opened.table.columns[at]
            if not column.name and pa.types.is_null(column.type):
                continue
            types[column.name] = common_type(types.get(column.name, NULL), column.type)
    # A label without a single value would change its type in the dataset as soon as it has one.
    return {name: STRING if pa.types.is_null(kind) else kind for name, kind in types.items()}


def _reason(message: str, *, uri: str) -> str:
    """Return a storage's message as one line, without the URI that stands before it already."""
    line = _one_line(message)
    named, _, reason = line.partition(": ")
    own = {text.removeprefix("file://").rstrip("/") for text in (uri, shown_uri(uri))}
    return reason if reason and named.removeprefix("file://").rstrip("/") in own else line


def _one_line(text: str) -> str:
    return " ".join(text.split())
