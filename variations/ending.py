"""How a run ended, in words by which a person, and a machine, can tell one end from another.

    Planned                  completed   it was only asked what would be done
    Completed                completed   every image of this run is there
    CompletedWithFailures    completed   some failed, are unknown or were rejected, no more than is allowed
    Failed                   failed      more images failed than is allowed, or it could not go on
    LeakFound                failed      sources leak from one split into another, and must not; nothing was submitted
    PausedBudget             failed      max_cost_usd is, or would be, used up
    PausedCredits            failed      the balance, or the team's limit, is, or would be, used up
    PausedCanary             failed      too many of the first images failed or are flagged: the rest is not made
    PausedBusy               failed      another run works on the dataset
    PausedService            failed      the API cannot be reached
    PausedQuality            failed      image after image was flagged, and dropped
    Cancelled                cancelled   somebody cancelled it
    Interrupted              crashed     its process was told to end, and it ended in order

What is paused has not done what was asked of it, and the same process does not come back to it: of the four kinds of
end that is a failed one. The same request goes on where it stopped.
"""

from dataclasses import dataclass
from typing import Final, Literal

from variations import errors
from variations.plan import Plan
from variations.receipt import Receipt, RunStopped
from variations.tally import Tally

Kind = Literal["completed", "failed", "cancelled", "crashed"]

PAUSED: Final = {
    errors.BudgetReached.code: "PausedBudget",
    errors.InsufficientCredits.code: "PausedCredits",
    errors.SpendLimitReached.code: "PausedCredits",
    errors.CanaryPaused.code: "PausedCanary",
    errors.DatasetBusy.code: "PausedBusy",
    errors.ServiceDown.code: "PausedService",
    errors.NothingPasses.code: "PausedQuality",
}

_NAMED: Final = {**PAUSED, errors.LeakFound.code: "LeakFound"}

NOTHING_TO_DO: Final = {
    errors.RunOver.code: "nothing was left to do",
    # Only who recovers has to have one; and a run that crashed before there was one has paid for nothing.
    errors.NoDataset.code: "nothing to recover",
    errors.LookedAfter.code: "nothing to recover",
}


class TooManyFailed(Exception):
    """A run came to its end, and more of its images failed than was allowed; what it made is published."""

    def __init__(self, receipt: Receipt, message: str) -> None:
        super().__init__(message)
        self.receipt = receipt


@dataclass(frozen=True, slots=True)
class Ending:
    """The kind of an end, its name, what is to be said of it, and the code of what brought it about, if it was that."""

    kind: Kind
    name: str
    message: str
    reason: str = ""

    @property
    def is_paused(self) -> bool:
        """Whether a person has to do something, after which the same request goes on."""
        return self.reason in PAUSED


def ending_of(
    ended: Plan | Receipt | Tally | RunStopped | errors.VariationsError,
    *,
    max_failed_percent: float = 100.0,
    is_cancelled: bool = False,
) -> Ending:
    """Say how a run ended.

    Args:
        ended: what it came to, or what ended it.
        max_failed_percent: of its images; where more of them failed, the run has.
        is_cancelled: whether somebody asked its scheduler to cancel it.
    """
    if isinstance(ended, Plan):
        return Ending("completed", "Planned", f"{ended.summary()}; nothing was paid")
    if isinstance(ended, Tally):
        return Ending("completed", "Completed", ended.summary())
    if isinstance(ended, errors.VariationsError) and ended.code in NOTHING_TO_DO:
        return Ending("completed", "Completed", f"{ended}: {NOTHING_TO_DO[ended.code]}")
    if isinstance(ended, Receipt):
        return _done(ended, max_failed_percent)
    if isinstance(ended, RunStopped):
        return _stopped(ended.reason, f" ({ended.receipt.summary()})", is_cancelled=is_cancelled)
    return _stopped(ended, "", is_cancelled=is_cancelled)


def _done(receipt: Receipt, max_failed_percent: float) -> Ending:
    if receipt.failed_percent > max_failed_percent:
        most = ", ".join(f"{code} {count:,}×" for code, count in list(receipt.errors.items())[:3])
        message = (
            f"{receipt.failed_percent:.0f} % of the images failed, and max_failed_percent is {max_failed_percent:g}: "
            f"{most} ({receipt.summary()})"
        )
        return Ending("failed", "Failed", message, "too_many_failed")
    is_whole = not (receipt.failed or receipt.unknown or receipt.rejected)
    return Ending("completed", "Completed" if is_whole else "CompletedWithFailures", receipt.summary())


def _stopped(reason: errors.VariationsError, came_to: str, *, is_cancelled: bool) -> Ending:
    message = f"{reason}{came_to}"
    if not isinstance(reason, errors.StoppedByUser):
        return Ending("failed", _NAMED.get(reason.code, "Failed"), message, reason.code)
    if is_cancelled:
        return Ending("cancelled", "Cancelled", message, reason.code)
    return Ending("crashed", "Interrupted", message, reason.code)
