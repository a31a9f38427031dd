"""Photographs that come with the package, for demos and tests."""

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "photos"
_SUFFIXES: Final = (".jpg", ".png", ".webp", ".avif")


def sample_photos() -> list[Path]:
    """Return the paths of the photographs, sorted by name; their origin is in `CREDITS.md` beside them."""
    return sorted(path for path in _FOLDER.iterdir() if path.suffix in _SUFFIXES)
