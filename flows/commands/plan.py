"""`variations plan`: what a run would do, and what it would cost, without paying and without writing."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from config import load_settings
from flows.commands.exits import ALL_KEPT
from flows.commands.options import NO_OPTIONS, RunOptions, given
from flows.commands.terminal import print_json, print_lines, status
from variations.estimate import estimate


def plan(
    source: str,
    destination: str,
    *,
    options: RunOptions = NO_OPTIONS,
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what a run would do, at what cost and in about what time; nothing is paid and nothing written.

    Args:
        source: manifest or prefix of images: s3://…, file://… or a path.
        destination: where the dataset grows: s3://bucket/prefix or a folder.
        options: the settings of a run, by their own names.
        profile: profile of variations.toml.
        json: print the plan for machines, as the last line of standard output.
    """
    settings = load_settings(given(options), profile=profile)
    job = settings.job(source, destination)
    with status("Reading the manifest"):
        found = asyncio.run(estimate(job, limits=settings.limits()))
    print_lines("Plan", found.lines(), to_stderr=json)
    if json:
        print_json(asdict(found))
    return ALL_KEPT
