"""When to stop because request after request is paid for and none brings an image: going on would only cost."""

from collections.abc import Sequence
from typing import Final

from variations import errors
from variations.engine.calls import OUTAGE_ITEMS
from variations.models import Outcome

# So many requests in a row whose images were all flagged and dropped: where half of them are, that is one chance in
# four billion.
FLAGGED_ITEMS: Final = 32


class InVain:
    """Counts the requests that were paid for and brought no image, since the last one that did."""

    def __init__(self) -> None:
        self._without_image = 0
        self._flagged = 0

    def reason_to_stop(self, made: Sequence[Outcome]) -> errors.RunError | errors.RunPaused | None:
        """Count a request by the rows of its images; return why the run is to stop, once too many were in vain."""
        if any(outcome.status == "kept" for outcome in made):
            self._without_image = self._flagged = 0
        elif any(outcome.status == "rejected" for outcome in made):
            self._without_image = 0
            self._flagged += 1
            if self._flagged >= FLAGGED_ITEMS:
                last = next(outcome.error for outcome in reversed(made) if outcome.is_dropped)
                return errors.NothingPasses(
                    f"{FLAGGED_ITEMS} paid requests in a row were flagged and dropped ({last}); look at their "
                    "output_url, then run the same command with another threshold, or with on_flagged keep"
                )
        elif any(outcome.cost_usd for outcome in made):
            self._without_image += 1
            if self._without_image >= OUTAGE_ITEMS:
                last = f"{made[-1].error_code}: {made[-1].error}"
                return errors.ServiceDown(
                    f"{OUTAGE_ITEMS} paid requests in a row brought no image ({last}); "
                    "see to it, then run the same command again"
                )
        return None
