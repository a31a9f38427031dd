"""Splits: which one a source is in, that it stays there, and that what leaks is found."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.variations.examples import source
from variations.engine.outputs import image_key
from variations.errors import BadInput
from variations.models import RejectedSource, Source
from variations.planning.expansion import expand
from variations.planning.recipe import Recipe
from variations.splits import Groups, SplitRule, Splitter, named_leaks, parse_ratios, parse_splits

RATIOS = parse_ratios("train=0.8, validation=0.1, test=0.1")
WITHOUT_SPLIT = pa.schema([("weight", pa.float64())])
LABELS = pa.schema([("Split", pa.string()), ("patient", pa.int64()), ("weight", pa.float64())])
GROUPS = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60)


def splitter(*, labels: pa.Schema = LABELS, **rule: Any) -> Splitter:
    """Return who splits sources with these labels."""
    made = SplitRule(**rule).among(labels)
    assert made is not None
    return made


def assigned(by: Splitter, *names: str, **labels: Any) -> list[Source]:
    """Return sources with their splits; none of them is refused."""
    sources = [by.assign(source(name, labels=labels)) for name in names]
    assert all(isinstance(one, Source) for one in sources)
    return [one for one in sources if isinstance(one, Source)]


def splits(sources: Iterable[Source]) -> dict[str, str | None]:
    """Return the split of each source."""
    return {one.source_id: one.split for one in sources}


def test_the_manifests_word_is_taken_and_is_no_label_any_more() -> None:
    """Under whatever case its column is written; the group is a label still."""
    by = splitter(group_by="patient")
    (one,) = assigned(by, "a", Split=" test ", patient=7.0, weight=1.5)
    assert (one.split, one.group) == ("test", "7")
    assert one.labels == {"patient": 7.0, "weight": 1.5}
    assert by.other_labels(LABELS).names == ["patient", "weight"]


def test_nothing_is_split_where_nothing_says_so() -> None:
    """A manifest without a column and a job without ratios go on as they did."""
    assert SplitRule().among(WITHOUT_SPLIT) is None


@pytest.mark.parametrize("given", [{"group_by": "weight"}, {"augmented": ("train", "extra")}])
def test_what_is_to_be_done_with_splits_is_refused_where_there_are_none(given: dict[str, Any]) -> None:
    """Whoever says it takes the sources for split, and would train on what is to be tested with."""
    with pytest.raises(BadInput, match=r"nothing is split, .* has no column 'split' and split_ratios is not given"):
        SplitRule(**given).among(WITHOUT_SPLIT)


def test_a_split_to_augment_that_no_ratio_names_is_refused() -> None:
    """It would have no source; where the manifest has a column, another day's may have one."""
    rule = SplitRule(RATIOS, augmented=("train", "validaton"))
    with pytest.raises(BadInput, match=r"validaton would have no source; split_ratios name train, validation, test"):
        rule.among(WITHOUT_SPLIT)
    assert rule.among(LABELS) is not None


@pytest.mark.parametrize("value", ["hold-out", "all", "a/b", "..", "", "x" * 65, "ab", "c3", None, float("nan")])
def test_a_row_whose_split_can_be_none_is_refused(value: Any) -> None:
    """With the reason: guessed, it might be tested with what it was trained on."""
    refused = splitter().assign(source("a", labels={"Split": value, "weight": 1.0}))
    assert isinstance(refused, RejectedSource)
    assert "can be no split" in refused.reason or "it has no split" in refused.reason
    assert refused.labels == {"weight": 1.0}


def test_a_row_that_says_nothing_is_split_by_the_ratios() -> None:
    """If there are any."""
    (one,) = assigned(splitter(ratios=RATIOS), "a", Split=None)
    assert one.split in {"train", "validation", "test"}


@given(names=GROUPS, more=GROUPS, data=st.data())
def test_a_split_is_kept_as_the_manifest_grows_in_whatever_order(names: list[str], more: list[str], data: Any) -> None:
    """It is the group's alone: rows that come, go or change places move nobody."""
    by = splitter(ratios=RATIOS)
    before = splits(assigned(by, *names))
    grown = data.draw(st.permutations([*names, *(name for name in more if name not in names)]))
    after = splits(assigned(splitter(ratios=RATIOS), *grown))
    assert {name: after[name] for name in names} == before


