"""What of a manifest leaks from one split into another, for people and for machines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from variations.errors import LeakFound

# So many pairs and names are kept, of which plan and receipt show the first few.
SAMPLES: Final = 50
SHOWN: Final = 10
# Of 4,560 pairs of different pictures the nearest two differ in 12 bits; scaled and compressed copies in 0 to 2.
DEFAULT_DISTANCE: Final = 6
# Beyond that, to look for them among a million takes minutes.
MOST_DISTANCE: Final = 8


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """What is looked for, and whether a run goes on where it is found.

    Attributes:
        images: look at each source, for those in different splits that look alike; else only at groups.
        max_distance: bits of 64 in which the hashes of two that look alike differ at the most.
        is_fatal: nothing is submitted where something leaks.
    """

    images: bool = True
    max_distance: int = DEFAULT_DISTANCE
    is_fatal: bool = False


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What leaks.

    Attributes:
        groups: that are in two splits or more; `group_samples` say in which.
        moved: sources which the dataset has images of in another split, or of their group; `moved_samples` name them.
        similar: sources that look like one in another split; `pairs` are the nearest of them.
        is_whole: whether all were compared; else there may be more.
        max_distance: bits in which two that look alike differ at the most.
        is_by_image: whether sources were looked at. Of `looked_at` some were known from before, `blank` ones show
            nothing and are like no other, and `missing` ones could not be had; `missing_samples` say why.
    """

    groups: int = 0
    group_samples: tuple[str, ...] = ()
    moved: int = 0
    moved_samples: tuple[str, ...] = ()
    similar: int = 0
    pairs: tuple[dict[str, Any], ...] = ()
    is_whole: bool = True
    max_distance: int = DEFAULT_DISTANCE
    is_by_image: bool = False
    looked_at: int = 0
    known_before: int = 0
    blank: int = 0
    missing: int = 0
    missing_samples: tuple[str, ...] = ()

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "LeakReport | None":
        """Return a report from what was written of it; None where nothing was, or nothing that can be read."""
        if not values:
            return None
        known: dict[str, Any] = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        lists: dict[str, Any] = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**{**known, **lists})

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @property
    def is_leak(self) -> bool:
        """Whether anything leaks."""
        return bool(self.groups or self.moved or self.similar)

    def lines(self, *, most: int = SHOWN) -> list[tuple[str, str]]:
        """Return names and values: what leaks first, then how far it was looked."""
        return [("leaks", self.summary()), *self._named(most), *self._not_looked_at(most)]

    def summary(self) -> str:
        """Say it in a line."""
        found = []
        if self.groups:
            found.append(f"{self.groups:,} group{'s are' if self.groups > 1 else ' is'} in two splits or more")
        if self.moved:
            verb = "sources belong" if self.moved > 1 else "source belongs"
            found.append(f"{self.moved:,} {verb} to another split than in the dataset")
        if self.similar:
            least = "" if self.is_whole else "at least "
            found.append(f"{least}{self.similar:,} sources look like one in another split")
        if not found:
            found.append("no group is in two splits")
            found += ["no source looks like one in another split"] if self.is_by_image and self.looked_at else []
        return "; ".join(found)

    def _named(self, most: int) -> list[tuple[str, str]]:
        lines = []
        for samples in (self.group_samples, self.moved_samples, tuple(pair_text(pair) for pair in self.pairs)):
            lines += [("leak", text) for text in samples[:most]]
            if len(samples) > most:
                lines.append(("leak", "… and more of this kind, in the plan's file"))
        # Of copies that are the same to the last bit, two are named.
        named = {(pair[side]["source_id"], pair[side]["row"]) for pair in self.pairs for side in ("one", "other")}
        more = self.similar - len(named)
        if len(self.pairs) <= most and len(self.pairs) < SAMPLES and more > 0:
            least = "" if self.is_whole else "at least "
            lines.append(("leak", f"… and {least}{more:,} more that look{'s' * (more == 1)} like one of these"))
        return lines

    def _not_looked_at(self, most: int) -> list[tuple[str, str]]:
        if not self.is_by_image:
            return [("looked at", "no source: only groups were compared (leak_check)")]
        known = f", {self.known_before:,} of them before" if self.known_before else ""
        blank = f"; {self.blank:,} show nothing" if self.blank else ""
        missing = f"; {self.missing:,} could not be had" if self.missing else ""
        samples = self.missing_samples[:most]
        more = [("not had", f"… and {self.missing - len(samples):,} more")] if self.missing > len(samples) else []
        return [
            ("looked at", f"{self.looked_at:,} sources{known}{blank}{missing}"),
            *(("not had", text) for text in samples),
            *more,
        ]

    def error(self) -> LeakFound:
        """Return what a run that must not leak ends with; it names the first few, and what to do."""
        named = "; ".join(text for _, text in self._named(3))
        return LeakFound(
            f"{self.summary()}: {named}. Nothing was submitted: put them into one split (in the manifest's column "
            "split, or, where a hash splits, by group_by with a column that they have in common), leave one out, or go "
            "on without fail_on_leak"
        )


def pair_text(pair: Mapping[str, Any]) -> str:
    """Say of two sources that they look alike."""
    one, other, bits = pair["one"], pair["other"], pair["distance"]
    apart = "alike" if not bits else f"{bits} bit{'s' * (bits > 1)} apart"
    return f"{_text(one)} looks like {_text(other)}: {apart}"


def _text(one: Mapping[str, Any]) -> str:
    return f"{one['source_id']} in {one['split']} (row {one['row']})"
