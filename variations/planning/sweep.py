"""Sweeps: several settings of the API's parameters for each source, as a grid, a list, or draws from a seed.

A sweep is a text, short or TOML, so that a form, a command and a schedule can all carry it:

    guidance=2,3,4; aspect_ratio=1:1,16:9

is a grid, and so is

    [grid]
    guidance = [2, 3, 4]
    aspect_ratio = ["1:1", "16:9"]

A list has a table `[[list]]` for each setting. `[random]` has `draws`, `seed`, and for each parameter its values or a
range, `guidance = { from = 2, to = 4 }`.
"""

import hashlib
import itertools
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from pydantic import ValidationError

from variations.errors import BadInput
from variations.parameters import PARAMETER_NAMES, Parameters

# What is set beside the defaults, in the order of the names.
Setting = tuple[tuple[str, Any], ...]

SWEPT: Final = tuple(name for name in PARAMETER_NAMES if name != "seed")
MAX_SETTINGS: Final = 1_000
# Draws of a number that may have a fraction are this fine.
_STEPS_PER_ONE: Final = 100
_KINDS: Final = ("grid", "list", "random")


@dataclass(frozen=True, slots=True)
class _Axis:
    """A parameter and what it may be: values, or a range of numbers, both ends included."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        shown = (f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)
        span = ", ".join(shown) if self.values else f"{self.low:g} to {self.high:g}"
        return f"{self.name} {span}"

    def drawn(self, number: int) -> Any:
        """Return the value for a large number that is as good as random."""
        if self.values:
            return self.values[number % len(self.values)]
        if Parameters.model_fields[self.name].annotation is int:
            return int(self.low) + number % (int(self.high) - int(self.low) + 1)
        first, last = _steps(self.low, self.high)
        return (first + number % (last - first + 1)) / _STEPS_PER_ONE


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which settings each source is varied with; `parse_sweep` makes one.

    Attributes:
        text: what it was made of.
        settings: of a grid or a list.
        axes: of a grid, or of draws.
        draws: for each source; 0 where it is a grid or a list.
        seed: of the draws.
    """

    text: str = ""
    settings: tuple[Setting, ...] = ((),)
    axes: tuple[_Axis, ...] = ()
    draws: int = 0
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        axes = " × ".join(map(str, self.axes))
        if self.draws:
            return f"{self.draws} draws a source of {axes}, seed {self.seed}"
        count = f"{len(self.settings)} setting{'s' * (len(self.settings) != 1)}"
        return f"{count}: {axes}" if axes else f"{count}, as listed"

    @property
    def names(self) -> frozenset[str]:
        """The parameters that are swept."""
        return frozenset(axis.name for axis in self.axes) | {name for setting in self.settings for name, _ in setting}

    def settings_of(self, source: str, *, at_most: int = 0) -> Sequence[Setting]:
        """Return what a source is varied with.

        Where there are more settings than a source gets, which ones is drawn for each source, so that the dataset sees
        all of them; those that it has it keeps when `at_most` is raised.

        Args:
            source: from `source_identity`.
            at_most: so many; 0: all.
        """
        if self.draws:
            return [self._draw(source, number) for number in range(min(at_most or self.draws, self.draws))]
        if not 0 < at_most < len(self.settings):
            return self.settings
        order = sorted(range(len(self.settings)), key=lambda number: _number("cap", source, str(number)))
        return [self.settings[number] for number in order[:at_most]]

    def _draw(self, source: str, number: int) -> Setting:
        # Each parameter is drawn for itself, so that one more of them leaves the others as they are.
        of = (str(self.seed), source, str(number))
        return tuple((axis.name, axis.drawn(_number("draw", *of, axis.name))) for axis in self.axes)


NO_SWEEP: Final = Sweep()


def parse_sweep(text: str) -> Sweep:
    """Return the sweep that a text describes; none for an empty one.

    Args:
        text: `guidance=2,3,4; aspect_ratio=1:1,16:9`, or TOML with a table `[grid]`, `[random]`, or several `[[list]]`.

    Raises:
        BadInput: it says what cannot be; the message names the parameter.
    """
    text = text.strip()
    if not text:
        return NO_SWEEP
    kind, content = _of_toml(text) if _is_toml(text) else ("grid", _of_short(text))
    if kind == "list":
        settings = tuple(_listed(number, table) for number, table in enumerate(content, 1))
        return _checked(Sweep(text, settings))
    draws, seed = 0, 0
    if kind == "random":
        draws, seed = _whole(content, "draws", least=1, otherwise=None), _whole(content, "seed", least=0, otherwise=0)
        content = {name: value for name, value in content.items() if name not in {"draws", "seed"}}
    axes = tuple(_axis(name, content[name], may_be_range=kind == "random") for name in sorted(content))
    if not axes:
        raise BadInput(f"sweep: [{kind}] names no parameter; known are {', '.join(SWEPT)}")
    if kind == "random":
        return _checked(Sweep(text, axes=axes, draws=draws, seed=seed))
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_SETTINGS:
        raise BadInput(
            f"sweep: {count:,} settings a source, and {MAX_SETTINGS:,} are the most: draw some with [random]"
        )
    grid = itertools.product(*([(axis.name, value) for value in axis.values] for axis in axes))
    return Sweep(text, tuple(grid), axes=axes)


