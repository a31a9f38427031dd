"""The options of a run: what the command line, the flow's form and the settings call the same."""

import inspect
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

from variations.leak_report import MOST_DISTANCE

F = TypeVar("F", bound=Callable[..., object])

VariationsPerSource = Annotated[
    int, Field(ge=1, le=1000, description="Variations wanted of each source, with each setting of a sweep.")
]
SweepText = Annotated[
    str,
    Field(
        max_length=20_000,
        description="Settings that each source is varied with: guidance=2,3,4; aspect_ratio=1:1,16:9 is a grid; TOML "
        "with [grid], [[list]] or [random] says more. Empty: one setting.",
    ),
]
MaxPerSource = Annotated[
    int,
    Field(ge=0, le=1_000_000, description="Variations of a source at the most, over all settings and seeds; 0: all."),
]
SplitRatios = Annotated[
    str,
    Field(
        max_length=1_000,
        description="Splits of the sources by a hash of their group, where the manifest has no column split: "
        "train=0.8,validation=0.1,test=0.1. Empty: none.",
    ),
]
GroupBy = Annotated[
    str,
    Field(
        description="Column of the manifest that says which sources belong together, and so into one split; empty: "
        "each source is a group."
    ),
]
AugmentSplits = Annotated[
    str,
    Field(min_length=1, description="Splits whose sources are varied, where there are splits; between commas."),
]
LeakCheckBy = Annotated[
    Literal["images", "groups"],
    Field(
        description="How leaks between splits are looked for: by groups in two splits, or also by images, which "
        "fetches each source once and finds those in different splits that look alike."
    ),
]
MaxLeakDistance = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_DISTANCE,
        description="Bits of 64 in which the perceptual hashes of two sources that look alike differ at the most; "
        "scaled and compressed copies differ in 0 to 4, different pictures in 12 or more.",
    ),
]
FailOnLeak = Annotated[
    bool, Field(description="Submit nothing, and end as failed, where something leaks from one split into another.")
]
DryRun = Annotated[
    bool, Field(description="Only show what would be made, at what cost and in what time: nothing is paid or written.")
]
Date = Annotated[
    str,
    Field(
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        description="Day for {date}, {year}, {month} and {day} in source and destination, YYYY-MM-DD; empty: the one "
        "that the run is scheduled for, in UTC.",
    ),
]
Retry = Annotated[
    Literal["none", "failed", "flagged"],
    Field(
        description="Which variations of earlier runs are tried again as they are: those that failed, or those that "
        "were flagged and dropped (which pays again)."
    ),
]
FirstSeed = Annotated[
    int,
    Field(
        ge=0,
        le=2**31 - 1,
        description="Seed of a source's first variation, the next ones count up; 0 derives one from each source.",
    ),
]
UriColumn = Annotated[str, Field(description="Column of the manifest that holds the URIs; empty: by its usual names.")]
IdColumn = Annotated[str, Field(description="Column of the manifest that holds ids; empty: by its usual names.")]
MaxInFlight = Annotated[
    int, Field(ge=0, le=1000, description="Requests in flight at once; 0: as many as the request limit can feed.")
]
RequestsPerMinute = Annotated[
    float,
    Field(
        ge=0,
        le=1_000_000,
        description="The plan's request limit, polls counted too; 0: it is found, beginning with 60 a minute.",
    ),
]
PollIntervalSeconds = Annotated[
    float,
    Field(
        ge=0,
        le=600,
        description="Seconds between two polls of a request; 0: learned from how long requests take.",
    ),
]
DeadlineSeconds = Annotated[
    float, Field(gt=0, le=3600, description="Seconds after which a request that is not done is given up.")
]

