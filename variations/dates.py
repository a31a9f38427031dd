"""Days in URIs: `{date}` and its parts, so that a schedule walks daily partitions, and a backfill walks them again."""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Final

from variations.errors import BadInput
from variations.uris import shown_uri

PLACEHOLDERS: Final = {"date": "%Y-%m-%d", "year": "%Y", "month": "%m", "day": "%d"}
_NAMES: Final = "|".join(PLACEHOLDERS)
# A brace that is meant as one is doubled. One alone is itself, but at a name: there its partner was forgotten, and
# every day would have the same place.
_BRACES: Final = re.compile(
    r"\{\{|\}\}|\{([^{}]*)\}" + rf"|(\{{(?:{_NAMES})(?![A-Za-z])|(?<![A-Za-z])(?:{_NAMES})\}}(?!\}}))"
)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def filled(uri: str, day: date, *, name: str) -> str:
    """Return a URI with a day in the place of `{date}`, `{year}`, `{month}` and `{day}`; `{{` and `}}` become braces.

    Args:
        uri: as it was given.
        day: to be filled in.
        name: what the URI is, for the message.

    Raises:
        BadInput: there is another placeholder, or one with a single brace.
    """

    def fill(found: re.Match[str]) -> str:
        placeholder = found[1]
        if found[2] is not None:
            meant = f"{{{found[2].strip('{}')}}}"
            raise BadInput(f"{name}: a brace is missing at {found[2]}; write {meant}, and {{{{ or }}}} for a brace")
        if placeholder is None:
            return found[0][0]
        if placeholder not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise BadInput(
                f"{name}: {{{shown_uri(placeholder)}}} is no placeholder; known are {known}, and {{{{ is a brace"
            )
        return day.strftime(PLACEHOLDERS[placeholder])

    return _BRACES.sub(fill, uri)


def has_placeholder(uri: str) -> bool:
    """Return whether a URI differs from day to day."""
    return any(found[1] is not None for found in _BRACES.finditer(uri))


def parsed_day(text: str, *, name: str = "date") -> date:
    """Return the day that a text names.

    Raises:
        BadInput: it is none; the message begins with `name`.
    """
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise BadInput(f"{name} is {shown_uri(text)!r}: no day, write it as YYYY-MM-DD")


def days(first: date, last: date) -> Iterator[date]:
    """Yield every day from the first to the last one, both included."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
