"""Splits: which part of a training set a source belongs to, decided before anything is made of it.

A source's split is that of its group, so that nothing of one patient, scene or product is both trained on and tested
with. Where the manifest does not say it, a hash of the group does: it stays the same as the manifest grows, in whatever
order its rows stand. Names are those that Hugging Face's `datasets` takes, for a split is a folder of images.
"""

import difflib
import hashlib
import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from variations.errors import BadInput
from variations.models import RejectedSource, Source

SPLIT_COLUMN: Final = "split"
# The splits that are varied, where nobody says another.
AUGMENTED: Final = ("train",)
_NAME: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_NAME_LENGTH: Final = 64
# The folders of images that belong to no split.
_TWO_DIGITS: Final = re.compile(r"[0-9a-f]{2}")
_SUM_TOLERANCE: Final = 1e-6
_NO_SPLIT: Final = 2**16 - 1
# Tells the key of a source from that of a group of the same name.
_OF_SOURCE: Final = 0x5555555555555555
_SOURCE_MASK: Final = np.uint64(_OF_SOURCE)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How sources are split.

    Attributes:
        ratios: each split's share of the groups, where the manifest does not say a source's split; empty: none is made.
        group_by: the label that sources have in common which belong together; empty: each is a group of its own.
        augmented: the splits whose sources are varied; the others are left as they are.
    """

    ratios: tuple[tuple[str, float], ...] = ()
    group_by: str = ""
    augmented: tuple[str, ...] = AUGMENTED

    def among(self, labels: pa.Schema) -> "Splitter | None":
        """Return who splits the sources of a manifest with these labels; None where nothing says that they are split.

        Raises:
            BadInput: the manifest has no such label as `group_by`; nothing could be in one of `augmented`; or
                nothing is split, and yet what is to be done with splits is given.
        """
        column = _column(labels, SPLIT_COLUMN)
        if column is None and not self.ratios:
            given = "group_by" if self.group_by else "augment_splits" if self.augmented != AUGMENTED else None
            if given is not None:
                raise nothing_is_split(given, labels)
            return None
        others = [name for name in self.augmented if name not in dict(self.ratios)]
        if column is None and others:
            there = ", ".join(dict(self.ratios))
            raise BadInput(f"augment_splits: {' and '.join(others)} would have no source; split_ratios name {there}")
        group_by = _column(labels, self.group_by) if self.group_by else None
        if self.group_by and group_by is None:
            there = ", ".join(labels.names) or "no label"
            raise BadInput(f"group_by: the manifest has no column {self.group_by!r}; it has {there}")
        return Splitter(self, column=column, group_by=group_by)


def nothing_is_split(given: str, labels: pa.Schema) -> BadInput:
    """Return the error of a setting that only means something where sources are split."""
    near = difflib.get_close_matches(SPLIT_COLUMN, labels.names, n=1)
    return BadInput(
        f"{given}: nothing is split, for the manifest has no column {SPLIT_COLUMN!r}"
        + (f" (its column {near[0]!r} is not called so)" if near else "")
        + f" and split_ratios is not given; give either, or leave {given} out"
    )


def _column(labels: pa.Schema, name: str) -> str | None:
    if name in labels.names:
        return name
    same = [one for one in labels.names if one.strip().casefold() == name.strip().casefold()]
    return same[0] if len(same) == 1 else None


class Splitter:
    """Says of each source which split it is in.

    Args:
        rule: by which.
        column: the label that says a source's split, if there is one.
        group_by: the label that says its group, if there is one.
    """

    def __init__(self, rule: SplitRule, *, column: str | None, group_by: str | None) -> None:
        self._rule = rule
        self._augmented = frozenset(rule.augmented)
        self._column = column
        self._group_by = group_by
        self._names = [name for name, _ in rule.ratios]
        self._bounds = np.cumsum([share for _, share in rule.ratios])

    def __str__(self) -> str:
        ratios = ", ".join(f"{name} {share:.4g}" for name, share in self._rule.ratios)
        by_hash = f"by a hash of {self._group_by or 'the source'} ({ratios})"
        if self._column is None:
            return by_hash
        return f"as the manifest says, else {by_hash}" if ratios else "as the manifest says"

    def shown(self, counts: dict[str, int]) -> str:
        """Return for people how many sources are in which split; one that has none and was to is told, too."""
        there = dict.fromkeys([*self._names, *counts, *self._rule.augmented], 0) | counts
        return ", ".join(
            f"{name} {count:,}{'' if name in self._augmented else ' (left as they are)'}"
            for name, count in there.items()
        )

    def other_labels(self, labels: pa.Schema) -> pa.Schema:
        """Return the labels that are left: the split has a column of its own in the dataset."""
        return pa.schema([label for label in labels if label.name != self._column])

    def assign(self, source: Source) -> Source | RejectedSource:
        """Return a source with its split and its group; refused where what the manifest says can be no split."""
        group = _text(source.labels.get(self._group_by)) if self._group_by else None
        labels = {name: value for name, value in source.labels.items() if name != self._column}
        try:
            split = self._split_of(source, group)
        except BadInput as error:
            return RejectedSource(source.row, error.message, source.source_id, source.public_uri, labels)
        return replace(source, split=split, group=group, labels=labels)

    def is_augmented(self, source: Source) -> bool:
        """Return whether a source is varied."""
        return source.split in self._augmented

    def _split_of(self, source: Source, group: str | None) -> str:
        said = _text(source.labels.get(self._column)) if self._column is not None else None
        if said is not None:
            check_split(said)
            return said
        if not self._names:
            raise BadInput("it has no split: name one, or give split_ratios")
        share = int.from_bytes(_digest(group or source.source_id)) / 2**64
        # The last bound is 1 but for what floats lose.
        return self._names[min(int(np.searchsorted(self._bounds, share, side="right")), len(self._names) - 1)]


@dataclass(slots=True)
class Groups:
    """Groups, and the sources in them, and the splits they are in; a million sources in 18 MB."""

    _splits: dict[str, int] = field(default_factory=dict)
    _groups: "array[int]" = field(default_factory=partial(array, "Q"))
    _sources: "array[int]" = field(default_factory=partial(array, "Q"))
    _in: "array[int]" = field(default_factory=partial(array, "H"))

    def __len__(self) -> int:
        return len(self._in)

    @property
    def splits(self) -> list[str]:
        """The names of the splits, by their numbers."""
        return list(self._splits)

    @property
    def numbers(self) -> npt.NDArray[np.uint16]:
        """The number of each source's split."""
        return np.frombuffer(self._in, np.uint16)

    def add(self, source: Source) -> None:
        """Take note of a source that has a split."""
        if source.split is None:
            raise ValueError(f"row {source.row} has no split")
        self.note(source.split, source.group, source.source_id)

    def note(self, split: str, group: str | None, source_id: str) -> None:
        """Take note of a source, and of its group, if it has one."""
        by_source = _key(source_id)
        self._groups.append(by_source if group is None else _key(group))
        # Where the one is the other, they are not told apart; where they are not, an id is no group's name.
        self._sources.append(by_source ^ _OF_SOURCE)
        self._in.append(self._splits.setdefault(split, len(self._splits)))

    def leaking(self) -> frozenset[int]:
        """Return the keys of the groups that are in more than one split, and of the sources that are, by their ids."""
        found: set[int] = set()
        for keys in (np.frombuffer(self._groups, np.uint64), np.frombuffer(self._sources, np.uint64) ^ _SOURCE_MASK):
            different, is_mixed, _ = _by_key(keys, self.numbers)
            found.update(different[is_mixed].tolist())
        return frozenset(found)

    def moved_from(self, before: "Groups") -> npt.NDArray[np.int64]:
        """Return which sources, by their numbers, were in another split before, or others of their group were."""
        moved = np.zeros(len(self), np.bool_)
        # A number that no split has: what was in several was in another one.
        renumbered = np.array([self._splits.get(name, _NO_SPLIT) for name in before.splits], np.uint16)
        for ours, theirs in ((self._groups, before._groups), (self._sources, before._sources)):
            keys, is_mixed, splits = _by_key(np.frombuffer(theirs, np.uint64), before.numbers)
            if not len(keys):
                continue
            wanted = np.frombuffer(ours, np.uint64)
            places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            is_there = keys[places] == wanted
            moved |= is_there & (is_mixed[places] | (renumbered[splits[places]] != self.numbers))
        return np.flatnonzero(moved)

    def splits_of(self, source: Source) -> list[str]:
        """Return in which splits a source is, and others of its group are, by name; for a few sources."""
        by_source = _key(source.source_id)
        group = by_source if source.group is None else _key(source.group)
        is_there = np.frombuffer(self._groups, np.uint64) == np.uint64(group)
        is_there |= np.frombuffer(self._sources, np.uint64) == np.uint64(by_source ^ _OF_SOURCE)
        return sorted(self.splits[number] for number in np.unique(self.numbers[is_there]).tolist())


