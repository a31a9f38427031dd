"""A run's plan as it lies in the dataset: what any machine needs to know to make a shard of it."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from variations.engine.limits import Limits
from variations.errors import JournalDamaged, ObjectNotFound
from variations.gate import Gate
from variations.job import Job
from variations.layout import RUNS_PREFIX, plan_key
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.recipe import Recipe
from variations.planning.sweep import parse_sweep
from variations.splits import AUGMENTED, SplitRule
from variations.storage import Storage
from variations.texts import json_bytes

# So many runs are looked through; some may have planned nothing, or over another manifest.
LOOK_BACK: Final = 50
# Of how hard to go: what the run was asked for. The rest is each machine's own.
OF_THE_RUN: Final = (
    *("max_in_flight", "requests_per_minute", "first_requests_per_minute", "count_all_requests"),
    *("poll_interval_seconds", "expected_latency_seconds", "deadline_seconds", "price_usd", "max_cost_usd"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What was planned for a run.

    Attributes:
        plan: the numbers.
        model: that is asked.
        lease_seconds: after so long without a sign of life a machine that works on it counts as gone.
        workers: machines that are to work on it at once; 0 where it is made by the process that planned it.
        signed_sources: how many sources carry a signature, which is in no plan: the manifest tells it.
        details: recipe, limits and columns, as they were written.
    """

    plan: Plan
    model: str
    lease_seconds: float
    workers: int
    signed_sources: int
    details: dict[str, Any]

    def limits(self, own: Limits) -> Limits:
        """Return how hard to go: what the run was asked for, and of the rest what this machine's own limits say."""
        return Limits(**{**asdict(own), **{name: self.details["limits"][name] for name in OF_THE_RUN}})

    @property
    def gate(self) -> Gate:
        """By what its images are judged; of a plan that an older version wrote, they are kept as they are."""
        return Gate(**self.details["recipe"].get("gate", {}))

    def job(self) -> Job:
        """Return what the run is to do."""
        recipe = {**self.details["recipe"]}
        recipe["parameters"] = Parameters(**recipe["parameters"])
        recipe["sweep"] = parse_sweep(recipe.get("sweep", ""))
        recipe["splits"] = _split_rule(recipe.get("splits", {}))
        recipe["gate"] = self.gate
        uri_column, id_column = self.details.get("uri_column"), self.details.get("id_column")
        return Job(
            self.plan.source, self.plan.destination, Recipe(**recipe), uri_column=uri_column, id_column=id_column
        )


def planned_bytes(
    plan: Plan, job: Job, *, limits: Limits, lease_seconds: float, workers: int, signed_sources: int
) -> bytes:
    """Return a plan as it is written into the dataset; it holds no secret."""
    told = asdict(limits)
    recipe = {
        **asdict(job.recipe),
        "parameters": job.recipe.parameters.model_dump(exclude={"seed"}),
        "sweep": job.recipe.sweep.text,
    }
    return json_bytes(
        {
            **asdict(plan),
            "recipe": recipe,
            "limits": {name: told[name] for name in OF_THE_RUN},
            "lease_seconds": lease_seconds,
            "workers": workers,
            "signed_sources": signed_sources,
            "uri_column": job.uri_column,
            "id_column": job.id_column,
        }
    )


def _split_rule(written: dict[str, Any]) -> SplitRule:
    ratios = tuple((name, share) for name, share in written.get("ratios", ()))
    return SplitRule(**{**written, "ratios": ratios, "augmented": tuple(written.get("augmented", AUGMENTED))})


async def read_planned(storage: Storage, run_id: str) -> Planned | None:
    """Read what was planned for a run; None if that was closed before it had planned anything.

    Raises:
        JournalDamaged: what lies there is no plan.
        ObjectNotFound: nothing was planned under that id.
        StorageError: the store says no.
    """
    key = plan_key(run_id)
    content = await storage.get(key)
    try:
        values = json.loads(content)
        if not values:
            return None
        return Planned(
            plan=Plan.of_json(values),
            model=values["recipe"]["model"],
            lease_seconds=values.get("lease_seconds", 0.0),
            workers=values.get("workers", 0),
            signed_sources=values.get("signed_sources", 0),
            details=values,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JournalDamaged(f"{storage.uri_of(key)}: it is no plan") from error


async def last_plan(storage: Storage) -> Plan | None:
    """Return the plan of the last run that has one which can be read; None if none of the last runs has.

    Raises:
        StorageError: the store says no.
    """
    for name in await last_runs(storage):
        try:
            planned = await read_planned(storage, name)
        except (ObjectNotFound, JournalDamaged):
            # One that only looked after what was open has none.
            continue
        if planned is not None:
            return planned.plan
    return None


async def last_runs(storage: Storage) -> list[str]:
    """Return the ids of the last runs, newest first: by the second in them, and within one by when each was planned."""
    names = sorted([name async for name in storage.folders(RUNS_PREFIX)], reverse=True)[:LOOK_BACK]
    seconds = Counter(name.partition("-")[0] for name in names)
    places: dict[str, tuple[str, float]] = {}
    for name in names:
        second = name.partition("-")[0]
        entry = await storage.head(plan_key(name)) if seconds[second] > 1 else None
        places[name] = (second, entry.modified.timestamp() if entry is not None else 0.0)
    return sorted(names, key=places.__getitem__, reverse=True)
