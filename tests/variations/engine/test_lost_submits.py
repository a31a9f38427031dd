"""Lost submits: what is found in the history, what is not, and how many requests it costs."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from variations import errors
from variations.engine import lost_submits
from variations.engine.lost_submits import CLOCK_TOLERANCE, MAX_PAGES, LostSubmit, LostSubmits
from variations.models import HistoryRecord

from .history import IMAGE, NOON, PAGE_SECONDS, FakeHistory, at_noon, others, parameters, record, seconds
from .simulation import EPOCH, LoopClock


def lost_at(at: datetime, *, seed: int = 1, image: str = IMAGE, **fields: Any) -> LostSubmit:
    """Return a submit that was lost within a second."""
    values = {"redux_image": image, "parameters": parameters(seed), "since": at, "until": at + seconds(1)}
    return LostSubmit(**values | fields)


def find(history: FakeHistory, lost: LostSubmit, *, patience_seconds: float = 0) -> HistoryRecord | None:
    """Look for one."""

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        return await submits.find(lost, patience_seconds=patience_seconds)

    found: HistoryRecord | None = at_noon(history, look)
    return found


def find_all(history: FakeHistory, wanted: list[LostSubmit], *, patience_seconds: float = 0) -> list[str | None]:
    """Look for many at once and return the ids found."""

    async def look(submits: LostSubmits) -> list[HistoryRecord | None]:
        return await asyncio.gather(*(submits.find(lost, patience_seconds=patience_seconds) for lost in wanted))

    return [found and found.request_id for found in at_noon(history, look)]


def noon_seconds() -> float:
    """Return the loop's time at noon."""
    return (NOON - EPOCH).total_seconds()


def test_a_submit_that_was_accepted_is_found_at_once() -> None:
    """One page is all it takes."""
    history = FakeHistory([*others(40, newest=NOON), record("wanted", NOON - seconds(50))])
    found = find(history, lost_at(NOON - seconds(50)))
    assert found is not None
    assert found.request_id == "wanted"
    assert history.pages == [1]


def test_a_submit_that_was_not_accepted_is_not_found() -> None:
    """Without patience it is one look, which ends where the records are older."""
    history = FakeHistory(others(5000, newest=NOON, every_seconds=5))
    assert find(history, lost_at(NOON)) is None
    assert history.pages == [1, 2]


def test_a_history_that_is_empty_is_asked_once_a_look() -> None:
    """An empty page is the end."""
    history = FakeHistory()
    assert find(history, lost_at(NOON)) is None
    assert history.pages == [1]


def test_a_page_with_few_records_is_not_the_end() -> None:
    """Rows of one request are joined: a full page may show fewer records than rows."""
    history = FakeHistory([*others(30, newest=NOON), record("wanted", NOON - seconds(50))], per_page=25)
    found = find(history, lost_at(NOON - seconds(50)))
    assert found is not None
    assert history.pages == [1, 2]


@pytest.mark.parametrize("clamp", [lambda _number, _count: 1, min], ids=["always the first", "never beyond the last"])
def test_a_page_that_brings_nothing_new_is_the_end(clamp: Callable[[int, int], int]) -> None:
    """A server that ignores the number, or shows its last page again, is not asked for ever."""
    history = FakeHistory(others(20, newest=NOON), beyond_the_end=clamp)
    assert find(history, lost_at(NOON)) is None
    assert history.pages == [1, 2]


def test_a_record_that_lands_late_is_found_by_a_later_look() -> None:
    """Looks follow each other at growing intervals, and end when it is found."""
    history = FakeHistory([record("wanted", NOON)], lands_at={"wanted": noon_seconds() + 40})
    found = find(history, lost_at(NOON), patience_seconds=600)
    assert found is not None
    starts = [at - noon_seconds() for at in history.times]
    assert starts == pytest.approx([0, 3.2, 8.4, 18.6, 33.8, 49.0])


def test_patience_has_an_end() -> None:
    """The answer comes when the patience ends, not when the next look would."""

    async def look(submits: LostSubmits) -> float:
        start = LoopClock().monotonic()
        assert await submits.find(lost_at(NOON), patience_seconds=25) is None
        return LoopClock().monotonic() - start

    history = FakeHistory(others(10, newest=NOON - timedelta(hours=1)))
    assert at_noon(history, look) == pytest.approx(25)
    assert len(history.pages) == 4


def test_a_look_through_many_pages_is_repeated_more_seldom() -> None:
    """A history as busy as the plan allows does not use up the plan."""
    history = FakeHistory(others(5000, newest=NOON, every_seconds=0.5))
    assert find(history, lost_at(NOON), patience_seconds=120) is None
    assert len(history.pages) <= 19 * 4


