"""Plan and receipt: numbers that add up, and lines that people read."""

import json
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.errors import ServiceDown
from variations.models import Measures, Outcome
from variations.receipt import Receipt, RunStopped
from variations.tally import Recovery, Tally, UnknownItem
from variations.texts import SAMPLES

from .examples import PLAN, RECEIPT, image, outcome, variation

OUTCOMES = st.lists(
    st.builds(
        lambda status, cost: outcome(status, cost_usd=cost),
        st.sampled_from(["kept", "failed", "unknown"]),
        st.sampled_from([0.0, 0.031, 0.05]),
    ),
    max_size=30,
)


def tallied(*outcomes: Outcome) -> Tally:
    """Count outcomes."""
    tally = Tally()
    tally.add(outcomes)
    return tally


@given(OUTCOMES, OUTCOMES)
def test_a_tally_adds_up(first: list[Outcome], second: list[Outcome]) -> None:
    """Every image is in one count, every cent in one sum, shard after shard."""
    tally = Tally()
    tally.add(first)
    other = Tally(variations=2, accepted=2, accepted_twice=1)
    other.add(second)
    tally.merge(other)
    assert (tally.variations, tally.accepted, tally.accepted_twice) == (2, 2, 1)
    assert Tally.of_dict(json.loads(json.dumps(tally.as_dict()))) == tally
    together = first + second
    assert tally.kept + tally.failed + tally.unknown == len(together)
    assert tally.cost_usd + tally.cost_at_risk_usd == pytest.approx(sum(one.cost_usd for one in together))
    assert tally.paid == sum(one.cost_usd > 0 and one.status != "unknown" for one in together)
    assert sum(tally.errors.values()) == tally.failed + tally.unknown


def test_what_is_unknown_is_at_risk_and_not_paid() -> None:
    """It may be paid for: it is counted apart."""
    tally = tallied(outcome(), outcome("unknown", cost_usd=0.031), outcome("failed", cost_usd=0.05))
    assert (tally.paid, tally.unknown) == (2, 1)
    assert (tally.cost_usd, tally.cost_at_risk_usd) == pytest.approx((0.081, 0.031))


def test_what_is_unknown_is_named_with_what_would_settle_it() -> None:
    """A request is fetched by its id; a submit whose answer was lost is looked for, or submitted again by a setting."""
    tally = Tally()
    lost = outcome("unknown", of=variation("b"), request_id=None, error_code="submit_unknown")
    tally.add([outcome("unknown", of=variation("a"), output_index=index) for index in range(2)], run_id="run-1")
    tally.add([lost], run_id="run-1")
    assert (tally.unknown, len(tally.unknowns)) == (3, 2)
    receipt = Receipt.of(PLAN, tally, held=[UnknownItem("0" * 32, "run-0")])
    held, accepted, unanswered = receipt.unknowns
    assert (held["run_id"], held["source_uri"]) == ("run-0", None)
    assert (accepted["run_id"], accepted["source_uri"]) == ("run-1", variation("a").source.public_uri)
    assert "accepted as request r:" in accepted["settle"]
    assert "unknown=resubmit" in unanswered["settle"] == held["settle"]
    assert not receipt.all_kept
    texts = [text for name, text in receipt.lines() if name == "unknown"][1:]
    assert texts[0].startswith(f"{'0' * 32} of run-0: ")
    assert texts[1].startswith(f"{variation('a').variation_id} of https://images.example.com/a.jpg: accepted")
    assert len(texts) == 3


def test_of_many_unknown_ones_a_few_are_shown() -> None:
    """All are in the file."""
    held = [UnknownItem(f"{number:032x}", "run-0") for number in range(1200)]
    receipt = Receipt.of(PLAN, Tally(), held=held)
    assert len(receipt.unknowns) == 1200
    texts = [text for name, text in receipt.lines() if name == "unknown"]
    assert len(texts) == SAMPLES + 1
    assert texts[-1] == "… and 1,190 more, in the receipt's file"


def test_a_receipt_tells_what_was_recovered() -> None:
    """First of all: it is money that was at risk."""
    recovery = Recovery("run-0", looked_for=5, kept=3, failed=1, cost_usd=0.093, still_unknown=1)
    lines = Receipt.of(PLAN, Tally(), recovery=recovery).lines()
    assert lines[:2] == [
        ("closed", "the run run-0, which had ended without a word"),
        ("recovered", "3 images kept, 1 failed, 0.093 USD; 5 were open"),
    ]
    assert Receipt.of(PLAN, Tally(), recovery=Recovery()).lines()[0][0] == "paid"