def _checked(sweep: Sweep) -> Sweep:
    count = sweep.draws or len(sweep.settings)
    if count > MAX_SETTINGS:
        raise BadInput(f"sweep: {count:,} settings a source, and {MAX_SETTINGS:,} are the most")
    return sweep


def _is_toml(text: str) -> bool:
    return any(line.lstrip().startswith("[") for line in text.splitlines())


def _of_toml(text: str) -> tuple[str, Any]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"sweep: it is no TOML: {error}") from error
    if len(content) != 1 or next(iter(content)) not in _KINDS:
        there = ", ".join(content) or "nothing"
        raise BadInput(f"sweep: one of [grid], [[list]] and [random] is wanted, and there is {there}")
    kind, value = next(iter(content.items()))
    tables = value if kind == "list" else [value]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput("sweep: a list is written as tables, [[list]], the others as one, [grid] or [random]")
    return kind, value


def _of_short(text: str) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.replace("\n", ";").split(";"))):
        name, equals, values = part.partition("=")
        name = name.strip()
        if not equals:
            raise BadInput(f"sweep: {part!r} is no parameter with its values: write name=value,value")
        if name in axes:
            raise BadInput(f"sweep: {name} stands there twice: write all its values behind one {name}=")
        axes[name] = [value.strip() for value in values.split(",") if value.strip()]
    return axes


def _listed(number: int, table: Mapping[str, Any]) -> Setting:
    if not table:
        raise BadInput(f"sweep: setting {number} of the list says nothing")
    return tuple((name, _value(name, table[name])) for name in sorted(table))


def _axis(name: str, given: Any, *, may_be_range: bool) -> _Axis:
    if isinstance(given, Mapping):
        if not may_be_range:
            raise BadInput(f"sweep: {name} is a range, and those are for [random]: list its values")
        if set(given) != {"from", "to"}:
            raise BadInput(f"sweep: {name}: a range is {{ from = …, to = … }}")
        low, high = _value(name, given["from"]), _value(name, given["to"])
        if isinstance(low, bool) or not isinstance(low, int | float) or not low <= high:
            raise BadInput(f"sweep: {name} has no range from {low} to {high}")
        first, last = _steps(low, high)
        if first > last:
            raise BadInput(f"sweep: {name}: draws are in steps of {1 / _STEPS_PER_ONE:g}: none from {low} to {high}")
        return _Axis(name, low=low, high=high)
    values = given if isinstance(given, list) else [given]
    if not values:
        raise BadInput(f"sweep: {name} has no value")
    # Twice the same would be paid for once: said twice it is a slip, and does no harm.
    return _Axis(name, tuple(_distinct(_value(name, value) for value in values)))


def _steps(low: float, high: float) -> tuple[int, int]:
    """Return the first and the last step of a range: 2.2 is one, though a float of 100 times that is more than 220."""
    return math.ceil(round(low * _STEPS_PER_ONE, 6)), math.floor(round(high * _STEPS_PER_ONE, 6))


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _value(name: str, given: Any) -> Any:
    """Return a value as the API takes it."""
    if name not in SWEPT:
        if name == "seed":
            raise BadInput("sweep: seed is not swept: variations_per_source says how many seeds each setting gets")
        raise BadInput(f"sweep: {name!r} is no parameter; known are {', '.join(SWEPT)}")
    annotation = Parameters.model_fields[name].annotation
    try:
        # 1 and "1" both say megapixels = "1".
        shown = f"{given:g}" if isinstance(given, float) else str(given)
        return getattr(Parameters.model_validate({name: shown if _is_text(annotation) else given}), name)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise BadInput(f"sweep: {name} is {given!r}: {message[0].lower()}{message[1:]}") from None


def _is_text(annotation: Any) -> bool:
    return get_origin(annotation) is not None and all(isinstance(one, str) for one in get_args(annotation))


def _whole(table: Mapping[str, Any], name: str, *, least: int, otherwise: int | None) -> int:
    value = table.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadInput(f"sweep: [random] needs {name}, a whole number of at least {least}; it is {value!r}")
    return value


def _number(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest())
