"""Kill a run at a labelled point, run to the end, and look at the bill."""

import time
from dataclasses import dataclass
from typing import Final

from .points import POINTS, last_words
from .scene import RESUBMIT_AFTER_SECONDS, Scene, Verdict

KILLED: Final = -9
# In the middle of things: some images are kept, some are in flight, some are not yet begun.
_MIDWAY: Final = "settled-after:2"

# At which point the first worker dies. `N` of several, so that others are under way at that moment.
FIRST: Final = (
    *("lock-before", "lock-after", "begin-before", "begin-after"),
    *("plan-shard-before:2", "plan-shard-after:2", "plan-before", "plan-after"),
    *("claim-before:2", "claim-after:2", "intent-before:3", "intent-after:3"),
    *("post-before:3", "post-unanswered:3", "post-after:3", "accepted-before:3", "accepted-after:3"),
    *("done-after:2", "image-before:2", "image-after:2", "settled-before:2", "settled-after:2"),
    *("part-before", "part-after:2", "ended-before", "ended-after:3"),
    *("metadata-before", "metadata-after", "receipt-before", "receipt-after", "release-before", "release-after"),
)
# At which point the first one dies, and then the one that recovers what it left.
RECOVERING: Final = (
    *((_MIDWAY, second) for second in ("lock-before", "lock-after")),
    *(("plan-shard-after:2", second) for second in ("void-before", "void-after")),
    *((_MIDWAY, second) for second in ("takeover-before", "takeover-before:2", "takeover-after", "takeover-after:2")),
    *((_MIDWAY, second) for second in ("part-before:2", "part-after:2", "ended-before:2", "ended-after:2")),
    *((_MIDWAY, second) for second in ("crashed-before", "crashed-after")),
    *(("post-unanswered:3", second) for second in ("adopted-before", "adopted-after")),
    *(("accepted-after:3", second) for second in ("image-before", "image-after", "settled-before", "settled-after")),
    *(("settled-before:2", second) for second in ("part-after:4", "ended-before:4", "ended-after:4")),
    *(("image-after:2", second) for second in ("metadata-before", "metadata-after", "begin-before", "begin-after")),
)
DEATHS: Final[tuple[tuple[str, ...], ...]] = (*((label,) for label in FIRST), *RECOVERING)
IMAGES: Final = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a death.

    Attributes:
        died: the points at which a worker really died.
        verdict: at the end.
    """

    died: tuple[str, ...]
    verdict: Verdict


def kill_at(scene: Scene, *labels: str) -> Outcome:
    """Kill one worker after the other, each at its point, and then let workers run to the end."""
    died = []
    for label in labels:
        if died:
            # What the one before has left is in the history by then.
            time.sleep(RESUBMIT_AFTER_SECONDS)
        worker = scene.run(die_at=label)
        if worker.code == KILLED and last_words(label) in worker.errors():
            died.append(label)
    scene.finish()
    return Outcome(tuple(died), scene.judge())


def name_of(labels: tuple[str, ...]) -> str:
    """Return a name for a test and for a table."""
    return ", ".join(labels)


def labels_without_a_death() -> set[str]:
    """Return the points at which nobody dies: there are to be none but those of intents that are taken back."""
    return set(POINTS) - {label.partition(":")[0] for labels in DEATHS for label in labels}
