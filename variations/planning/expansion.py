"""Expand a source into its variations: which there are, and with which seed and parameters."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from variations.identity import derived_seed, parameters_identity, source_identity, variation_id
from variations.models import Source, Variation
from variations.parameters import Parameters
from variations.planning.recipe import Recipe
from variations.planning.sweep import Setting

_LARGEST_SEED: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the variations of a source have in common: their parameters, those as identity, and those as JSON.

    The seed is in none of the texts.
    """

    parameters: Parameters
    identity: str
    text: str


# The rows of a manifest that override the same share one of these.
@lru_cache(maxsize=4096)
def _shared(parameters: Parameters, overrides: tuple[tuple[str, Any], ...]) -> _Shared:
    if overrides:
        parameters = Parameters.model_validate({**dict(parameters), **dict(overrides)})
    fields = {name: value for name, value in parameters if name != "seed"}
    return _Shared(parameters, parameters_identity(parameters), json.dumps(fields, sort_keys=True))


def _shared_of(source: Source, recipe: Recipe, setting: Setting) -> _Shared:
    # What a row sets for itself is not swept.
    overrides = {**dict(setting), **source.overrides} if setting else source.overrides
    return _shared(recipe.parameters, tuple(sorted(overrides.items())) if overrides else ())


def wanted_of(source: Source, recipe: Recipe) -> Iterator[tuple[str, int, _Shared]]:
    """Yield id, seed and parameters of each variation of a source, in the order of their numbers."""
    identity = source_identity(source)
    most = recipe.max_per_source
    settings = recipe.sweep.settings_of(identity, at_most=most)
    first_seed = source.overrides.get("seed", recipe.seed)
    count = recipe.variations_per_source * len(settings)
    shared = [_shared_of(source, recipe, setting) for setting in settings]
    # Every setting has the same seeds, so that images differ by their setting alone; and where there are not enough for
    # all seeds, each setting has had its first one.
    for number in range(min(most or count, count)):
        of = shared[number % len(settings)]
        nth = number // len(settings)
        seed = derived_seed(identity, nth) if first_seed is None else (first_seed - 1 + nth) % _LARGEST_SEED + 1
        yield variation_id(model=recipe.model, source=identity, parameters=of.identity, seed=seed), seed, of


def expand(source: Source, recipe: Recipe) -> Iterator[Variation]:
    """Yield the variations of a source."""
    for number, (name, seed, shared) in enumerate(wanted_of(source, recipe)):
        parameters = shared.parameters.model_copy(update={"seed": seed})
        yield Variation(variation_id=name, source=source, number=number, parameters=parameters)