def test_sources_of_a_group_share_its_split_and_the_shares_are_kept() -> None:
    """Of 5,000 groups with three sources each, within what chance does."""
    by = splitter(ratios=RATIOS, group_by="patient")
    groups = {n: {one.split for one in assigned(by, f"{n} a", f"{n} b", f"{n} c", patient=n)} for n in range(5_000)}
    assert all(len(found) == 1 for found in groups.values())
    counts = {name: sum(1 for found in groups.values() if found == {name}) for name, _ in RATIOS}
    assert 3_850 < counts["train"] < 4_150
    assert 400 < counts["validation"] < 600
    assert 400 < counts["test"] < 600


def test_a_new_version_of_a_source_stays_in_its_split() -> None:
    """It is another image of the same thing."""
    by = splitter(ratios=RATIOS)
    versions = [by.assign(source("cat", version=str(number))) for number in range(20)]
    assert len({one.split for one in versions if isinstance(one, Source)}) == 1


def test_a_planted_leak_is_found_and_named() -> None:
    """And a group of many sources in one split is none."""
    by = splitter(group_by="patient")
    rows = [("a", "train", 1), ("b", "test", 2), ("c", "train", 1), ("d", "test", 1), ("e", "test", 2), ("f", "x.1", 3)]
    sources = [
        one
        for number, (name, split, patient) in enumerate(rows, 1)
        for one in [by.assign(source(name, row=number, labels={"Split": split, "patient": patient}))]
        if isinstance(one, Source)
    ]
    groups = Groups()
    for one in sources:
        groups.add(one)
    assert len(groups.leaking()) == 1
    assert named_leaks(groups.leaking(), sources, most=10) == ["1: train (row 1), test (row 4)"]
    assert named_leaks(groups.leaking(), sources, most=0) == []
    assert Groups().leaking() == frozenset()


def test_a_source_in_two_groups_of_different_splits_leaks_itself() -> None:
    """Neither group does; a source that stands twice in one split is no leak."""
    by = splitter(group_by="patient")
    rows = [("a", "train", 1), ("a", "test", 2), ("b", "train", 1), ("b", "train", 3)]
    sources = [
        by.assign(source(name, row=number, labels={"Split": split, "patient": patient}))
        for number, (name, split, patient) in enumerate(rows, 1)
    ]
    groups = Groups()
    named = [one for one in sources if isinstance(one, Source)]
    for one in named:
        groups.add(one)
    assert named_leaks(groups.leaking(), named, most=10) == ["a: train (row 1), test (row 2)"]


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["train", "test", "x"])), max_size=40))
def test_all_that_leaks_is_found_and_nothing_else(rows: list[tuple[int, str]]) -> None:
    """By what a dictionary would say."""
    groups, expected = Groups(), {}
    for group, split in rows:
        groups.add(source(str(group), split=split))
        expected.setdefault(group, set()).add(split)
    assert len(groups.leaking()) == sum(1 for found in expected.values() if len(found) > 1)


ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 3)), st.sampled_from(["train", "test", "x"])),
    max_size=12,
)


@given(ROWS, ROWS)
def test_who_was_in_another_split_before_is_found(
    before: list[tuple[int, int | None, str]], now: list[tuple[int, int | None, str]]
) -> None:
    """The source itself or another one of its group, by what comparing each with each would say."""

    def noted(rows: list[tuple[int, int | None, str]]) -> tuple[Groups, list[Source]]:
        groups = Groups()
        named = [
            source(f"s{name}", split=split, group=None if group is None else f"g{group}") for name, group, split in rows
        ]
        for one in named:
            groups.add(one)
        return groups, named

    there, old = noted(before)
    groups, sources = noted(now)

    def splits_before(one: Source) -> set[str | None]:
        return {
            other.split
            for other in old
            if one.source_id == other.source_id or (one.group is not None and one.group == other.group)
        }

    moved = groups.moved_from(there).tolist()
    assert moved == [at for at, one in enumerate(sources) if splits_before(one) - {one.split}]
    for one in sources:
        assert there.splits_of(one) == sorted(str(split) for split in splits_before(one))


