"""One store, one sandbox and one server of workers for all tests of real processes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from variations.sandbox import Sandbox

from .scene import Scene, Store, running_api, running_store
from .workers import Workers, running_workers

Furnish = Callable[..., Scene]


@pytest.fixture(scope="session")
def chaos_workers() -> Iterator[Workers]:
    """Fork workers on request."""
    with running_workers() as workers:
        yield workers


@pytest.fixture(scope="session")
def chaos_store() -> Iterator[Store]:
    """Serve an object store in memory."""
    with running_store("moto") as store:
        yield store


@pytest.fixture(scope="session")
def chaos_api() -> Iterator[Sandbox]:
    """Serve the API."""
    with running_api() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def furnish(chaos_store: Store, chaos_api: Sandbox, chaos_workers: Workers) -> Furnish:
    """Make a scene with a bucket of its own."""

    def make(*, images: int = 6, **more: Any) -> Scene:
        return Scene(chaos_store, chaos_api, chaos_workers, images=images, **more)

    return make
