"""What all machines share: the key and the settings, in blocks on the server."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentUpdate
from pydantic import SecretStr

from config import load_settings
from config.blocks import KEY_BLOCK, SETTINGS_BLOCK, VariationsSettings, read_key, read_settings
from deployments.step import Outcome, Step
from variations.errors import SettingsError

# What is not stored has the default of the version that runs, and the vendor's hosts.
RESET: Final = f"prefect block delete {VariationsSettings.get_block_type_slug()}/{SETTINGS_BLOCK}"


async def ensure_key(client: PrefectClient, key: str) -> Step:
    """Store the API's key in a Secret block. Without a key, one that is stored is kept; none is ever shown."""
    thing = f"secret block {KEY_BLOCK}"
    found = await read_key(client)
    if not key:
        if not found:
            return Step(thing, Outcome.LEFT_OUT, "SEGMIND_API_KEY is not set here; set it, or set it for the workers")
        return Step(thing, Outcome.KEPT)
    if found == key:
        return Step(thing, Outcome.KEPT)
    await Secret(value=SecretStr(key)).asave(KEY_BLOCK, overwrite=True, client=client)
    return Step(thing, Outcome.CREATED) if found is None else Step(thing, Outcome.CHANGED, "the key")


async def ensure_settings(client: PrefectClient, given: Mapping[str, Any]) -> Step:
    """Store the settings that are given here, by the environment or a TOML file, and keep the others as they are.

    What is as it is by default is not stored: a later version may have a better one.

    Raises:
        SettingsError: what is stored cannot be used.
    """
    thing = f"settings block {SETTINGS_BLOCK}"
    found = await read_settings(client)
    before = found or {}
    wanted = {name: value for name, value in {**before, **given}.items() if value != _default(name)}
    try:
        load_settings(stored=wanted)
    except SettingsError as error:
        raise SettingsError(f"{error.message}; set it right on the block's page in Prefect's UI, or: {RESET}") from None
    what = hosts_told(wanted)
    differences = sorted(name for name in before.keys() | wanted.keys() if before.get(name) != wanted.get(name))
    if found is None or differences:
        await _store(client, wanted)
    return Step(thing, Outcome.CREATED, what) if found is None else Step.changed(thing, differences, what=what)


async def _store(client: PrefectClient, wanted: Mapping[str, Any]) -> None:
    # A block is saved with all of its fields, defaults too.
    await VariationsSettings(**wanted).asave(SETTINGS_BLOCK, overwrite=True, client=client)
    saved = await client.read_block_document_by_name(SETTINGS_BLOCK, VariationsSettings.get_block_type_slug())
    only = BlockDocumentUpdate(data=dict(wanted), merge_existing_data=False, block_schema_id=saved.block_schema_id)
    await client.update_block_document(saved.id, only)


def hosts_told(stored: Mapping[str, Any]) -> str:
    """Return which hosts other than the vendor's get requests and the key, by stored settings; empty if none does."""
    names: dict[str, list[str]] = {}
    for name in sorted(VariationsSettings.NAMES):
        if name.endswith("_url") and stored.get(name, _default(name)) != _default(name):
            # Without a user and a password, which a bad one may hold.
            names.setdefault(urlsplit(str(stored[name])).netloc.rpartition("@")[2], []).append(name)
    if not names:
        return ""
    hosts = " and ".join(f"{host} ({', '.join(of)})" for host, of in names.items())
    return f"requests, with the key, go to {hosts} and not to the vendor; to reset that: {RESET}"


def _default(name: str) -> Any:
    return VariationsSettings.model_fields[name].default
