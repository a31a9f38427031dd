"""What a plan says of itself."""

from dataclasses import replace

from .examples import PLAN


def test_the_lines_of_a_plan() -> None:
    """What it will cost, before it does."""
    assert PLAN.lines() == [
        ("source", "s3://b/m.csv"),
        ("destination", "s3://b/d"),
        ("usable sources", "1,200"),
        ("variations", "1,200"),
        ("already there", "0"),
        ("new", "1,200 in 200 shards"),
        ("images to pay for", "2,400"),
        ("cost", "about 74.40 USD"),
        ("time", "about 2 h at 60 requests a minute (polls counted), 16 in flight"),
    ]
    notes = replace(PLAN, rejected=3, duplicates=1, new=1, shards=1, failed_before=2, requests_per_minute=0)
    lines = dict(notes.lines())
    assert lines["usable sources"] == "1,200 (3 rejected, 1 duplicate)"
    assert lines["new"] == "1 in 1 shard"
    assert lines["failed before"].startswith("2 ")
    assert lines["time"] == "about 2 h at no request limit, 16 in flight"


def test_a_plan_in_a_line() -> None:
    """What there is to make, and what is there already."""
    assert PLAN.summary() == "2,400 images to make for about 74.40 USD in about 2 h"
    nothing = replace(PLAN, images=0, new=0, already_done=1200, cost_usd=0.0, seconds=0.0)
    assert nothing.summary() == "0 images to make, 1,200 variations already there"
