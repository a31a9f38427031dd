"""What the API refuses, with which code and in which words."""

import json

import httpx
import pytest

from variations.parameters import PARAMETER_NAMES, Parameters
from variations.sandbox import Sandbox
from variations.sandbox.validation import DEFAULTS, RANDOM_SEEDS, read_request

SUBMIT = "/v2/flux-redux-dev"
BOTH_SUBMITS = (SUBMIT, "/v1/flux-redux-dev")


@pytest.mark.parametrize("path", ["/v2/requests/x/status", "/v2/requests/x", "/v1/get-user-credits"])
def test_401_has_a_text_for_no_key_and_one_for_a_wrong_key(
    anonymous: httpx.Client, sandbox: Sandbox, path: str
) -> None:
    """The envelope of the auth surface, with two texts; a bearer token is no key."""
    url = sandbox.base_url + path
    none = anonymous.get(url)
    bearer = anonymous.get(url, headers={"Authorization": f"Bearer {sandbox.api_key}"})
    wrong = anonymous.get(url, headers={"x-api-key": "SG_ffffffffffffffff"})
    assert none.status_code == bearer.status_code == wrong.status_code == 401
    assert none.json() == bearer.json()
    assert none.json().keys() == wrong.json().keys() == {"error", "error_description", "status_code"}
    assert none.json()["error_description"] != wrong.json()["error_description"]


def test_404_for_an_unknown_model_and_an_unknown_address(api: httpx.Client) -> None:
    """Both in the JSON envelope."""
    for answer in (api.post("/v2/no-such-model", json={}), api.get("/nowhere"), api.get("/v2/requests/x/")):
        assert answer.status_code == 404
        assert answer.json().keys() == {"error"}


def test_405_is_html(api: httpx.Client) -> None:
    """A wrong verb is answered with a page and the verbs that are allowed."""
    for answer in (api.get(SUBMIT), api.put("/v1/flux-redux-dev"), api.post("/v2/requests/x/status")):
        assert answer.status_code == 405
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["allow"]


def test_410_for_a_retired_model_and_403_for_a_forbidden_one(api: httpx.Client, sandbox: Sandbox, photo: str) -> None:
    """A model can be retired and forbidden while the sandbox runs."""
    sandbox.configure(retired_models=["flux-redux-dev"])
    assert api.post(SUBMIT, json={"redux_image": photo}).status_code == 410
    sandbox.configure(retired_models=[], forbidden_models=["flux-redux-dev"])
    assert api.post(SUBMIT, json={"redux_image": photo}).status_code == 403


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("path", [*BOTH_SUBMITS, "/upload-asset"])
def test_406_for_a_content_type_that_is_not_json(api: httpx.Client, path: str, content_type: str | None) -> None:
    """JSON under another name is refused."""
    headers = {"content-type": content_type} if content_type else {}
    answer = api.post(path, content=b'{"redux_image": "http://127.0.0.1/a.jpg"}', headers=headers)
    assert answer.status_code == 406
    assert "Content-Type" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b'{"seed": 1}', b'{"guidance": NaN}'])
@pytest.mark.parametrize("path", BOTH_SUBMITS)
def test_400_for_a_malformed_body_and_a_missing_field(api: httpx.Client, path: str, body: bytes) -> None:
    """No JSON, no object, no redux_image."""
    answer = api.post(path, content=body, headers={"content-type": "application/json; charset=utf-8"})
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redux_image", 1),
        ("redux_image", None),
        ("redux_image", "photo.jpg"),
        ("redux_image", "s3://bucket/key.jpg"),
        ("redux_image", "http://"),
        ("redux_image", "http://[/x"),
        ("redux_image", "http://127.0.0.1/\ud800"),
        ("aspect_ratio", "2:1"),
        ("aspect_ratio", 1),
        ("disable_safety_checker", "true"),
        ("disable_safety_checker", 0),
        ("guidance", 10.1),
        ("guidance", -0.1),
        ("guidance", "3"),
        ("guidance", True),
        ("megapixels", 1),
        ("megapixels", "2"),
        ("num_inference_steps", 0),
        ("num_inference_steps", 51),
        ("num_inference_steps", 28.0),
        ("num_outputs", 0),
        ("num_outputs", 5),
        ("num_outputs", True),
        ("output_format", "jpeg"),
        ("output_quality", -1),
        ("output_quality", 101),
        ("seed", -2),
        ("seed", 2**31),
        ("seed", "1"),
        ("seed", None),
        ("prompt", "a cat"),
    ],
)
def test_406_for_a_refused_value_names_the_parameter(
    api: httpx.Client, sandbox: Sandbox, photo: str, name: str, value: object
) -> None:
    """Every parameter is checked strictly, and nothing is accepted."""
    content = json.dumps({"redux_image": photo, name: value})
    answer = api.post(SUBMIT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 406
    assert name in answer.json()["error"]
    assert "credit" not in answer.json()["error"].lower()
    assert sandbox.bill().accepted == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("guidance", [0, 10, 3.5]),
        ("num_inference_steps", [1, 50]),
        ("num_outputs", [1, 4]),
        ("output_quality", [0, 100]),
        ("seed", [1, 2**31 - 1, *RANDOM_SEEDS]),
        ("megapixels", ["1", "0.25", "match_input"]),
        ("output_format", ["jpg", "png", "webp"]),
    ],
)
def test_every_documented_bound_is_accepted(name: str, values: list[object]) -> None:
    """The bounds themselves are inside."""
    for value in values:
        assert read_request({"redux_image": "http://127.0.0.1/a.jpg", name: value}).value(name) == value


def test_the_parameters_and_their_defaults_are_those_of_the_package() -> None:
    """What the package sends by default is what the sandbox assumes where nothing is sent."""
    assert set(DEFAULTS) == set(PARAMETER_NAMES)
    assert Parameters().model_dump() == DEFAULTS


def test_406_when_the_credits_do_not_cover_another_request(api: httpx.Client, sandbox: Sandbox, photo: str) -> None:
    """Requests in flight count, so the balance never becomes negative; a failed one gives its share back."""
    sandbox.configure(credits=0.062)
    sandbox.set_faults("failed:1:1")
    assert [api.post(SUBMIT, json={"redux_image": photo}).status_code for _ in range(3)] == [200, 200, 406]
    refused = api.post(SUBMIT, json={"redux_image": photo})
    assert "credits" in refused.json()["error"]
    sandbox.advance_clock(16)
    assert [api.post(SUBMIT, json={"redux_image": photo}).status_code for _ in range(2)] == [200, 406]
    sandbox.advance_clock(16)
    assert sandbox.bill().credits_left == 0


def test_406_for_a_team_whose_spend_limit_is_reached(api: httpx.Client, sandbox: Sandbox, photo: str) -> None:
    """It has a text of its own, whatever the balance."""
    sandbox.configure(spend_limit_usd=0.04)
    assert api.post(SUBMIT, json={"redux_image": photo}).status_code == 200
    refused = api.post(SUBMIT, json={"redux_image": photo})
    assert refused.status_code == 406
    assert "spend limit" in refused.json()["error"]
    sandbox.configure(spend_limit_usd=None)
    assert api.post(SUBMIT, json={"redux_image": photo}).status_code == 200
