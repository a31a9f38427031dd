"""`variations run`: the flow `augment`, from a terminal or a script."""

import asyncio
import datetime as dt
import logging
from functools import cache
from typing import Annotated

from cyclopts import Parameter
from pydantic import BaseModel

from config import Settings, load_settings
from flows.commands.busy import refuse_if_busy
from flows.commands.exits import exit_code
from flows.commands.options import NO_OPTIONS, RUN_OPTIONS, RunOptions, day_of, given
from flows.commands.temporary_server import has_server, prefect_server
from flows.commands.terminal import is_terminal, print_json, print_lines, progress_bar
from variations.dates import filled
from variations.ending import TooManyFailed
from variations.engine.progress import watch
from variations.errors import VariationsError
from variations.receipt import Receipt, RunStopped


def run(
    source: str,
    destination: str,
    *,
    options: RunOptions = NO_OPTIONS,
    date: str = "",
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the variations that the destination does not have yet.

    Ctrl-C stops submitting, finishes what is in flight and publishes it; a second one exits at once.

    Exit codes: 0 all kept, or dropped by order; 3 some failed, were rejected or are unknown, in this run or before; 4
    stopped, before the end or before the start (key, bucket, network, another run at work); 5 something leaks between
    splits, with --fail-on-leak; 2 bad input; 130 interrupted by a second Ctrl-C; 1 anything else.

    Args:
        source: manifest or prefix of images: s3://…, file://… or a path; may hold {date}, {year}, {month} and {day}.
        destination: where the dataset grows: s3://bucket/prefix or a folder; may hold them, too.
        options: the settings of a run, by their own names.
        date: the day for {date} and its parts, YYYY-MM-DD [default: today, in UTC].
        profile: profile of variations.toml.
        json: print the receipt for machines, as the last line of standard output.
    """
    day = day_of(date)
    settings = read_settings(options, profile=profile)
    # What can be refused is refused before Prefect is told of it.
    settings.endpoint()
    job = settings.job(filled(source, day, name="source"), filled(destination, day, name="destination"))
    if not settings.wait and not has_server():
        refuse_if_busy(job.destination)
    with prefect_server():
        receipt = augmented(source, destination, day=day, settings=settings, profile=profile)
    print_lines("Receipt", receipt.lines(), to_stderr=json)
    if json:
        print_json(receipt.as_dict())
    return exit_code(receipt)


def read_settings(options: BaseModel, *, profile: str | None) -> Settings:
    """Return the settings of a run; a key that is not here may be in a block of the Prefect server."""
    settings = load_settings(given(options), profile=profile)
    if settings.has_key or not has_server():
        return settings
    from config.blocks import stored_settings  # noqa: PLC0415 - Prefect takes 2 s to import

    return load_settings(given(options), profile=profile, stored=asyncio.run(stored_settings()))


def augmented(source: str, destination: str, *, day: dt.date, settings: Settings, profile: str | None) -> Receipt:
    """Run the flow for a day, and return its receipt, whatever state it ended in.

    Raises:
        VariationsError: it came to no receipt.
    """
    from flows.augment import augment  # noqa: PLC0415 - Prefect takes 2 s to import

    _quiet_prefect()
    parameters = {name: getattr(settings, name) for name in RUN_OPTIONS}
    with watch() as progress, progress_bar(progress):
        try:
            flow_run = augment(source, destination, date=str(day), **parameters, profile=profile or "")
            return Receipt(**asyncio.run(flow_run))
        except (RunStopped, TooManyFailed) as ended:
            return ended.receipt


@cache
def _quiet_prefect() -> None:
    """Leave out of the terminal what the command says better: tracebacks of foreseen errors, lines under the bar."""
    least = logging.CRITICAL if is_terminal() else logging.INFO

    def says_more(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], VariationsError | RunStopped):
            record.exc_info = record.exc_text = None
        # Prefect's queues of logs and events say that they are being emptied, as they should be.
        return record.levelno >= least and record.name not in {"EventsWorker", "APILogWorker"}

    for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name or None).handlers:
            if type(handler).__name__ == "PrefectConsoleHandler":
                handler.addFilter(says_more)
