"""Sweeps: what a text means, what it may not say, and which settings a source gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.variations.examples import source
from variations.errors import BadInput
from variations.planning.expansion import expand
from variations.planning.recipe import Recipe
from variations.planning.sweep import MAX_SETTINGS, NO_SWEEP, Sweep, parse_sweep

GRID = [
    {"aspect_ratio": ratio, "guidance": guidance} for ratio in ("1:1", "16:9") for guidance in (2.0, 3.0, 4.0)
]  # fmt: skip
MANY = ",".join(map(str, range(1, 51)))
DRAWS = """
[random]
draws = 8
seed = 7
guidance = { from = 2.5, to = 4 }
num_inference_steps = { from = 28, to = 50 }
aspect_ratio = ["1:1", "4:5"]
"""


def dicts(sweep: Sweep, name: str = "a") -> list[dict[str, object]]:
    """Return the settings of a source."""
    return [dict(setting) for setting in sweep.settings_of(name)]


@pytest.mark.parametrize(
    "text",
    [
        "guidance=2,3,4; aspect_ratio=1:1,16:9",
        "aspect_ratio = 1:1 , 16:9\nguidance = 2, 3.0, 4, 4",
        '[grid]\nguidance = [2, 3, 4]\naspect_ratio = ["1:1", "16:9"]',
    ],
)
def test_a_grid_is_every_combination(text):
    """In the order of the names, whichever way it is written."""
    assert dicts(parse_sweep(text)) == GRID


def test_a_list_is_its_settings_in_their_order():
    """Each with only what it names."""
    sweep = parse_sweep("[[list]]\nguidance = 4\nnum_inference_steps = 50\n[[list]]\nmegapixels = 0.25\n")

    assert dicts(sweep) == [{"guidance": 4.0, "num_inference_steps": 50}, {"megapixels": "0.25"}]


def test_draws_are_within_their_ranges_and_the_same_each_time():
    """And others for another source, or another seed."""
    sweep = parse_sweep(DRAWS)
    drawn = dicts(sweep)

    assert len(drawn) == 8
    assert drawn == dicts(parse_sweep(DRAWS))
    assert drawn != dicts(sweep, "b")
    assert drawn != dicts(parse_sweep(DRAWS.replace("seed = 7", "seed = 8")))
    assert all(2.5 <= one["guidance"] <= 4 and 28 <= one["num_inference_steps"] <= 50 for one in drawn)
    assert {one["aspect_ratio"] for one in drawn} == {"1:1", "4:5"}


@given(st.integers(0, 1000), st.integers(0, 1000), st.text(max_size=8))
def test_both_ends_of_a_range_are_drawn_and_nothing_beside_it(one, other, name):
    """Whatever hundredths they are: 2.2 is no whole number of them as floats go."""
    low, high = sorted((one, other))
    draws = min(1_000, 12 * (high - low + 1))
    sweep = parse_sweep(f"[random]\ndraws = {draws}\nguidance = {{ from = {low / 100}, to = {high / 100} }}")
    drawn = {setting["guidance"] for setting in dicts(sweep, name)}

    assert {round(100 * value) for value in drawn} <= set(range(low, high + 1))
    if high - low < 2:
        assert drawn == {low / 100, high / 100}


def test_more_draws_keep_the_first_ones_and_another_parameter_the_others():
    """What was paid for is wanted still."""
    more = dicts(parse_sweep(DRAWS.replace("draws = 8", "draws = 20")))
    wider = dicts(parse_sweep(DRAWS + "output_quality = [70, 80, 90]\n"))

    assert more[:8] == dicts(parse_sweep(DRAWS))
    assert [{name: one[name] for name in dicts(parse_sweep(DRAWS))[0]} for one in wider] == dicts(parse_sweep(DRAWS))


def test_no_text_is_one_setting():
    """That of the defaults."""
    assert parse_sweep("  \n") is NO_SWEEP
    assert dicts(NO_SWEEP) == [{}]
    assert not NO_SWEEP


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("guidance=20", "guidance is '20': input should be less than or equal to 10"),
        ("guidence=2", "'guidence' is no parameter; known are aspect_ratio"),
        ("seed=1,2", "variations_per_source"),
        ("guidance", "write name=value,value"),
        ("guidance=", "guidance has no value"),
        ("guidance=2; guidance=3", "guidance stands there twice"),
        ("[grid", "it is no TOML"),
        ("[grid]", "names no parameter"),
        ("[grid]\nguidance={from=2, to=3}", "guidance is a range, and those are for"),
        ("[list]\nguidance=2", "a list is written as tables"),
        ("[[list]]\n[[list]]\nguidance=2", "setting 1 of the list says nothing"),
        ("[random]\nguidance=[2]", "needs draws"),
        ("[random]\ndraws=true\nguidance=[2]", "needs draws"),
        ("[random]\ndraws=2\nguidance={from=4, to=2}", "no range from 4.0 to 2.0"),
        ("[random]\ndraws=2\nguidance={from=2.001, to=2.009}", "in steps of 0.01: none from 2.001 to 2.009"),
        ("[random]\ndraws=2\naspect_ratio={from='1:1', to='4:5'}", "no range from 1:1 to 4:5"),
        ("[random]\ndraws=2\nguidance={low=2, high=4}", "a range is"),
        (f"[random]\ndraws={MAX_SETTINGS + 1}\nguidance=[2]", "are the most"),
        ("[grid]\nguidance=[2]\n[random]\ndraws=1", "one of [grid], [[list]] and [random]"),
        (f"num_inference_steps={MANY}; output_quality={MANY}", "2,500 settings a source"),
    ],
)  # fmt: skip
def test_what_cannot_be_names_the_parameter(text, says):
    """And says what can."""
    with pytest.raises(BadInput, match=r"^sweep: ") as refused:
        parse_sweep(text)

    assert says in str(refused.value)


@given(st.text() | st.text("[]{}=,;\n\"' agridnlstfom0123456789.:"))
def test_any_text_is_a_sweep_or_bad_input(text):
    """Nothing that somebody types is an error of ours."""
    try:
        sweep = parse_sweep(text)
    except BadInput:
        return
    assert 1 <= len(sweep.settings_of("a")) <= MAX_SETTINGS


def test_it_says_what_it_is():
    """In the words of the plan."""
    assert str(parse_sweep("guidance=2,3.5")) == "2 settings: guidance 2, 3.5"
    assert str(parse_sweep("[[list]]\nguidance=2")) == "1 setting, as listed"
    assert (
        str(parse_sweep("[random]\ndraws=3\nguidance={from=2,to=4}")) == "3 draws a source of guidance 2 to 4, seed 0"
    )


def variations(recipe: Recipe, **of: object) -> list[dict[str, object]]:
    """Return the parameters of the variations of a source."""
    return [dict(one.parameters) for one in expand(source("a", **of), recipe)]


def test_every_setting_gets_the_same_seeds():
    """So that images differ by their setting alone."""
    made = variations(Recipe(sweep=parse_sweep("guidance=2,4"), variations_per_source=2))

    assert [one["guidance"] for one in made] == [2, 4, 2, 4]
    assert made[0]["seed"] == made[1]["seed"] != made[2]["seed"] == made[3]["seed"]


def test_without_a_sweep_the_seeds_and_ids_are_those_of_a_sweep_of_the_defaults():
    """What a dataset has is not paid for again because a sweep came to it."""
    plain = [one.variation_id for one in expand(source("a"), Recipe(variations_per_source=3))]
    swept = Recipe(sweep=parse_sweep("guidance=3,2"), variations_per_source=3)

    assert plain == [one.variation_id for one in expand(source("a"), swept) if one.parameters.guidance == 3]


def test_what_a_row_sets_is_not_swept():
    """Its own value wins, and what becomes the same by that is wanted once."""
    made = variations(Recipe(sweep=parse_sweep("guidance=2,4; output_quality=70,90")), overrides={"guidance": 9.0})

    assert {(one["guidance"], one["output_quality"]) for one in made} == {(9.0, 70), (9.0, 90)}


@given(most=st.integers(1, 14), more=st.integers(0, 6))
def test_a_capped_source_gets_as_many_and_keeps_them_when_the_cap_is_raised(most, more):
    """Raising it adds, and never pays for others instead."""

    def ids(cap: int) -> list[str]:
        recipe = Recipe(sweep=parse_sweep("guidance=2,3,4; aspect_ratio=1:1,16:9"), variations_per_source=2)
        capped = Recipe(sweep=recipe.sweep, variations_per_source=2, max_per_source=cap)
        return [one.variation_id for one in expand(source("a"), capped)]

    assert len(ids(most)) == min(most, 12)
    assert set(ids(most)) <= set(ids(most + more))


def test_capped_sources_see_every_setting_between_them():
    """A cap does not cut the same end off every source."""
    recipe = Recipe(sweep=parse_sweep("guidance=2,3,4; aspect_ratio=1:1,16:9"), max_per_source=1)
    seen = {
        (one.parameters.guidance, one.parameters.aspect_ratio)
        for number in range(60)
        for one in expand(source(f"source {number}"), recipe)
    }

    assert len(seen) == 6
