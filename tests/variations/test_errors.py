"""The error tree: what its docstring draws is what there is."""

import inspect
import re

import pytest

from variations import errors
from variations.errors import VariationsError

CLASSES = [
    thing
    for _, thing in inspect.getmembers(errors, inspect.isclass)
    if issubclass(thing, BaseException) and thing.__module__ == errors.__name__
]


def drawn_parents() -> dict[str, str | None]:
    """Read the tree of the docstring: each name with that of its parent."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?=\s|$)", line)
        if found is None:
            continue
        depth = len(found[1])
        above = [(at, name) for at, name in above if at < depth]
        parents[found[2]] = above[-1][1] if above else None
        above.append((depth, found[2]))
    return parents


def test_the_tree_that_is_drawn_is_the_tree_of_the_classes() -> None:
    """Who reads the docstring knows which `except` catches what."""
    parents = {thing.__name__: thing.__base__.__name__ if thing is not VariationsError else None for thing in CLASSES}
    assert drawn_parents() == parents


def test_every_error_has_a_code_of_its_own() -> None:
    """It lands in the metadata, where it has to tell one error from another."""
    own = {thing: thing.__dict__.get("code") for thing in CLASSES}
    assert all(own.values()), [thing.__name__ for thing, code in own.items() if not code]
    assert len(set(own.values())) == len(own)
    assert all(re.fullmatch(r"[a-z_]+", str(code)) for code in own.values())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_described(kind: type[VariationsError]) -> None:
    """In a docstring of its own that ends its sentence."""
    text = kind.__doc__ or ""
    assert len(text) > 20
    assert kind is VariationsError or text != kind.__base__.__doc__


@pytest.mark.parametrize(
    "error",
    [
        errors.RateLimited("slow down", wait_seconds=3.0, request_id="r-1"),
        errors.InferenceFailed("blocked", request_id="r-1"),
        errors.InferenceTimeout("r-1", 600.0),
        errors.ObjectNotFound("gone", request_id="r-1"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_names_its_request(error: VariationsError) -> None:
    """Whoever asks the vendor about it needs the id."""
    assert error.request_id == "r-1"
    assert str(error).endswith("[request r-1]")
    assert "[request" not in error.message


def test_an_error_without_a_request_is_its_message() -> None:
    """Nothing is added to it."""
    assert str(errors.ManifestError("it is empty")) == "it is empty"


def test_a_failure_without_a_reason_says_so() -> None:
    """The API may answer with an empty text."""
    assert str(errors.InferenceFailed("")) == "the API gave no reason"


@pytest.mark.parametrize("group", ["Repeatable", "ItemError", "RunError", "RunPaused"])
def test_an_error_belongs_to_one_group(group: str) -> None:
    """What the caller does about it is one thing."""
    groups = {errors.Repeatable, errors.ItemError, errors.RunError, errors.RunPaused}
    others = groups - {getattr(errors, group)}
    assert getattr(errors, group) in groups
    for thing in CLASSES:
        if issubclass(thing, getattr(errors, group)):
            assert not issubclass(thing, tuple(others))
