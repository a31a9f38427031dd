"""The doctor: looks at each thing that a scheduled run needs, and says how to mend what is wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from config import load_settings
from config.blocks import stored_settings
from deployments import schedule
from deployments.deployed import read_deployments
from deployments.finding import Finding
from deployments.names import AUGMENT
from deployments.run_checks import check_destination, check_key, check_source
from deployments.server import server
from deployments.server_checks import (
    DEPLOY,
    check_automations,
    check_deployment,
    check_leases,
    check_limit,
    check_next_run,
    check_pool,
    check_queues,
    check_schedule,
    check_settings,
    check_turns,
    check_version,
    check_waiting,
)
from variations.dates import filled
from variations.errors import BadInput, SettingsError, VariationsError

# A store or an API that takes longer is not one to wait for.
LOOK_SECONDS: Final = 30.0

_LOG: Final = "look at the log of the Prefect server"
_API: Final = "check SEGMIND_BASE_URL and the network"
_STORE: Final = "check the address, the credentials and AWS_ENDPOINT_URL"


async def examine(source: str = "", destination: str = "", *, profile: str | None = None) -> AsyncIterator[Finding]:
    """Yield what is found, thing by thing.

    Args:
        source: what is to be readable; empty: what the schedule reads.
        destination: what is to be writable; empty: where the schedule writes.
        profile: profile of variations.toml.
    """
    seen = _Seen()
    try:
        async for finding in _examine_server(seen):
            yield finding
    except SettingsError as error:
        yield Finding("server", str(error), "start it, or set PREFECT_API_URL")
    for finding in await _examine_key(seen.stored, profile):
        yield finding
    for name, uri, check in (("source", source, check_source), ("destination", destination, check_destination)):
        if not (place := uri or str(seen.parameters.get(name) or "")):
            yield Finding(name, "the schedule names none", f"{DEPLOY} --{name} …, or give this command --{name} …")
            continue
        try:
            filled(place, datetime.now(UTC).date(), name=name)
        except BadInput as error:
            yield Finding(name, str(error), f"{DEPLOY} --{name} …")
            continue
        for finding in await _looked(name, check(place), mend=_STORE):
            yield finding


@dataclass(slots=True)
class _Seen:
    """What was seen on the server: the schedule's parameters, and the settings in the blocks."""

    parameters: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, Any] = field(default_factory=dict)


async def _examine_server(seen: _Seen) -> AsyncIterator[Finding]:
    async with server() as client:
        for about, check in (
            ("server", check_version),
            ("leases", check_leases),
            ("work pool", check_pool),
            ("settings block", check_settings),
        ):
            for finding in await _looked(about, check(client), mend=_LOG):
                yield finding
        seen.stored = await stored_settings()
        deployments = await read_deployments(client)
        for one in deployments:
            yield check_deployment(one)
        augment = next(one for one in deployments if one.name == AUGMENT)
        for finding in await _looked("schedule", check_schedule(client, augment), mend=_LOG):
            yield finding
        if found := schedule.ours(augment.found):
            seen.parameters = found.parameters
        for finding in await _looked("next run", check_next_run(client, deployments), mend=_LOG):
            yield finding
        for about, check_all in (
            ("work queue", check_queues),
            ("concurrency limit", check_limit),
            ("turns", check_turns),
            ("waiting runs", check_waiting),
        ):
            for finding in await _looked(about, check_all(client, deployments), mend=_LOG):
                yield finding
        for finding in await _looked("automations", check_automations(client), mend=_LOG):
            yield finding


async def _examine_key(stored: dict[str, Any], profile: str | None) -> list[Finding]:
    try:
        has_key = load_settings(profile=profile).has_key
        settings = load_settings(profile=profile, stored=stored)
    except SettingsError as error:
        return [Finding("settings", str(error), "set that right")]
    return await _looked("key", check_key(settings, is_stored=not has_key), mend=_API)


async def _looked(about: str, look: Awaitable[Finding | list[Finding]], *, mend: str) -> list[Finding]:
    """Return what a look finds; what it stumbles over is a finding, too, mended as `mend` says.

    A Prefect server that no longer answers ends all looks at it.
    """
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            found = await look
    except TimeoutError:
        return [Finding(about, f"no answer within {LOOK_SECONDS:.0f} s", mend)]
    except (VariationsError, httpx.HTTPStatusError) as error:
        return [Finding(about, " ".join(str(error).split()), mend)]
    return [found] if isinstance(found, Finding) else found