def test_errors_are_counted_by_their_code_with_a_sample() -> None:
    """A million failures with a text of their own each are one line."""
    failures = [outcome("failed", error_code="timeout", error=f"not done after {at} s") for at in range(50)]
    tally = tallied(*failures)
    assert tally.errors == {"timeout": 50}
    receipt = Receipt.of(PLAN, tally)
    assert (receipt.errors, receipt.error_samples) == ({"timeout": 50}, {"timeout": "not done after 0 s"})


def test_notes_are_counted_by_their_kind() -> None:
    """Whatever size it was that was not expected."""
    sized = [image(variation(), notes=(f"unexpected size: {at}×1 instead of 1×1", "blank image")) for at in range(3)]
    tally = tallied(*(outcome(image=one) for one in sized))
    assert tally.notes == {"unexpected size": 3, "blank image": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"failed": 1},
        {"unknown": 1},
        {"rejected": 1},
        {"left": 1},
        {"unknowns": ({"variation_id": "0"},)},
        {"stopped_by": "stopped_by_user"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_not_all_is_kept_where_anything_is_missing(change: dict[str, Any]) -> None:
    """A script goes by it."""
    assert RECEIPT.all_kept
    assert not replace(RECEIPT, **change).all_kept


def test_nothing_to_do_is_all_kept() -> None:
    """The second run of a day is no failure; what failed before, or is unknown since, is not kept today either."""
    idle = replace(RECEIPT, wanted=0, paid=0, kept=0, already_done=3, duplicates=2)
    assert idle.all_kept
    assert not replace(idle, failed_before=1).all_kept
    assert not replace(idle, unknown_before=1).all_kept
    assert not replace(idle, partly_there=1).all_kept


def test_the_lines_of_a_receipt() -> None:
    """In the order in which a person asks."""
    assert RECEIPT.lines() == [
        ("paid", "3 images"),
        ("kept", "3"),
        ("failed", "0"),
        ("submitted twice", "0 of 3 accepted, by the journal"),
        ("cost", "0.093 USD"),
        ("time", "42 s"),
        ("requests per image", "4.0 (9 status, 3 submit)"),
        ("dataset", "1,003 rows"),
        ("destination", "s3://b/d"),
    ]


def test_the_lines_of_a_receipt_of_which_much_is_to_be_said() -> None:
    """What is at risk, what is left, what went wrong and why it ended."""
    bad = replace(
        RECEIPT,
        paid=1,
        unknown=2,
        cost_at_risk_usd=0.062,
        rejected=1234,
        left=5,
        already_done=6,
        failed_before=7,
        unknown_before=2,
        partly_there=3,
        resubmitted=4,
        max_cost_usd=10.0,
        requests={},
        requests_per_image=None,
        errors={"timeout": 2},
        error_samples={"timeout": "not done after 600 s"},
        notes={"blank image": 1},
        rejected_rows=("row 2: no URI",),
        stopped_by="service_down",
        stopped_because="the API does not take requests",
        dataset_rows=None,
    )
    lines = bad.lines()
    assert ("paid", "1 image") in lines
    assert ("unknown", "2 (may be paid for: 0.062 USD at risk)") in lines
    assert ("rejected rows", "1,234") in lines
    assert ("left for the next run", "5") in lines
    assert ("already there", "6") in lines
    assert any(name == "failed before" and text.startswith("7 ") for name, text in lines)
    assert any(name == "unknown before" and text.startswith("2 ") for name, text in lines)
    assert any(name == "partly there" and text.startswith("3 ") for name, text in lines)
    assert any(name == "submitted again" and text.startswith("4 ") for name, text in lines)
    assert ("cost", "0.093 USD of 10") in lines
    assert ("requests per image", "–") in lines
    assert ("dataset", "not published") in lines
    assert ("timeout, 2×", "not done after 600 s") in lines
    assert any(name == "blank image, 1×" for name, _ in lines)
    assert ("rejected", "row 2: no URI") in lines
    assert ("rejected", "… and 1,233 more") in lines
    assert lines[-1] == ("stopped", "the API does not take requests")


def test_a_receipt_of_a_recovery_in_a_line() -> None:
    """It has no source, and counts what it found."""
    found = Recovery("run-0", looked_for=5, kept=3, failed=1, cost_usd=0.093, still_unknown=1)
    plan = replace(PLAN, source="")
    assert Receipt.of(plan, Tally(), recovery=found).summary() == "3 recovered, 1 failed, 1 still unknown, 0.09 USD"
    assert Receipt.of(plan, Tally()).summary() == "nothing was open, 0.00 USD"


def test_both_show_as_tables() -> None:
    """Each line is a row of the artifact."""
    for thing, title in ((PLAN, "## Plan"), (RECEIPT, "## Receipt of run-1")):
        text = thing.markdown()
        assert text.startswith(f"{title}\n\n| | |\n| --- | --- |\n")
        assert len(text.splitlines()) == 4 + len(thing.lines())


def test_a_receipt_comes_back_from_json() -> None:
    """It is stored as a file, and handed from a flow to a command."""
    found = Receipt.of(PLAN, Tally(), held=[UnknownItem("0" * 32, "run-0")], recovery=Recovery("run-0", looked_for=2))
    tally = tallied(outcome("failed", error_code="timeout"))
    found = replace(found, failures=Receipt.of(PLAN, tally).failures)
    full = replace(found, errors={"timeout": 1}, error_samples={"timeout": "ä|\n"}, rejected_rows=("row 1: ä",))
    read = json.loads(json.dumps(full.as_dict()))
    assert set(read) == {field.name for field in fields(Receipt)}
    tuples = {name: tuple(read[name]) for name in ("rejected_rows", "unknowns", "failures")}
    assert Receipt(**{**read, **tuples}) == full
    assert Receipt(**read).lines() == full.lines()
    assert json.loads(json.dumps(asdict(PLAN)))["images"] == 2400


def test_a_stopped_run_has_its_receipt_and_its_reason() -> None:
    """Whoever catches it shows both."""
    reason = ServiceDown("the API is not there")
    stopped = RunStopped(RECEIPT, reason)
    assert str(stopped) == "the API is not there"
    assert stopped.receipt is RECEIPT
    assert stopped.reason is reason


def test_what_was_not_made_was_not_made_again() -> None:
    """An output that a request in the place of a flagged one failed to make is no image; one that was dropped is."""
    again = variation(roll=1)
    blank = Measures(contrast=0.0, phash="0" * 16, verdict="flagged: blank")
    made = (outcome(of=again), outcome("rejected", of=again, measures=blank))
    tally = tallied(outcome(), *made, outcome("rejected", of=again), outcome("failed", of=again))
    assert (tally.rerolled, tally.dropped) == (2, 1)


@pytest.mark.parametrize(
    ("tally", "recovery", "rows", "is_new", "has_news"),
    [
        (Tally(kept=1), Recovery(), 1, True, True),
        (Tally(failed=1), Recovery(), 1, False, True),
        (Tally(dropped=1), Recovery(), 1, False, True),
        (Tally(), Recovery(kept=1, has_changed=True), 1, True, True),
        (Tally(), Recovery("run-0"), 1, True, True),
        (Tally(), Recovery("run-0"), 0, False, True),
        (Tally(), Recovery(looked_for=1, still_unknown=1), 1, False, False),
    ],
    ids=["made", "failed", "dropped", "fetched", "of a dead run", "of one that wrote nothing", "still unknown"],
)
def test_what_came_into_the_dataset_is_news(
    tally: Tally, recovery: Recovery, rows: int, is_new: bool, has_news: bool
) -> None:
    """This run's, or what an earlier one left."""
    receipt = Receipt.of(PLAN, tally, recovery=recovery, dataset_rows=rows)
    assert (receipt.has_new_images, receipt.has_news) == (is_new, has_news)


def test_what_the_api_showed_of_its_limit_is_told() -> None:
    """What was set and is wrong, with what to set instead: the plan of the same receipt says it as it was set."""
    shown = dict(replace(RECEIPT, requests={"submit": 60, "poll": 140}, refused=2, limit_found=60.0).lines())
    assert shown["request limit"] == "about 60 a minute, as the API showed: it refused 2 (1.0%)"
    assert "requests counted" not in shown
    assert "set requests_counted to all" in dict(replace(RECEIPT, all_found_counted=True).lines())["requests counted"]
