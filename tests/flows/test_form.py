"""The form of each flow, as Prefect's UI draws it; `python -m tests.flows.test_form` writes `form.json` anew."""

import json
from pathlib import Path
from typing import Any

import pytest

from config.prefect_defaults import set_prefect_defaults

set_prefect_defaults()

from prefect import Flow  # noqa: E402 - it reads its settings once
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.exceptions import PrefectHTTPStatusError  # noqa: E402
from prefect.utilities.callables import parameter_schema  # noqa: E402

from flows.augment import augment  # noqa: E402
from flows.recover import recover  # noqa: E402
from variations.sandbox import Sandbox  # noqa: E402

GOLDEN = Path(__file__).with_name("form.json")
FLOWS: dict[str, Flow[..., Any]] = {"augment": augment, "recover": recover}


def forms() -> dict[str, Any]:
    """Return the parameter schema of each flow."""
    return {name: parameter_schema(one).model_dump(exclude_none=True) for name, one in FLOWS.items()}


def test_the_forms_are_these() -> None:
    """A field that comes, goes, moves or changes its bounds is a decision."""
    assert forms() == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_is_flat_and_described(name: str) -> None:
    """A box, a drop-down or a switch each: no union, no object, no list; numbers have bounds."""
    schema = forms()[name]
    assert not schema.get("definitions")
    for field, properties in schema["properties"].items():
        assert properties["type"] in {"string", "integer", "number", "boolean"}, field
        assert not {"anyOf", "oneOf", "allOf", "$ref", "items", "properties"} & set(properties), field
        assert len(properties["description"]) > 10, field
        assert ("default" in properties) is (field not in schema["required"]), field
        if properties["type"] in {"integer", "number"}:
            assert "maximum" in properties, field
            assert {"minimum", "exclusiveMinimum"} & set(properties), field


def test_a_person_finds_first_what_is_asked_first() -> None:
    """What, where to, only to look, how many, for how much; the knobs of an expert come last."""
    names = sorted(forms()["augment"]["properties"].items(), key=lambda item: item[1]["position"])
    first = ["source", "destination", "dry_run", "variations_per_source", "sweep", "max_per_source", "max_cost_usd"]
    last = ["deadline_seconds", "unknown", "unknown_wait_seconds", "profile"]
    assert [name for name, _ in names[:7]] == first == list(forms()["augment"]["properties"])[:7]
    assert [name for name, _ in names[-4:]] == last


def test_choices_are_drop_downs() -> None:
    """With the values that are allowed."""
    choices = {name: field["enum"] for name, field in forms()["augment"]["properties"].items() if "enum" in field}
    assert set(choices) == {
        "leak_check",
        "retry",
        "aspect_ratio",
        "megapixels",
        "output_format",
        "on_flagged",
        "unknown",
    }
    assert len(choices["aspect_ratio"]) == 11


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guidance", 12),
        ("aspect_ratio", "7:5"),
        ("variations_per_source", 0),
        ("max_cost_usd", -1),
        ("max_failed_percent", 101),
        ("workers", 65),
        ("date", "2026-1-1"),
        ("destination", ""),
        ("dry_run", "perhaps"),
        ("outputs_per_request", 2.5),
    ],
)
async def test_the_server_refuses_a_bad_value_with_the_name_of_its_field(
    environment: dict[str, str], sandbox: Sandbox, field: str, value: Any
) -> None:
    """As the form does: no flow run is made of it."""
    del environment
    async with get_client() as client:
        flow_id = await client.create_flow(augment)
        deployment_id = await client.create_deployment(
            flow_id,
            name="form",
            parameter_openapi_schema=parameter_schema(augment).model_dump_for_openapi(),
            enforce_parameter_schema=True,
        )
        good = {"source": "photos", "destination": "dataset"}
        before = len(await client.read_flow_runs())
        with pytest.raises(PrefectHTTPStatusError) as refused:
            await client.create_flow_run_from_deployment(deployment_id, parameters={**good, field: value})
        assert refused.value.response.status_code in {409, 422}
        assert field in refused.value.response.text
        assert len(await client.read_flow_runs()) == before
        await client.create_flow_run_from_deployment(deployment_id, parameters={**good, "date": "2026-11-02"})
        await client.delete_deployment(deployment_id)
    assert sandbox.bill().calls == {}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(forms(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
