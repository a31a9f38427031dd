"""A backfill: which days, whether a day has a manifest, and what all of it comes to."""

import json
from dataclasses import replace
from datetime import date

import pytest

from variations.backfill import DayEnd, days_of, has_manifest, totals
from variations.errors import BadInput
from variations.storage import open_storage

from .examples import PLAN, RECEIPT

FIRST, SECOND, THIRD = date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)


def test_each_day_has_a_source_and_a_destination() -> None:
    """The oldest first; one of the two may stay the same."""
    days = days_of("s3://b/{date}.csv", "s3://b/d", FIRST, SECOND)
    assert [(one.source, one.destination) for one in days] == [
        ("s3://b/2026-11-01.csv", "s3://b/d"),
        ("s3://b/2026-11-02.csv", "s3://b/d"),
    ]
    assert days_of("photos", "d/{day}", FIRST, FIRST)[0].destination == "d/01"


@pytest.mark.parametrize(
    ("source", "destination", "first", "last", "named"),
    [
        ("s3://b/m.csv", "s3://b/d", FIRST, SECOND, "neither source nor destination holds {date}"),
        ("s3://b/{{date}}", "s3://b/d", FIRST, SECOND, "neither source nor destination holds {date}"),
        ("s3://b/{date}", "s3://b/d", SECOND, FIRST, "--from 2026-11-02 is after --to 2026-11-01"),
        ("s3://b/{date}", "s3://b/{hour}", FIRST, SECOND, "destination: {hour} is no placeholder"),
    ],
)
def test_what_is_no_backfill_is_refused(source: str, destination: str, first: date, last: date, named: str) -> None:
    """Before anything is asked of anybody."""
    with pytest.raises(BadInput) as refused:
        days_of(source, destination, first, last)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("2026-11-01/manifest.csv", True),
        ("2026-11-01/", True),
        ("2026-11-01", True),
        ("2026-11-02/manifest.csv", False),
        ("2026-11-02/", False),
        ("2026-11-02", False),
        ("2026-11-01/manifest", False),
    ],
)
async def test_a_day_has_a_manifest_where_anything_lies(place: str, name: str, is_there: bool) -> None:
    """A file, or a prefix in which there is one, in a folder and in a bucket."""
    storage = open_storage(f"{place}/in", missing_ok=True)
    await storage.put("2026-11-01/manifest.csv", b"url\n")
    assert await has_manifest(f"{place}/in/{name}") is is_there
    await storage.aclose()


async def test_a_bucket_that_is_not_there_holds_no_manifest(s3_uri: str) -> None:
    """It may be named for the day, too."""
    assert not await has_manifest(f"{s3_uri}-2026-11-02/manifest.csv")
    assert not await has_manifest(f"{s3_uri}-2026-11-02/")


def test_the_days_are_added_up() -> None:
    """What was made of them, and how many had nothing to be made of."""
    failed = replace(RECEIPT, kept=1, failed=2, cost_usd=0.031, cost_at_risk_usd=0.062)
    ends = [DayEnd(FIRST, "…", receipt=RECEIPT), DayEnd(SECOND, "no manifest"), DayEnd(THIRD, "…", receipt=failed)]
    assert totals(ends, wanted=5) == "3 of 5 days, 4 kept, 2 failed, 0.19 USD, 1 without a run"
    plans = [DayEnd(FIRST, "…", plan=PLAN), DayEnd(SECOND, "…", plan=PLAN)]
    assert totals(plans, wanted=2) == "2 of 2 days, 4,800 images to make, about 148.80 USD, about 4 h"


def test_a_day_is_whole_where_nothing_is_missing() -> None:
    """Or would be, by its plan."""
    assert DayEnd(FIRST, "…", receipt=RECEIPT).is_whole
    assert DayEnd(FIRST, "…", plan=PLAN).is_whole
    assert not DayEnd(FIRST, "…", receipt=replace(RECEIPT, failed=1)).is_whole
    assert not DayEnd(FIRST, "no manifest").is_whole


def test_a_day_is_told_to_machines() -> None:
    """With its receipt, or its plan, where there is one."""
    told = json.loads(json.dumps(DayEnd(FIRST, "3 kept", receipt=RECEIPT).as_dict()))
    assert (told["day"], told["said"], told["kept"]) == ("2026-11-01", "3 kept", 3)
    assert DayEnd(FIRST, "no manifest").as_dict() == {"day": "2026-11-01", "said": "no manifest"}
