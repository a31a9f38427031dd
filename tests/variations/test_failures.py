"""What failed, for people: counted by reason, a few of each, what can be done about it; small, however many."""

import json

import pytest

from variations import errors
from variations.failures import SAMPLES, Failures, as_values, failure_table
from variations.receipt import Receipt
from variations.tally import Tally

from .examples import PLAN, outcome, variation


def tallied(count: int = 1, **changes: object) -> Tally:
    """Count so many images that failed alike."""
    tally = Tally()
    tally.add(outcome("failed", of=variation(f"cat-{at}"), **{"can_retry": True, **changes}) for at in range(count))
    return tally


def test_thousands_of_failures_are_a_row_a_reason() -> None:
    """With their number, and no more than three samples of bounded length."""
    tally = tallied(5000, error_code="inference_failed", error="x" * 5000)
    tally.merge(tallied(20, error_code="invalid_request", can_retry=False))
    table = failure_table(Receipt.of(PLAN, tally).failures)
    assert [(row["reason"], row["images"], row["again?"]) for row in table] == [
        ("failed: inference_failed", 5000, "yes"),
        ("failed: invalid_request", 20, "no"),
    ]
    assert str(table[0]["samples"]).count("https://images.example.com/cat-") == 3
    assert len(json.dumps(table)) < 3000


def test_a_reason_that_can_be_tried_again_is_apart_from_one_that_cannot() -> None:
    """The API has one word for a fault of its own and for what its safety check withholds."""
    tally = tallied(2, error_code="inference_failed")
    tally.merge(tallied(1, error_code="inference_failed", error="NSFW", can_retry=False))
    fault, blocked = failure_table(as_values(tally.failures.values()))
    assert (fault["images"], fault["again?"]) == (2, "yes")
    assert "retry = failed" in str(fault["what to do"])
    assert (blocked["images"], blocked["again?"], "NSFW" in str(blocked["samples"])) == (1, "no", True)
    assert tally.errors == {"inference_failed": 3}


def test_an_image_that_a_request_did_not_make_is_left_alone() -> None:
    """Trying again would pay for the others of its request again, so it is not what a person is told to do."""
    (row,) = failure_table(as_values(tallied(error_code="output_missing", can_retry=False).failures.values()))
    assert (row["again?"], str(row["what to do"]).partition(":")[0]) == ("no", "leave it")
    assert "other images of its request" in str(row["what to do"])


def test_what_is_unknown_is_not_for_a_person_to_do() -> None:
    """The next run looks for it."""
    tally = Tally()
    tally.add([outcome("unknown", error_code=errors.InferenceTimeout.code)])
    (row,) = failure_table(as_values(tally.failures.values()))
    assert (row["reason"], row["again?"]) == ("unknown: timeout", "it may be there")
    assert str(row["what to do"]).startswith("nothing")


def test_rows_that_were_rejected_are_told_too() -> None:
    """With what is wrong with the first of them; where nothing went wrong, there is no table."""
    (row,) = failure_table([], rejected=1200, rejected_rows=("row 2: no URI", "row 3: no URI"))
    assert (row["images"], row["samples"]) == (1200, "row 2: no URI · row 3: no URI")
    assert failure_table([]) == []


def test_what_a_manifest_holds_is_shown_and_nothing_else() -> None:
    """Prefect's UI takes a cell for Markdown: no picture is fetched, nothing is a link, and no tag is one."""
    hostile = "row 2: not a URI: '![x](http://b/i.png) [y](javascript:z) <img src=q>'"
    (row,) = failure_table([], rejected=1, rejected_rows=(hostile,))
    said = r"row 2: not a URI: '!\[x\](http://b/i.png) \[y\](javascript:z) &lt;img src=q>'"
    assert row["samples"] == said
    (row,) = failure_table(as_values(tallied(error_code="invalid_request", error="[a](b)").failures.values()))
    assert str(row["samples"]).endswith(r"\[a\](b)")


@pytest.mark.parametrize("code", [errors.InvalidRequest.code, errors.SourceUnavailable.code, errors.OutputRefused.code])
def test_some_reasons_have_an_advice_of_their_own(code: str) -> None:
    """It says what to change."""
    said = Failures(code, "failed", can_retry=True).to_do()
    assert said != Failures("anything", "failed", can_retry=True).to_do()


def test_samples_are_bounded_and_those_that_came_first() -> None:
    """Shard after shard; and what was merged is not tied to where it came from."""
    first, second = tallied(SAMPLES - 1), tallied(SAMPLES)
    total = Tally()
    for one in (first, second):
        total.merge(one)
    (group,) = total.failures.values()
    assert (group.count, len(group.samples)) == (2 * SAMPLES - 1, SAMPLES)
    assert group.samples[0]["source_uri"] == "https://images.example.com/cat-0.jpg"
    assert [len(one.failures[next(iter(one.failures))].samples) for one in (first, second)] == [SAMPLES - 1, SAMPLES]
