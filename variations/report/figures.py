"""The runs in figures: what failed and why, what each run came to, and histograms, counted over the whole dataset."""

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.errors import ObjectNotFound
from variations.gate import FLAGGED, reasons_of
from variations.layout import RUNS_PREFIX, receipt_key
from variations.report.rows import LONGEST_TEXT
from variations.storage import Storage
from variations.texts import duration

BARS: Final = 32
RUNS: Final = 50
REASONS: Final = 100
SAMPLES: Final = 3
_TIME_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(86_400, 2 * 86_400, 7 * 86_400, 14 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400),
)
_NEEDED: Final = (
    *("status", "error_code", "error", "total_seconds", "cost_usd", "completed_at", "polls", "num_outputs"),
    *("source_distance", "sibling_distance", "verdict"),
)
_RECEIPT: Final = (
    *("run_id", "started_at", "seconds", "wanted", "kept", "failed", "unknown", "dropped", "cost_usd"),
    *("requests_per_image", "stopped_by", "leaks"),
)
# Above this share of the values the last bar takes all: one straggler would squeeze the others into one.
_SHOWN_SHARE: Final = 0.995

_Numbers = npt.NDArray[np.float64]


def read_figures(path: Path) -> dict[str, Any]:
    """Return counts, failures and histograms of a dataset's metadata, as JSON values."""
    names = [name for name in _NEEDED if name in pq.read_schema(path).names]
    table = pq.read_table(path, columns=names)
    kept = table.filter(pc.equal(table.column("status"), "kept"))
    statuses = table.column("status").value_counts().to_pylist()
    return {
        "statuses": {one["values"]: one["counts"] for one in statuses},
        "cost_usd": round(pc.sum(table.column("cost_usd")).as_py() or 0.0, 6),
        "failures": _failures(table),
        "histograms": [one for one in _histograms(table, kept) if one is not None],
    }


def _failures(table: pa.Table) -> list[dict[str, Any]]:
    """Return what was not kept by its reason, the most frequent first, with what some of each say.

    What the gate flagged is told apart by why; an image that it flagged for two reasons is counted under both.
    """
    others = table.filter(pc.not_equal(table.column("status"), "kept"))
    keys = [name for name in ("status", "error_code", "verdict") if name in others.column_names]
    grouped = others.group_by(keys, use_threads=False).aggregate(
        [("status", "count"), ("cost_usd", "sum"), ("error", "distinct")]
    )
    # Each of a million failures may have a text of its own.
    texts_of = pc.list_slice(grouped.column("error_distinct"), 0, SAMPLES + 1).to_pylist()
    found: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for row, said in zip(grouped.drop_columns("error_distinct").to_pylist(), texts_of, strict=True):
        texts = [text[:LONGEST_TEXT] for text in said if text]
        verdicts = [FLAGGED + reason for reason in reasons_of(row.get("verdict") or "")]
        for verdict in verdicts or (None,):
            key = {"status": row["status"], "error_code": row["error_code"], "verdict": verdict}
            one = found.setdefault(tuple(key.values()), key | {"count": 0, "cost_usd": 0.0, "samples": []})
            one["count"] += row["status_count"]
            one["cost_usd"] = round(one["cost_usd"] + (row["cost_usd_sum"] or 0.0), 6)
            one["samples"] = list(dict.fromkeys([*one["samples"], *texts]))[:SAMPLES]
    return sorted(found.values(), key=lambda one: one["count"], reverse=True)[:REASONS]


def _histograms(table: pa.Table, kept: pa.Table) -> list[dict[str, Any] | None]:
    # A request that makes several images is a part of each one's.
    outputs = kept.column("num_outputs").fill_null(1).to_numpy()
    requests = (kept.column("polls").to_numpy() + 1) / outputs
    histograms = [
        histogram("Latency", _floats(kept, "total_seconds"), unit="s"),
        over_time("Images over time", _epochs(kept)),
        histogram("Cost an image", _floats(table.filter(pc.greater(table.column("cost_usd"), 0)), "cost_usd"), "USD"),
        histogram("Requests an image", requests, unit="requests", is_whole=bool((outputs == 1).all())),
    ]
    for title, name in (("Distance to the source", "source_distance"), ("Distance to siblings", "sibling_distance")):
        if name in kept.column_names:
            histograms.append(histogram(title, _floats(kept, name), unit="bits of 64", is_whole=True))
    return histograms


def _floats(table: pa.Table, name: str) -> _Numbers:
    values: _Numbers = table.column(name).drop_null().cast(pa.float64()).to_numpy()
    return values[np.isfinite(values)]


def _epochs(table: pa.Table) -> _Numbers:
    moments = table.column("completed_at").drop_null().cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    seconds: _Numbers = moments.to_numpy() / 1e6
    return seconds


def histogram(title: str, values: _Numbers, unit: str, *, is_whole: bool = False) -> dict[str, Any] | None:
    """Count values in bars of a round width; the last one takes all that is above it. None if there are none."""
    if not values.size:
        return None
    low, high = float(values.min()), float(np.quantile(values, _SHOWN_SHARE, method="higher"))
    step = _round_step((high - low) / BARS, least=1.0 if is_whole else 0.0) if high > low else 0.0
    middle, late = (float(value) for value in np.quantile(values, [0.5, 0.95]))
    note = f"median {middle:,.3g}, 95 % up to {late:,.3g}, mean {float(values.mean()):,.3g} {unit}"
    return {
        "title": title,
        "unit": unit,
        "kind": "whole" if is_whole else "number",
        "count": int(values.size),
        "note": note if high > low else f"{low:,.4g} {unit} each",
        "max": float(values.max()),
        **_bars(values, low, high, step, is_whole=is_whole),
    }


def over_time(title: str, moments: _Numbers) -> dict[str, Any] | None:
    """Count moments, in epoch seconds, in bars of a usual length of time. None if there are none."""
    if not moments.size:
        return None
    low, high = float(moments.min()), float(moments.max())
    step = next((step for step in _TIME_STEPS if (high - low) / step <= BARS), _TIME_STEPS[-1])
    bars = _bars(moments, low, high, float(step))
    note = f"a bar for each {duration(step).replace('.0 s', ' s')}"
    return {"title": title, "unit": "", "kind": "time", "count": int(moments.size), "max": high, "note": note, **bars}


def _bars(values: _Numbers, low: float, high: float, step: float, *, is_whole: bool = False) -> dict[str, Any]:
    if not step:
        return {"start": low, "step": 1.0 if is_whole else 0.0, "bars": [int(values.size)]}
    first = math.floor(low / step + 1e-9)
    number = math.floor(high / step + 1e-9) - first + 1
    places = np.clip(np.floor(values / step + 1e-9) - first, 0, number - 1).astype(np.int64)
    return {"start": first * step, "step": step, "bars": np.bincount(places, minlength=number).tolist()}


def _round_step(width: float, *, least: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least so wide."""
    power = 10.0 ** math.floor(math.log10(width))
    return max(least, next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9)))


async def read_runs(storage: Storage) -> list[dict[str, Any]]:
    """Return what the last runs came to, by their receipts, newest first; what has none is left out."""
    names = sorted([name async for name in storage.folders(RUNS_PREFIX)], reverse=True)
    runs = []
    for name in names[:RUNS]:
        try:
            receipt = json.loads(await storage.get(receipt_key(name)))
        except (ObjectNotFound, ValueError):
            continue
        # A run that only looked after what was open has no source, and no figures.
        if isinstance(receipt, dict) and receipt.get("source"):
            runs.append({field: receipt.get(field) for field in _RECEIPT})
    return runs
