"""Many seeds, on every processor: `python -m tests.variations.chaos.sweep 10000`, or one of them with its whole story.

A seed replays exactly: `python -m tests.variations.chaos.sweep --seed 1234`.
"""

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from .driver import Found, a_manifest, run_chaos

ITEMS = 50
RUNS_A_BATCH = 20


@dataclass
class Swept:
    """What many seeds came to; `failing` are the ones with problems, each with the first of them."""

    runs: int = 0
    failing: dict[int, str] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, found: Found) -> None:
        """Count one seed."""
        self.runs += 1
        self.events += found.events
        if found.problems:
            self.failing[found.seed] = found.problems[0]

    def lines(self) -> Iterator[str]:
        """Yield a report."""
        yield f"{self.runs:,} runs over {ITEMS} sources in {self.seconds:.0f} s: {len(self.failing)} with a problem"
        for event, count in self.events.most_common():
            yield f"  {count:8,}  {event}"
        for seed, problem in sorted(self.failing.items()):
            yield f"seed {seed}: {problem}\n    python -m tests.variations.chaos.sweep --seed {seed}"


def sweep(
    seeds: Iterable[int], *, processes: int | None = None, told: Callable[[Swept], None] = lambda _: None
) -> Swept:
    """Run every seed; `told` is called after each batch."""
    swept = Swept()
    began = time.monotonic()
    # Forked processes would share what a test has open; and a world wants no threads around it.
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        batches = [
            seeds[at : at + RUNS_A_BATCH] for seeds in [list(seeds)] for at in range(0, len(seeds), RUNS_A_BATCH)
        ]
        for found in pool.map(run_batch, batches):
            for one in found:
                swept.add(one)
            swept.seconds = time.monotonic() - began
            told(swept)
    return swept


def run_batch(seeds: list[int], *, tell: bool = False) -> list[Found]:
    """Run some seeds in this process; `tell` asks for their stories."""
    logging.disable(logging.CRITICAL)
    # Each file is small: threads only cost.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with a_manifest(ITEMS) as manifest:
        return [_found(seed, manifest, tell=tell) for seed in seeds]


def _found(seed: int, manifest: Path, *, tell: bool) -> Found:
    try:
        return run_chaos(seed, manifest=manifest, items=ITEMS, tell=tell)
    except Exception as error:  # noqa: BLE001 - a seed that does not end is a problem like any other
        return Found(seed, (f"{type(error).__name__}: {error}",), Counter())


def main() -> int:
    """Sweep, or replay one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed, with everything that happened in it")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        (found,) = run_batch([arguments.seed], tell=True)
        sys.stdout.write("\n".join([found.story, *found.problems, str(dict(found.events)), ""]))
        return bool(found.problems)
    swept = sweep(range(arguments.first, arguments.first + arguments.runs), told=_tell)
    sys.stdout.write("\n".join([*swept.lines(), ""]))
    return bool(swept.failing)


def _tell(swept: Swept) -> None:
    if swept.runs % 500 == 0:
        sys.stderr.write(f"{swept.runs:,} runs, {len(swept.failing)} with a problem, {swept.seconds:.0f} s\n")


if __name__ == "__main__":
    sys.exit(main())
