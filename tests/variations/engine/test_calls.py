"""What is sent again, how often, and when the run is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from variations import errors
from variations.api.retry import CONNECT_ATTEMPTS, SUBMIT_ATTEMPTS
from variations.engine.calls import OUTAGE_ITEMS, REFUSED_SECONDS, Calls
from variations.engine.progress import Progress
from variations.engine.rate import NoMoreNew, RateLimit

from .simulation import LoopClock, simulate


class Desk:
    """Calls with what they need, and what they were told."""

    def __init__(self, *, count_all: bool = True, requests_per_minute: float = 0) -> None:
        self.clock = LoopClock()
        self.started = self.clock.monotonic()
        self.rate = RateLimit(requests_per_minute, clock=self.clock)
        self.progress = Progress()
        self.requests = self.progress.requests
        self.stops: list[errors.ServiceDown] = []
        self.calls = Calls(
            self.rate,
            count_all=count_all,
            progress=self.progress,
            clock=self.clock,
            random=lambda: 1.0,
            stop=self.stops.append,
            found_counted=lambda: None,
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.monotonic() - self.started


def scripted(*answers: Exception | str) -> Callable[[], Awaitable[str]]:
    """Return a call that gives these answers one by one, and the last for ever."""
    script = list(answers)

    async def call() -> str:
        await asyncio.sleep(0.01)
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def busy() -> errors.ServiceUnavailable:
    """Return a plain 500."""
    return errors.ServiceUnavailable("500")


def test_a_submit_is_repeated_after_a_500_and_gives_up_after_five() -> None:
    """The error of the last attempt is the item's."""

    async def main() -> Desk:
        desk = Desk()
        assert await desk.calls.send("submit", scripted(busy(), busy(), "taken")) == "taken"
        assert desk.requests == {"submit": 3}
        with pytest.raises(errors.ServiceUnavailable):
            await desk.calls.send("submit", scripted(busy()))
        return desk

    desk = simulate(main())
    assert desk.requests["submit"] == 3 + SUBMIT_ATTEMPTS
    assert not desk.stops


@pytest.mark.parametrize(
    "error",
    [
        errors.SubmitUnknown("lost"),
        errors.InvalidRequest("400"),
        errors.Unauthorized("401"),
        errors.InsufficientCredits("406"),
        errors.UnexpectedAnswer("405"),
        RuntimeError("a bug"),
    ],
)
def test_everything_else_is_sent_exactly_once(error: Exception) -> None:
    """A lost answer above all."""

    async def main() -> Desk:
        desk = Desk()
        with pytest.raises(type(error)):
            await desk.calls.send("submit", scripted(error, "paid twice"))
        return desk

    assert simulate(main()).requests == {"submit": 1}


def test_429s_are_no_attempts() -> None:
    """However many there are, each waits for its reset and no longer, and five plain 500s are still allowed."""
    # As long as a pause becomes by itself; what follows a 500 waits no longer.
    reset_seconds = 15.0

    async def main() -> Desk:
        desk = Desk()
        limited = [errors.RateLimited("429", wait_seconds=reset_seconds) for _ in range(20)]
        answers = [*limited, *(busy() for _ in range(SUBMIT_ATTEMPTS - 1)), "taken"]
        assert await desk.calls.send("submit", scripted(*answers)) == "taken"
        return desk

    assert 20 * reset_seconds <= simulate(main()).elapsed <= (20 + SUBMIT_ATTEMPTS - 1) * reset_seconds


@pytest.mark.parametrize("count_all", [True, False])
@pytest.mark.parametrize("kind", ["status", "submit"])
def test_a_429_holds_its_call_until_the_reset(*, count_all: bool, kind: str) -> None:
    """Where polls are not counted too: they were limited all the same."""

    async def main() -> Desk:
        desk = Desk(count_all=count_all)
        script = scripted(errors.RateLimited("429", wait_seconds=30), "done")
        asked = desk.calls.send(kind, script) if kind == "submit" else desk.calls.get(kind, script, seconds=600)
        other = asyncio.create_task(desk.calls.get("status", scripted("done"), seconds=600))
        await asyncio.sleep(0)
        assert await asked == "done"
        await other
        # And so is every other call from now on.
        desk.rate.pause(10)
        await desk.calls.get("result", scripted("done"), seconds=600)
        return desk

    desk = simulate(main())
    assert 40 <= desk.elapsed < 41
    assert desk.requests[kind] == (3 if kind == "status" else 2)


