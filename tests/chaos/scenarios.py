"""What can happen to runs besides being killed: twins, sleepers, a wait of an hour, a store in bad weather.

Each takes a scene, raises `Wrong` where a process does what it must not, and returns the verdict at the end.
"""

import contextlib
import itertools
import random
import signal
from collections.abc import Iterator
from typing import Any, Final

from variations.sandbox import Sandbox

from .points import last_words
from .s3_proxy import Fault, S3Proxy
from .scene import Scene, Verdict
from .worker import DONE, LEFT, STOPPED
from .workers import Worker

KILLED: Final = -9
# Who waits for another looks every two seconds of its own: at 120 times the speed that would be all the store does.
WAITING_HURRY: Final = 10.0
# A store that fails is waited for; not for so short a time that a run gives it up.
WEATHER_HURRY: Final = 40.0
WEATHER: Final = {"path": r"/(dataset|manifest)"}


class Wrong(AssertionError):
    """A process did what it must not; the message ends with what it said."""


def expect(condition: object, worker: Worker, what: str) -> None:
    """Complain unless a condition holds.

    Raises:
        Wrong: it does not.
    """
    if not condition:
        raise Wrong(f"{what}: {worker!r} {worker.said()}\n{worker.errors()[-4000:]}")


@contextlib.contextmanager
def slow_api(sandbox: Sandbox, *, latency_seconds: float) -> Iterator[None]:
    """Let each image take so long, in the world's seconds."""
    before = sandbox.settings.latency_seconds
    sandbox.configure(latency_seconds=latency_seconds * sandbox.settings.speed)
    try:
        yield
    finally:
        sandbox.configure(latency_seconds=before)


def twins(scene: Scene, count: int) -> Verdict:
    """Start several at once on one dataset, of which half wait for the others: each image is paid once."""
    workers = [scene.start(hurry=WAITING_HURRY, wait=bool(number % 2)) for number in range(count)]
    for number, worker in enumerate(workers):
        worker.wait()
        if worker.code == STOPPED and not number % 2:
            expect(worker.said()["error"] == "dataset_busy", worker, "a twin stopped, and not because of the other")
        else:
            expect(worker.code == DONE, worker, "a twin is not done")
    expect(any(worker.receipt.get("kept") for worker in workers), workers[0], "nobody made anything")
    expect(sum(worker.receipt.get("accepted", 0) for worker in workers) == scene.images, workers[0], "not once each")
    return scene.judge()


def heir(scene: Scene) -> Verdict:
    """Kill one while another waits: that one takes over, and closes its run first."""
    first = scene.start()
    scene.until_accepted(2, first)
    second = scene.start(hurry=WAITING_HURRY, wait=True)
    expect(not second.is_over(within_seconds=0.1), second, "it does not wait")
    first.signal(signal.SIGKILL)
    expect(first.wait().code == KILLED, first, "it is not dead")
    expect(second.wait().code in {DONE, LEFT}, second, "it did not take over")
    expect(second.receipt["recovery"]["closed_run"], second, "it closed nothing")
    if second.code == LEFT:
        scene.finish()
    return scene.judge()


def told_to_stop(scene: Scene) -> Verdict:
    """Send SIGTERM with little grace: it ends by itself, says so, and the next one fetches what was in flight."""
    with slow_api(scene.sandbox, latency_seconds=1.5):
        worker = scene.start(limits={"grace_seconds": 0.2 * WAITING_HURRY}, hurry=WAITING_HURRY)
        scene.until_accepted(3, worker)
        worker.signal(signal.SIGTERM)
        expect(worker.wait().code == STOPPED, worker, "it did not stop")
    expect(worker.said()["error"] == "stopped_by_user", worker, "it stopped for another reason")
    expect(worker.receipt["unknown"], worker, "nothing was in flight")
    before = scene.judge()
    if not before.is_sound or before.rows != before.bill:
        raise Wrong(f"what was in flight is not listed: {before}")
    scene.finish()
    return scene.judge()


