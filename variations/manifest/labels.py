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
MAX_INT64: Final = 2**63 - 1
# Counting the digits is cheaper than reading them.
_DIGITS_THAT_FIT: Final = 18

# The address and the query of a URL in a text, JSON and HTML included: up to a blank, a quote that closes, or the next
# URL. A quote inside a query closes nothing unless punctuation follows. Every repetition is possessive: linear.
_HTTP: Final = r"[hH][tT][tT][pP][sS]?:\\?/\\?/"
_URL_WITH_QUERY: Final = re.compile(
    rf"({_HTTP}(?:[^\s?hH]++|(?!{_HTTP})[hH])*+)"
    rf"\?((?:[^\s\"'<>\\hH]++|\\(?:/|u00(?:26|3[dD]))|(?!{_HTTP})[hH]|[\"'](?![\s,\])}}:;>/]|$))*+)"
)
# Most of the texts with a query are one URL and nothing else, and are read five times as fast.
_ONE_URL: Final = re.compile(r"[hH][tT][tT][pP][sS]?://[!#-%(-9;=?-\[\]-~]++(?:&(?!amp;)[!#-%(-9;=?-\[\]-~]*+)*+")
_ESCAPED: Final = re.compile(r"\\/|\\u0026|\\u003d|&amp;", re.IGNORECASE)
_UNESCAPED: Final = {"\\/": "/", "\\u0026": "&", "\\u003d": "=", "&amp;": "&"}
_PUNCTUATION: Final = ".,;:!)]}"


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
        return INT if -MAX_INT64 - 1 <= value <= MAX_INT64 else STRING
    return _JSON_TYPES.get(type(value), STRING)


def type_of_column(arrow_type: Any) -> Any:
    """Return the type a label from parquet has in a row: dictionaries decoded, extensions as they are stored.

    The three Arrow types of text are one, so that a label does not change its type with the library that wrote it. What
    `datasets` has no word for would keep it from loading any image: at any depth a map becomes a list of its pairs, a
    list view a list, and a small decimal a common one.
    """
    types = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType):
        return type_of_column(arrow_type.storage_type)
    if types.is_dictionary(arrow_type):
        return type_of_column(arrow_type.value_type)
    if types.is_decimal32(arrow_type) or types.is_decimal64(arrow_type):
        return pa.decimal128(arrow_type.precision, arrow_type.scale)
    if types.is_nested(arrow_type) and not _is_loadable(arrow_type):
        return _loadable(arrow_type)
    return STRING if types.is_large_string(arrow_type) or types.is_string_view(arrow_type) else arrow_type


def _is_loadable(arrow_type: Any) -> bool:
    types = pa.types
    kinds = (types.is_map, types.is_list_view, types.is_large_list_view, types.is_decimal32, types.is_decimal64)
    if any(is_kind(arrow_type) for is_kind in kinds):
        return False
    inner = [arrow_type.field(at).type for at in range(arrow_type.num_fields)] if types.is_nested(arrow_type) else []
    return all(map(_is_loadable, inner))


def _loadable(arrow_type: Any) -> Any:
    types = pa.types
    if types.is_map(arrow_type):
        key, value = type_of_column(arrow_type.key_type), type_of_column(arrow_type.item_type)
        return pa.list_(pa.struct([("key", key), ("value", value)]))
    if types.is_struct(arrow_type):
        return pa.struct([field.with_type(type_of_column(field.type)) for field in arrow_type])
    if types.is_fixed_size_list(arrow_type):
        return pa.list_(type_of_column(arrow_type.value_type), arrow_type.list_size)
    is_large = types.is_large_list(arrow_type) or types.is_large_list_view(arrow_type)
    return (pa.large_list if is_large else pa.list_)(type_of_column(arrow_type.value_type))


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
    return [_unsigned_value(value) for value in values] if holds_texts(wanted) else list(values)


def holds_texts(arrow_type: Any) -> bool:
    """Return whether there are texts in the values of a type: it is one, or it is nested and has some inside."""
    types = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType):
        return holds_texts(arrow_type.storage_type)
    if types.is_nested(arrow_type):
        return any(holds_texts(arrow_type.field(at).type) for at in range(arrow_type.num_fields))
    if types.is_dictionary(arrow_type):
        return holds_texts(arrow_type.value_type)
    return any(check(arrow_type) for check in (types.is_string, types.is_large_string, types.is_string_view))


def without_signatures(values: list[Any]) -> list[Any]:
    """Return texts in which every presigned URL has lost its signature: labels are written to a table that is shared.

    A URL is found wherever it stands: in a sentence, in JSON, in a list. What else a text says is kept.
    """
    return [_unsigned_text(value) if value is not None and "?" in value else value for value in values]


def _unsigned_text(text: str) -> str:
    # In JSON a slash may be escaped; a text that is one URL, blanks in it and all, is read as one at the end.
    if (":/" in text or ":\\/" in text) and not _ONE_URL.fullmatch(text):
        text = _URL_WITH_QUERY.sub(_unsigned_url, text)
    return public_uri(text)


def _unsigned_url(match: re.Match[str]) -> str:
    address, query = match.groups()
    ended = query.rstrip(_PUNCTUATION)
    url = "https://?" + _ESCAPED.sub(lambda escaped: _UNESCAPED[escaped[0].lower()], ended)
    public = public_uri(url)
    return match[0] if public == url else address + public.removeprefix("https://") + query[len(ended) :]


def _unsigned_value(value: Any) -> Any:
    """Return a Python value of a nested type with its texts unsigned; a map is a list of pairs."""
    if isinstance(value, str):
        return _unsigned_text(value) if "?" in value else value
    if isinstance(value, dict):
        return {name: _unsigned_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_unsigned_value(inner) for inner in value])
    return value


def _is_number(arrow_type: Any) -> bool:
    return bool(pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type))


def _type_of_text(text: str) -> Any:
    if _INTEGER_TEXT.fullmatch(text):
        fits = len(text) <= _DIGITS_THAT_FIT or -MAX_INT64 - 1 <= int(text[:30]) <= MAX_INT64
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
