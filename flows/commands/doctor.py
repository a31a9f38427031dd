"""`variations doctor`: what a scheduled run needs, looked at one by one, and how to mend what is wrong."""

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.exits import ALL_KEPT, STOPPED
from flows.commands.terminal import print_json, status

if TYPE_CHECKING:
    from deployments.finding import Finding


def doctor(
    *,
    source: str = "",
    destination: str = "",
    profile: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Look at all that a scheduled run needs, and say in a line each how it is and how to mend it: the Prefect server,
    its worker, deployments, schedule, limit and automations, the key, the balance, the source and the destination.

    The API and the store are looked at from this machine: run it where the worker runs. Exit codes: 0 all is well; 4
    something is not; 2 bad input; 1 anything else.

    Args:
        source: what is to be readable; what the schedule reads, if it is not given.
        destination: what is to be writable; where the schedule writes, if it is not given.
        profile: profile of variations.toml.
        json: print it for machines, as the last line of standard output.
    """
    with status("Looking at what a run needs"):
        found = asyncio.run(_examine(source, destination, profile))
    # With --json standard output is for machines alone.
    people = sys.stderr if json else sys.stdout
    people.writelines(f"{finding}\n" for finding in found)
    is_ok = all(finding.is_ok for finding in found)
    if json:
        print_json({"is_ok": is_ok, "findings": [{**asdict(one), "is_ok": one.is_ok} for one in found]})
    return ALL_KEPT if is_ok else STOPPED


async def _examine(source: str, destination: str, profile: str | None) -> "list[Finding]":
    from deployments.doctor import examine  # noqa: PLC0415 - Prefect takes 2 s to import

    return [finding async for finding in examine(source, destination, profile=profile)]
