"""What every bench is told, and how it says where it is."""

import sys
import time
from dataclasses import dataclass
from typing import Final

_BEGAN: Final = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every bench is told.

    Attributes:
        soak_images: how many images the soak makes.
        seed: of everything that is drawn.
    """

    soak_images: int = 3_000
    seed: int = 0


def say(text: str) -> None:
    """Tell on standard error what is being done, and when."""
    sys.stderr.write(f"[{time.monotonic() - _BEGAN:6.1f} s] {text}\n")
    sys.stderr.flush()
