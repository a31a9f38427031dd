"""The quality gate: what is measured of each image, from when on it is flagged, and what becomes of a flagged one.

The verdict is `passed`, or `flagged: ` and its reasons:

    blank   it shows nothing, or nearly nothing, as an image that was blocked often does
    size    it has another size than was asked for
    copy    it is the source again, mirrored or cropped perhaps
    lost    it has nothing of the source any more
    twin    it is nearly the same as another variation of its source

The defaults are such that of the photos that `python -m benches gate` varies none is flagged.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from variations.models import Measures

OnFlagged = Literal["keep", "drop", "reroll"]

PASSED: Final = "passed"
FLAGGED: Final = "flagged: "


@dataclass(frozen=True, slots=True)
class Gate:
    """What is flagged, and what becomes of it; a threshold of 0 flags nothing.

    Attributes:
        on_flagged: `keep` it, with its verdict; `drop` it: it is paid, and not stored; `reroll`: drop it, and make
            another one with the next seed.
        max_rolls: so many times a variation is made at the most, the first one included.
        blank: contrast under which an image is blank, in levels of 255.
        size_percent: a side may differ by so much from what was asked for.
        copy_bits: of 64, in which at the most a copy of the source, of the same colours, differs from it.
        lost_bits: from which on nothing of the source is left.
        twin_bits: in which at the most two images of one source, of the same colours, differ that are nearly the same.
        sources: whether sources are looked at; without that, no image has a distance to its own.
    """

    on_flagged: OnFlagged = "keep"
    max_rolls: int = 3
    blank: float = 8.0
    size_percent: float = 10.0
    copy_bits: int = 6
    lost_bits: int = 0
    twin_bits: int = 6
    sources: bool = True

    @property
    def rolls(self) -> int:
        """How many times a variation may be made."""
        return self.max_rolls if self.on_flagged == "reroll" else 1

    def drops(self, verdict: str) -> bool:
        """Return whether an image of that verdict is not stored."""
        return self.on_flagged != "keep" and verdict != PASSED

    def judge(
        self,
        measures: Measures,
        *,
        size: tuple[int, int],
        expected_size: tuple[int, int] | None,
        copy_distance: int | None = None,
        twin_distance: int | None = None,
    ) -> tuple[str, str]:
        """Return the verdict on an image, and what there is to say of it: nothing if it passed.

        Args:
            measures: of it.
            size: that it has.
            expected_size: that was asked for; None where that is not known.
            copy_distance: bits to its source, if that has the same colours.
            twin_distance: bits to the nearest of its source's other images that have the same colours, if there is one.
        """
        found: dict[str, str] = {}
        if measures.contrast < self.blank:
            found["blank"] = f"its contrast is {measures.contrast:g} of 255, and gate_blank {self.blank:g}"
        if expected_size is not None and self.size_percent and _is_off(size, expected_size, percent=self.size_percent):
            found["size"] = f"it is {size[0]}×{size[1]}, and not {expected_size[0]}×{expected_size[1]}"
        to_source = measures.source_distance
        if copy_distance is not None and self.copy_bits and copy_distance <= self.copy_bits:
            found["copy"] = f"{copy_distance} bits from its source, and gate_copy is {self.copy_bits}"
        if to_source is not None and self.lost_bits and to_source >= self.lost_bits:
            found["lost"] = f"{to_source} bits from its source, and gate_lost is {self.lost_bits}"
        if twin_distance is not None and self.twin_bits and twin_distance <= self.twin_bits:
            found["twin"] = f"{twin_distance} bits from another one of its source, and gate_twin is {self.twin_bits}"
        if not found:
            return PASSED, ""
        return FLAGGED + ", ".join(found), "; ".join(f"{name}: {said}" for name, said in found.items())


def reasons_of(verdict: str) -> Iterable[str]:
    """Return why an image is flagged; nothing if it passed."""
    return verdict.removeprefix(FLAGGED).split(", ") if verdict.startswith(FLAGGED) else ()


def _is_off(size: tuple[int, int], expected: tuple[int, int], *, percent: float) -> bool:
    return any(100 * abs(side - wanted) > percent * wanted for side, wanted in zip(size, expected, strict=True))
