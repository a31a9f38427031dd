"""What is wanted of every source."""

from dataclasses import dataclass, field

from variations.gate import Gate
from variations.parameters import MODEL, Parameters
from variations.planning.sweep import NO_SWEEP, Sweep
from variations.splits import SplitRule


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is wanted of every source.

    Attributes:
        parameters: for every variation, where neither the sweep nor a row of the manifest sets something else; its seed
            is not used.
        variations_per_source: how many, with each setting of the sweep.
        sweep: the settings that each source is varied with.
        max_per_source: of all settings and seeds, so many at the most; 0: all.
        splits: which sources are varied, where they are split.
        seed: of the first variation, the next ones count up from it; derived from the source if None.
        retry_failed: whether variations that failed in earlier runs are tried again.
        canary: so many variations are made and looked at before the rest; 0: none.
        max_canary_percent: the rest is made where no more of their images failed, are unknown or flagged.
        retry_flagged: whether variations whose image was flagged and dropped are made again as they are.
        gate: which images are flagged, and what becomes of those.
        resubmit_after_seconds: variations of which it is not known whether they were accepted are submitted again when
            the request history has not shown them for so long; None holds them.
    """

    parameters: Parameters = field(default_factory=Parameters)
    variations_per_source: int = 1
    sweep: Sweep = NO_SWEEP
    max_per_source: int = 0
    splits: SplitRule = field(default_factory=SplitRule)
    seed: int | None = None
    retry_failed: bool = False
    retry_flagged: bool = False
    gate: Gate = field(default_factory=Gate)
    resubmit_after_seconds: float | None = None
    canary: int = 0
    max_canary_percent: float = 20.0
    model: str = MODEL
