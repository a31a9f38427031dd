"""What all machines share: the key and the settings, in blocks on the server."""

from collections.abc import Mapping
from typing import Any

from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient
from pydantic import SecretStr

from config.blocks import KEY_BLOCK, SETTINGS_BLOCK, VariationsSettings, read_key, read_settings
from deployments.step import Outcome, Step


async def ensure_key(client: PrefectClient, key: str) -> Step:
    """Store the API's key in a Secret block. Without a key, one that is stored is kept; none is ever shown."""
    thing = f"secret block {KEY_BLOCK}"
    found = await read_key(client)
    if not key:
        if found is None:
            return Step(thing, Outcome.LEFT_OUT, "SEGMIND_API_KEY is not set here; set it, or set it for the workers")
        return Step(thing, Outcome.KEPT)
    if found == key:
        return Step(thing, Outcome.KEPT)
    await Secret(value=SecretStr(key)).asave(KEY_BLOCK, overwrite=True, client=client)
    return Step(thing, Outcome.CREATED) if found is None else Step(thing, Outcome.CHANGED, "the key")


async def ensure_settings(client: PrefectClient, given: Mapping[str, Any]) -> Step:
    """Store the settings that are given here, by the environment or a TOML file, and keep the others as they are."""
    thing = f"settings block {SETTINGS_BLOCK}"
    found = await read_settings(client)
    wanted = VariationsSettings(**{**(found or {}), **given})
    differences = [name for name, value in wanted.values().items() if found is not None and found.get(name) != value]
    if found is None or differences:
        await wanted.asave(SETTINGS_BLOCK, overwrite=True, client=client)
    return Step(thing, Outcome.CREATED) if found is None else Step.changed(thing, differences)
