"""The Prefect server: reached, or what is wrong said in a line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from variations.errors import SettingsError
from variations.uris import shown_uri


class ServerRefused(SettingsError):
    """The Prefect server is there, and does not do what it was asked."""


@asynccontextmanager
async def server() -> AsyncIterator[PrefectClient]:
    """Yield a client of the configured server.

    Raises:
        SettingsError: none is configured, or it does not answer.
        ServerRefused: it answers, and refuses what it is asked.
    """
    url = server_url()
    try:
        async with get_client() as client:
            yield client
    except httpx.TransportError as error:
        name = type(error).__name__
        raise SettingsError(f"no Prefect server answers at PREFECT_API_URL, {url} ({name})") from error
    except PrefectHTTPStatusError as error:
        raise ServerRefused(_said(error, url)) from error


def server_url() -> str:
    """Return the address of the server's API, without a password.

    Raises:
        SettingsError: none is configured.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise SettingsError(
            "PREFECT_API_URL is not set, so there is no Prefect server to deploy to; start one with "
            "`prefect server start`, and set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    return shown_uri(url)


def _said(error: PrefectHTTPStatusError, url: str) -> str:
    status = error.response.status_code
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return (
            f"the Prefect server at {url} answered {status}: set PREFECT_API_AUTH_STRING (or, for Prefect Cloud, "
            "PREFECT_API_KEY) to one that it accepts"
        )
    request = error.request
    return f"the Prefect server at {url} answered {status} to {request.method} {request.url.path}: {_detail(error)}"


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        found = error.response.json()
    except ValueError:
        found = error.response.text
    return str(found.get("detail", found) if isinstance(found, dict) else found)[:500]
