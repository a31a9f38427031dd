"""What the doctor found of one thing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """How a thing is, and how to mend it.

    Attributes:
        about: the thing.
        text: how it is; it never holds a secret.
        mend: what to do about it; empty if all is well.
    """

    about: str
    text: str
    mend: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether all is well with it."""
        return not self.mend

    def __str__(self) -> str:
        mark, how = ("ok", "") if self.is_ok else ("!!", f" — {self.mend}")
        return f"{mark}  {self.about:<22}  {self.text}{how}"
