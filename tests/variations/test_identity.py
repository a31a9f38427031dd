"""Ids and seeds are frozen: a change to one of these values makes every dataset be paid again."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from variations.identity import derived_seed, parameters_identity, rejected_id, source_identity, variation_id
from variations.models import RejectedSource, Source
from variations.parameters import ASPECT_RATIOS, PARAMETER_NAMES, Parameters
from variations.planning.expansion import expand
from variations.planning.recipe import Recipe

from .examples import SIGNED, nameless, source, with_parameters

LARGEST_SEED = 2**31 - 1
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))

EVERY_PARAMETERS = st.builds(
    Parameters,
    aspect_ratio=st.sampled_from(ASPECT_RATIOS),
    disable_safety_checker=st.booleans(),
    guidance=st.floats(0, 10).map(abs),
    megapixels=st.sampled_from(["1", "0.25", "match_input"]),
    num_inference_steps=st.integers(1, 50),
    num_outputs=st.integers(1, 4),
    output_format=st.sampled_from(["webp", "jpg", "png"]),
    output_quality=st.integers(0, 100),
    seed=st.integers(1, LARGEST_SEED),
)


def ids(of: Source, recipe: Recipe | None = None) -> list[str]:
    """Return the ids of a source's variations."""
    return [made.variation_id for made in expand(of, recipe or Recipe())]


@pytest.mark.parametrize(
    ("made", "identity", "seeds", "names"),
    [
        (
            source("cat"),
            '["id","cat",null]',
            [840883288, 558679260],
            ["c0fd59c265b0fe68c830e27da83585c6", "8390b68a30ace59e282c2c198c727d9f"],
        ),
        (
            source("cat", version="2"),
            '["id","cat","2"]',
            [763381344, 746883039],
            ["a7cada970e1abf66cf8eb1b4e3257e50", "6ef066eaa39401ab97e1bafc9b47f441"],
        ),
        (
            nameless("https://images.example.com/ä b.jpg"),
            '["uri","https://images.example.com/ä b.jpg"]',
            None,
            None,
        ),
        (
            source('"quo\\ted"\n\u2028'),
            '["id","\\"quo\\\\ted\\"\\n\u2028",null]',
            [980620782, 1267756712],
            ["601b69aed7bf7016e5be17caa3e4c9e7", "8ce07fedbe76babfa5d7617d5f7fe065"],
        ),
    ],
    ids=["id", "id and version", "URI", "escapes"],
)
def test_ids_and_seeds_are_frozen(
    made: Source, identity: str, seeds: list[int] | None, names: list[str] | None
) -> None:
    """These very values are in datasets that were paid for."""
    assert source_identity(made) == identity
    if seeds is not None:
        variations = list(expand(made, Recipe(variations_per_source=2)))
        assert [variation.parameters.seed for variation in variations] == seeds
        assert [variation.variation_id for variation in variations] == names


def test_the_identity_of_parameters_is_frozen() -> None:
    """Names in order, no blanks, a png without its quality, no seed."""
    assert parameters_identity(Parameters()) == (
        '{"aspect_ratio":"1:1","disable_safety_checker":false,"guidance":3.0,"megapixels":"1",'
        '"num_inference_steps":28,"num_outputs":1,"output_format":"jpg","output_quality":80}'
    )
    assert parameters_identity(Parameters(output_format="png", guidance=3, num_outputs=2)) == (
        '{"aspect_ratio":"1:1","disable_safety_checker":false,"guidance":3.0,"megapixels":"1",'
        '"num_inference_steps":28,"num_outputs":2,"output_format":"png"}'
    )
    recipe = Recipe(parameters=Parameters(output_format="png"), seed=7)
    assert ids(source(), recipe) == ["fa8bf201a19a68f8636dcecc3a3582ac"]


def test_the_ids_of_refused_rows_are_frozen() -> None:
    """A refused row is its place in its manifest and what it held."""
    manifest = "s3://b/m.csv"
    assert rejected_id(RejectedSource(3, "no URI", "cat"), manifest=manifest) == "28522a6238f684cea078c8be0865e874"
    assert rejected_id(RejectedSource(4, "no URI"), manifest=manifest) == "6af8cce535ebbd5a6c5149e6f24128e8"


