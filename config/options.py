"""The options of a run: what the command line, the flow's form and the settings call the same."""

from typing import Annotated, Literal

from pydantic import Field

VariationsPerSource = Annotated[int, Field(ge=1, le=1000, description="Variations wanted of each source.")]
Retry = Annotated[
    Literal["none", "failed"], Field(description="Whether variations that failed in earlier runs are tried again.")
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
MaxInFlight = Annotated[int, Field(ge=1, le=1000, description="Requests in flight at once.")]
RequestsPerMinute = Annotated[
    float, Field(gt=0, le=1_000_000, description="The plan's request limit: requests a minute, polls counted too.")
]
PollIntervalSeconds = Annotated[float, Field(gt=0, le=600, description="Seconds between two polls of a request.")]
DeadlineSeconds = Annotated[
    float, Field(gt=0, le=3600, description="Seconds after which a request that is not done is given up.")
]
