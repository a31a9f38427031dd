"""The API parameters that a row sets for itself, validated by the fields of `Parameters`."""

import math
from functools import lru_cache
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError

from variations.parameters import Parameters
from variations.uris import shown_uri

_HINTS: Final = get_type_hints(Parameters, include_extras=True)
_ADAPTERS: Final[dict[str, TypeAdapter[Any]]] = {name: TypeAdapter(_HINTS[name]) for name in Parameters.model_fields}
_TYPES: Final = {name: get_args(hint)[0] for name, hint in _HINTS.items() if name in Parameters.model_fields}


def is_unset(value: object) -> bool:
    """Return whether a cell says nothing: null, an empty text, or the NaN by which pandas means null."""
    return value is None or (isinstance(value, str) and not value.strip()) or (value != value)  # noqa: PLR0124


def validate_override(name: str, value: object) -> Any:
    """Return the value of a parameter as `Parameters` holds it.

    Texts are read as CSV writes them; 3.0 is a whole number and 3.5 is none; 1 and 0.25 are sizes in megapixels.

    Raises:
        ValueError: it is not a value of this parameter; the message is the row's reason.
    """
    try:
        return _validate(name, value)
    except TypeError:  # a list or an object has no hash
        raise ValueError(_reason(name, value)) from None


# Most rows of a manifest share a few values; the bound is for a column of seeds. Typed, for 1, 1.0 and True are equal.
@lru_cache(maxsize=4096, typed=True)
def _validate(name: str, value: object) -> Any:
    wanted = _TYPES[name]
    plain = value.strip() if isinstance(value, str) else value
    if isinstance(plain, bytes):
        plain = plain.decode("utf-8", "replace")
    if wanted in (int, float) and isinstance(plain, bool):
        raise ValueError(_reason(name, value))
    if name == "megapixels":
        plain = _megapixels(plain)
    try:
        return _ADAPTERS[name].validate_python(plain)
    except ValidationError:
        raise ValueError(_reason(name, value)) from None


def _megapixels(value: object) -> object:
    """Return a size that came as a number the way the API spells it: 1.0 is "1"."""
    if isinstance(value, bool):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return value
    return f"{number:g}" if math.isfinite(number) else value


def _reason(name: str, value: object) -> str:
    return f"{name} is {shown_uri(str(value))}, allowed are {_allowed(name)}"


def _allowed(name: str) -> str:
    wanted = _TYPES[name]
    if get_origin(wanted) is Literal:
        return ", ".join(get_args(wanted))
    if wanted is bool:
        return "true and false"
    bounds = Parameters.model_fields[name].metadata
    low = next(bound.ge for bound in bounds if isinstance(bound, Ge))
    high = next(bound.le for bound in bounds if isinstance(bound, Le))
    return f"{'whole numbers ' if wanted is int else ''}{low} to {high}"
