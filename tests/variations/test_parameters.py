"""The API's parameters: every bound of its page, refused before anything is paid."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from variations.parameters import ASPECT_RATIOS, PARAMETER_NAMES, SIZES_AT_1_MEGAPIXEL, Parameters

SIZES = """1:1 1024x1024, 16:9 1344x768, 21:9 1536x640, 3:2 1216x832, 2:3 832x1216, 4:5 896x1088, 5:4 1088x896,
3:4 896x1152, 4:3 1152x896, 9:16 768x1344, 9:21 640x1536"""


def test_the_defaults_are_the_apis() -> None:
    """Somebody who sets nothing gets what the API's page promises."""
    assert Parameters().as_sent() == {
        "aspect_ratio": "1:1",
        "disable_safety_checker": False,
        "guidance": 3,
        "megapixels": "1",
        "num_inference_steps": 28,
        "num_outputs": 1,
        "output_format": "jpg",
        "output_quality": 80,
        "seed": 30255,
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("aspect_ratio", ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"]),
        ("disable_safety_checker", [True, False]),
        ("guidance", [0, 0.5, 10]),
        ("megapixels", ["1", "0.25", "match_input"]),
        ("num_inference_steps", [1, 50]),
        ("num_outputs", [1, 4]),
        ("output_format", ["webp", "jpg", "png"]),
        ("output_quality", [0, 100]),
        ("seed", [1, 2**31 - 1]),
    ],
)
def test_what_the_api_allows_is_allowed(name: str, values: list[Any]) -> None:
    """Up to both ends of every range."""
    for value in values:
        assert getattr(Parameters(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("aspect_ratio", ["1:2", "16x9", "", " 1:1", None]),
        ("disable_safety_checker", ["perhaps", 2, None]),
        ("guidance", [-0.1, 10.1, float("nan"), float("inf"), "high", None]),
        ("megapixels", ["2", "0.5", 1, 0.25, "", None]),
        ("num_inference_steps", [0, 51, 1.5, -1, None]),
        ("num_outputs", [0, 5, 1.5, None]),
        ("output_format", ["jpeg", "gif", "PNG", None]),
        ("output_quality", [-1, 101, 50.5, None]),
        ("seed", [0, -1, 2**31, 1.5, None]),
    ],
)
def test_what_the_api_does_not_allow_is_refused(name: str, values: list[Any]) -> None:
    """Just beyond both ends, and what is no such value at all; 0 and −1 mean a random seed to some hosts."""
    for value in values:
        with pytest.raises(ValidationError, match=name):
            Parameters(**{name: value})


@pytest.mark.parametrize("name", ["redux_image", "strength", "Seed", "guidence"])
def test_an_unknown_name_is_refused(name: str) -> None:
    """A misspelt parameter must not be paid for at its default."""
    with pytest.raises(ValidationError, match=name):
        Parameters(**{name: 1})


def test_parameters_do_not_change() -> None:
    """An id is made of them."""
    with pytest.raises(ValidationError, match="frozen"):
        Parameters().seed = 5


@pytest.mark.parametrize(("ratio", "size"), [item.split() for item in SIZES.split(",")])
def test_the_expected_size_of_each_ratio(ratio: Any, size: str) -> None:
    """At one megapixel as the table says, at a quarter half of each side, else as the source."""
    width, height = (int(side) for side in size.split("x"))
    assert Parameters(aspect_ratio=ratio).expected_size() == (width, height)
    assert Parameters(aspect_ratio=ratio, megapixels="0.25").expected_size() == (width // 2, height // 2)
    assert Parameters(aspect_ratio=ratio, megapixels="match_input").expected_size() is None


def test_there_is_a_size_for_every_ratio() -> None:
    """Eleven of each."""
    assert set(SIZES_AT_1_MEGAPIXEL) == set(ASPECT_RATIOS)
    assert len(ASPECT_RATIOS) == len(SIZES.split(",")) == 11


@given(quality=st.integers(0, 100), form=st.sampled_from(["webp", "jpg", "png"]))
def test_all_is_sent_but_the_quality_of_a_png(quality: int, form: Any) -> None:
    """The API has no such thing as a png's quality."""
    sent = Parameters(output_format=form, output_quality=quality).as_sent()
    left_out = {"output_quality"} if form == "png" else set()
    assert set(sent) == set(PARAMETER_NAMES) - left_out
    assert form == "png" or sent["output_quality"] == quality


def test_what_is_sent_is_not_what_is_held() -> None:
    """Whoever changes the fields of a request changes no parameters."""
    parameters = Parameters()
    parameters.as_sent()["seed"] = 1
    assert parameters.seed == 30255
