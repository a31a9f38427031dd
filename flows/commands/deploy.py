"""`variations deploy`: all that a scheduled, recovered and observed run needs on a Prefect server."""

import asyncio
import sys
from typing import TYPE_CHECKING, Literal

from config import Settings, load_settings
from flows.commands.exits import ALL_KEPT
from flows.commands.options import NO_OPTIONS, RunOptions, given

if TYPE_CHECKING:
    from deployments.setup import Wishes


def deploy(
    *,
    source: str | None = None,
    destination: str | None = None,
    options: RunOptions = NO_OPTIONS,
    cron: str | None = None,
    timezone: str | None = None,
    pool_type: Literal["process", "docker", "kubernetes", "ecs"] | None = None,
    slots: int | None = None,
    notify: str | None = None,
    profile: str | None = None,
) -> int:
    """Set up the configured Prefect server: work pool, limit, blocks, deployments with a daily schedule, automations.

    Prints what became of each. A second time it changes nothing; what is not given stays as it is.

    Args:
        source: manifest or prefix of images that the schedule reads; may hold {date}, {year}, {month} and {day}.
        destination: where the schedule's dataset grows; may hold the same.
        options: the settings of the scheduled runs, by their own names.
        cron: when the schedule runs; 0 6 * * * at first.
        timezone: whose time that is, as Europe/Berlin; UTC at first.
        pool_type: type of the work pool; process at first.
        slots: how many processes may work at once, on all machines; 64 at first.
        notify: notification block that is told of failed, paused and late runs, as slack-webhook/ops.
        profile: profile of variations.toml, for the key and the settings that all machines are to share.
    """
    asked = given(options)
    settings = load_settings(asked, profile=profile)
    if settings.has_key:
        # A key that no header can carry is refused here, and not by each worker.
        settings.endpoint()
    if source and destination:
        settings.job(source, destination)
    places = {name: place for name, place in (("source", source), ("destination", destination)) if place}

    from deployments.schedule import Wish, placed  # noqa: PLC0415 - Prefect takes 2 s to import
    from deployments.setup import Wishes  # noqa: PLC0415

    wishes = Wishes(
        schedule=Wish({**{name: placed(place) for name, place in places.items()}, **asked}, cron, timezone),
        pool_type=pool_type,
        slots=slots,
        notify=notify,
        api_key=settings.segmind_api_key.get_secret_value(),
        settings=_shared(settings),
    )
    asyncio.run(_set_up(wishes))
    return ALL_KEPT


def _shared(settings: Settings) -> dict[str, object]:
    """Return those settings of the block that are set here: what has its default says nothing."""
    from config.blocks import VariationsSettings  # noqa: PLC0415 - Prefect takes 2 s to import

    dumped = settings.model_dump(include=set(VariationsSettings.NAMES & settings.model_fields_set))
    return {name: ",".join(value) if isinstance(value, tuple) else value for name, value in dumped.items()}


async def _set_up(wishes: "Wishes") -> None:
    from deployments.setup import set_up  # noqa: PLC0415 - Prefect takes 2 s to import

    async for step in set_up(wishes):
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()
