"""`make bench`: run the benches, print what they found, and write it down.

Exits with 0 though an aim is missed: a machine that is slow, or busy with something else, is no bug. What was missed
is told last.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from benches.machine import describe_machine
from benches.options import Options, say
from benches.report import Report

BENCHES: Final = ("request_limit", "slot_limit", "requests_per_image", "own_cost", "planning", "soak")
WIDTH: Final = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches that are named, or all, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all if none is named")
    parser.add_argument("--soak-images", type=int, default=Options().soak_images, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=Options().seed, help="of all that is drawn (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("bench-output"), help="folder (default: %(default)s)")
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
    missed = 0
    for name in given.names or BENCHES:
        say(f"{name}: {(importlib.import_module(f'benches.{name}').__doc__ or '').strip().splitlines()[0]}")
        report = _run(name, options)
        report.print(console)
        path = report.write(given.output, machine=machine)
        console.print(f"written to {path}", markup=False)
        missed += sum(not aim.is_met for aim in report.aims)
    if missed:
        console.print(f"\n{missed} aim{'s' * (missed != 1)} missed", style="bold red")
    return 0


def _run(name: str, options: Options) -> Report:
    report: Report = importlib.import_module(f"benches.{name}").bench(options)
    return report


if __name__ == "__main__":
    sys.exit(main())
