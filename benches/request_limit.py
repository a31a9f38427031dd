"""Under a request limit that counts every call: images a minute of ours, of the vendor's SDK, and of the ceiling."""

import math
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

from benches import ours, vendor
from benches.apart import apart, begin_together
from benches.ground import Ground, furnish
from benches.made import Made
from benches.options import Options, say
from benches.report import Aim, Cell, Report, percent
from benches.servers import SandboxServer, running_s3, running_sandbox
from variations.engine.limits import LATENCY_SECONDS, Limits
from variations.sandbox.limits import WINDOW_SECONDS

SPEED: Final = 10.0
REQUESTS_PER_MINUTE: Final = 600
# A submit, and a poll of the whole record that finds it done. The SDK asks for its state and for its result apart.
FEWEST_REQUESTS: Final = 2
WINDOWS: Final = 2
# The pace from which one that is told no limit starts to look for it.
FIRST_REQUESTS_PER_MINUTE: Final = 60.0
# The first is what it takes to reach the ceiling; with more it gets better, by being held up: see NOTE. The last is as
# many as the limit can feed so.
THREADS: Final = (8, 16, 64, 200)
AIM_THREADS: Final = 16
AIM_OF_THE_SDK: Final = 5.0
AIM_OF_THE_CEILING: Final = 0.75
NOTE: Final = (
    "The limit counts calls in fixed minutes, and does not count those that it refuses. So a pool that has used up its "
    "minute sleeps until the next one, by which time all that it has in flight is done: each thread makes an image a "
    "minute for three calls, and only what is left of the minute goes at the SDK's usual price."
)


def bench(options: Options) -> Report:
    """Let all work at the same time for whole minutes of the limit, each against a sandbox of its own."""
    names = ["ours", "ours, not told the limit", *map(_name, THREADS)]
    with ExitStack() as stack:
        ground = furnish(stack.enter_context(running_s3()))
        sandboxes = [stack.enter_context(_sandbox(options.seed)) for _ in names]
        contestants = [
            stack.enter_context(apart(ours.make, _ours(ground, sandboxes[0], told=True))),
            stack.enter_context(apart(ours.make, _ours(ground, sandboxes[1], told=False))),
        ]
        for sandbox, threads in zip(sandboxes[2:], THREADS, strict=True):
            contestants.append(stack.enter_context(apart(vendor.make, _vendor(ground, sandbox, threads))))
        times = begin_together(
            contestants,
            seconds=WINDOWS * WINDOW_SECONDS,
            before=lambda moment: _begin_windows(sandboxes, at=moment),
        )
        say(f"{len(names)} contestants for {WINDOWS} minutes")
        time.sleep(max(0.0, times.stops_at - time.time()))
        bills = [sandbox.bill() for sandbox in sandboxes]
        made = [contestant.result() for contestant in contestants]
    return _report(options, names, made, bills, times.stops_at)


def _name(threads: int) -> str:
    return f"the SDK, {threads} threads"


def _sandbox(seed: int) -> AbstractContextManager[SandboxServer]:
    return running_sandbox(speed=SPEED, latency_spread=0.2, requests_per_minute=REQUESTS_PER_MINUTE, seed=seed)


def _begin_windows(sandboxes: Iterable[SandboxServer], *, at: float) -> None:
    """Set the sandboxes' clocks so that a minute of theirs begins at a moment of ours, in epoch seconds."""
    for sandbox in sandboxes:
        sandbox.advance_clock(-(sandbox.now() + at - time.time()) % WINDOW_SECONDS)


def _ours(ground: Ground, sandbox: SandboxServer, *, told: bool) -> ours.Order:
    # More than can be made: it is stopped in the midst of its work.
    images = (WINDOWS + 1) * REQUESTS_PER_MINUTE // FEWEST_REQUESTS
    return ours.Order(
        source=ground.manifest,
        destination=ground.destination("told" if told else "not-told"),
        endpoint=sandbox.endpoint,
        environment=ground.s3.environment,
        limits=Limits(
            requests_per_minute=REQUESTS_PER_MINUTE if told else 0.0,
            first_requests_per_minute=0.0 if told else FIRST_REQUESTS_PER_MINUTE,
            expected_latency_seconds=LATENCY_SECONDS / SPEED,
            grace_seconds=0.0,
        ),
        variations_per_source=math.ceil(images / len(ground.photos)),
    )


def _vendor(ground: Ground, sandbox: SandboxServer, threads: int) -> vendor.Order:
    return vendor.Order(
        endpoint=sandbox.endpoint,
        photos=ground.photos,
        threads=threads,
        poll_seconds=vendor.POLL_SECONDS / SPEED,
    )


def _report(
    options: Options, names: list[str], made: list[Made], bills: list[dict[str, Any]], stops_at: float
) -> Report:
    ceiling = REQUESTS_PER_MINUTE / FEWEST_REQUESTS
    rows: list[list[Cell]] = []
    rates = []
    for name, one, bill in zip(names, made, bills, strict=True):
        images = one.done_by(stops_at)
        refused = sum(by_status.get("429", 0) for by_status in bill["calls"].values())
        rates.append(images / WINDOWS)
        rows.append(
            [
                name,
                images / WINDOWS,
                percent(images / WINDOWS / ceiling),
                (bill["requests"] - refused) / images if images else "",
                one.mean_waited_seconds,
                percent(refused / bill["requests"], digits=1),
            ]
        )
    rows.append(["the ceiling", ceiling, percent(1), FEWEST_REQUESTS, "", ""])
    by_threads = dict(zip(THREADS, rates[-len(THREADS) :], strict=True))
    factor = rates[0] / by_threads[AIM_THREADS]
    best = max(THREADS, key=by_threads.__getitem__)
    return Report(
        name="request_limit",
        title=f"{REQUESTS_PER_MINUTE} requests a minute, every call counted; a request takes "
        f"{LATENCY_SECONDS / SPEED:.3g} s, 20 % spread",
        columns=["", "images a minute", "of the ceiling", "requests an image", "extra waiting, seconds", "refused"],
        rows=rows,
        aims=[
            Aim(
                f"at least {AIM_OF_THE_SDK:g} times the SDK on {AIM_THREADS} threads",
                f"{factor:.1f} times; {rates[0] / by_threads[best]:.1f} times its best, on {best}",
                factor >= AIM_OF_THE_SDK,
            ),
            Aim(
                f"at least {percent(AIM_OF_THE_CEILING)} of the ceiling",
                percent(rates[0] / ceiling),
                rates[0] / ceiling >= AIM_OF_THE_CEILING,
            ),
        ],
        facts={
            "seed": options.seed,
            "parameters": {
                "speed": SPEED,
                "requests_per_minute": REQUESTS_PER_MINUTE,
                "windows": WINDOWS,
                "threads": THREADS,
                "sdk_poll_seconds": vendor.POLL_SECONDS / SPEED,
            },
            "note": NOTE,
            "images": {name: one.done_by(stops_at) for name, one in zip(names, made, strict=True)},
            "calls": {name: bill["calls"] for name, bill in zip(names, bills, strict=True)},
            "lost_submits": {name: one.lost_submits for name, one in zip(names, made, strict=True)},
            "cpu_seconds": {name: one.cpu_seconds for name, one in zip(names, made, strict=True)},
        },
    )
