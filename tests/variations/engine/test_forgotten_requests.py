"""Requests for several images that the API forgot: all of them are found on the pages of the history."""

import asyncio
from dataclasses import replace
from datetime import datetime

import httpx
import pytest

from variations import errors
from variations.engine.lost_submits import ForgottenRequest, LostSubmit, LostSubmits
from variations.models import HistoryRecord

from .history import IMAGE, NOON, FakeHistory, at_noon, others, parameters, record, seconds
from .simulation import PRICE_USD, FakeApi, history_row, output_url, refused, run, statuses, variations


def rows(request_id: str, *numbers: int, at: datetime = NOON) -> HistoryRecord:
    """Return what one page shows of a request: rows of these images."""
    return replace(record(request_id, at), output_urls=tuple(output_url(request_id, number) for number in numbers))


def find_all(history: FakeHistory, *wanted: ForgottenRequest) -> list[HistoryRecord | None]:
    """Look for some at once, once."""

    async def look(submits: LostSubmits) -> list[HistoryRecord | None]:
        return await asyncio.gather(*(submits.find(one, patience_seconds=0) for one in wanted))

    found: list[HistoryRecord | None] = at_noon(history, look)
    return found


def find(history: FakeHistory, *, images: int = 4) -> tuple[str, ...] | None:
    """Return the images of one."""
    (found,) = find_all(history, ForgottenRequest("wanted", images=images, until=NOON))
    return found and found.output_urls


def test_all_images_of_a_request_are_found_on_one_page() -> None:
    """One page is all it takes."""
    history = FakeHistory([*others(5, newest=NOON), rows("wanted", 0, 1, 2)])
    assert find(history, images=3) == tuple(output_url("wanted", number) for number in range(3))
    assert history.pages == [1]


@pytest.mark.parametrize("on_first", [1, 2, 3])
def test_images_on_two_pages_are_put_together(on_first: int) -> None:
    """A page ends in the middle of a request's rows."""
    first, second = rows("wanted", *range(on_first)), rows("wanted", *range(on_first, 4))
    history = FakeHistory([*others(9, newest=NOON), first, second], per_page=10)
    assert find(history) == tuple(output_url("wanted", number) for number in range(4))
    assert history.pages == [1, 2]


def test_rows_that_moved_on_while_one_asked_are_counted_once() -> None:
    """New requests push rows to the next page, which then shows some of them again."""
    history = FakeHistory([*others(1, newest=NOON), rows("wanted", 0, 1, 2), rows("wanted", 2, 3)], per_page=2)
    assert find(history) == tuple(output_url("wanted", number) for number in range(4))


@pytest.mark.parametrize("after", [0, 4], ids=["at the end of all", "before others"])
def test_a_request_that_made_fewer_is_given_as_it_is(after: int) -> None:
    """Where it ends a page, the next one tells that there is no more of it."""
    all_others = others(9 + after, newest=NOON)
    history = FakeHistory([*all_others[:9], rows("wanted", 0, 1), *all_others[9:]], per_page=10)
    assert find(history) == (output_url("wanted", 0), output_url("wanted", 1))
    assert history.pages == [1, 2]


def test_one_that_is_not_there_is_not_found() -> None:
    """The look ends where the records are older."""
    history = FakeHistory(others(5000, newest=NOON + seconds(100), every_seconds=5))
    assert find(history) is None
    assert history.pages == [1, 2, 3]


def test_many_share_a_look_with_submits_that_were_lost() -> None:
    """Each has its own, though the inputs of all are the same; a forgotten request is no lost submit's."""
    lost = LostSubmit(IMAGE, parameters(), since=NOON, until=NOON)
    history = FakeHistory([rows("one", 0, 1), rows("lost", 0, 1), rows("two", 0, 1)])

    async def look(submits: LostSubmits) -> list[HistoryRecord | None]:
        for request_id in ("one", "two"):
            submits.taken(request_id)
        forgotten = [ForgottenRequest(name, images=2, until=NOON) for name in ("two", "one")]
        return await asyncio.gather(*(submits.find(one, patience_seconds=0) for one in (*forgotten, lost)))

    assert [found and found.request_id for found in at_noon(history, look)] == ["two", "one", "lost"]
    assert history.pages == [1]


def test_a_page_that_fails_leaves_nothing_half() -> None:
    """What an earlier page showed is no answer: it is looked for again."""
    history = FakeHistory(
        [*others(9, newest=NOON), rows("wanted", 0, 1), rows("wanted", 2, 3)],
        per_page=10,
        fails=lambda call: errors.ServiceUnavailable("down") if call == 1 else None,
    )
    with pytest.raises(errors.ServiceUnavailable):
        find(history)
    assert find(replace(history, fails=lambda _: None)) == tuple(output_url("wanted", number) for number in range(4))


def page_of(*numbers: int) -> httpx.Response:
    """Return a page of the history with rows of the first request."""
    row = {"request_id": "request-1", "model_status": "COMPLETED", "credits_deduction": 9}
    return httpx.Response(200, json=[{**row, "generation_url": output_url("request-1", number)} for number in numbers])


def forgetful(page: httpx.Response) -> FakeApi:
    """Return an API that forgot every request, and has this page in its history; what it refuses, it refuses again."""
    return FakeApi(
        on_status=lambda *_: refused(404),
        on_history=lambda request_id, _: history_row(request_id, credits_deduction=9),
        on_history_page=lambda number: page if number == 1 or page.is_error else httpx.Response(200, json=[]),
    )


def test_all_images_of_a_forgotten_request_are_kept() -> None:
    """Its single record names one of them; they share its cost, which stands in each row."""
    outcomes, _ = run(forgetful(page_of(2, 0, 1)), variations(1, num_outputs=3), price_usd=0.5)
    assert [(outcome.status, outcome.cost_usd) for outcome in outcomes] == [("kept", 3.0)] * 3
    assert {outcome.output_url for outcome in outcomes} == {output_url("request-1", number) for number in range(3)}


def test_what_the_pages_do_not_name_was_not_made() -> None:
    """They have a row for each image: the others cost nothing."""
    outcomes, _ = run(forgetful(page_of(0, 1)), variations(1, num_outputs=3))
    assert [(outcome.status, outcome.error_code, outcome.cost_usd) for outcome in outcomes] == [
        *[("kept", None, 4.5)] * 2,
        ("failed", "output_missing", 0.0),
    ]


def test_pages_that_cannot_be_read_leave_the_request_to_the_next_run() -> None:
    """Its images are there for days: it is not settled with one of them."""
    outcomes, _ = run(forgetful(refused(500)), variations(1, num_outputs=3))
    assert statuses(outcomes) == {"unknown": 3}
    assert {(outcome.error_code, outcome.cost_usd) for outcome in outcomes} == {("request_gone", PRICE_USD)}


def test_a_request_for_one_image_needs_no_page() -> None:
    """Each page costs a request of the plan."""
    outcomes, stage = run(forgetful(page_of(0)), variations(1))
    assert statuses(outcomes) == {"kept": 1}
    assert stage.api.targets("history page") == []
