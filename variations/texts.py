"""What plans, receipts and artifacts have in common: durations, lines that both say, Markdown and JSON."""

import base64
import json
import math
import re
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Any, Final

# Markdown that a value may hold: emphasis, code, links, images and the table's bars. A `_` within a word is none.
_MARKUP: Final = re.compile(r"[\\|`*\[\]]")
SAMPLES = 10


def duration(seconds: float) -> str:
    """Return a duration as people say it: `42 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"  # noqa: PLR2004
    for unit, size, smaller, small_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    raise AssertionError


def held_lines(failed: int, flagged: int, unknown: int, partly: int) -> list[tuple[str, str]]:
    """Say what is left alone of what earlier runs came to."""
    lines = [("failed before", f"{failed:,} left alone: --retry failed tries them again")] if failed else []
    lines += [("flagged before", f"{flagged:,} dropped, and left alone: --retry flagged pays again")] if flagged else []
    lines += [("unknown before", f"{unknown:,} perhaps paid for: held, and not submitted again")] if unknown else []
    lines += [("partly there", f"{partly:,} lack some of their images: left alone")] if partly else []
    return lines


def resubmitted_lines(count: int) -> list[tuple[str, str]]:
    """Say how many are submitted again that may have been accepted."""
    text = f"{count:,} not found in the request history for long enough: they may be paid for a second time"
    return [("submitted again", text)] if count else []


def rejected_lines(first: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    """Say of the first rejected rows what is wrong with them, and how many more there are."""
    more = [("rejected", f"… and {count - len(first):,} more")] if count > len(first) else []
    return [*(("rejected", row) for row in first), *more]


def markdown_table(title: str, lines: Iterable[tuple[str, str]]) -> str:
    """Return a two-column table; what could break it is escaped."""
    rows = [f"| {name} | {markdown_text(value)} |" for name, value in lines]
    return "\n".join([f"## {title}", "", "| | |", "| --- | --- |", *rows, ""])


def markdown_text(value: str) -> str:
    """Return a text as Markdown that shows it, in one line."""
    text = _MARKUP.sub(r"\\\g<0>", " ".join(value.splitlines()))
    return text.replace("&", "&amp;").replace("<", "&lt;")


def json_bytes(value: object) -> bytes:
    """Return JSON in UTF-8; half a surrogate pair, which UTF-8 cannot spell, comes out as JSON's own escape of it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def json_value(value: Any) -> Any:
    """Return a value of a column, nested or not, as JSON has it: times in ISO's words, bytes in base64, NaN as null."""
    if isinstance(value, dict):
        return {str(name): json_value(value[name]) for name in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, float):
        # JSON has no word for the others.
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if isinstance(value, date | time) else str(value)


def started(moment: datetime) -> str:
    """Return a moment as it stands in a receipt."""
    return moment.isoformat(timespec="seconds")
