"""A store that fails now and then delays a run; one that fails for good stops it. Neither costs anything twice."""

from collections.abc import Iterator

import pytest

from . import scenarios
from .conftest import Furnish
from .s3_proxy import S3Proxy, running_proxy
from .scene import Store


@pytest.fixture
def proxy(chaos_store: Store) -> Iterator[S3Proxy]:
    """Put a proxy in front of the store."""
    with running_proxy(chaos_store.url) as proxy:
        yield proxy


def test_a_run_gets_through_bad_weather(furnish: Furnish, proxy: S3Proxy) -> None:
    """Busy answers, lost replies, resets and latency, in every twentieth request and more."""
    verdict = scenarios.bad_weather(furnish(url=proxy.url), proxy)
    assert verdict.is_complete, verdict
    assert proxy.struck().total() > 5


def test_credentials_that_expire_stop_a_run(furnish: Furnish, proxy: S3Proxy) -> None:
    """Nothing is on the bill that is not in a journal, and with new ones the next run goes on."""
    verdict = scenarios.credentials_expire(furnish(url=proxy.url), proxy)
    assert verdict.is_complete, verdict
