"""From a dataset to its `report.html`."""

import tempfile
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa

from variations.api.http import default_http_client
from variations.dataset import METADATA_KEY
from variations.errors import ObjectNotFound
from variations.layout import REPORT_KEY
from variations.metadata import fetched_metadata
from variations.report.figures import read_figures, read_runs
from variations.report.leaks import last_leaks, leak_data, picture_names, source_picture
from variations.report.page import write_page
from variations.report.pictures import OnProgress, Pictures
from variations.report.rows import MOST_ROWS, Shown, columns_of, read_shown, sources_of
from variations.report.thumbnails import MIME_TYPE, Thumbnails
from variations.storage import Storage

# A picture takes some 4.5 kB of the page at the smaller size, and 14 at the larger one.
LARGE_SIDE: Final = 320
SMALL_SIDE: Final = 160
MANY_PICTURES: Final = 2_000
CONTENT_TYPE: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReport:
    """A gallery that was written.

    Attributes:
        key: where it lies in the dataset, and `uri` all of it.
        rows: of the dataset, of which the gallery shows `shown`.
        pictures: it has, of which so many were `fetched`; `missing` are those that could not be had, and `left` those
            for which there was no time.
        bytes: of the page.
    """

    key: str
    uri: str
    rows: int
    shown: int
    pictures: int
    fetched: int
    missing: int
    bytes: int
    left: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them."""
        of_all = f" of {self.rows:,}: those of some sources" if self.shown < self.rows else ""
        missing = f"; {self.missing:,} could not be had" if self.missing else ""
        missing += f"; {self.left:,} are left for the next gallery" if self.left else ""
        return [
            ("gallery", self.uri),
            ("rows", f"{self.shown:,}{of_all}"),
            ("pictures", f"{self.pictures:,}, {self.fetched:,} of them new{missing}"),
            ("size", f"{self.bytes / 1e6:,.1f} MB"),
        ]


async def write_report(
    storage: Storage,
    *,
    local_sources: bool = False,
    own_run: str = "",
    most_rows: int = MOST_ROWS,
    on_progress: OnProgress = lambda done, wanted: None,  # noqa: ARG005 - whoever does not watch
    is_enough: Callable[[], bool] = lambda: False,
    http: httpx.AsyncClient | None = None,
) -> WrittenReport:
    """Write a dataset's gallery beside its metadata, from what is published.

    Pictures of images that an earlier report has are not fetched again. A source that cannot be had, or not safely, is
    shown by its URI.

    Args:
        storage: the dataset.
        local_sources: read sources that are files of this machine, though the dataset lies elsewhere. Whoever may
            write the dataset's metadata names them, so this is for those who made it here.
        own_run: a run whose manifest is a file of this machine: of this one sources that are files are shown, too.
        most_rows: of a larger dataset some sources are shown, with all of their variations.
        on_progress: is told how many pictures are done, of how many.
        is_enough: asked before each picture that is not known from an earlier report; from when it says so none is
            fetched any more, and the page is written without them.
        http: fetches sources from the web; without it one is opened and closed.

    Raises:
        ObjectNotFound: no run has published there.
        StorageError: the store says no, or the metadata is damaged.
    """
    async with fetched_metadata(storage) as path:
        if path is None:
            raise ObjectNotFound(f"no dataset at {storage.uri}: it has no {METADATA_KEY}, which a run publishes")
        shown = await to_thread(read_shown, path, most=most_rows)
        figures = await to_thread(read_figures, path)
    runs = await read_runs(storage)
    leaks = last_leaks(runs)
    names = _Names.of(shown, of_leaks=picture_names(leaks))
    thumbnails = Thumbnails(storage)
    await thumbnails.load()
    own: set[str] | None = None
    if not (local_sources or storage.uri.startswith("file:")):
        own = sources_of(shown.table, own_run)
        own.update(picture_names(last_leaks(run for run in runs if run["run_id"] == own_run)).values())
    async with _client(http) as client:
        pictures = Pictures(storage, thumbnails, side=names.side, local_sources=own, http=client)
        await pictures.make(names.keys, names.uris, on_progress=on_progress, is_enough=is_enough)
    order = [name for name in names.in_order if thumbnails.get(name) is not None]
    data = {
        "dataset": storage.uri,
        "made_at": f"{await storage.now():%Y-%m-%d %H:%M} UTC",
        "total": shown.total,
        "runs": [{name: value for name, value in run.items() if name != "leaks"} for run in runs],
        "leaks": leak_data(leaks, {name: number for number, name in enumerate(order)}, pictures.missing),
        **figures,
        **await to_thread(_shown_data, shown, names, order, pictures.missing),
    }
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, REPORT_KEY)
        size = await to_thread(_write, page, data, (thumbnails.content(name) for name in order))
        await storage.put(REPORT_KEY, page, content_type=CONTENT_TYPE)
    return WrittenReport(
        key=REPORT_KEY,
        uri=storage.uri_of(REPORT_KEY),
        rows=shown.total,
        shown=shown.table.num_rows,
        pictures=len(order),
        fetched=pictures.fetched,
        missing=len(pictures.missing) - pictures.left,
        left=pictures.left,
        bytes=size,
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """What pictures are known by: empty where there is none.

    Attributes:
        images: of each row, by the hash of its image: the same image has the same picture.
        sources: of each source.
        keys: of the images, in the dataset; `uris` of the sources.
        in_order: in which they come into view: a source, then its variations.
    """

    images: list[str]
    sources: list[str]
    keys: dict[str, str]
    uris: dict[str, str]
    in_order: list[str]

    @classmethod
    def of(cls, shown: Shown, *, of_leaks: Mapping[str, str]) -> "_Names":
        files = shown.table.column("file_name").to_pylist()
        hashes = shown.table.column("sha256").to_pylist()
        images = [f"image {sha256 or file}" if file else "" for file, sha256 in zip(files, hashes, strict=True)]
        uris = shown.table.column("source_uri").take(pa.array(shown.sources, pa.int64())).to_pylist()
        sources = [source_picture(uri) if uri else "" for uri in uris]
        begins = dict(zip(shown.sources, sources, strict=True))
        in_order = dict.fromkeys(name for row, image in enumerate(images) for name in (begins.get(row, ""), image))
        in_order.pop("", None)
        in_order |= dict.fromkeys(of_leaks)
        return cls(
            images,
            sources,
            keys={name: file for name, file in zip(images, files, strict=True) if name},
            uris={name: uri for name, uri in zip(sources, uris, strict=True) if name} | dict(of_leaks),
            in_order=list(in_order),
        )

    @property
    def side(self) -> int:
        """How large they are, in pixels."""
        return LARGE_SIDE if len(self.in_order) <= MANY_PICTURES else SMALL_SIDE


def _shown_data(shown: Shown, names: _Names, order: list[str], missing: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: number for number, name in enumerate(order)}
    first = shown.table.select(["source_id", "source_uri"]).take(pa.array(shown.sources, pa.int64())).to_pylist()
    return {
        "picture_type": MIME_TYPE,
        "columns": columns_of(shown.table),
        "source_of_row": shown.source_of_row,
        "sources": [
            {"id": row["source_id"], "uri": row["source_uri"], "picture": numbers.get(name, -1)}
            | {"missing": missing.get(name)}
            for row, name in zip(first, names.sources, strict=True)
        ],
        "picture_of_row": [numbers.get(name, -1) for name in names.images],
        "missing_of_row": {row: missing[name] for row, name in enumerate(names.images) if name in missing},
    }


def _write(page: Path, data: dict[str, Any], pictures: Iterable[bytes]) -> int:
    with page.open("wb") as file:
        write_page(file, data, pictures)
        return file.tell()


@asynccontextmanager
async def _client(http: httpx.AsyncClient | None) -> AsyncIterator[httpx.AsyncClient]:
    if http is not None:
        yield http
        return
    async with default_http_client() as client:
        yield client
