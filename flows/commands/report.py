"""`variations report`: the gallery of a dataset, rebuilt from what is published."""

import asyncio
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from flows.commands.exits import ALL_KEPT
from flows.commands.terminal import is_terminal, print_json, print_lines, say
from variations.report import WrittenReport, write_report
from variations.report.pictures import OnProgress
from variations.storage import open_storage

LINK_SECONDS: Final = 3600
TOLD_EVERY: Final = 1_000


def report(
    destination: str,
    *,
    open: Annotated[bool, Parameter(negative="")] = False,  # noqa: A002 - the option's name
    local_sources: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write the gallery of a dataset, report.html: each source beside its variations, what failed, and the runs in
    figures, in one page that needs nothing else. Nothing is asked of the API.

    Args:
        destination: the dataset: s3://bucket/prefix or a folder.
        open: open it in a browser; from S3 by a link that holds for an hour.
        local_sources: show sources that are files of this machine, though the dataset is in S3. Its metadata names
            them, so only for one that was made here. [default: only if the dataset is a folder]
        json: print what was written for machines, as the last line of standard output.
    """
    with _told() as on_progress:
        written, link = asyncio.run(_write(destination, on_progress, local_sources=local_sources, is_opened=open))
    print_lines("Gallery", written.lines(), to_stderr=json)
    if link is not None and not webbrowser.open(link):
        say("No browser was found that could open it")
    if json:
        print_json(written.as_dict())
    return ALL_KEPT


async def _write(
    destination: str, on_progress: OnProgress, *, local_sources: bool, is_opened: bool
) -> tuple[WrittenReport, str | None]:
    """Write it, and return with it what opens it in a browser, if that is wanted: perhaps a signed link, to be shown to
    nobody else.
    """
    storage = open_storage(destination, missing_ok=True)
    try:
        written = await write_report(storage, local_sources=local_sources, on_progress=on_progress)
        if not is_opened:
            return written, None
        if written.uri.startswith("file:"):
            return written, written.uri
        return written, await storage.presigned_url(written.key, expires_seconds=LINK_SECONDS)
    finally:
        await storage.aclose()


@contextmanager
def _told() -> Iterator[OnProgress]:
    """Tell how far it is: on a terminal in one line that changes, elsewhere in a line for each thousand pictures."""
    doing = "Making the gallery"
    console = Console(stderr=True, highlight=False)
    if not is_terminal():
        say(f"{doing} …")

        def tell(done: int, wanted: int) -> None:
            if done and done % TOLD_EVERY == 0:
                say(f"{done:,} of {wanted:,} pictures")

        yield tell
        return
    with console.status(f"{doing} …") as line:
        yield lambda done, wanted: line.update(f"{doing}: {done:,} of {wanted:,} pictures …")
