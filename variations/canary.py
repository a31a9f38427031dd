"""What a canary came to, by what is published of it, and whether that is good enough to make the rest."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import ROW_GROUP_ROWS
from variations.errors import CanaryPaused
from variations.identity import rerolled
from variations.layout import REPORT_KEY
from variations.metadata import fetched_metadata
from variations.storage import Storage
from variations.texts import markdown_table

PASSED: Final = "passed"
_VERDICT: Final = "verdict"


@dataclass(slots=True)
class Canary:
    """What a canary came to; images.

    Attributes:
        most_percent: of them may have failed, be unknown or flagged.
        passed: are there, and not flagged.
        flagged: by the quality gate, be they there or not.
        rerolled: were made in the place of flagged ones; they cost, and say nothing of how good a first image is.
        reasons: how many failed or are unknown, by their code.
    """

    most_percent: float
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    flagged: int = 0
    rerolled: int = 0
    cost_usd: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, status: str, *, verdict: str | None, error_code: str | None, cost_usd: float = 0.0) -> None:
        """Count an image."""
        self.cost_usd += cost_usd
        if status == "failed":
            self.failed += 1
        elif status == "unknown":
            self.unknown += 1
        elif status != "kept" or verdict not in {None, PASSED}:
            self.flagged += 1
        else:
            self.passed += 1
        if status != "kept":
            self.reasons[error_code or status] += 1
        elif verdict not in {None, PASSED}:
            self.reasons[str(verdict)] += 1

    def add_rerolled(self, *, cost_usd: float) -> None:
        """Count an image that was made in the place of a flagged one."""
        self.rerolled += cost_usd > 0
        self.cost_usd += cost_usd

    @property
    def images(self) -> int:
        """How many there are."""
        return self.passed + self.bad

    @property
    def bad(self) -> int:
        """How many failed, are unknown or flagged."""
        return self.failed + self.unknown + self.flagged

    @property
    def percent(self) -> float:
        """Of all, how many are bad; of none all, for nothing speaks for them."""
        return 100 * self.bad / self.images if self.images else 100.0

    @property
    def is_good(self) -> bool:
        """Whether the rest may be made without anybody having looked."""
        return self.percent <= self.most_percent

    def summary(self) -> str:
        """Say in a line what came of it."""
        counts = [(self.failed, "failed"), (self.unknown, "unknown"), (self.flagged, "flagged")]
        told = [f"{count:,} {what}" for count, what in counts if count] or ["none failed"]
        return f"{self.images:,} image{'s' * (self.images != 1)}, {', '.join(told)}: {self.percent:.0f} %"

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which a person asks for them."""
        return [
            ("images", f"{self.images:,}"),
            ("passed", f"{self.passed:,}"),
            ("failed", f"{self.failed:,}"),
            ("unknown", f"{self.unknown:,}"),
            ("flagged", f"{self.flagged:,}"),
            ("not good", f"{self.percent:.0f} %, of {self.most_percent:g} % at most"),
            *([("made again", f"{self.rerolled:,}")] if self.rerolled else []),
            ("cost", f"{self.cost_usd:.3f} USD"),
            *((reason, f"{count:,}×") for reason, count in self.reasons.most_common(10)),
        ]

    def markdown(self, what_now: str) -> str:
        """Return a table for a Prefect artifact."""
        return f"{markdown_table('Canary', self.lines())}\n{what_now}\n"

    def paused(self, storage: Storage) -> CanaryPaused:
        """Return why the rest is not made, and how to go on."""
        most = ", ".join(f"{reason} {count:,}×" for reason, count in self.reasons.most_common(3))
        return CanaryPaused(
            f"paused: canary. Of its {self.images:,} images {self.percent:.0f} % failed, are unknown or flagged, and "
            f"max_canary_percent is {self.most_percent:g}{f' ({most})' if most else ''}. Look at "
            f"{storage.uri_of(REPORT_KEY)}; with canary 0 (--canary 0) the same command makes the rest, and with a "
            "canary it looks at the same images again and pays for none of them"
        )


async def read_canary(storage: Storage, ids: Sequence[str], *, most_percent: float, rolls: int = 1) -> Canary:
    """Say what a canary came to, by the dataset's metadata.

    Args:
        storage: the dataset.
        ids: of the canary's variations.
        most_percent: of their images may be bad.
        rolls: how often the place of a flagged one is filled at the most, the first time included.

    Raises:
        StorageError: the store says no, or the metadata is damaged.
    """
    canary = Canary(most_percent)
    async with fetched_metadata(storage) as path:
        if path is not None:
            await asyncio.to_thread(_count, path, ids, rolls, canary)
    return canary


def _rerolls_of(ids: Iterable[str], rolls: int) -> set[str]:
    """Return the ids of what may have been made in the places of variations."""
    found: set[str] = set()
    for name in ids:
        for _ in range(rolls - 1):
            name, _ = rerolled(name)  # noqa: PLW2901 - the next one in its place
            found.add(name)
    return found.difference(ids)


def _count(metadata: Path, ids: Sequence[str], rolls: int, canary: Canary) -> None:
    rerolls = _rerolls_of(ids, rolls)
    wanted = pa.array([*ids, *rerolls], pa.string())
    with pq.ParquetFile(metadata) as file:
        names = ["variation_id", "status", "error_code", "cost_usd"]
        names += [_VERDICT] if _VERDICT in file.schema_arrow.names else []
        for batch in file.iter_batches(ROW_GROUP_ROWS, columns=names):
            for row in batch.filter(pc.is_in(batch.column("variation_id"), wanted)).to_pylist():
                if row["variation_id"] in rerolls:
                    canary.add_rerolled(cost_usd=row["cost_usd"])
                    continue
                canary.add(
                    row["status"],
                    verdict=row.get(_VERDICT),
                    error_code=row["error_code"],
                    cost_usd=row["cost_usd"],
                )
