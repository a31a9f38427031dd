"""What the commands show: tables, a progress bar on a terminal, plain lines elsewhere."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from variations.engine.progress import Progress as RunProgress

REFRESH_SECONDS: Final = 0.25


def print_lines(title: str, lines: Iterable[tuple[str, str]], *, to_stderr: bool = False) -> None:
    """Print names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(name, value)
    Console(stderr=to_stderr, highlight=False, markup=False).print(table)


def say(text: str) -> None:
    """Print a line for people."""
    Console(stderr=True, highlight=False, markup=False).print(text, soft_wrap=True)


def print_json(value: dict[str, Any]) -> None:
    """Print one line for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def is_terminal() -> bool:
    """Return whether a person is watching."""
    return sys.stderr.isatty()


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Show that something is going on: a spinner on a terminal, a line elsewhere.

    Yields what changes the text beside the spinner.
    """
    console = Console(stderr=True)
    if not is_terminal():
        console.print(f"{text} …", highlight=False)
        yield lambda text: None  # noqa: ARG005 - a line each would be too many
        return
    with console.status(f"{text} …") as spinner:
        yield lambda text: spinner.update(f"{text} …")


@contextmanager
def progress_bar(run: RunProgress) -> Iterator[None]:
    """Show a bar that follows a run, on a terminal; elsewhere the run's own log lines have to do."""
    if not is_terminal():
        yield
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    done = Event()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)

        def follow() -> None:
            while not done.wait(REFRESH_SECONDS):
                bar.update(task, total=run.total, completed=run.settled, description=_described(run))

        # The run has the main thread's event loop; the bar follows from a thread of its own.
        follower = Thread(target=follow, name="progress-bar", daemon=True)
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join()
            bar.update(task, total=run.total, completed=run.settled, description=_described(run))


def _described(run: RunProgress) -> str:
    if run.total is None:
        return run.step
    parts = [f"{run.in_flight} in flight", f"{run.cost_usd:.2f} USD"]
    parts += [f"{run.failed} failed"] if run.failed else []
    parts += [f"{run.unknown} unknown"] if run.unknown else []
    parts += ["stopping: finishing what is in flight"] if run.stopping else []
    return ", ".join(parts)
