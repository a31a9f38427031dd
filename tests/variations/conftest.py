"""An object store and the API on loopback ports, for tests that run a whole pipeline. Nobody gets them unasked."""

import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.variations.scene import Scene
from variations.sandbox import Sandbox, running_sandbox
from variations.sandbox.s3_server import running_s3
from variations.storage import Storage, close_clients, open_storage


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Serve an object store in memory."""
    with running_s3() as url:
        yield url
        close_clients()


@pytest.fixture(scope="module")
def own_clients() -> Iterator[None]:
    """Share no client with other modules: those opened without options lead wherever the first of them led."""
    close_clients()
    yield
    close_clients()


@pytest.fixture
def s3_uri(moto_url: str, own_clients: None, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: ARG001
    """Make a bucket, and let the environment lead to it as a user's would."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "MADEUPACCESSKEY",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    httpx.put(f"{moto_url}/{bucket}").raise_for_status()
    return f"s3://{bucket}"


@pytest.fixture
def local_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make an empty folder."""
    return f"file://{tmp_path_factory.mktemp('local')}"


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """Give a folder, then a bucket."""
    uri: str = request.getfixturevalue(f"{request.param}_uri")
    return uri


@pytest.fixture
def dataset(local_uri: str) -> Storage:
    """Give an empty destination, a folder."""
    return open_storage(f"{local_uri}/dataset", missing_ok=True)


@pytest.fixture
def any_dataset(place: str) -> Storage:
    """Give an empty destination, a folder and then a prefix of a bucket."""
    return open_storage(f"{place}/dataset", missing_ok=True)


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox]:
    """Serve the API, a thousand times as fast."""
    with running_sandbox(speed=1000) as sandbox:
        yield sandbox


@pytest.fixture
def api(sandbox: Sandbox) -> Sandbox:
    """Give the API with a clean bill."""
    return sandbox


@pytest.fixture
def scene(local_uri: str, api: Sandbox) -> Scene:
    """Give photos, a manifest and a destination in a folder, and the API."""
    return Scene(local_uri, api)


@pytest.fixture
def any_scene(place: str, api: Sandbox) -> Scene:
    """Give the same in a folder, and then in a bucket."""
    return Scene(place, api)