def test_polls_that_wait_while_it_is_found_that_they_count_have_their_turn() -> None:
    """They waited for a submit's reset, and do not leave all at once at its end, which the API would refuse."""

    async def main() -> float:
        desk = Desk(count_all=False, requests_per_minute=60)
        limited = errors.RateLimited("429", wait_seconds=30)
        under_way = asyncio.create_task(desk.calls.get("poll", scripted(limited, "done"), seconds=600))
        await asyncio.sleep(0)
        desk.rate.pause(30)
        waiting = [asyncio.create_task(desk.calls.get("poll", scripted("done"), seconds=600)) for _ in range(20)]
        await asyncio.gather(under_way, *waiting)
        return desk.elapsed

    assert 30 + 20 - 2 <= simulate(main()) <= 30 + 20 + 2


def test_a_key_that_is_refused_for_good_pauses_the_run_with_a_word() -> None:
    """After a quarter of an hour in which nothing was taken; one request that is taken starts it anew."""

    async def main() -> Desk:
        desk = Desk()
        limited = errors.RateLimited("429", wait_seconds=30)
        few = [limited] * int(REFUSED_SECONDS / 2 / 30)
        for _ in range(3):
            assert await desk.calls.send("submit", scripted(*few, "taken")) == "taken"
        desk.started = desk.clock.monotonic()
        with pytest.raises(errors.ServiceDown, match="15 minutes"):
            await desk.calls.send("submit", scripted(limited))
        return desk

    assert REFUSED_SECONDS <= simulate(main()).elapsed <= REFUSED_SECONDS + 60


def test_no_connection_is_tried_for_a_minute_and_then_the_service_is_down() -> None:
    """One item is enough to say so."""

    async def main() -> Desk:
        desk = Desk()
        with pytest.raises(errors.ServiceDown):
            await desk.calls.send("submit", scripted(errors.Unreachable("no connection")))
        return desk

    desk = simulate(main())
    assert desk.requests["submit"] == CONNECT_ATTEMPTS
    assert 30 < desk.elapsed < 120


def test_many_items_that_fail_in_a_row_are_an_outage() -> None:
    """The last of them is the service's fault, not its own; one success in between starts the count anew."""

    async def main() -> None:
        desk = Desk()
        for round_number in range(2):
            for _ in range(OUTAGE_ITEMS - 1):
                with pytest.raises(errors.ServiceUnavailable):
                    await desk.calls.send("submit", scripted(busy()))
            if round_number == 0:
                await desk.calls.send("submit", scripted("taken"))
        # An upload goes to another host: its success says nothing of submits.
        await desk.calls.send("upload", scripted("uploaded"))
        with pytest.raises(errors.ServiceDown):
            await desk.calls.send("submit", scripted(busy()))

    simulate(main())


def test_many_lost_answers_in_a_row_stop_the_run() -> None:
    """Each stays unknown, but a gateway that loses every answer does not cost the whole manifest."""

    async def main() -> Desk:
        desk = Desk()
        for number in range(OUTAGE_ITEMS):
            assert not desk.stops, number
            with pytest.raises(errors.SubmitUnknown):
                await desk.calls.send("submit", scripted(errors.SubmitUnknown("502")))
        return desk

    desk = simulate(main())
    assert [type(stop) for stop in desk.stops] == [errors.ServiceDown]
    assert desk.requests == {"submit": OUTAGE_ITEMS}


def test_a_get_is_repeated_for_as_long_as_it_may() -> None:
    """Its last error is raised when the next attempt would come too late."""

    async def main() -> Desk:
        desk = Desk()
        assert await desk.calls.get("status", scripted(*(busy() for _ in range(9)), "done"), seconds=600) == "done"
        desk.started = desk.clock.monotonic()
        with pytest.raises(errors.ServiceUnavailable):
            await desk.calls.get("status", scripted(busy()), seconds=100)
        return desk

    desk = simulate(main())
    assert 60 < desk.elapsed <= 100


def test_a_get_for_which_there_is_another_is_repeated_only_where_the_limit_refuses_it() -> None:
    """Another would be refused as well; what breaks, the other may answer."""

    async def main() -> None:
        desk = Desk()
        limited = [errors.RateLimited("429", wait_seconds=20) for _ in range(3)]
        assert await desk.calls.get("poll", scripted(*limited, "done"), seconds=100, only_refused=True) == "done"
        with pytest.raises(errors.ServiceUnavailable):
            await desk.calls.get("poll", scripted(*limited, busy(), "done"), seconds=100, only_refused=True)
        assert desk.requests == {"poll": 4 + 4}
        with pytest.raises(errors.RateLimited):
            await desk.calls.get("poll", scripted(*limited, "done"), seconds=30, only_refused=True)

    simulate(main())


