"""`variations export`: a dataset as shards that hold the images, for training."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from flows.commands.exits import ALL_KEPT, SOME_FAILED
from flows.commands.terminal import is_terminal, print_json, print_lines, say
from variations.errors import BadInput
from variations.export import Export, Progress, export_dataset, export_key
from variations.storage import open_storage

_MOST_LINES: Final = 20
_MEGABYTE: Final = 1_000_000


def export(
    destination: str,
    to: str = "",
    *,
    format: Literal["webdataset", "parquet"],  # noqa: A002 - the option's name
    shard_mb: int = 500,
    split: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a dataset's images and rows as shards by split: tars for webdataset, or parquet.

    Repeated, it writes what is new, or goes on where it was broken off.

    Args:
        destination: the dataset: s3://bucket/prefix or a folder.
        to: where the shards go: s3://bucket/prefix or a folder [default: __export/<format> in the dataset].
        format: webdataset or parquet.
        shard_mb: megabytes of images in a shard.
        split: this split alone; may be given several times [default: all].
        json: print what was done for machines, as the last line of standard output.
    """
    if shard_mb < 1:
        raise BadInput(f"--shard-mb is {shard_mb}: it must be 1 at least")
    with _shown() as tell:
        work = _export(destination, to, format, shard_bytes=shard_mb * _MEGABYTE, splits=split, tell=tell)
        done = asyncio.run(work)
    for line in done.missing_images[:_MOST_LINES]:
        say(line)
    if done.missing > _MOST_LINES:
        say(f"… and {done.missing - _MOST_LINES:,} more; --json names {len(done.missing_images):,}")
    print_lines("Export", _lines(done), to_stderr=json)
    if json:
        print_json(asdict(done))
    return SOME_FAILED if done.missing else ALL_KEPT


async def _export(
    destination: str,
    to: str,
    name: str,
    *,
    shard_bytes: int,
    splits: tuple[str, ...],
    tell: Callable[[Progress], None],
) -> Export:
    storage = open_storage(destination)
    target = open_storage(to or storage.uri_of(export_key(name)), missing_ok=True)
    try:
        return await export_dataset(storage, target, format=name, shard_bytes=shard_bytes, only=splits, tell=tell)
    finally:
        await target.aclose()
        await storage.aclose()


def _lines(done: Export) -> list[tuple[str, str]]:
    lines = [("export", f"{done.uri}, as {done.format}")]
    lines += [("images", f"{images:,} in {split}") for split, images in done.splits.items()]
    lines.append(("shards", f"{done.shards:,}"))
    if done.written:
        made = f"{_counted(len(done.written), 'shard')}, {_counted(done.images, 'image')}"
        lines.append(("written", f"{made}, {done.bytes / 1e6:,.1f} MB"))
    else:
        lines.append(("written", "nothing: all that can be exported is there"))
    if done.removed:
        lines.append(("removed", f"{len(done.removed):,} shards that were broken off, or held what has changed since"))
    if done.missing:
        lines.append(("missing", f"{done.missing:,} images are in no shard; run it again when they are back"))
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal; elsewhere a line for each shard."""
    if not is_terminal():
        shard = ""

        def line(progress: Progress) -> None:
            nonlocal shard
            if progress.shard != shard:
                shard = progress.shard
                say(f"{shard}: {progress.images:,} of {progress.total:,} images, {progress.bytes / 1e6:,.1f} MB")

        yield line
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading the metadata", total=None)

        def draw(progress: Progress) -> None:
            about = f"{progress.bytes / 1e6:,.1f} MB"
            bar.update(task, total=progress.total, completed=progress.images, description=about)

        yield draw