def test_those_who_wait_together_share_each_look() -> None:
    """Fifty cost no more requests than one."""
    wanted = [lost_at(NOON - seconds(number), seed=number + 1) for number in range(50)]
    records = [record(f"wanted-{number}", NOON - seconds(number), seed=number + 1) for number in range(50)]
    history = FakeHistory(records, lands_at=dict.fromkeys((one.request_id for one in records), noon_seconds() + 5))
    assert find_all(history, wanted, patience_seconds=60) == [one.request_id for one in records]
    assert len(history.pages) == 3


def test_who_comes_during_a_pause_is_looked_for_at_once() -> None:
    """And those that already waited are served by that look too."""

    async def look(submits: LostSubmits) -> list[HistoryRecord | None]:
        first = asyncio.create_task(submits.find(lost_at(NOON, seed=1), patience_seconds=60))
        await asyncio.sleep(20)
        return [await submits.find(lost_at(NOON, seed=2), patience_seconds=0), await first]

    history = FakeHistory([record("one", NOON, seed=1), record("two", NOON, seed=2)])
    history.lands_at = dict.fromkeys(("one", "two"), noon_seconds() + 19.5)
    assert [found and found.request_id for found in at_noon(history, look)] == ["two", "one"]
    assert [at - noon_seconds() for at in history.times] == pytest.approx([0, 3.2, 8.4, 18.6, 20])


def test_who_comes_during_a_look_has_the_next_one_at_once() -> None:
    """A look that has begun may have passed its records already."""

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        first = asyncio.create_task(submits.find(lost_at(NOON, seed=1), patience_seconds=0))
        await asyncio.sleep(PAGE_SECONDS / 2)
        found = await submits.find(lost_at(NOON, seed=2), patience_seconds=0)
        assert await first is None
        return found

    history = FakeHistory([record("two", NOON, seed=2)])
    assert at_noon(history, look) is not None
    # The first look has an empty page, its end, behind it before the second begins.
    assert history.pages == [1, 2, 1]


def test_nothing_is_asked_when_nobody_waits() -> None:
    """After the last answer the looking ends, and begins again with the next."""

    async def look(submits: LostSubmits) -> None:
        assert await submits.find(lost_at(NOON), patience_seconds=10) is None
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        calls = len(history.pages)
        await asyncio.sleep(3600)
        assert len(history.pages) == calls
        history.records = [record("wanted", NOON)]
        assert await submits.find(lost_at(NOON), patience_seconds=0) is not None

    history = FakeHistory()
    at_noon(history, look)


def test_the_same_inputs_twice_are_two_records() -> None:
    """Two who look for the same never get the same record; the later submit has the newer one."""
    earlier, later = lost_at(NOON - seconds(60)), lost_at(NOON - seconds(10))
    both = [record("later", NOON - seconds(10)), record("earlier", NOON - seconds(60))]
    assert find_all(FakeHistory(both), [earlier, later]) == ["earlier", "later"]
    assert find_all(FakeHistory(both[1:]), [earlier, later]).count("earlier") == 1


def test_of_several_records_the_newest_is_taken() -> None:
    """And each but once, however often it is asked for."""

    async def look(submits: LostSubmits) -> list[HistoryRecord | None]:
        return [await submits.find(lost_at(NOON), patience_seconds=0) for _ in range(3)]

    history = FakeHistory([record("newer", NOON), record("older", NOON - seconds(5))])
    assert [found and found.request_id for found in at_noon(history, look)] == ["newer", "older", None]


def test_the_newest_is_taken_where_pages_are_jumped_over_too() -> None:
    """A page that was only asked for its age gives no record away."""
    at = NOON - timedelta(hours=3)
    older = [record(f"wanted-{number}", at - seconds(number)) for number in range(800)]
    history = FakeHistory([*others(3 * 3600 - 1000, newest=NOON), *older])
    found = find(history, lost_at(at))
    assert found is not None
    assert found.request_id == "wanted-0"


def test_what_is_known_to_be_something_else_is_not_returned() -> None:
    """Neither an earlier attempt nor what was accepted for others."""

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        submits.taken("another's")
        return await submits.find(lost_at(NOON, not_these=frozenset({"earlier"})), patience_seconds=0)

    history = FakeHistory([record("another's", NOON), record("earlier", NOON), record("wanted", NOON)])
    assert at_noon(history, look).request_id == "wanted"


