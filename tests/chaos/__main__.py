"""`make chaos`: real processes that are killed, doubled, stopped and cut off, and the table of what it cost.

Exits with 1 if anything was lost or paid twice, or went otherwise than it should.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

from .marathon import COLUMNS, SECTIONS, Counts, ground
from .scene import running_store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections that are asked for, and print what came of them."""
    names = [name for name, _ in SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--s3", choices=("moto", "ceph"), default="moto", help="the object store; Ceph needs root")
    parser.add_argument("--only", choices=names, action="append", help="a section; may be given again")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    given = parser.parse_args(arguments)

    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)  # noqa: T201 - it is a command

    rows: list[Counts] = []
    say(f"starting {given.s3}")
    with running_store(given.s3) as store, ground(store, seed=given.seed) as shared:
        for name, section in SECTIONS:
            if not given.only or name in given.only:
                say(f"{name}: {' '.join((section.__doc__ or '').split())}")
                rows += section(shared, say)
    print("\n".join(["", *_table(rows)]))  # noqa: T201 - same
    wrong = [text for counts in rows for text in counts.wrong]
    print("\n".join(["", *wrong] if wrong else ["", "nothing lost, nothing paid twice"]))  # noqa: T201 - same
    return 1 if wrong else 0


def _table(rows: Iterable[Counts]) -> list[str]:
    header = ("", *(name.replace("_", " ") for name in COLUMNS), "")
    lines = [header]
    for counts in rows:
        numbers = (f"{getattr(counts, name):,}" for name in COLUMNS)
        lines.append((counts.name, *numbers, "WRONG" if counts.wrong else ""))
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    return [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]


if __name__ == "__main__":
    sys.exit(main())
