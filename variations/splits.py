"""Splits: which part of a training set a source belongs to, decided before anything is made of it.

A source's split is that of its group, so that nothing of one patient, scene or product is both trained on and tested
with. Where the manifest does not say it, a hash of the group does: it stays the same as the manifest grows, in whatever
order its rows stand. Names are those that Hugging Face's `datasets` takes, for a split is a folder of images.
"""

import hashlib
import math
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from variations.errors import BadInput
from variations.models import RejectedSource, Source

SPLIT_COLUMN: Final = "split"
_NAME: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_NAME_LENGTH: Final = 64
# The folders of images that belong to no split.
_TWO_DIGITS: Final = re.compile(r"[0-9a-f]{2}")
_SUM_TOLERANCE: Final = 1e-6


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
    augmented: tuple[str, ...] = ("train",)

    def among(self, labels: pa.Schema) -> "Splitter | None":
        """Return who splits the sources of a manifest with these labels; None where nothing says that they are split.

        Raises:
            BadInput: a manifest that is split has no such label as `group_by`.
        """
        column = _column(labels, SPLIT_COLUMN)
        if column is None and not self.ratios:
            return None
        group_by = _column(labels, self.group_by) if self.group_by else None
        if self.group_by and group_by is None:
            there = ", ".join(labels.names) or "no label"
            raise BadInput(f"group_by: the manifest has no column {self.group_by!r}; it has {there}")
        return Splitter(self, column=column, group_by=group_by)

    def __str__(self) -> str:
        ratios = ", ".join(f"{name} {share:.4g}" for name, share in self.ratios)
        by = f"by a hash of {self.group_by or 'the source'} ({ratios})"
        return by if self.ratios else "as the manifest says"


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
        self._augmented = frozenset(rule.augmented)
        self._column = column
        self._group_by = group_by
        self._names = [name for name, _ in rule.ratios]
        self._bounds = np.cumsum([share for _, share in rule.ratios])

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


class Groups:
    """The groups of a manifest and the splits they are in, a million of them in 17 MB."""

    def __init__(self) -> None:
        self._splits: dict[str, int] = {}
        self._keys = array("Q")
        self._in = array("H")

    def add(self, source: Source) -> None:
        """Take note of a source that has a split."""
        if source.split is None:
            raise ValueError(f"row {source.row} has no split")
        self._keys.append(_key(source))
        self._in.append(self._splits.setdefault(source.split, len(self._splits)))

    def leaking(self) -> frozenset[int]:
        """Return the keys of the groups that are in more than one split."""
        keys, splits = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._in, np.uint16)
        if not len(keys):
            return frozenset()
        order = np.lexsort((splits, keys))
        keys, splits = keys[order], splits[order]
        is_leak = (keys[1:] == keys[:-1]) & (splits[1:] != splits[:-1])
        return frozenset(keys[1:][is_leak].tolist())


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
        key = _key(source)
        if key in leaking and (key in found or len(found) < most) and source.split is not None:
            found.setdefault(key, {}).setdefault(source.split, source.row)
            names[key] = _group_of(source)
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
        name, _, share = (one.strip() for one in part.partition("="))
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
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
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


def _group_of(source: Source) -> str:
    return source.group or source.source_id


def _key(source: Source) -> int:
    return int.from_bytes(_digest(_group_of(source)))


def _digest(group: str) -> bytes:
    return hashlib.blake2b(b"split\0" + group.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def shown_splits(counts: dict[str, int], augmented: Sequence[str]) -> str:
    """Return for people how many sources are in which split."""
    return ", ".join(
        f"{name} {count:,}{'' if name in augmented else ' (left as they are)'}" for name, count in counts.items()
    )