def test_the_memory_of_what_is_taken_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; one that is told again is new."""
    monkeypatch.setattr(lost_submits, "MAX_TAKEN", 3)

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        for request_id in ("a", "b", "c", "a", "d"):
            submits.taken(request_id)
        return await submits.find(lost_at(NOON), patience_seconds=0)

    assert at_noon(FakeHistory([record(name, NOON) for name in "abcd"]), look).request_id == "b"


@pytest.mark.parametrize("pages_back", [1, 2, 3, 7, 64, 65, 500])
def test_what_lies_far_back_is_not_paged_to(pages_back: int) -> None:
    """Doubling and bisecting find the page on which its time begins."""
    newer = others(pages_back * 100, newest=NOON, every_seconds=0.05)
    at = NOON - seconds(pages_back * 5 + 10) - CLOCK_TOLERANCE
    history = FakeHistory([*newer, record("wanted", at), *others(500, newest=at - seconds(1))])
    found = find(history, lost_at(at - seconds(5)))
    assert found is not None
    assert found.request_id == "wanted"
    assert len(history.pages) <= min(pages_back + 3, 30)


def test_new_and_far_back_ones_share_a_look() -> None:
    """The new one's pages are read, those between are jumped over, and dates do the rest."""
    times = [NOON, NOON - timedelta(hours=8), NOON - timedelta(days=9), NOON - timedelta(days=30)]
    wanted = [lost_at(at, seed=number + 1) for number, at in enumerate(times)]
    between = others(40_000, newest=NOON, every_seconds=1)
    records = [*between, *(record(f"wanted-{number}", at, seed=number + 1) for number, at in enumerate(times))]
    records.sort(key=lambda one: one.created_at or NOON, reverse=True)
    history = FakeHistory(records)
    assert find_all(history, wanted) == [f"wanted-{number}" for number in range(4)]
    assert len(history.pages) <= 40
    assert len(set(history.windows)) == 3


def test_rows_that_arrive_between_two_pages_hide_nothing() -> None:
    """While one pages, everything moves on to later pages: what was passed by is met again."""
    at = NOON - timedelta(hours=1)
    history = FakeHistory([*others(3600, newest=NOON), record("wanted", at), *others(300, newest=at - seconds(1))])
    growing = iter(range(10**6))

    async def page(number: int, *, from_date: str, to_date: str) -> list[HistoryRecord]:
        new = [record(f"new-{next(growing)}", NOON, image="https://photos.example/new.jpg") for _ in range(17)]
        history.records[:0] = new
        return await history(number, from_date=from_date, to_date=to_date)

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        del submits
        return await LostSubmits(page, clock=LoopClock()).find(lost_at(at), patience_seconds=0)

    assert at_noon(history, look).request_id == "wanted"


def test_a_look_has_a_limit_of_pages() -> None:
    """Even where no record has a date, and the end never comes; then it is not known whether it is there."""
    history = FakeHistory([replace(one, created_at=None) for one in others(100 * (MAX_PAGES + 50), newest=NOON)])
    with pytest.raises(errors.ServiceUnavailable):
        find(history, lost_at(NOON))
    assert len(history.pages) == MAX_PAGES


def test_a_record_without_a_date_is_found_and_ends_nothing() -> None:
    """Its inputs have the word; whether the rest is older it cannot tell."""
    records = [replace(one, created_at=None) for one in [*others(250, newest=NOON), record("wanted", NOON)]]
    history = FakeHistory(records)
    found = find(history, lost_at(NOON))
    assert found is not None
    assert found.request_id == "wanted"
    assert history.pages == [1, 2, 3]


@pytest.mark.parametrize("off", [-CLOCK_TOLERANCE, CLOCK_TOLERANCE + seconds(1)], ids=["behind", "ahead"])
def test_the_clock_of_the_api_may_be_off(off: timedelta) -> None:
    """By the tolerance and no more; `until` is a second after `since` here."""
    at = NOON - timedelta(hours=1)
    assert find(FakeHistory([record("wanted", at + off)]), lost_at(at)) is not None
    further = off + seconds(1 if off > timedelta() else -1)
    assert find(FakeHistory([record("wanted", at + further)]), lost_at(at)) is None


def test_the_signature_of_the_source_does_not_matter() -> None:
    """The record has the URL as it was sent, the lost submit has it without."""
    signed = f"{IMAGE}?X-Amz-Signature=abc&X-Amz-Credential=key&X-Amz-Date=20260101T000000Z"
    assert find(FakeHistory([record("wanted", NOON, image=signed)]), lost_at(NOON)) is not None
    assert find(FakeHistory([record("wanted", NOON, image=f"{IMAGE}?version=2")]), lost_at(NOON)) is None


