"""What became of one of the things that are set up."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """In the words that are printed."""

    CREATED = "created"
    CHANGED = "changed"
    KEPT = "as it should be"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Step:
    """A thing on the server, and what became of it.

    Attributes:
        thing: what it is, with its name.
        outcome: whether anything was done to it.
        what: what was changed, or what there is to know about it; it never holds a secret.
    """

    thing: str
    outcome: Outcome
    what: str = ""

    @classmethod
    def changed(cls, thing: str, differences: list[str], *, what: str = "") -> "Step":
        """Return a step of a thing that was there: changed if there were differences."""
        if not differences:
            return cls(thing, Outcome.KEPT, what)
        return cls(thing, Outcome.CHANGED, ", ".join(differences) + (f"; {what}" if what else ""))

    def __str__(self) -> str:
        return f"{self.thing:<38}  {self.outcome}" + (f": {self.what}" if self.what else "")
