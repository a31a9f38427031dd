"""What a report tells of leaks: what the last run that looked has found."""

from typing import Any

import pytest

from variations.leak_report import LeakReport
from variations.report.leaks import last_leaks, leak_data, picture_names

from .scene import leaks


def test_the_newest_run_that_looked_is_told() -> None:
    """One without splits looked at nothing."""
    newer, older = leaks(), LeakReport(groups=3)
    runs = [{"leaks": {}}, {}, {"leaks": newer.as_dict()}, {"leaks": older.as_dict()}]
    assert last_leaks(runs) == newer
    assert last_leaks(runs[:2]) is None
    assert leak_data(None, {}, {}) is None


@pytest.mark.parametrize(
    "written",
    [
        7,
        {"groups": "many"},
        {"pairs": [{}]},
        {"pairs": [7]},
        {"pairs": [{"distance": 1, "one": {}, "other": {}}]},
        {"pairs": 7},
    ],
)
def test_a_damaged_report_is_left_out(written: Any) -> None:
    """Whoever may write a receipt must not be able to keep the gallery from being made."""
    assert last_leaks([{"leaks": written}, {"leaks": LeakReport(groups=3).as_dict()}]) == LeakReport(groups=3)


def test_each_source_of_a_pair_has_a_picture_or_a_reason() -> None:
    """Those of sources that were not varied, too."""
    report = leaks()
    names = list(picture_names(report))
    assert len(names) == 4
    told = leak_data(report, {name: number for number, name in enumerate(names[:3])}, {names[3]: "it is gone"})
    assert told is not None
    assert [pair["one"]["picture"] for pair in told["pairs"]] == [0, 0, 0]
    assert [(pair["other"]["picture"], pair["other"]["missing"]) for pair in told["pairs"]] == [
        (1, None),
        (2, None),
        (-1, "it is gone"),
    ]
