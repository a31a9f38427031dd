"""Time and memory of planning 10,000 to 1,000,000 rows, of nothing that was made and of all that was.

Each step runs in a fresh process, on a parquet manifest and a dataset in local folders: what a store takes to hand over
its files comes on top.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benches.flow_process import FOREIGN
from benches.options import Options, say
from benches.planning_step import Took
from benches.prefect_server import python_path
from benches.report import Aim, Cell, Report

ROWS: Final = (10_000, 100_000, 1_000_000)
AIM_SECONDS: Final = 30.0
AIM_MB: Final = 600.0

# What is done, the step that does it, and whether over a dataset that has all already.
CASES: Final = {
    "`variations plan`": ("look", False),
    "a run's plan, written shard by shard": ("plan", False),
    "`variations plan` over all that was made": ("look", True),
    "a second run, from start to end": ("run_again", True),
}


def bench(options: Options) -> Report:
    """Take every step at every size."""
    took: dict[str, dict[int, Took]] = {name: {} for name in CASES}
    with tempfile.TemporaryDirectory(prefix="variations-bench-") as place:
        for rows in ROWS:
            folder = Path(place, str(rows))
            folder.mkdir()
            say(f"planning {rows:,} rows")
            _measure(folder, rows, options.seed, took)
    return _report(options, took)


def _measure(folder: Path, rows: int, seed: int, took: dict[str, dict[int, Took]]) -> None:
    manifest, planned, made = folder / "manifest.parquet", folder / "planned", folder / "made"
    _call("planning_ground", "manifest", str(rows), str(manifest))
    for name, (step, is_second) in CASES.items():
        if is_second and not made.exists():
            _call("planning_ground", "dataset", str(made), str(planned), str(seed))
        told = Took(**json.loads(_call("planning_step", step, str(manifest), str(made if is_second else planned))))
        if (told.already_done if is_second else told.new) != rows:
            raise RuntimeError(f"{name}: {told.new} to be made and {told.already_done} done, of {rows} rows")
        took[name][rows] = told


def _call(module: str, *arguments: str) -> str:
    """Run a module of the benches in a process of its own, and return the last line of its output."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-m", f"benches.{module}", *arguments],
        env={**variables, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip().rpartition("\n")[2]


def _report(options: Options, took: Mapping[str, Mapping[int, Took]]) -> Report:
    rows: list[list[Cell]] = []
    for name, sizes in took.items():
        for number, told in sizes.items():
            rows.append([name, number, told.seconds, told.cpu_seconds, told.most_bytes / 1e6, _us_a_row(sizes, number)])
    most = ROWS[-1]
    aims = []
    for name, sizes in took.items():
        seconds, megabytes = sizes[most].seconds, sizes[most].most_bytes / 1e6
        aims.append(
            Aim(
                f"{most:,} rows, {name}: under {AIM_SECONDS:g} s and {AIM_MB:g} MB",
                f"{seconds:.1f} s, {megabytes:.0f} MB",
                seconds < AIM_SECONDS and megabytes < AIM_MB,
            )
        )
    return Report(
        name="planning",
        title="A parquet manifest of one variation a row; each step in a fresh process, files in local folders",
        columns=["", "rows", "seconds", "CPU seconds", "most memory, MB", "µs a further row"],
        rows=rows,
        aims=aims,
        facts={
            "seed": options.seed,
            "steps": {
                name: {
                    "rows": {str(number): asdict(told) for number, told in sizes.items()},
                    "bytes_a_further_row": _slope(sizes, most, "most_bytes"),
                }
                for name, sizes in took.items()
            },
        },
    )


def _us_a_row(sizes: Mapping[int, Took], rows: int) -> Cell:
    return "" if rows == ROWS[0] else _slope(sizes, rows, "cpu_seconds") * 1e6


def _slope(sizes: Mapping[int, Took], rows: int, what: str) -> float:
    """Return how much more a row more takes, from the next smaller size to this one."""
    fewer = ROWS[ROWS.index(rows) - 1]
    return float(getattr(sizes[rows], what) - getattr(sizes[fewer], what)) / (rows - fewer)