@given(names=GROUPS, data=st.data())
def test_leaks_are_the_same_in_whatever_order_the_rows_stand(names: list[str], data: Any) -> None:
    """As are the splits of sources that share a group, though the manifest gives some of them a split of their own."""
    by = splitter(ratios=RATIOS, group_by="patient")
    rows = [
        (name, data.draw(st.integers(0, 5)), data.draw(st.sampled_from(["train", "test", None])), number)
        for number, name in enumerate(names)
    ]

    def found(order: list[Any]) -> tuple[frozenset[int], dict[str, str | None]]:
        groups = Groups()
        sources = [one for name, patient, split, _ in order for one in assigned(by, name, patient=patient, Split=split)]
        for one in sources:
            groups.add(one)
        return groups.leaking(), splits(sources)

    assert found(data.draw(st.permutations(rows))) == found(rows)


def test_an_image_lies_in_the_folder_of_its_split() -> None:
    """That is what `datasets` reads; without splits nothing changes."""
    (plain,) = expand(source("a"), Recipe())
    (split,) = expand(source("a", split="train"), Recipe())
    name = plain.variation_id
    assert split.variation_id == name
    assert image_key(plain, output_index=0, extension="jpg") == f"images/{name[:2]}/{name}.jpg"
    assert image_key(split, output_index=0, extension="jpg") == f"images/train/{name[:2]}/{name}.jpg"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train=0.8, test=0.1", "adds up to 0.9, and not to 1"),
        ("train=1, test=0", "a share is above 0"),
        ("train", "is no name and share, as train=0.8 is"),
        ("train=0.8, train=0.2", "train is there twice"),
        ("hold-out=1", "can be no split"),
        ("train=nan", "a share is above 0"),
    ],
)
def test_ratios_that_cannot_be_are_refused(text: str, says: str) -> None:
    """By their name."""
    with pytest.raises(BadInput, match=r"^split_ratios: ") as refused:
        parse_ratios(text)
    assert says in str(refused.value)


def test_splits_to_augment_are_names() -> None:
    """At least one."""
    assert parse_splits(" train , extra") == ("train", "extra")
    assert parse_ratios("") == ()
    for text in (",", "hold-out"):
        with pytest.raises(BadInput, match=r"^augment_splits: "):
            parse_splits(text)


def test_a_group_that_is_no_column_is_named_with_those_there_are() -> None:
    """Before anything is read."""
    with pytest.raises(BadInput, match=r"no column 'patient_id'; it has Split, patient, weight"):
        SplitRule(group_by="patient_id").among(LABELS)


def test_the_rule_is_told_as_it_is_applied() -> None:
    """The manifest's word goes before the hash, so that is told first; and a split that is empty is told, too."""
    by_hash = "by a hash of patient (train 0.8, validation 0.1, test 0.1)"
    without_split = pa.schema([("patient", pa.int64())])
    assert str(splitter()) == "as the manifest says"
    assert str(splitter(ratios=RATIOS, group_by="patient", labels=without_split)) == by_hash
    both = splitter(ratios=RATIOS, group_by="patient", augmented=("train", "extra"))
    assert str(both) == f"as the manifest says, else {by_hash}"
    shown = both.shown({"test": 2, "other": 1, "train": 30})
    left = "(left as they are)"
    assert shown == f"train 30, validation 0 {left}, test 2 {left}, other 1 {left}, extra 0"


def test_a_column_that_is_nearly_called_split_is_named() -> None:
    """Whoever asks for what only splits have may have misspelt it."""
    with pytest.raises(BadInput, match=r"^augment_splits: nothing is split, .*its column 'splt' is not called so"):
        SplitRule(augmented=("test",)).among(pa.schema([("label", pa.string()), ("splt", pa.string())]))
