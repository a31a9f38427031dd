"""`variations run`: the flow `augment`, from a terminal or a script."""

import asyncio
import logging
from typing import Annotated, Any

from cyclopts import Parameter

from config import load_settings
from flows.commands.busy import refuse_if_busy
from flows.commands.exits import exit_code
from flows.commands.options import NO_OPTIONS, RUN_OPTIONS, RunOptions, given
from flows.commands.temporary_server import has_server, prefect_server
from flows.commands.terminal import is_terminal, print_json, print_lines, progress_bar
from variations.engine.progress import watch
from variations.errors import VariationsError
from variations.receipt import Receipt, RunStopped


def run(
    source: str,
    destination: str,
    *,
    options: RunOptions = NO_OPTIONS,
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the variations that the destination does not have yet.

    Ctrl-C stops submitting, finishes what is in flight and publishes it; a second one exits at once.

    Exit codes: 0 all kept; 3 some failed, were rejected or are unknown, in this run or before; 4 stopped, before the
    end or before the start (key, bucket, network, another run at work); 2 bad input; 130 interrupted by a second
    Ctrl-C; 1 anything else.

    Args:
        source: manifest or prefix of images: s3://…, file://… or a path.
        destination: where the dataset grows: s3://bucket/prefix or a folder.
        options: the settings of a run, by their own names.
        profile: profile of variations.toml.
        json: print the receipt for machines, as the last line of standard output.
    """
    settings = load_settings(given(options), profile=profile)
    # What can be refused is refused before Prefect is told of it.
    settings.endpoint()
    settings.job(source, destination)
    if not settings.wait and not has_server():
        refuse_if_busy(destination)
    with prefect_server():
        receipt = _augment(
            source,
            destination,
            **{name: getattr(settings, name) for name in RUN_OPTIONS},
            profile=profile or "",
        )
    print_lines("Receipt", receipt.lines(), to_stderr=json)
    if json:
        print_json(receipt.as_dict())
    return exit_code(receipt)


def _augment(source: str, destination: str, **parameters: Any) -> Receipt:
    from flows.augment import augment  # noqa: PLC0415 - Prefect takes 2 s to import

    _quiet_prefect()
    with watch() as progress, progress_bar(progress):
        try:
            return Receipt(**asyncio.run(augment(source, destination, **parameters)))
        except RunStopped as stopped:
            return stopped.receipt


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
