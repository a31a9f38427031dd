"""Exit codes, so that a script can tell how a run ended."""

from typing import Final

from variations.errors import BadInput, LeakFound, VariationsError
from variations.receipt import Receipt

ALL_KEPT: Final = 0
UNEXPECTED: Final = 1
BAD_INPUT: Final = 2
SOME_FAILED: Final = 3
STOPPED: Final = 4
LEAK: Final = 5
INTERRUPTED: Final = 130


def code_of(error: VariationsError) -> int:
    """Return the exit code of an error that was foreseen."""
    if isinstance(error, LeakFound):
        return LEAK
    return BAD_INPUT if isinstance(error, BadInput) else STOPPED


def exit_code(receipt: Receipt) -> int:
    """Return 0 if all images were kept, 3 if some failed, were rejected or are unknown, 4 if the run was stopped before
    its end.
    """
    if receipt.stopped_by:
        return STOPPED
    return ALL_KEPT if receipt.all_kept else SOME_FAILED
