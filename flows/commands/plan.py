"""`variations plan`: what a run would do, and what it would cost, without paying and without writing."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from config import Settings, load_settings
from flows.commands.exits import ALL_KEPT
from flows.commands.options import NO_OPTIONS, RunOptions, day_of, given
from flows.commands.terminal import print_json, print_lines, status
from variations.balance import with_balance
from variations.dates import filled
from variations.estimate import estimate
from variations.job import Job
from variations.plan import Plan, check_leaks


def plan(
    source: str,
    destination: str,
    *,
    options: RunOptions = NO_OPTIONS,
    date: str = "",
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what a run would do, at what cost and in about what time; nothing is paid and nothing written.

    Exit codes: 0; 5 something leaks between splits, with --fail-on-leak; 2 bad input; 4 bucket or network.

    Args:
        source: manifest or prefix of images: s3://…, file://… or a path; may hold {date}, {year}, {month} and {day}.
        destination: where the dataset grows: s3://bucket/prefix or a folder; may hold them, too.
        options: the settings of a run, by their own names.
        date: the day for {date} and its parts, YYYY-MM-DD [default: today, in UTC].
        profile: profile of variations.toml.
        json: print the plan for machines, as the last line of standard output.
    """
    day = day_of(date)
    settings = load_settings(given(options), profile=profile)
    job = settings.job(filled(source, day, name="source"), filled(destination, day, name="destination"))
    with status("Reading the manifest") as say:
        found = asyncio.run(_look_ahead(job, settings, say))
    print_lines("Plan", found.lines(), to_stderr=json)
    if json:
        print_json(asdict(found))
    check_leaks(found, job.leaks)
    return ALL_KEPT


async def _look_ahead(job: Job, settings: Settings, say: Callable[[str], None]) -> Plan:
    plan = await estimate(
        job,
        limits=settings.limits(),
        on_look=lambda done, of: say(f"Looking at sources {done:,} of {of:,}"),
    )
    return await with_balance(plan, settings.endpoint() if settings.has_key else None)
