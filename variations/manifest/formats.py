"""Which files are manifests, by their names."""

from enum import StrEnum
from typing import Final


class Format(StrEnum):
    """What a manifest file is written in; the value is its name in messages."""

    PARQUET = "parquet"
    CSV = "CSV"
    TSV = "TSV"
    JSON_LINES = "JSON lines"
    TEXT = "text"


FORMATS: Final = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
    ".json": Format.JSON_LINES,
    ".txt": Format.TEXT,
    ".lst": Format.TEXT,
}
# Beside images these are captions, sidecars and licences far more often than manifests.
COMPANIONS: Final = frozenset({".txt", ".lst", ".json"})
KNOWN_EXTENSIONS: Final = ", ".join(FORMATS) + ", each also with .gz"


def extension_of(name: str) -> str:
    """Return the last extension of a name in lower case, `.gz` not counted, or an empty string."""
    name = name.rpartition("/")[2].lower().removesuffix(".gz")
    stem, dot, extension = name.rpartition(".")
    return f"{dot}{extension}" if stem else ""


def format_of(name: str) -> Format | None:
    """Return the format that a file's name announces, or None if it announces none."""
    return FORMATS.get(extension_of(name))


def is_hidden(key: str) -> bool:
    """Return whether a folder or the name begins with `_` or `.`: Spark's `_SUCCESS`, `.DS_Store`, checkpoints."""
    return any(segment.startswith(("_", ".")) for segment in key.split("/"))
