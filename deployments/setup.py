"""All that the deployments lean on, and the deployments: made where it is missing, mended where it differs."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.automations import ensure_automations, find_notification_block
from deployments.deployed import ensure_deployments
from deployments.limit import ensure_limit
from deployments.schedule import Wish
from deployments.server import server
from deployments.shared import ensure_key, ensure_settings
from deployments.step import Step
from deployments.work_pool import PoolType, ensure_pool
from variations.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked for; what is not asked for stays as it is, or is made with its default.

    Attributes:
        schedule: when `augment` runs by itself, over what, and to where.
        pool_type: the type of the work pool.
        slots: how many processes may work at once.
        notify: the notification block that is told of failures and pauses, as `type/name`.
        api_key: the API's key; empty: the one that is stored.
        settings: what all machines are to share, by the names of the settings.

    Raises:
        SettingsError: no process could work.
    """

    schedule: Wish = field(default_factory=Wish)
    pool_type: PoolType | None = None
    slots: int | None = None
    notify: str | None = None
    api_key: str = field(default="", repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would let no run begin."""
        if self.slots is not None and self.slots < 1:
            raise SettingsError(f"--slots is {self.slots}: without one no run could begin")


async def set_up(wishes: Wishes) -> AsyncIterator[Step]:
    """Yield what became of each thing, as it is done. A second time nothing is left to do.

    Raises:
        SettingsError: there is no server, or a wish cannot be granted.
        DeployFailed: Prefect did not deploy.
    """
    await wishes.schedule.check()
    async with server() as client:
        # A wish that cannot be granted is told of before anything is done.
        notified = await find_notification_block(client, wishes.notify) if wishes.notify else None
        yield await ensure_pool(client, wishes.pool_type)
        yield await ensure_limit(client, wishes.slots)
        yield await ensure_key(client, wishes.api_key)
        yield await ensure_settings(client, wishes.settings)
        for step in await ensure_deployments(client, wishes.schedule):
            yield step
        # They name deployments by their ids.
        for step in await ensure_automations(client, notified):
            yield step
