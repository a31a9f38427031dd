"""Read a submit as strictly as the documentation allows, with the documented code for each mistake.

400: the body is not JSON, not an object, or a required field is missing. 406: the content type is not JSON, or a
value is refused (an unknown field is one). The sandbox is stricter than the service may be: what passes here
passes there.
"""

import json
import math
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from variations.parameters import ASPECT_RATIOS, SIZES_AT_1_MEGAPIXEL
from variations.sandbox.refusals import Refused

DEFAULTS: Final[dict[str, Any]] = {
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
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "aspect_ratio": ASPECT_RATIOS,
    "megapixels": ("1", "0.25", "match_input"),
    "output_format": ("webp", "jpg", "png"),
}
# -1 and 0 ask for a random seed; the answer names the one that was used.
_INTEGERS: Final[dict[str, tuple[int, int]]] = {
    "num_inference_steps": (1, 50),
    "num_outputs": (1, 4),
    "output_quality": (0, 100),
    "seed": (-1, 2**31 - 1),
}
RANDOM_SEEDS: Final = (-1, 0)


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A submit that passed.

    Attributes:
        source: `redux_image` as sent; it may carry a signature, so it is left out of the `repr`.
        sent: the other fields as sent.
    """

    source: str = field(repr=False)
    sent: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """Return a parameter, or its default where it was not sent."""
        return self.sent.get(name, DEFAULTS[name])

    def size(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """Return the output's (width, height) in pixels for a source of `source_size`."""
        if self.value("megapixels") == "match_input":
            scale = min(1.0, 1440 / max(source_size))
            return max(1, round(source_size[0] * scale)), max(1, round(source_size[1] * scale))
        width, height = SIZES_AT_1_MEGAPIXEL[self.value("aspect_ratio")]
        return (width, height) if self.value("megapixels") == "1" else (width // 2, height // 2)


def require_json_content(content_type: str | None) -> None:
    """Let only JSON through.

    Raises:
        Refused: 406.
    """
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(406, "Content-Type must be application/json.")


def read_json_object(body: bytes) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises:
        Refused: 400.
    """
    try:
        fields = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "The request body is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise Refused(400, "The request body must be a JSON object.")
    return fields


def read_request(fields: dict[str, Any]) -> InferenceRequest:
    """Check every field of a submit to flux-redux-dev.

    Raises:
        Refused: 400 for a missing field, 406 for a value.
    """
    if "redux_image" not in fields:
        raise Refused(400, "Missing required field: redux_image.")
    sent = dict(fields)
    source = sent.pop("redux_image")
    if not isinstance(source, str) or not _is_source(source):
        raise _refused_value("redux_image", "an http(s) URL or a data: URL")
    for name, value in sent.items():
        _check(name, value)
    return InferenceRequest(source, sent)


def _is_source(text: str) -> bool:
    if text[:5].lower() == "data:":
        return text.isascii()
    try:
        text.encode()
        parts = urllib.parse.urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _check(name: str, value: Any) -> None:
    if name in _CHOICES:
        if not isinstance(value, str) or value not in _CHOICES[name]:
            raise _refused_value(name, f"one of {', '.join(_CHOICES[name])}")
    elif name in _INTEGERS:
        low, high = _INTEGERS[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refused_value(name, f"an integer from {low} to {high}")
    elif name == "guidance":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not 0 <= value <= 10:  # noqa: PLR2004 - the documented bound
            raise _refused_value(name, "a number from 0 to 10")
    elif name == "disable_safety_checker":
        if not isinstance(value, bool):
            raise _refused_value(name, "true or false")
    else:
        raise Refused(406, f"Unknown parameter: {name[:80]!r}.")


def _refused_value(name: str, expected: str) -> Refused:
    # The value itself is not repeated: it may be a presigned URL.
    return Refused(406, f"Invalid value for {name!r}: expected {expected}.")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
