"""`make bench`: run the benches, print what they found, and write it down.

Exits with 0 though an aim is missed: a machine that is slow, or busy with something else, is no bug. What was missed
is told last. A bench that fails is told, the others go on, and the exit code is 1.
"""

import argparse
import importlib
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from benches.machine import describe_machine
from benches.options import Options, say
from benches.report import Report

USUAL: Final = ("request_limit", "slot_limit", "requests_per_image", "own_cost", "planning", "soak")
# Run where they are named: two are of figures, not of speed, and the last needs a browser.
BENCHES: Final = (*USUAL, "gate", "leaks", "gallery")
WIDTH: Final = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches that are named, or the usual ones, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all but the last two if none is named"
    )
    parser.add_argument("--soak-images", type=_images, default=Options().soak_images, help="default: %(default)s")
    parser.add_argument(
        "--seed", type=_seed, default=Options().seed, help="of all that is drawn (default: %(default)s)"
    )
    parser.add_argument("--output", type=_folder, default="bench-output", help="folder (default: %(default)s)")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    # As Ctrl-C: on the way out, the servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = Options(soak_images=given.soak_images, seed=given.seed)
    # Where nobody sets a width, such as a file, a table is not to be squeezed into 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    machine = describe_machine()
    missed = failed = 0
    for name in given.names or USUAL:
        say(f"{name}: {(importlib.import_module(f'benches.{name}').__doc__ or '').strip().splitlines()[0]}")
        try:
            report = _run(name, options)
            report.print(console)
            path = report.write(given.output, machine=machine)
        except Exception:  # noqa: BLE001 - what the others find is worth as much without it
            failed += 1
            say(f"{name} failed\n{traceback.format_exc()}")
            continue
        console.print(f"written to {path}", markup=False)
        missed += sum(not aim.is_met for aim in report.aims)
    if missed:
        console.print(f"\n{missed} aim{'s' * (missed != 1)} missed", style="bold red")
    if failed:
        console.print(f"\n{failed} bench{'es' * (failed != 1)} failed", style="bold red")
    return 1 if failed else 0


def _images(text: str) -> int:
    return _whole(text, least=1)


def _seed(text: str) -> int:
    return _whole(text, least=0)


def _whole(text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least {least}")
    return int(text)


def _folder(text: str) -> Path:
    """Return a folder, made at once: a run of minutes is not to end without a place to write to."""
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be made a folder: {error.strerror}") from error
    return folder


def _run(name: str, options: Options) -> Report:
    report: Report = importlib.import_module(f"benches.{name}").bench(options)
    return report


if __name__ == "__main__":
    sys.exit(main())
