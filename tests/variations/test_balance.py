"""The balance beside a plan: told where there is a key, and never in the plan's way."""

from variations.api.client import Endpoint
from variations.balance import with_balance
from variations.sandbox import Sandbox

from .examples import PLAN


async def test_the_balance_stands_in_the_plan(api: Sandbox) -> None:
    """With whether a run would be refused for it; nothing else is asked of the API."""
    api.configure(credits=50.0, free_credits=1.5)
    plan = await with_balance(PLAN, Endpoint(api.api_key, api.base_url))
    assert dict(plan.lines())["balance"] == "51.50 USD: a run refuses"
    api.configure(credits=500.0)
    plan = await with_balance(PLAN, Endpoint(api.api_key, api.base_url))
    assert dict(plan.lines())["balance"] == "501.50 USD"
    assert api.bill().calls == {"credits": {"200": 2}}


async def test_a_key_that_is_refused_is_told_and_not_shown(api: Sandbox) -> None:
    """The plan is there all the same."""
    plan = await with_balance(PLAN, Endpoint("SG_ffffffffffffffff", api.base_url))
    assert dict(plan.lines())["balance"].startswith("not known: the API refused the key")
    assert "SG_ffffffffffffffff" not in plan.markdown()
    assert plan.cost_usd == PLAN.cost_usd


async def test_without_a_key_a_plan_is_as_it_was() -> None:
    """Nobody is asked."""
    assert await with_balance(PLAN, None) is PLAN


async def test_an_api_that_is_not_there_is_told() -> None:
    """Nothing listens on that port."""
    plan = await with_balance(PLAN, Endpoint("SG_0", "http://127.0.0.1:9"))
    assert dict(plan.lines())["balance"].startswith("not known: ")