def _by_key(
    keys: npt.NDArray[np.uint64], splits: npt.NDArray[np.uint16]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_], npt.NDArray[np.uint16]]:
    """Return the different keys in their order, and of each whether it is in several splits, and one that it is in."""
    order = np.lexsort((splits, keys))
    keys, splits = keys[order], splits[order]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.empty(0, np.int64)
    ends = np.concatenate((begins[1:], [len(keys)]))[: len(begins)]
    return keys[begins], splits[ends - 1] != splits[begins], splits[begins]


def named_leaks(leaking: frozenset[int], sources: Iterable[Source], *, most: int) -> list[str]:
    """Return which groups are in which splits, the first few of them, for people.

    Args:
        leaking: from `Groups.leaking`.
        sources: the same sources once more.
        most: so many groups.
    """
    found: dict[int, dict[str, int]] = {}
    names: dict[int, str] = {}
    for source in sources:
        # A source may be in two groups.
        for name in dict.fromkeys((source.group or source.source_id, source.source_id)):
            key = _key(name)
            if key in leaking and (key in found or len(found) < most) and source.split is not None:
                found.setdefault(key, {}).setdefault(source.split, source.row)
                names[key] = name
    return [
        f"{names[key]}: " + ", ".join(f"{split} (row {row})" for split, row in splits.items())
        for key, splits in found.items()
    ]