@pytest.mark.parametrize("prepare_seconds", [0.1, 5.0, 50.0])
def test_what_was_prepared_while_another_was_refused_waits_for_the_reset(prepare_seconds: float) -> None:
    """Its turn came before, but it would be refused, too; it has another turn."""

    async def main() -> Desk:
        desk = Desk(requests_per_minute=600)
        refused_until = desk.elapsed + 30

        async def post() -> str:
            if desk.elapsed < refused_until:
                raise errors.RateLimited("429", wait_seconds=refused_until - desk.elapsed)
            return "taken"

        async def prepare() -> None:
            await asyncio.sleep(prepare_seconds)

        others = [desk.calls.send("submit", post, prepare=prepare) for _ in range(20)]
        assert await asyncio.gather(desk.calls.get("poll", post, seconds=100), *others) == ["taken"] * 21
        return desk

    desk = simulate(main())
    assert desk.progress.refused == 1
    assert desk.requests == {"poll": 2, "submit": 20}
    assert 30 <= desk.elapsed <= max(30, prepare_seconds) + prepare_seconds + 12


@pytest.mark.parametrize("count_all", [True, False])
def test_a_history_that_refuses_neither_slows_nor_holds_the_submits(*, count_all: bool) -> None:
    """It is a service on another host; what it refuses says nothing of the plan's limit."""

    async def main() -> Desk:
        desk = Desk(count_all=count_all, requests_per_minute=300)
        history = scripted(*(errors.RateLimited("429", wait_seconds=20) for _ in range(3)), "found")
        looking = asyncio.create_task(desk.calls.get("history", history, seconds=100))
        while not looking.done():
            before = desk.elapsed
            await desk.calls.send("submit", scripted("taken"))
            assert desk.elapsed - before <= 0.5
        assert looking.result() == "found"
        assert 60 <= desk.elapsed <= 62
        assert desk.rate.requests_per_minute == 300
        assert (desk.progress.refused, desk.progress.limit_found) == (3, None)
        return desk

    simulate(main())


def test_how_much_the_history_takes_is_found_too() -> None:
    """Of many requests that the API forgot, each is asked for, and hardly one is refused for long."""

    async def main() -> Desk:
        desk = Desk()
        taken: list[float] = []

        async def look() -> str:
            now = desk.elapsed
            await asyncio.sleep(0.05)
            if sum(at > now - 60 for at in taken) >= 60:
                raise errors.RateLimited("429", wait_seconds=taken[-60] + 60 - now)
            taken.append(now)
            return "found"

        looks = [desk.calls.get("history", look, seconds=1e6) for _ in range(300)]
        assert await asyncio.gather(*looks) == ["found"] * 300
        return desk

    desk = simulate(main())
    assert desk.elapsed <= 7 * 60
    assert desk.progress.refused <= 300


@pytest.mark.parametrize("error", [errors.RequestGone("404"), errors.Unauthorized("401"), errors.UnexpectedAnswer("?")])
def test_a_get_is_not_repeated_where_asking_changes_nothing(error: errors.VariationsError) -> None:
    """The answer stands."""

    async def main() -> Desk:
        desk = Desk()
        with pytest.raises(type(error)):
            await desk.calls.get("status", scripted(error, "done"), seconds=600)
        return desk

    assert simulate(main()).requests == {"status": 1}


@pytest.mark.parametrize("error", [errors.ServiceUnavailable("500"), errors.Unreachable("no connection")])
def test_a_submit_that_waits_to_be_repeated_ends_when_the_run_stops(error: errors.Repeatable) -> None:
    """It was not accepted, so nothing is lost."""

    async def main() -> Desk:
        desk = Desk()
        asyncio.get_running_loop().call_later(1, desk.calls.close_to_new)
        with pytest.raises(NoMoreNew):
            await desk.calls.send("submit", scripted(error))
        return desk

    assert simulate(main()).elapsed == pytest.approx(1)


def test_a_refused_upload_ends_when_the_run_stops() -> None:
    """It waits for a reset of its own."""

    async def main() -> Desk:
        desk = Desk()
        asyncio.get_running_loop().call_later(1, desk.calls.close_to_new)
        with pytest.raises(NoMoreNew):
            await desk.calls.send("upload", scripted(errors.RateLimited("429", wait_seconds=30)))
        return desk

    assert simulate(main()).elapsed == pytest.approx(1)


@pytest.mark.parametrize("count_all", [True, False])
def test_no_file_is_uploaded_any_more_once_the_run_stops(*, count_all: bool) -> None:
    """Where uploads are not counted too: nothing that needs them is submitted, and the run would wait for them."""

    async def main() -> Desk:
        desk = Desk(count_all=count_all)
        desk.rate.pause(30)
        asyncio.get_running_loop().call_later(1, desk.calls.close_to_new)
        for _ in range(2):
            with pytest.raises(NoMoreNew):
                await desk.calls.send("upload", scripted("uploaded"))
        return desk

    desk = simulate(main())
    assert desk.elapsed == pytest.approx(1)
    assert not desk.requests