MaxCostUsd = Annotated[
    float,
    Field(
        ge=0,
        le=1_000_000,
        description="What a run may cost at most, in USD, in flight included; 0: what is set where it runs, else any.",
    ),
]
MaxFailedPercent = Annotated[
    float,
    Field(ge=0, le=100, description="The run ends as failed where more of its images failed than this, in percent."),
]
OnFlagged = Annotated[
    Literal["keep", "drop", "reroll"],
    Field(
        description="What becomes of an image that the quality gate flags: it is kept, with its verdict; dropped (it "
        "is paid all the same); or dropped and made again with the next seed."
    ),
]
MaxRolls = Annotated[
    int,
    Field(ge=1, le=10, description="With reroll: how often a variation is made at the most, the first time included."),
]
GateBlank = Annotated[
    float,
    Field(
        ge=0,
        le=255,
        allow_inf_nan=False,
        description="Flagged as blank: less contrast than this between darkest and lightest part, of 255; 0: nothing.",
    ),
]
GateCopy = Annotated[
    int,
    Field(
        ge=0,
        le=64,
        description="Flagged as a copy: at most so many bits of 64 of the perceptual hash differ from the source's; 0: "
        "nothing.",
    ),
]
GateLost = Annotated[
    int,
    Field(
        ge=0,
        le=64,
        description="Flagged as lost, its subject gone: at least so many bits differ from the source's; 0: nothing.",
    ),
]
GateTwin = Annotated[
    int,
    Field(
        ge=0,
        le=64,
        description="Flagged as a twin: of the same colours, and at most so many bits apart from another image of its "
        "source that this process made; 0: nothing.",
    ),
]
GateSizePercent = Annotated[
    float,
    Field(
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="Flagged for its size: a side differs by more than so many percent from what was asked for; 0: "
        "nothing.",
    ),
]
GateSources = Annotated[
    bool,
    Field(description="Fetch each source once, to compare its images with it; else none is flagged as copy or lost."),
]
Workers = Annotated[
    int, Field(ge=0, le=64, description="Runs of the work deployment that make it; 0: it is made in this process.")
]
Unknown = Annotated[
    Literal["hold", "resubmit"],
    Field(
        description="What becomes of a submit whose answer was lost and which the request history does not show: "
        "it is held, or submitted again after a wait (and then perhaps paid for twice)."
    ),
]
UnknownWaitSeconds = Annotated[
    float, Field(ge=300, le=30 * 86400, description="Seconds for which the history must not have shown it before that.")
]
Wait = Annotated[
    bool, Field(description="Wait while another run works on the dataset, and take over when it ends or dies.")
]
Canary = Annotated[
    int,
    Field(
        ge=0,
        le=1_000,
        description="Variations, spread over the manifest, that are made and shown before the rest: that is made where "
        "they are good enough, else the run pauses; 0: none.",
    ),
]
MaxCanaryPercent = Annotated[
    float,
    Field(
        ge=0,
        le=100,
        description="The run pauses after its canary where more of its images failed, are unknown or flagged than "
        "this, in percent.",
    ),
]
Gallery = Annotated[
    bool,
    Field(
        description="Write the gallery, report.html, at the end of a run that has something new to show; a run that "
        "cannot write it goes on all the same."
    ),
]
Profile = Annotated[str, Field(description="Profile of variations.toml on the machine that runs; empty: none.")]


def described(function: F) -> F:
    """Write the descriptions of a function's parameters into its docstring, where Prefect's form reads them."""
    hints = get_type_hints(function, include_extras=True)
    fields = {
        name: next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, FieldInfo)), None)
        for name, hint in hints.items()
    }
    lines = [f"    {name}: {field.description}" for name, field in fields.items() if field and field.description]
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Args:", *lines])
    return function


def like(other: Callable[..., object], *, without: str) -> Callable[[F], F]:
    """Give a function that takes any keyword the parameters of another, but for one, and their descriptions."""

    def give(function: F) -> F:
        signature = inspect.signature(other)
        fields = [
            field.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, field in signature.parameters.items()
            if name != without
        ]
        function.__signature__ = signature.replace(parameters=fields)  # type: ignore[attr-defined]
        function.__annotations__ = {name: hint for name, hint in other.__annotations__.items() if name != without}
        return described(function)

    return give