@given(name=TEXTS, version=st.none() | TEXTS, has_id=st.booleans())
def test_the_identity_of_a_source_is_canonical_json(name: str, version: str | None, has_id: bool) -> None:
    """It is written by hand for speed, and is what the json module writes."""
    made = source(name, version=version, has_id=has_id, public_uri=name)
    parts = ["id", name, version] if has_id else ["uri", name]
    assert source_identity(made) == json.dumps(parts, separators=(",", ":"), ensure_ascii=False)


@given(parameters=EVERY_PARAMETERS, seed=st.none() | st.integers(1, LARGEST_SEED), name=TEXTS, data=st.data())
def test_the_same_request_has_the_same_id(
    parameters: Parameters, seed: int | None, name: str, data: st.DataObject
) -> None:
    """Whatever order a row's overrides come in, and whether a value is the recipe's or the row's."""
    overrides = [(field, value) for field, value in parameters if field != "seed"]
    by_recipe = ids(source(name), Recipe(parameters=parameters, seed=seed))
    shuffled = dict(data.draw(st.permutations(overrides)))
    assert ids(source(name, overrides=shuffled), Recipe(seed=seed)) == by_recipe


@pytest.mark.parametrize(
    "change",
    [
        {"aspect_ratio": "16:9"},
        {"disable_safety_checker": True},
        {"guidance": 3.5},
        {"megapixels": "0.25"},
        {"num_inference_steps": 29},
        {"num_outputs": 2},
        {"output_format": "webp"},
        {"output_quality": 81},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_that_is_sent_makes_another_id(change: dict[str, Any]) -> None:
    """One image is not the other's."""
    assert ids(source(), with_parameters(**change)) != ids(source())


def test_the_list_of_parameters_above_is_whole() -> None:
    """A parameter that is added has to be added to the test, too; the seed has its own."""
    cases = test_every_parameter_that_is_sent_makes_another_id.pytestmark[0].args[1]
    assert {next(iter(case)) for case in cases} | {"seed"} == set(PARAMETER_NAMES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (source("cat"), source("dog", uri="https://images.example.com/cat.jpg")),
        (source("cat"), source("cat", version="1")),
        (source("cat", version="1"), source("cat", version="2")),
        (nameless("https://h/a.jpg"), nameless("https://h/b.jpg")),
        (nameless("https://h/a.jpg?size=1"), replace(nameless("https://h/a.jpg"), public_uri="https://h/a.jpg?size=2")),
        (source("https://h/a.jpg"), nameless("https://h/a.jpg")),
    ],
    ids=["id", "with a version", "version", "URI", "query", "an id that looks like a URI"],
)
def test_another_source_makes_another_id(one: Source, other: Source) -> None:
    """What makes a source itself is its id and version, or its URI."""
    assert ids(one) != ids(other)


def test_another_model_and_another_seed_make_another_id() -> None:
    """Both are part of what is paid for."""
    assert ids(source(), Recipe(model="another")) != ids(source())
    assert ids(source(), Recipe(seed=1)) != ids(source(), Recipe(seed=2))


@pytest.mark.parametrize(
    "change",
    [
        {"uri": SIGNED},
        {"public_uri": "https://elsewhere.example.com/moved.jpg"},
        {"row": 17},
        {"labels": {"class": "cat"}},
        {"overrides": {"output_quality": 80}},
    ],
    ids=["signature", "an id's URI", "row", "label", "an override that changes nothing"],
)
def test_what_is_not_sent_makes_no_other_id(change: dict[str, Any]) -> None:
    """What the API does not see, or sees alike, is not paid for again."""
    assert ids(source(**change)) == ids(source())


def test_the_signature_of_a_url_makes_no_other_id() -> None:
    """Without an id a source is its URL, which is signed anew every day."""
    assert ids(nameless(SIGNED)) == ids(nameless(SIGNED.replace("AKIA", "ASIA"))) == ids(nameless(SIGNED.split("?")[0]))


@given(one=st.integers(0, 100), other=st.integers(0, 100))
def test_a_png_has_no_quality(one: int, other: int) -> None:
    """It is not sent, so that two requests which differ in nothing else are one."""
    recipes = [with_parameters(output_format="png", output_quality=quality) for quality in (one, other)]
    assert ids(source(), recipes[0]) == ids(source(), recipes[1])


@given(name=TEXTS, number=st.integers(0, 10_000))
def test_a_derived_seed_is_never_read_as_random(name: str, number: int) -> None:
    """From 1 to 2³¹ − 2: 0 and −1 mean random to some hosts, and 2³¹ − 1 is −1 to those that count in 31 bits."""
    assert 1 <= derived_seed(name, number) <= LARGEST_SEED - 1


def test_derived_seeds_differ() -> None:
    """A source's variations are different images."""
    assert len({derived_seed("cat", number) for number in range(1000)}) == 1000


@given(first=st.integers(1, LARGEST_SEED), count=st.integers(1, 20))
def test_given_seeds_count_up_and_wrap(first: int, count: int) -> None:
    """After the largest comes 1: never 0, never beyond 2³¹ − 1, and no seed twice."""
    seeds = [made.parameters.seed for made in expand(source(), Recipe(seed=first, variations_per_source=count))]
    assert seeds[0] == first
    assert all(after == (1 if before == LARGEST_SEED else before + 1) for before, after in pairwise(seeds))


def test_a_rows_own_seed_goes_before_the_recipes() -> None:
    """And counts up, too."""
    recipe = Recipe(seed=5, variations_per_source=2)
    assert [made.parameters.seed for made in expand(source(overrides={"seed": 9}), recipe)] == [9, 10]


@given(one=st.tuples(TEXTS, st.none() | TEXTS), other=st.tuples(TEXTS, st.none() | TEXTS))
def test_no_two_sources_are_one_by_concatenation(one: tuple[str, str | None], other: tuple[str, str | None]) -> None:
    """Neither a separator in an id nor one in a version makes two sources alike."""
    assume(one != other)
    made = [source(name, version=version) for name, version in (one, other)]
    assert source_identity(made[0]) != source_identity(made[1])
    assert ids(made[0]) != ids(made[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b,c"), ("a,b", "c")),
        (("a\0b", "c"), ("a", "b\0c")),
        (('a","b', None), ("a", "b")),
        (("", "a"), ("a", "")),
    ],
)
def test_separators_within_a_text_keep_it_apart(one: tuple[str, str | None], other: tuple[str, str | None]) -> None:
    """Those pairs that a plain join would make equal."""
    made = [source(name, version=version) for name, version in (one, other)]
    assert ids(made[0]) != ids(made[1])


def test_a_null_and_the_text_null_are_two() -> None:
    """A version that is called null is a version."""
    assert ids(source("a", version="null")) != ids(source("a"))


@given(parts=st.lists(TEXTS.map(json.dumps), min_size=4, max_size=4), seed=st.integers(1, LARGEST_SEED))
def test_the_parts_of_an_id_stay_apart(parts: list[str], seed: int) -> None:
    """Moving text from one part of the hash to the next makes another id."""
    model, identity, parameters, more = parts
    one = variation_id(model=model, source=identity + more, parameters=parameters, seed=seed)
    other = variation_id(model=model, source=identity, parameters=more + parameters, seed=seed)
    assert one != other
    assert len(one) == 32
    assert set(one) <= set("0123456789abcdef")


@given(row=st.integers(1, 10**6), other=st.integers(1, 10**6), name=st.none() | TEXTS)
def test_a_refused_row_is_its_place(row: int, other: int, name: str | None) -> None:
    """The same row of the same manifest is one row of the dataset, whatever the reason."""
    assume(row != other)
    first = rejected_id(RejectedSource(row, "one", name), manifest="m")
    assert first == rejected_id(RejectedSource(row, "other", name), manifest="m")
    assert first != rejected_id(RejectedSource(other, "one", name), manifest="m")
    assert first != rejected_id(RejectedSource(row, "one", name), manifest="n")
