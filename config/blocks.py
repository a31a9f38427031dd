"""What a Prefect server keeps for all machines: the API's key, and the settings that are not a run's own.

The one module of `config` that knows Prefect, and `config` itself does not import it: a command that needs no Prefect
need not wait for it.
"""

import logging
from typing import Any, ClassVar, Final, Literal

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from config.settings import Settings
from variations.errors import SettingsError
from variations.uris import shown_uri

KEY_BLOCK: Final = "variations-api-key"
SETTINGS_BLOCK: Final = "variations"

logger = logging.getLogger(__name__)


def _setting(name: str) -> Any:
    """Return the field of a setting, with the default, the description and the bounds that it has everywhere."""
    setting = Settings.model_fields[name]
    bounds: dict[str, Any] = {
        bound: getattr(item, bound)
        for item in setting.metadata
        for bound in ("gt", "ge", "lt", "le")
        if hasattr(item, bound)
    }
    return Field(setting.default, description=setting.description, **bounds)


class VariationsSettings(Block):
    """Settings that all machines share; the environment of a machine, and its variations.toml, win over them."""

    _block_type_name = "Variations Settings"
    _block_type_slug = "variations-settings"
    _description = "Settings of `variations` that all machines share; the environment of a machine wins over them."

    segmind_base_url: str = _setting("segmind_base_url")
    segmind_history_url: str = _setting("segmind_history_url")
    segmind_upload_url: str = _setting("segmind_upload_url")
    requests_counted: Literal["all", "submit"] = _setting("requests_counted")
    expected_latency_seconds: float = _setting("expected_latency_seconds")
    max_images_in_memory: int = _setting("max_images_in_memory")
    presign_seconds: int = _setting("presign_seconds")
    price_usd: float = _setting("price_usd")
    grace_seconds: float = _setting("grace_seconds")
    lease_seconds: float = _setting("lease_seconds")
    canary_wait_seconds: float = _setting("canary_wait_seconds")
    # A form's field holds a line, not a tuple.
    output_hosts: str = Field("", description=Settings.model_fields["output_hosts"].description)

    NAMES: ClassVar[frozenset[str]]

    def values(self) -> dict[str, Any]:
        """Return the settings by their names."""
        return self.model_dump(include=set(self.NAMES))


VariationsSettings.NAMES = frozenset(VariationsSettings.model_fields)


async def stored_settings() -> dict[str, Any]:
    """Return what the blocks of the Prefect server say, for `load_settings(stored=…)`; what is not there is left out.

    Where nothing was deployed the environment may hold all that is needed, and no server, or one that does not answer,
    has nothing to say. A deployed run would go on with other settings than it was deployed with, another host say, so
    there it has to answer.

    Raises:
        SettingsError: in a deployed run, the server does not tell them.
    """
    url = PREFECT_API_URL.value()
    if not url:
        return {}
    try:
        async with get_client() as client:
            key = await read_key(client)
            settings = await read_settings(client)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if _is_deployed():
            raise SettingsError(
                f"the Prefect server at {shown_uri(url)} did not tell the settings that its blocks hold ({said}); a "
                "deployed run does not begin without them: run it again when the server is well"
            ) from error
        logger.warning("the settings that Prefect's blocks hold could not be read: %s", said)
        return {}
    return {**(settings or {}), **({"segmind_api_key": key} if key else {})}


def _is_deployed() -> bool:
    # What `prefect.runtime` says of it, it asks the server for.
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


async def read_key(client: PrefectClient) -> str | None:
    """Return the key that is stored; None if none is."""
    data = await _data(client, KEY_BLOCK, block_type_slug="secret")
    return None if data is None else str(data.get("value") or "")


async def read_settings(client: PrefectClient) -> dict[str, Any] | None:
    """Return the settings that are stored, by their names; None if there is no block."""
    data = await _data(client, SETTINGS_BLOCK, block_type_slug=VariationsSettings.get_block_type_slug())
    # What an older or a newer version has stored under other names is not ours to read.
    return (
        None if data is None else {name: data[name] for name in VariationsSettings.NAMES if data.get(name) is not None}
    )


async def _data(client: PrefectClient, name: str, *, block_type_slug: str) -> dict[str, Any] | None:
    try:
        document = await client.read_block_document_by_name(name, block_type_slug, include_secrets=True)
    except ObjectNotFound:
        return None
    return dict(document.data)
