"""What is on the account, for a plan: whether a run over it would be refused."""

import asyncio
from dataclasses import replace
from typing import Final

from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.errors import VariationsError
from variations.plan import Plan

PATIENCE_SECONDS: Final = 10.0


async def with_balance(plan: Plan, endpoint: Endpoint | None) -> Plan:
    """Return a plan with the account's balance, or why it is not known; without a key, as it was."""
    if endpoint is None:
        return plan
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), default_http_client(max_connections=1) as http:
            balance_usd = (await Client(http, endpoint=endpoint).credits()).total
    except (VariationsError, TimeoutError) as error:
        return replace(plan, balance_error=str(error) or "the API does not answer")
    return replace(plan, balance_usd=balance_usd)