def parse_ratios(text: str) -> tuple[tuple[str, float], ...]:
    """Return the ratios that a text such as `train=0.8,validation=0.1,test=0.1` gives; none for an empty one.

    Raises:
        BadInput: a name can be no split, a share is no number above 0, or they do not add up to 1.
    """
    ratios: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, is_said, share = (one.strip() for one in part.partition("="))
        if not is_said:
            raise BadInput(f"split_ratios: {part!r} is no name and share, as train=0.8 is")
        if name in ratios:
            raise BadInput(f"split_ratios: {name} is there twice")
        try:
            check_split(name)
            ratios[name] = float(share)
        except (BadInput, ValueError) as error:
            raise BadInput(f"split_ratios: {part!r}: {error}") from None
        if not 0 < ratios[name] <= 1:
            raise BadInput(f"split_ratios: {part!r}: a share is above 0 and at most 1")
    if ratios and not math.isclose(sum(ratios.values()), 1, abs_tol=_SUM_TOLERANCE):
        raise BadInput(f"split_ratios: {text!r} adds up to {sum(ratios.values()):g}, and not to 1")
    return tuple(ratios.items())


def parse_splits(text: str) -> tuple[str, ...]:
    """Return the splits that a text such as `train,extra` names.

    Raises:
        BadInput: a name can be no split, or there is none.
    """
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    try:
        for name in names:
            check_split(name)
    except BadInput as error:
        raise BadInput(f"augment_splits: {error}") from None
    if not names:
        raise BadInput("augment_splits: it names no split: nothing would be varied")
    return names


def check_split(name: str) -> None:
    """Make sure that a name can be a split's.

    Raises:
        BadInput: it cannot; with the name.
    """
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH or name == "all" or _TWO_DIGITS.fullmatch(name):
        raise BadInput(f"{name[:_NAME_LENGTH]!r} can be no split: letters, digits and _ are, as in train")


def _text(value: object) -> str | None:
    """Return a label as text; nothing where the cell is empty. 7.0 is 7, as in ids."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _key(group: str) -> int:
    return int.from_bytes(_digest(group))


def _digest(group: str) -> bytes:
    return hashlib.blake2b(b"split\0" + group.encode("utf-8", "surrogatepass"), digest_size=8).digest()
