"""A run on several machines, some of which die, sleep or are taken away: each image is paid once, and all are there."""

import asyncio
from dataclasses import replace
from unittest.mock import patch

import pytest

from variations import errors
from variations.engine.limits import Limits
from variations.engine.pace import MARGIN
from variations.errors import StoppedByUser
from variations.receipt import Receipt
from variations.workers.roster import Roster, Sign
from variations.workers.worker import COMING_SECONDS, SHARE_SECONDS

from .crew import ITEMS, SHARDS, Crewed, crewed

LEASE_SECONDS = 60.0
PRICE_USD = 0.031
LATENCY_SECONDS = 16.0
LIMITS = Limits(max_in_flight=8, poll_interval_seconds=8, deadline_seconds=300, grace_seconds=10)
# All of a run can be in flight at once.
FAST = replace(LIMITS, max_in_flight=4 * ITEMS)


def assert_all_there(receipt: Receipt) -> None:
    """Every image is there, but for what was on the wire at a death, and which the history does not show yet."""
    assert receipt.already_done + receipt.kept + receipt.unknown + receipt.unknown_before == ITEMS
    assert receipt.unknown + receipt.unknown_before <= 4


def test_workers_share_a_run() -> None:
    """Two workers make it together, each of them a good part."""

    async def doing(crew: Crewed) -> None:
        receipt = await crew.receipt_of(crew.parent())
        assert (receipt.kept, receipt.stopped_by, receipt.dataset_rows) == (ITEMS, None, ITEMS)
        assert receipt.cost_usd == pytest.approx(ITEMS * PRICE_USD)
        assert receipt.requests["submit"] == ITEMS
        shares = [crew.accepted_by(worker) for worker in crew.workers()]
        assert len(shares) == 2
        assert min(shares) >= ITEMS // 4
        assert [(await worker.wait()).how for worker in crew.workers()] == ["returned", "returned"]

    crewed(doing)


def test_the_last_word_of_each_worker_is_counted() -> None:
    """It may leave, and take its sign from among those of the living, before that is read."""
    read = Roster._read

    async def later(roster: Roster, key: str) -> Sign | None:
        await asyncio.sleep(4)
        return await read(roster, key)

    async def doing(crew: Crewed) -> None:
        receipt = await crew.receipt_of(crew.parent())
        assert (receipt.kept, receipt.requests["submit"]) == (ITEMS, ITEMS)

    for seed in range(1, 6):
        with patch.object(Roster, "_read", later):
            crewed(doing, seed=seed)