@pytest.mark.parametrize(
    ("change", "is_it"),
    [
        ({}, True),
        ({"guidance": 3, "seed": 1.0}, True),
        ({"webhook": None, "strength": 0.5}, True),
        ({"guidance": None}, False),
        ({"guidance": 3.5}, False),
        ({"seed": 2}, False),
        ({"num_outputs": 2}, False),
        ({"redux_image": "https://photos.example/2.jpg"}, False),
        ({"redux_image": None}, False),
        ({"redux_image": ["https://photos.example/1.jpg"]}, False),
    ],
)
def test_inputs_are_compared_by_value(change: dict[str, Any], is_it: bool) -> None:
    """3 is 3.0; what was not sent does not matter."""
    sent = record("wanted", NOON)
    history = FakeHistory([replace(sent, inputs=sent.inputs | change)])
    assert (find(history, lost_at(NOON)) is not None) is is_it


@pytest.mark.parametrize(("name", "is_it"), [("guidance", True), ("seed", False), ("redux_image", False)])
def test_a_record_must_have_source_and_seed(name: str, is_it: bool) -> None:
    """They make the inputs unique; the others may be missing."""
    sent = record("wanted", NOON)
    history = FakeHistory([replace(sent, inputs={key: value for key, value in sent.inputs.items() if key != name})])
    assert (find(history, lost_at(NOON)) is not None) is is_it


def test_nothing_older_than_the_history_is_asked_for() -> None:
    """It is not looked for at all; what may just be there is."""
    history = FakeHistory()
    assert find(history, lost_at(NOON - timedelta(days=31, hours=1)), patience_seconds=600) is None
    assert history.pages == []
    assert find(history, lost_at(NOON - timedelta(days=31))) is None
    assert find(history, lost_at(NOON - timedelta(days=90), until=NOON)) is None
    assert history.windows == [("2025-12-02", "2025-12-02"), ("2025-12-02", "2026-01-01")]


def test_a_window_begins_with_its_day_and_ends_a_day_late() -> None:
    """The API's clock may already have the next day."""
    history = FakeHistory()
    find(history, lost_at(NOON))
    find(history, lost_at(datetime.combine(NOON.date(), datetime.min.time(), NOON.tzinfo)))
    assert history.windows == [("2026-01-01", "2026-01-02"), ("2025-12-31", "2026-01-02")]


