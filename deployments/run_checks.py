"""What the doctor looks at that a run needs, as this machine sees it: the API, and where it reads and writes."""

from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from config import Settings
from deployments.finding import Finding
from deployments.server_checks import DEPLOY
from variations.api.client import Client
from variations.api.http import default_http_client
from variations.dates import filled, has_placeholder
from variations.errors import SettingsError, Unauthorized
from variations.ledger.probe import check_conditional_writes
from variations.storage import Storage, open_storage, split_uri
from variations.uris import shown_uri

_KEY: Final = f"set SEGMIND_API_KEY to one that is good, then: {DEPLOY}"


async def check_key(settings: Settings, *, is_stored: bool) -> list[Finding]:
    """Look whether the API takes the key, and what the balance is.

    Args:
        settings: with the key.
        is_stored: whether the key is the one of Prefect's Secret block.
    """
    try:
        endpoint = settings.endpoint()
        async with default_http_client() as http:
            balance = (await Client(http, endpoint=endpoint).credits()).total
    except (SettingsError, Unauthorized) as error:
        return [Finding("key", " ".join(str(error).split()), _KEY)]
    whose = "Prefect's secret block" if is_stored else "SEGMIND_API_KEY or variations.toml"
    key = Finding("key", f"accepted by {endpoint.base_url}; it is the one of {whose}")
    text = f"{balance:,.2f} USD"
    if balance < settings.price_usd:
        return [key, Finding("balance", f"{text} does not cover an image", "top the account up")]
    return [key, Finding("balance", text)]


async def check_source(uri: str) -> Finding:
    """Look whether there is something to read; of a source with dates, today's may still be to come."""
    about, today = "source", filled(uri, datetime.now(UTC).date(), name="source")
    size = await _size(today)
    if size is not None:
        return Finding(about, f"{shown_uri(today)} is readable" + (f", {size:,} bytes" if size else ""))
    if has_placeholder(uri):
        return Finding(about, f"{shown_uri(today)}: nothing there yet, and none the worse for being today's")
    return Finding(about, f"{shown_uri(today)}: nothing there", "put the manifest there, or name another --source")


async def check_destination(uri: str) -> Finding:
    """Look whether it can be written to, and keeps two runs apart."""
    storage = open_storage(filled(uri, datetime.now(UTC).date(), name="destination"), missing_ok=True)
    try:
        await check_conditional_writes(storage)
    finally:
        await storage.aclose()
    return Finding("destination", f"{shown_uri(storage.uri)} is writable, and honours conditional writes")


async def _size(uri: str) -> int | None:
    """Return the size of an object, 0 for a prefix with objects in it, None if there is nothing."""
    if not uri.endswith("/"):
        folder, key = split_uri(uri)
        storage = open_storage(folder, missing_ok=True)
        try:
            if entry := await storage.head(key):
                return entry.size
        finally:
            await storage.aclose()
    storage = open_storage(uri, missing_ok=True)
    try:
        return 0 if await _has_objects(storage) else None
    finally:
        await storage.aclose()


async def _has_objects(storage: Storage) -> bool:
    async with aclosing(storage.list()) as entries:  # type: ignore[type-var]
        async for _ in entries:
            return True
    return False
