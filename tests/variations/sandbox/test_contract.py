"""The calls of API.md, answered as it says."""

import base64
import io
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from variations.sandbox import Sandbox

LATENCY_SECONDS = 15.84
Submit = Callable[..., dict[str, str]]


def test_submit_answers_at_once_with_absolute_addresses(sandbox: Sandbox, photo: str, submit: Submit) -> None:
    """A submit is QUEUED, has a UUID4 and names where its status and result are."""
    body = submit(photo)
    request_id = body.pop("request_id")
    assert uuid.UUID(request_id).version == 4
    assert body == {
        "status": "QUEUED",
        "status_url": f"{sandbox.base_url}/v2/requests/{request_id}/status",
        "response_url": f"{sandbox.base_url}/v2/requests/{request_id}",
        "poll_url": f"{sandbox.base_url}/v1/requests/{request_id}",
    }


def test_a_request_is_processed_for_its_latency_and_then_completed(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """The states follow the sandbox's clock, and a status carries no output."""
    job = submit(photo)
    sandbox.advance_clock(LATENCY_SECONDS - 2)
    assert api.get(job["status_url"]).json()["status"] == "PROCESSING"
    sandbox.advance_clock(2)
    status = api.get(job["status_url"])
    assert status.status_code == 200
    body = status.json()
    assert body["status"] == "COMPLETED"
    assert body.keys() == {"request_id", "status", "status_url", "response_url", "metrics"}
    assert body["metrics"]["total_time"] == pytest.approx(LATENCY_SECONDS, abs=0.001)


def test_a_request_waits_in_the_queue_while_every_worker_is_busy(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """With one worker the second request is QUEUED, and its queue time is the first one's latency."""
    sandbox.configure(workers=1)
    first, second = submit(photo, seed=1), submit(photo, seed=2)
    assert api.get(first["status_url"]).json()["status"] == "PROCESSING"
    assert api.get(second["status_url"]).json()["status"] == "QUEUED"
    sandbox.advance_clock(LATENCY_SECONDS)
    assert api.get(second["status_url"]).json()["status"] == "PROCESSING"
    sandbox.advance_clock(LATENCY_SECONDS)
    metrics = api.get(second["response_url"]).json()["metrics"]
    assert metrics["queue_time"] == pytest.approx(LATENCY_SECONDS, abs=1.0)
    assert metrics["inference_time"] == pytest.approx(LATENCY_SECONDS, abs=0.001)
    assert metrics["total_time"] == pytest.approx(metrics["queue_time"] + metrics["inference_time"], abs=0.001)


@pytest.mark.parametrize("address", ["response_url", "poll_url"])
def test_the_final_body_has_one_image_at_an_address_without_key(
    *, api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, address: str, submit: Submit
) -> None:
    """The v2 result and the older v1 poll tell the same record; the file needs no key."""
    job = submit(photo, seed=77)
    sandbox.advance_clock(LATENCY_SECONDS)
    body = api.get(job[address]).json()
    (image,) = body["images"]
    assert body["status"] == "COMPLETED"
    assert body["request_id"] == job["request_id"]
    assert body["output"] == image["url"]
    assert body["seed"] == 77
    assert body["metrics"].keys() == {"cost", "remaining_credits", "inference_time", "queue_time", "total_time"}
    file = anonymous.get(image["url"])
    assert file.headers["content-type"] == image["content_type"] == "image/jpeg"
    assert len(file.content) == image["file_size"]
    assert Image.open(io.BytesIO(file.content)).size == (1024, 1024)


def test_a_result_that_is_asked_for_too_early_is_the_current_status(
    api: httpx.Client, photo: str, submit: Submit
) -> None:
    """Before its time the result has no output and is a 200."""
    answer = api.get(submit(photo)["response_url"])
    assert answer.status_code == 200
    assert answer.json()["status"] == "PROCESSING"
    assert "output" not in answer.json()


def test_several_outputs_are_a_list_of_different_images(
    api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Four outputs are four files, and four are charged."""
    job = submit(photo, num_outputs=4, megapixels="0.25")
    sandbox.advance_clock(LATENCY_SECONDS)
    body = api.get(job["response_url"]).json()
    assert body["output"] == [image["url"] for image in body["images"]]
    assert len({anonymous.get(url).content for url in body["output"]}) == 4
    assert body["metrics"]["cost"] == pytest.approx(4 * 0.031)


def test_the_same_request_makes_the_same_bytes_and_another_seed_other_ones(
    api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """An image depends on source, parameters and seed only."""
    jobs = [submit(photo, seed=seed) for seed in (5, 5, 6)]
    sandbox.advance_clock(LATENCY_SECONDS)
    files = [anonymous.get(api.get(job["response_url"]).json()["output"]).content for job in jobs]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("seed", [0, -1])
def test_a_random_seed_is_named_in_the_answer(
    *, api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, seed: int, submit: Submit
) -> None:
    """0 and -1 ask for a random seed; sent again, the one that was drawn makes the same image."""
    job = submit(photo, seed=seed)
    sandbox.advance_clock(LATENCY_SECONDS)
    drawn = api.get(job["response_url"]).json()
    assert drawn["seed"] > 0
    again = submit(photo, seed=drawn["seed"])
    sandbox.advance_clock(LATENCY_SECONDS)
    output = api.get(again["response_url"]).json()["output"]
    assert anonymous.get(output).content == anonymous.get(drawn["output"]).content


def test_a_result_expires_an_hour_after_its_submission(
    api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """After the hour status, result and poll are 404; the file is still there for seven days."""
    job = submit(photo)
    sandbox.advance_clock(3590)
    url = api.get(job["response_url"]).json()["output"]
    sandbox.advance_clock(11)
    for address in ("status_url", "response_url", "poll_url"):
        assert api.get(job[address]).status_code == 404
    assert anonymous.get(url).status_code == 200
    sandbox.advance_clock(7 * 86400)
    assert anonymous.get(url).status_code == 404


def test_an_unknown_id_is_404(api: httpx.Client) -> None:
    """An id that was never given out is not found, in the envelope."""
    answer = api.get(f"/v2/requests/{uuid.uuid4()}/status")
    assert answer.status_code == 404
    assert answer.json().keys() == {"error"}


def test_an_output_address_cannot_be_guessed(
    api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """A request's id is not enough to fetch its image."""
    job = submit(photo)
    sandbox.advance_clock(LATENCY_SECONDS)
    url = api.get(job["response_url"]).json()["output"]
    stem, extension = url.rsplit(".", 1)
    assert anonymous.get(f"{stem[:-1]}{'0' if stem[-1] != '0' else '1'}.{extension}").status_code == 404
    assert anonymous.get(f"{sandbox.base_url}/outputs/nonsense.jpg").status_code == 404


def test_the_blocking_call_answers_with_the_image_itself(api: httpx.Client, sandbox: Sandbox, photo: str) -> None:
    """v1 sends the bytes, and the accounting in headers."""
    sandbox.configure(latency_seconds=0.05)
    answer = api.post("/v1/flux-redux-dev", json={"redux_image": photo, "output_format": "png", "seed": 9})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"
    assert float(answer.headers["x-cost"]) == 0.031
    assert float(answer.headers["x-remaining-credits"]) == pytest.approx(100 - 0.031)
    assert float(answer.headers["x-generation-time"]) >= 0.05
    assert answer.headers["x-seed-value"] == "9"
    assert sandbox.bill().line(answer.headers["x-request-id"]).endpoint == "v1"


def test_a_blocking_call_that_fails_is_422(api: httpx.Client, sandbox: Sandbox, sources: Any) -> None:
    """v1 tells a failure in the ordinary envelope."""
    sandbox.configure(latency_seconds=0)
    answer = api.post("/v1/flux-redux-dev", json={"redux_image": sources.url("92_html_not_image.jpg")})
    assert answer.status_code == 422
    assert "Could not decode" in answer.json()["error"]


def test_a_failed_request_is_served_as_422_without_cost(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Status and result of a FAILED request carry the error and the times, and nothing is charged."""
    sandbox.set_faults("failed:1:1")
    job = submit(photo)
    sandbox.advance_clock(LATENCY_SECONDS)
    for address in ("status_url", "response_url", "poll_url"):
        answer = api.get(job[address])
        assert answer.status_code == 422
        assert answer.json()["status"] == "FAILED"
        assert answer.json()["error"]
        assert answer.json()["metrics"].keys() == {"queue_time", "inference_time", "total_time"}
    assert sandbox.bill().total_usd == 0
    assert api.get("/v1/get-user-credits").json() == {"credits": 100.0, "free-credits": 0.0}


def test_credits_run_down_with_every_completed_request(
    api: httpx.Client, sandbox: Sandbox, photo: str, submit: Submit
) -> None:
    """Free credits go first, and the balance is what the metrics say remains."""
    sandbox.configure(credits=1.0, free_credits=0.04)
    job = submit(photo, num_outputs=2, megapixels="0.25")
    sandbox.advance_clock(LATENCY_SECONDS)
    assert api.get("/v1/get-user-credits").json() == {"credits": 0.978, "free-credits": 0.0}
    assert api.get(job["status_url"]).json()["metrics"]["remaining_credits"] == 0.978


def test_an_uploaded_file_is_a_source(
    api: httpx.Client, anonymous: httpx.Client, sandbox: Sandbox, sources: Any, submit: Submit
) -> None:
    """upload-asset returns an address that redux_image takes."""
    photo = sources.contents["10_chelsea.webp"]
    data_url = f"data:image/webp;base64,{base64.b64encode(photo).decode()}"
    answer = api.post("/upload-asset", json={"data_urls": [data_url]})
    (url,) = answer.json()["file_urls"]
    assert answer.json()["message"]
    file = anonymous.get(url)
    assert file.content == photo
    assert file.headers["content-type"] == "image/webp"
    job = submit(url)
    sandbox.advance_clock(LATENCY_SECONDS)
    assert api.get(job["status_url"]).json()["status"] == "COMPLETED"


def test_equal_files_have_one_address(api: httpx.Client, sources: Any) -> None:
    """The bill is by source: who uploads a file again and pays for it again is seen."""
    photos = [base64.b64encode(sources.contents[name]).decode() for name in ("10_chelsea.webp", "17_thumb_24.jpg")]
    webp, jpeg = (f"data:image/{kind};base64,{photo}" for kind, photo in zip(("webp", "jpeg"), photos, strict=True))
    urls = [*api.post("/upload-asset", json={"data_urls": [webp, jpeg]}).json()["file_urls"]]
    urls += api.post("/upload-asset", json={"data_urls": [webp]}).json()["file_urls"]
    assert urls[0] == urls[2] != urls[1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data_urls": []},
        {"data_urls": "data:,x"},
        {"data_urls": [1]},
        {"data_urls": ["http://127.0.0.1/x"]},
        {"data_urls": ["data:image/png;base64,***"]},
        {"data_urls": ["data:image/png;base64,"]},
    ],
)
def test_a_malformed_upload_is_400(api: httpx.Client, body: dict[str, object]) -> None:
    """What is not a list of data: URLs is refused."""
    assert api.post("/upload-asset", json=body).status_code == 400
