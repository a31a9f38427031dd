"""The types of labels, found before the first row is handed out, and the values made to fit them."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

from variations.uris import public_uri

NULL: Final = pa.null()
BOOL: Final = pa.bool_()
INT: Final = pa.int64()
FLOAT: Final = pa.float64()
STRING: Final = pa.string()

# No leading zeros and no `+`: 007 and +49 are names, not numbers. An exponent has its sign, as Python and pandas write
# it, because 1e5 may as well be a piece of a hash.
_INTEGER_TEXT: Final = re.compile(r"0|-?[1-9][0-9]*")
_FLOAT_TEXT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-][0-9]+)?|[eE][+-][0-9]+)")
_JSON_TYPES: Final = {type(None): NULL, bool: BOOL, float: FLOAT}
_MAX_INT64: Final = 2**63 - 1
# Counting the digits is cheaper than reading them.
_DIGITS_THAT_FIT: Final = 18


def common_type(one: Any, other: Any) -> Any:
    """Return the Arrow type that holds the values of both: a null gives way, integers widen, all else is text."""
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    numbers = [_is_number(one), _is_number(other)]
    if all(numbers):
        floats = [pa.types.is_floating(one), pa.types.is_floating(other)]
        if any(floats):
            return FLOAT
        return STRING if pa.types.is_uint64(one) or pa.types.is_uint64(other) else INT
    return STRING


def type_of_texts(values: Iterable[str], so_far: Any) -> Any:
    """Return the type of a CSV column, given the type of the rows before and the cells of the next ones.

    A column is a number or a boolean only if every cell that is not empty is written as one.
    """
    found = so_far
    for value in set(values):
        if found is STRING:
            break
        if value:
            kind = _type_of_text(value)
            if kind is not found:
                found = common_type(found, kind)
    return found


def type_of_json(value: object) -> Any:
    """Return the type of one JSON value; objects, lists and integers beyond 64 bits are kept as text."""
    if type(value) is int:
        return INT if -_MAX_INT64 - 1 <= value <= _MAX_INT64 else STRING
    return _JSON_TYPES.get(type(value), STRING)


def type_of_column(arrow_type: Any) -> Any:
    """Return the type a label from parquet has in a row: dictionaries decoded, extensions as they are stored.

    The three Arrow types of text are one, so that a label does not change its type with the library that wrote it.
    """
    if isinstance(arrow_type, pa.BaseExtensionType):
        return type_of_column(arrow_type.storage_type)
    if pa.types.is_dictionary(arrow_type):
        return type_of_column(arrow_type.value_type)
    return STRING if pa.types.is_large_string(arrow_type) or pa.types.is_string_view(arrow_type) else arrow_type


def is_text(arrow_type: Any) -> bool:
    """Return whether a column of this type can hold URIs; some writers store their texts as plain bytes."""
    types = pa.types
    return any(check(arrow_type) for check in (types.is_string, types.is_binary, types.is_large_binary))


def from_texts(values: Sequence[str], wanted: Any) -> list[Any]:
    """Return the cells of a CSV column as values of a type; an empty cell is null."""
    if wanted.equals(INT):
        return [int(value) if value else None for value in values]
    if wanted.equals(FLOAT):
        return [float(value) if value else None for value in values]
    if wanted.equals(BOOL):
        return [value.lower() == "true" if value else None for value in values]
    return without_signatures([value or None for value in values])


def from_values(values: Sequence[Any], wanted: Any) -> list[Any]:
    """Return Python values as values of a type found with `common_type`; what is no text becomes JSON text."""
    if wanted.equals(FLOAT):
        return [None if value is None else float(value) for value in values]
    if wanted.equals(STRING):
        return without_signatures(
            [value if value is None or type(value) is str else _as_text(value) for value in values]
        )
    return list(values)


def without_signatures(values: list[Any]) -> list[Any]:
    """Return texts in which a presigned URL has lost its signature: labels are written to a table that is shared."""
    return [public_uri(value) if value is not None and "?" in value else value for value in values]


def _is_number(arrow_type: Any) -> bool:
    return bool(pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type))


def _type_of_text(text: str) -> Any:
    if _INTEGER_TEXT.fullmatch(text):
        fits = len(text) <= _DIGITS_THAT_FIT or -_MAX_INT64 - 1 <= int(text[:30]) <= _MAX_INT64
        return INT if fits else STRING
    if _FLOAT_TEXT.fullmatch(text):
        return FLOAT if math.isfinite(float(text)) else STRING
    return BOOL if text.lower() in ("true", "false") else STRING


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
