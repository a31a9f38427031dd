"""The flow `plan`: the form of `augment`, and never more than its dry run."""

import shutil
from pathlib import Path

import pytest
from prefect.client.schemas.objects import StateType
from prefect.exceptions import SignatureMismatchError
from prefect.utilities.callables import parameter_schema

from flows.augment import augment
from flows.plan import plan
from tests.flows.conftest import at_work
from variations.sandbox import Sandbox, sample_photos


def test_its_form_is_that_of_augment() -> None:
    """Field by field, in the same order; there is none by which it would pay."""
    of_augment, of_plan = (parameter_schema(one).model_dump() for one in (augment, plan))
    assert of_augment["properties"].pop("dry_run")
    for position, field in enumerate(of_augment["properties"].values()):
        field["position"] = position
    assert of_plan == of_augment
    assert list(of_plan["properties"]) == list(of_augment["properties"])
    assert str(plan.description).startswith("Say what a run of `augment` would make")
    with pytest.raises(SignatureMismatchError):
        plan.validate_parameters({"source": "s", "destination": "d", "dry_run": False})


async def test_it_pays_and_waits_for_nothing(environment: dict[str, str], sandbox: Sandbox, tmp_path: Path) -> None:
    """While a run works on the dataset it says what is to be made, and submits none of it."""
    del environment
    (tmp_path / "photos").mkdir()
    shutil.copy(sample_photos()[0], tmp_path / "photos")
    async with at_work(str(tmp_path / "dataset")):
        places = {"source": str(tmp_path / "photos"), "destination": str(tmp_path / "dataset")}
        state = await plan(**places, outputs_per_request=2, return_state=True)
    assert (state.type, state.name) == (StateType.COMPLETED, "Planned")
    assert (await state.result())["images"] == 2
    assert sandbox.bill().calls_of("submit") == 0
