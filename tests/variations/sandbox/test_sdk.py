"""The vendor's own SDK against the sandbox, with nothing changed but where it looks.

`base_url` is an argument of its client; its upload and history addresses are constants of its public modules.
"""

import functools
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from segmind import InferenceFailed, InferenceTimeout, SegmindClient, SegmindError
from segmind.files import Files

from variations.sandbox import Sandbox

MODEL = "flux-redux-dev"


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[SegmindClient]:
    """The SDK's client, of a sandbox whose requests take no time."""
    sandbox.configure(latency_seconds=0)
    client = SegmindClient(api_key=sandbox.api_key, base_url=f"{sandbox.base_url}/v1")
    yield client
    client._client.close()


@pytest.fixture
def module(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The SDK's module, whose default client reads the key from the environment and looks at the sandbox."""
    sandbox.configure(latency_seconds=0)
    monkeypatch.setenv("SEGMIND_API_KEY", sandbox.api_key)
    # Imported afresh, so that the module has no default client yet; it will build one without arguments.
    for name in [name for name in sys.modules if name.partition(".")[0] == "segmind"]:
        monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module("segmind")
    at_the_sandbox = functools.partial(fresh.SegmindClient, base_url=f"{sandbox.base_url}/v1")
    monkeypatch.setattr(fresh, "SegmindClient", at_the_sandbox)
    yield fresh
    fresh._get_client()._client.close()


def test_the_product_pages_run_snippet_works(module: Any, photo: str, sandbox: Sandbox) -> None:
    """segmind.run submits, polls and returns the final body."""
    result = module.run(
        MODEL,
        redux_image=photo,
        aspect_ratio="1:1",
        disable_safety_checker=False,
        guidance=3,
        megapixels="1",
        num_inference_steps=28,
        num_outputs=1,
        output_format="jpg",
        output_quality=80,
        seed=30255,
    )
    assert result["status"] == "COMPLETED"
    assert httpx.get(result["output"]).headers["content-type"] == "image/jpeg"
    assert sandbox.bill().paid == 1


def test_the_product_pages_submit_and_wait_snippet_works(module: Any, photo: str) -> None:
    """submit_async returns a job at once, and its wait the final body."""
    job = module.submit_async(MODEL, redux_image=photo)
    assert job.request_id
    try:
        result = job.wait(timeout=300, interval=1)
    except (module.InferenceFailed, module.InferenceTimeout) as error:
        pytest.fail(str(error))
    assert result["images"][0]["url"] == result["output"]


def test_wait_raises_inference_timeout(client: SegmindClient, sandbox: Sandbox, photo: str) -> None:
    """A job that is still in the making when the deadline comes; later it is done."""
    sandbox.configure(latency_seconds=15.84)
    job = client.submit_async(MODEL, redux_image=photo)
    with pytest.raises(InferenceTimeout) as raised:
        job.wait(timeout=0.02, interval=0.01)
    assert raised.value.request_id == job.request_id
    assert job.status()["status"] == "PROCESSING"
    sandbox.advance_clock(16)
    assert job.wait()["status"] == "COMPLETED"


def test_wait_raises_inference_failed(client: SegmindClient, sandbox: Sandbox, photo: str) -> None:
    """With the error of the 422, which is also the job's result."""
    sandbox.set_faults("failed")
    job = client.submit_async(MODEL, redux_image=photo)
    with pytest.raises(InferenceFailed) as raised:
        job.wait()
    assert raised.value.detail == raised.value.status_body["error"] == job.result()["error"]


def test_run_sync_returns_the_image(client: SegmindClient, photo: str) -> None:
    """The blocking v1 call."""
    answer = client.run_sync(MODEL, redux_image=photo, output_format="webp")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content[8:12] == b"WEBP"


@pytest.mark.parametrize(
    ("model", "parameters", "status"), [("no-such-model", {}, 404), (MODEL, {"guidance": 99}, 406), (MODEL, None, 400)]
)
def test_a_refusal_is_the_sdks_error_with_its_text(
    client: SegmindClient, photo: str, model: str, parameters: dict[str, Any] | None, status: int
) -> None:
    """The SDK finds status and text where it looks for them."""
    body = {} if parameters is None else {"redux_image": photo, **parameters}
    with pytest.raises(SegmindError) as raised:
        client.submit_async(model, **body)
    assert raised.value.status == status
    assert raised.value.detail


def test_a_key_that_is_refused_is_the_sdks_error(sandbox: Sandbox, photo: str) -> None:
    """401, with the code of the auth surface."""
    client = SegmindClient(api_key="SG_0000000000000000", base_url=f"{sandbox.base_url}/v1")
    with pytest.raises(SegmindError) as raised:
        client.submit_async(MODEL, redux_image=photo)
    assert raised.value.status == 401
    client._client.close()


def test_files_upload_returns_an_address_that_run_takes(
    client: SegmindClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, sources: Any
) -> None:
    """A local file becomes a source."""
    monkeypatch.setattr(Files, "STORAGE_BASE_URL", sandbox.base_url)
    path = tmp_path / "cat.webp"
    path.write_bytes(sources.contents["10_chelsea.webp"])
    (url,) = client.files.upload(path)["file_urls"]
    assert client.run(MODEL, redux_image=url)["status"] == "COMPLETED"


def test_generations_history_lists_what_was_run(
    client: SegmindClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, photo: str
) -> None:
    """The list, and one record by its id."""
    history_url = f"{sandbox.base_url}/inference-request/request-history"
    # The package has an attribute of the same name as this module.
    monkeypatch.setattr(sys.modules["segmind.generations"], "REQUEST_HISTORY_URL", history_url)
    request_id = client.run(MODEL, redux_image=photo, seed=4)["request_id"]
    sandbox.advance_clock(5)
    (row,) = client.generations.history(per_page=100, status="COMPLETED")["data"]
    assert row == client.generations.get(request_id)
    assert row["request_body"] == {"redux_image": photo, "seed": 4}