def sleeper(scene: Scene) -> Verdict:
    """Stop a process for longer than its lease: another one takes over, and the sleeper, awake again, pays nothing."""
    lease: dict[str, Any] = {"lease_seconds": 2.0, "hurry": WAITING_HURRY}
    with slow_api(scene.sandbox, latency_seconds=1.0):
        first = scene.start(**lease)
        scene.until_accepted(3, first)
        first.signal(signal.SIGSTOP)
        second = scene.start(wait=True, **lease).wait()
        expect(second.code in {DONE, LEFT}, second, "it did not take over")
        expect(second.receipt["recovery"]["closed_run"], second, "it closed nothing")
        written_down = {record.variation_id for record in scene.intended()}
        first.signal(signal.SIGCONT)
        expect(first.wait().code == STOPPED, first, "the sleeper did not stop")
        expect(first.said()["error"] == "replaced", first, "the sleeper stopped for another reason")
        expect({record.variation_id for record in scene.intended()} == written_down, first, "it went on")
    if second.code == LEFT:
        scene.finish()
    return scene.judge()


def hours_later(scene: Scene, *, minutes: float, die_at: str) -> Verdict:
    """Kill one with requests in flight, and go on so much later by the API's clock."""
    with slow_api(scene.sandbox, latency_seconds=1.0):
        worker = scene.run(die_at=die_at)
    expect(worker.code == KILLED and last_words(die_at) in worker.errors(), worker, "it is not dead")
    scene.sandbox.advance_clock(minutes * 60)
    worker = scene.run()
    expect(worker.code in {DONE, LEFT}, worker, "it did not go on")
    expect(worker.receipt["recovery"]["kept"], worker, "it fetched nothing")
    by_history = scene.sandbox.bill().calls_of("history") > 0
    expect(by_history or minutes < 60, worker, "the API forgets a result after an hour, and nobody asked the history")
    if worker.code == LEFT:
        scene.finish()
    return scene.judge()


def bad_weather(scene: Scene, proxy: S3Proxy) -> Verdict:
    """Run through a store that is slow, busy, and loses connections; under it, and to the end."""
    proxy.set_faults(
        Fault("latency", 0.2, seconds=0.03, **WEATHER),
        Fault("slowdown", 0.05, **WEATHER),
        Fault("lost_reply", 0.05, **WEATHER),
        Fault("reset_before", 0.03, **WEATHER),
        Fault("error_500", 0.03, **WEATHER),
    )
    try:
        scene.finish(hurry=WEATHER_HURRY)
    finally:
        proxy.set_faults()
    return scene.judge()


def credentials_expire(scene: Scene, proxy: S3Proxy) -> Verdict:
    """Let the store refuse every request from some moment on: the run stops, and all that it paid is written down."""
    with slow_api(scene.sandbox, latency_seconds=0.5):
        worker = scene.start(hurry=WAITING_HURRY)
        scene.until_accepted(3, worker)
        proxy.set_faults(Fault("refused_credentials", **WEATHER))
        try:
            expect(worker.wait().code == STOPPED, worker, "it did not stop")
        finally:
            proxy.set_faults()
    expect(worker.said()["error"] == "credentials_refused", worker, "it stopped for another reason")
    expect(not (found := scene.not_written_down()), worker, f"paid, and nowhere intended: {found}")
    scene.finish()
    return scene.judge()


def killed_at_random(scene: Scene, *, kills: int, seed: int, dropping: bool = False) -> tuple[Verdict, int]:
    """Kill a run so many times at random moments, then run to the end; returns how often somebody really died, too.

    Some are killed after so many more submits, some after a while, which may be amid what the one before left.

    Args:
        scene: the place.
        kills: how many.
        seed: of the moments.
        dropping: whether the sandbox drops a tenth of its answers. Then nothing that may have been accepted is
            submitted again, and what was not found stays listed as unknown.
    """
    chances = random.Random(seed)  # noqa: S311 - moments, no secrets
    died = 0
    if dropping:
        scene.sandbox.set_faults("accept_and_break:0.1")
    try:
        for number in range(kills):
            worker = scene.start()
            if chances.random() < 2 / 3:
                # What is left is shared among the kills that are left, so that there is something to kill each time.
                left = scene.images - len(scene.bill())
                share = max(1, left // (kills - number + 1))
                scene.until_accepted(scene.images - left + chances.randint(1, share), worker)
                worker.is_over(within_seconds=chances.uniform(0, 0.2))
            else:
                worker.is_over(within_seconds=chances.uniform(0, 1.5))
            worker.signal(signal.SIGKILL)
            died += worker.wait().code == KILLED
        if not dropping:
            scene.finish()
            return scene.judge(), died
        for attempt in itertools.count():
            worker = scene.run()
            if worker.code == DONE or (worker.code == LEFT and not worker.receipt["left"]):
                return scene.judge(), died
            expect(worker.code in {LEFT, STOPPED} and attempt < 9, worker, "it does not come to an end")
    finally:
        scene.sandbox.set_faults()
    raise AssertionError
