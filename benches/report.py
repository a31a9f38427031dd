"""What a bench found: a table, the aims, and the facts that it takes to repeat it."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

Cell = str | float | int
_DIGITS: Final = 3


@dataclass(frozen=True, slots=True)
class Aim:
    """What a bench is to show.

    Attributes:
        text: such as `at least 75 % of the ceiling`.
        value: what was measured, as text with its unit.
        is_met: whether it did.
    """

    text: str
    value: str
    is_met: bool

    def line(self) -> str:
        """Say it in one line."""
        return f"aim: {self.text} … {self.value}: {'met' if self.is_met else 'missed'}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a bench found.

    Attributes:
        name: of the bench, and of its file.
        title: one line above the table, with the setting in which it was measured.
        columns: what stands in each row, units included.
        rows: one for each contestant, or each case.
        aims: what it was to show.
        facts: parameters, seeds and whatever else was measured, for the file.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    aims: list[Aim] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def print(self, console: Console) -> None:
        """Print the table and the aims."""
        table = Table(box=None, pad_edge=False)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*(shown(cell) for cell in row))
        console.print(f"\n{self.title}", style="bold", markup=False)
        console.print(table)
        for aim in self.aims:
            console.print(aim.line(), style="" if aim.is_met else "bold red", markup=False, highlight=False)

    def write(self, folder: Path, *, machine: dict[str, Any]) -> Path:
        """Write it as JSON and return the file's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        text = json.dumps({**asdict(self), "machine": machine}, indent=2, ensure_ascii=False, default=str)
        path.write_text(f"{text}\n", encoding="utf-8")
        return path


def shown(cell: Cell) -> str:
    """Return a cell as it stands in a table: numbers of three digits, or as many as a whole one has."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if not cell or not math.isfinite(cell):
        return f"{cell:g}"
    digits = max(0, _DIGITS - 1 - math.floor(math.log10(abs(cell))))
    return f"{cell:,.{digits}f}"


def percent(share: float, *, digits: int = 0) -> str:
    """Return a share as people write it: `75 %`."""
    return f"{100 * share:.{digits}f} %"