@pytest.mark.parametrize(
    "error",
    [errors.ServiceUnavailable("no answer"), errors.Unauthorized("refused"), errors.UnexpectedAnswer("no list")],
    ids=lambda error: error.code,
)
def test_an_error_of_the_history_ends_one_look(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The next look may find it; the log says it once."""
    history = FakeHistory([record("wanted", NOON)], fails=lambda call: error if call < 3 else None)
    with caplog.at_level(logging.WARNING):
        assert find(history, lost_at(NOON), patience_seconds=60) is not None
    assert len(history.pages) == 4
    assert len([entry for entry in caplog.records if entry.name == lost_submits.__name__]) == 1
    assert caplog.records[0].exc_info is None or not caplog.records[0].exc_info


@pytest.mark.parametrize("error", [errors.Forbidden("no"), KeyError("a bug")], ids=["its own", "a bug"])
def test_a_history_that_never_answers_leaves_it_unknown(error: Exception) -> None:
    """Whoever looks learns that nothing was learned, and does not wait for ever."""
    history = FakeHistory(fails=lambda _: error)
    for patience_seconds in (0, 30):
        with pytest.raises(errors.ServiceUnavailable, match="cannot be read"):
            find(history, lost_at(NOON), patience_seconds=patience_seconds)


def test_what_was_found_before_an_error_is_found() -> None:
    """The others wait for the next look."""
    wanted = [lost_at(NOON, seed=1), lost_at(NOON - timedelta(minutes=2), seed=2)]
    records = [record("one", NOON, seed=1), *others(110, newest=NOON), record("two", wanted[1].since, seed=2)]
    history = FakeHistory(records, fails=lambda call: errors.ServiceUnavailable("no") if call == 1 else None)
    assert find_all(history, wanted, patience_seconds=60) == ["one", "two"]
    assert history.pages == [1, 2, 1, 2]


def test_who_is_cancelled_is_forgotten() -> None:
    """The others still get theirs, and its record is free for who asks next."""

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        tasks = [asyncio.create_task(submits.find(lost_at(NOON, seed=seed), patience_seconds=60)) for seed in (1, 2)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        assert await tasks[1] is not None
        assert tasks[0].cancelled()
        return await submits.find(lost_at(NOON, seed=1), patience_seconds=0)

    history = FakeHistory([record("one", NOON, seed=1), record("two", NOON, seed=2)])
    history.lands_at = dict.fromkeys(("one", "two"), noon_seconds() + 2)
    assert at_noon(history, look).request_id == "one"


@pytest.mark.parametrize("after_seconds", [PAGE_SECONDS / 2, 1.0], ids=["in a look", "between two"])
def test_the_looking_ends_with_the_last_that_is_cancelled(after_seconds: float) -> None:
    """No request is made for nobody, and who comes at that moment is served."""

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        task = asyncio.create_task(submits.find(lost_at(NOON, seed=1), patience_seconds=60))
        await asyncio.sleep(after_seconds)
        task.cancel()
        await asyncio.wait({task})
        found = await submits.find(lost_at(NOON, seed=2), patience_seconds=0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        return found

    history = FakeHistory([record("two", NOON, seed=2)])
    assert at_noon(history, look) is not None


def test_what_is_found_in_the_moment_of_a_cancellation_is_free_again() -> None:
    """Otherwise nobody would have it."""

    async def look(submits: LostSubmits) -> HistoryRecord | None:
        async def page(*_: Any, **__: Any) -> list[HistoryRecord]:
            # It is found in the step that follows, before the one who waits can run.
            asyncio.get_running_loop().call_soon(first.cancel)
            return [record("wanted", NOON)]

        del submits
        submits = LostSubmits(page, clock=LoopClock())
        first = asyncio.create_task(submits.find(lost_at(NOON), patience_seconds=0))
        await asyncio.wait({first})
        assert first.cancelled()
        return await submits.find(lost_at(NOON), patience_seconds=0)

    assert at_noon(FakeHistory(), look) is not None


IMAGES = [IMAGE, "https://photos.example/2.jpg"]


@settings(max_examples=60, deadline=None)
@given(
    made=st.lists(
        st.tuples(st.sampled_from(IMAGES), st.integers(1, 3), st.integers(0, 7200), st.integers(0, 60)), max_size=30
    ),
    wanted=st.lists(
        st.tuples(st.sampled_from(IMAGES), st.integers(1, 3), st.integers(0, 7200), st.integers(0, 90)), max_size=12
    ),
    per_page=st.integers(1, 5),
    dateless=st.sets(st.integers(0, 29)),
    failing=st.sets(st.integers(0, 20)),
    taken=st.sets(st.integers(0, 29), max_size=5),
)
def test_no_record_is_returned_twice_and_none_with_other_inputs(
    made: list[tuple[str, int, int, int]],
    wanted: list[tuple[str, int, int, int]],
    per_page: int,
    dateless: set[int],
    failing: set[int],
    taken: set[int],
) -> None:
    """However records land, pages fall and who looks when; and what nobody else may have is found by its seeker."""
    made.sort(key=lambda one: one[2])
    records = [
        record(
            str(number),
            None if number in dateless else NOON - seconds(age),
            image=image,
            seed=seed,
        )
        for number, (image, seed, age, _) in enumerate(made)
    ]
    history = FakeHistory(
        records,
        lands_at={str(number): noon_seconds() + late for number, (*_, late) in enumerate(made)},
        per_page=per_page,
        fails=lambda call: errors.ServiceUnavailable("no answer") if call in failing else None,
    )
    submits_lost = [lost_at(NOON - seconds(age), seed=seed, image=image) for image, seed, age, _ in wanted]

    async def look(submits: LostSubmits) -> list[HistoryRecord | None]:
        for number in taken:
            submits.taken(str(number))

        async def one(lost: LostSubmit, after_seconds: float) -> HistoryRecord | None:
            await asyncio.sleep(after_seconds)
            return await submits.find(lost, patience_seconds=600)

        return await asyncio.gather(*(one(lost, after) for lost, (*_, after) in zip(submits_lost, wanted, strict=True)))

    found = at_noon(history, look)
    ids = [one.request_id for one in found if one is not None]
    assert len(ids) == len(set(ids))
    assert not set(ids) & {str(number) for number in taken}
    for lost, one in zip(submits_lost, found, strict=True):
        if one is None:
            left = [other for other in records if other.request_id not in {*ids, *map(str, taken)}]
            assert not [other for other in left if other.created_at and lost.may_be(other)]
        else:
            assert one.inputs["redux_image"] == lost.redux_image
            assert one.inputs["seed"] == lost.parameters["seed"]
            assert one.created_at is None or abs(one.created_at - lost.since) <= CLOCK_TOLERANCE + seconds(1)
