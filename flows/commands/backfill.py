"""`variations backfill`: the flow `augment` for a day after another."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from config import Settings
from flows.commands.deployed_days import made_by
from flows.commands.exits import ALL_KEPT, SOME_FAILED, STOPPED
from flows.commands.options import NO_OPTIONS, RunOptions, given
from flows.commands.run import augmented, read_settings
from flows.commands.temporary_server import has_server, prefect_server
from flows.commands.terminal import print_json, print_lines, say, status
from variations.backfill import Day, DayEnd, days_of, has_manifest, totals
from variations.dates import parsed_day
from variations.engine.budget import NO_MONEY_USD
from variations.errors import ManifestError, SettingsError, VariationsError
from variations.estimate import estimate


def backfill(
    source: str,
    destination: str,
    *,
    first: Annotated[str, Parameter(name="--from")],
    last: Annotated[str, Parameter(name="--to")],
    options: RunOptions = NO_OPTIONS,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    deployment: str = "",
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run for every day from one to another, the oldest first; each is a run of its own, with its own receipt.

    A day without a manifest is told and left out. The first day that is stopped (Ctrl-C, budget, credits, another run
    at work) ends the backfill; the same command goes on there. --max-cost-usd is for all days together: each may cost
    what those before it have left.

    Exit codes: 0 all kept; 3 a day had no manifest or one that cannot be used, or not all of it was kept; 4 stopped; 2
    bad input; 130 interrupted by a second Ctrl-C; 1 anything else.

    Args:
        source: manifest or prefix of images, with {date}, or {year}, {month} and {day}, for the day.
        destination: where the dataset grows; it may hold them, too.
        first: the first day, YYYY-MM-DD.
        last: the last day, YYYY-MM-DD.
        options: the settings of a run, by their own names.
        dry_run: show what would be made each day, and in all, as `plan` does; nothing is paid and nothing written.
        deployment: such as augment/variations: each day is a run of this deployment, on its machines, and is started
            once the one before has ended. What is not given here is as the deployment has it, and each day may cost an
            equal share of --max-cost-usd. Ctrl-C starts no more; the day that runs goes on.
        profile: profile of variations.toml.
        json: print what each day came to for machines, as the last line of standard output.
    """
    days = days_of(source, destination, parsed_day(first, name="--from"), parsed_day(last, name="--to"))
    settings = read_settings(options, profile=profile)
    # What is wrong with any of them is said before the first one.
    for one in days:
        settings.job(one.source, one.destination)
    if dry_run:
        ends = list(_told(_planned(days, settings)))
    elif deployment:
        asked = given(options)
        ends = _with_deployment(source, destination, days, deployment=deployment, options=asked, profile=profile)
    else:
        settings.endpoint()
        with prefect_server():
            ends = list(_told(_made(source, destination, days, settings, profile=profile)))
    total = totals(ends, wanted=len(days))
    print_lines("Backfill", [*((str(end.day), end.said) for end in ends), ("total", total)], to_stderr=json)
    if json:
        print_json({"days": [end.as_dict() for end in ends], "total": total})
    if ends[-1].is_stop:
        return STOPPED
    return ALL_KEPT if all(end.is_whole for end in ends) else SOME_FAILED


def _told(ends: Iterator[DayEnd]) -> Iterator[DayEnd]:
    for end in ends:
        say(f"{end.day}: {end.said}")
        yield end


def _planned(days: Sequence[Day], settings: Settings) -> Iterator[DayEnd]:
    for one in days:
        with status(f"Reading the manifest of {one.day}"):
            end = _planned_day(one, settings)
        yield end


def _planned_day(one: Day, settings: Settings) -> DayEnd:
    try:
        if not asyncio.run(has_manifest(one.source)):
            return _without_manifest(one)
        plan = asyncio.run(estimate(settings.job(one.source, one.destination), limits=settings.limits()))
    except ManifestError as error:
        # A run goes on behind it, too.
        return DayEnd(one.day, str(error))
    return DayEnd(one.day, plan.summary(), plan=plan)


def _made(
    source: str, destination: str, days: Sequence[Day], settings: Settings, *, profile: str | None
) -> Iterator[DayEnd]:
    """Yield what came of each day, as it ends; one that stops is the last."""
    spent_usd = 0.0
    for one in days:
        left_usd = settings.max_cost_usd - spent_usd
        if settings.max_cost_usd and left_usd <= NO_MONEY_USD:
            said = f"not begun: {spent_usd:.3f} USD are spent or at risk, of max_cost_usd {settings.max_cost_usd:g}"
            yield DayEnd(one.day, said, is_stop=True)
            return
        with_left = settings.model_copy(update={"max_cost_usd": max(0.0, left_usd)})
        end = _made_day(source, destination, one, with_left, profile=profile)
        yield end
        if end.is_stop:
            return
        if end.receipt is not None:
            spent_usd += end.receipt.cost_usd + end.receipt.cost_at_risk_usd


def _made_day(source: str, destination: str, one: Day, settings: Settings, *, profile: str | None) -> DayEnd:
    try:
        if not asyncio.run(has_manifest(one.source)):
            return _without_manifest(one)
        receipt = augmented(source, destination, day=one.day, settings=settings, profile=profile)
    except ManifestError as error:
        # Those of other days may be good.
        return DayEnd(one.day, str(error))
    except VariationsError as error:
        return DayEnd(one.day, str(error), is_stop=True)
    said = f"stopped, {receipt.stopped_because} ({receipt.summary()})" if receipt.stopped_by else receipt.summary()
    return DayEnd(one.day, said, receipt=receipt, is_stop=bool(receipt.stopped_by))


def _without_manifest(one: Day) -> DayEnd:
    return DayEnd(one.day, f"nothing lies at {one.source}: left out")


def _with_deployment(
    source: str, destination: str, days: Sequence[Day], *, deployment: str, options: dict[str, Any], profile: str | None
) -> list[DayEnd]:
    """Have each day made by a run of a deployment, and tell what came of it."""
    if not has_server():
        raise SettingsError("--deployment: no Prefect server is configured, set PREFECT_API_URL")
    parameters = {"source": source, "destination": destination, **options, **({"profile": profile} if profile else {})}
    if "max_cost_usd" in options:
        parameters["max_cost_usd"] = options["max_cost_usd"] / len(days)

    async def made() -> list[DayEnd]:
        ends = []
        async for end in made_by(deployment, days, parameters):
            say(f"{end.day}: {end.said}")
            ends.append(end)
        return ends

    with prefect_server():
        return asyncio.run(made())