def test_one_that_begins_first_leaves_the_others_their_part() -> None:
    """Though it could have all of it in flight before they have begun; and so does one whose neighbour was killed."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: len(crew.workers()) == 2 and crew.accepted_by(crew.workers()[1]) >= 3)
        first, second = crew.workers()
        assert crew.accepted_by(first) == ITEMS // 2
        second.kill()
        assert_all_there(await crew.receipt_of(parent))
        assert crew.accepted_by(first) <= 3 * ITEMS // 4

    crewed(doing, limits=FAST, begin_after=(0.0, 20.0))


@pytest.mark.parametrize("begin_after", [(0.0, 0.0), (0.0, 5.0), (7.0, 0.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_ends_with_its_last_image(begin_after: tuple[float, ...], seed: int) -> None:
    """When one leaves, another is to come; but not where nothing is left to do."""

    async def doing(crew: Crewed) -> None:
        receipt = await crew.receipt_of(crew.parent())
        assert receipt.kept == ITEMS
        last = max(billed.accepted_at for billed in crew.world.bill())
        assert crew.world.now - last < LATENCY_SECONDS + COMING_SECONDS / 2

    crewed(doing, begin_after=begin_after, seed=seed)


def test_one_that_never_begins_is_waited_for_a_minute() -> None:
    """Its part is made by the one that is there, in one go."""
    seconds = {}
    for begin_after in (0.0, 7200.0):

        async def doing(crew: Crewed, begin_after: float = begin_after) -> None:
            at = crew.world.now
            parent = crew.parent()
            await crew.until(lambda: len(crew.world.bill()) == ITEMS)
            seconds[begin_after] = crew.world.now - at
            assert (await crew.receipt_of(parent)).kept == ITEMS

        crewed(doing, limits=FAST, begin_after=(0.0, begin_after))
    assert seconds[7200.0] <= seconds[0.0] + COMING_SECONDS + 2 * SHARE_SECONDS


def test_no_slot_stays_empty_for_another_one() -> None:
    """Where one that lives does not take its part, the other one does, and does not wait for what it has in flight."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: len(crew.workers()) == 2)
        slow, fast = crew.workers()

        def at_call(_: str, key: str) -> None:
            if "/journal/" in key:
                slow.on_call = lambda *_: None
                slow.stall(LEASE_SECONDS / 2)

        slow.on_call = at_call
        await crew.until(lambda: crew.accepted_by(fast) > 0)
        at = crew.world.now
        await crew.until(lambda: crew.accepted_by(fast) >= ITEMS - ITEMS // SHARDS)
        assert crew.world.now - at < LATENCY_SECONDS / 2
        assert_all_there(await crew.receipt_of(parent))

    crewed(doing, limits=FAST, begin_after=(5.0, 5.0))


def test_one_that_comes_late_begins_where_the_others_are() -> None:
    """At its share of the limit that they found, in the middle of what they say, and not at the first guess."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: len(crew.runs) == 4 and crew.accepted_by(crew.workers()[0]) >= 2)
        for worker, limit in zip(crew.workers(), (240.0, 60.0, 300.0), strict=False):
            crew.runs[worker.name].engine.progress.limit_found = limit
        last = crew.workers()[3]
        await crew.until(lambda: last.name in crew.runs)
        rate = crew.runs[last.name].engine.rate
        await crew.until(lambda: rate.requests_per_minute < 80)
        # Its share of the first guess, until the others have made room for it.
        assert rate.requests_per_minute == pytest.approx(80 / 4, rel=0.01)
        await crew.until(lambda: rate.requests_per_minute > 40)
        assert rate.requests_per_minute == pytest.approx(240 / 4 * MARGIN, rel=0.05)
        assert (await crew.receipt_of(parent)).kept == ITEMS

    slow = replace(LIMITS, first_requests_per_minute=80.0)
    crewed(doing, workers=4, limits=slow, begin_after=(0.0, 0.0, 0.0, 20.0))


def test_what_one_found_to_be_counted_the_others_count_too() -> None:
    """And the receipt says so."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        first, second = crew.workers()
        crew.runs[first.name].engine.learn(limit=None, all_counted=True)
        await crew.until(lambda: second.name in crew.runs)
        progress = crew.runs[second.name].engine.progress
        assert not progress.all_found_counted
        await crew.until(lambda: progress.all_found_counted)
        receipt = await crew.receipt_of(parent)
        assert (receipt.kept, receipt.all_found_counted) == (ITEMS, True)

    crewed(doing, limits=replace(LIMITS, count_all_requests=False), begin_after=(0.0, 20.0))


def test_a_sign_that_cannot_be_read_is_no_reason_not_to_work() -> None:
    """What could be learned from it is worth less than the worker."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        second = crew.workers()[1]
        with patch.object(Roster, "signs_of_living", side_effect=errors.JournalDamaged("no sign of life")):
            await crew.until(lambda: crew.accepted_by(second) >= 1)
            await asyncio.sleep(20)
        assert (await crew.receipt_of(parent)).kept == ITEMS

    crewed(doing, begin_after=(0.0, 20.0))


def test_signs_that_could_not_be_read_are_read_again() -> None:
    """A store that is out of order for a moment keeps no worker from learning."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        first, second = crew.workers()
        crew.runs[first.name].engine.learn(limit=None, all_counted=True)
        with patch.object(Roster, "signs_of_living", side_effect=errors.StorageUnavailable("503")):
            await crew.until(lambda: second.name in crew.runs)
            await asyncio.sleep(10)
        progress = crew.runs[second.name].engine.progress
        assert not progress.all_found_counted
        await crew.until(lambda: progress.all_found_counted)
        assert (await crew.receipt_of(parent)).kept == ITEMS

    crewed(doing, limits=replace(LIMITS, count_all_requests=False), begin_after=(0.0, 20.0))


def test_a_worker_that_is_killed_is_replaced_and_its_shards_are_taken_over() -> None:
    """What it had in flight is fetched by another, and not submitted again."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        crew.workers()[0].kill()
        receipt = await crew.receipt_of(parent)
        assert (receipt.stopped_by, receipt.left) == (None, 0)
        assert_all_there(receipt)
        assert len(crew.workers()) == 3

    crewed(doing)


def test_the_last_worker_is_replaced_too() -> None:
    """With one worker, its successor takes over from it."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        crew.workers()[0].kill()
        assert_all_there(await crew.receipt_of(parent))
        assert len(crew.workers()) == 2

    crewed(doing, workers=1)


def test_a_worker_that_sleeps_for_longer_than_its_lease_submits_nothing_more() -> None:
    """It was taken for dead, and finds its journals taken when it wakes."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        sleeper = crew.workers()[0]
        sleeper.stall(4 * LEASE_SECONDS)
        before = crew.accepted_by(sleeper)
        assert_all_there(await crew.receipt_of(parent))
        await sleeper.wait()
        # Of what it had on the wire when it fell asleep some may have arrived.
        assert crew.accepted_by(sleeper) <= before + LIMITS.max_in_flight

    crewed(doing)


def test_a_machine_that_is_taken_away_leaves_its_shards_to_the_others() -> None:
    """A spot machine's SIGTERM is that worker's affair, not the run's."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: bool(crew.workers()) and crew.accepted_by(crew.workers()[0]) >= 3)
        worker = crew.workers()[0]
        crew.runs[worker.name].engine.stop(StoppedByUser("SIGTERM"))
        receipt = await crew.receipt_of(parent)
        assert (receipt.kept, receipt.stopped_by) == (ITEMS, None)
        exit_ = await worker.wait()
        assert exit_.how == "returned"
        assert crew.runs[worker.name].failed_by is not None

    crewed(doing)


def test_workers_stop_when_the_one_that_planned_is_gone_and_the_next_run_goes_on() -> None:
    """They submit nothing more once its lease is over; the next run fetches what is in flight, and makes the rest."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: len(crew.world.bill()) >= 6)
        parent.kill()
        for worker in crew.workers():
            await worker.wait()
        reasons = {crew.runs[worker.name].engine.stopped_by.code for worker in crew.workers()}
        assert reasons == {errors.RunOver.code}
        assert 6 <= len(crew.world.bill()) <= ITEMS
        receipt = await crew.receipt_of(crew.parent())
        assert receipt.stopped_by is None
        assert_all_there(receipt)

    crewed(doing, limits=replace(LIMITS, max_in_flight=2))


def test_a_run_that_is_stopped_stops_its_workers_and_can_be_resumed() -> None:
    """What the user stops, stops everywhere within seconds."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: len(crew.world.bill()) >= 6)
        crew.runs[parent.name].engine.stop(StoppedByUser("cancelled"))
        at = crew.world.now
        receipt = await crew.receipt_of(parent)
        assert receipt.stopped_by == "stopped_by_user"
        assert crew.world.now - at < 30
        for worker in crew.workers():
            assert (await worker.wait()).how == "returned"
            assert crew.runs[worker.name].failed_by is None
        billed = len(crew.world.bill())
        assert billed < ITEMS
        receipt = await crew.receipt_of(crew.parent())
        assert (receipt.already_done + receipt.recovery["kept"] + receipt.kept) >= ITEMS
        assert len(crew.world.bill()) == ITEMS

    crewed(doing, limits=replace(LIMITS, max_in_flight=2))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_budget_holds_for_all_workers_together(workers: int) -> None:
    """Where the API charges twice the price that was set, the run pauses, and not one image too many is paid."""

    async def doing(crew: Crewed) -> None:
        receipt = await crew.receipt_of(crew.parent())
        assert receipt.stopped_by == "budget"
        assert receipt.cost_usd <= crew.limits().max_cost_usd + 1e-6
        assert len(crew.world.bill()) == receipt.paid == 12
        # With a higher one it goes on.
        crew.own_limits = replace(LIMITS, max_cost_usd=10.0)
        receipt = await crew.receipt_of(crew.parent())
        assert (receipt.kept, receipt.already_done) == (12, 12)

    crewed(doing, workers=workers, limits=replace(LIMITS, price_usd=PRICE_USD / 2, max_cost_usd=12 * PRICE_USD))


def test_workers_that_end_one_after_another_stop_the_run() -> None:
    """Where no worker can work, it is said why, and not tried for ever."""

    async def doing(crew: Crewed) -> None:
        crew.is_broken = True
        receipt = await crew.receipt_of(crew.parent())
        assert receipt.stopped_by == "run_error"
        assert "one after another" in receipt.stopped_because
        assert "it does not start here" in receipt.stopped_because
        assert (receipt.kept, crew.world.bill()) == (0, [])
        assert len(crew.workers()) <= 8
        crew.is_broken = False
        assert (await crew.receipt_of(crew.parent())).kept == ITEMS

    crewed(doing)


def test_no_more_workers_than_shards_are_started() -> None:
    """Another one would have nothing to do."""

    async def doing(crew: Crewed) -> None:
        assert (await crew.receipt_of(crew.parent())).kept == ITEMS
        assert len(crew.workers()) == SHARDS

    crewed(doing, workers=30)


def test_one_that_loses_its_credentials_ends_and_so_do_its_workers() -> None:
    """It can see and tell nothing any more; the workers find it gone, and the next run goes on."""

    async def doing(crew: Crewed) -> None:
        parent = crew.parent()
        await crew.until(lambda: len(crew.world.bill()) >= 6)
        parent.expire_credentials()
        assert (await crew.receipt_of(parent)).stopped_by == errors.CredentialsRefused.code
        for worker in crew.workers():
            await worker.wait()
        assert_all_there(await crew.receipt_of(crew.parent()))

    crewed(doing, limits=replace(LIMITS, max_in_flight=2))
