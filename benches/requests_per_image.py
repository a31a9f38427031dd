"""Where neither limit binds: how many requests an image takes, and for how long it is done and nobody knows."""

import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Final

from benches import ours, vendor
from benches.apart import apart, begin_together
from benches.ground import Ground, furnish
from benches.made import Made
from benches.options import Options, say
from benches.report import Aim, Cell, Report, percent
from benches.servers import SandboxServer, running_s3, running_sandbox
from variations.engine.limits import LATENCY_SECONDS, Limits
from variations.sandbox.settings import LatencyShape

# At which two cores are not busy with it, and what a call takes on a busy machine is little beside a latency.
SPEED: Final = 2.0
SLOTS: Final = 16
IMAGES: Final = 300
# A limit that is told, and never reached.
REQUESTS_PER_MINUTE: Final = 6000.0
AIM_WAITING: Final = 0.08
NOTE: Final = "Nothing is discarded: the images from which it learns how long a request takes are counted too."


@dataclass(frozen=True, slots=True)
class Case:
    """How the latencies are distributed, and the most requests that an image of ours is to take."""

    name: str
    shape: LatencyShape
    spread: float
    aim_requests: float


CASES: Final = (
    Case("5 % spread", "lognormal", 0.05, 4.5),
    Case("20 % spread", "lognormal", 0.20, 5.8),
    Case("45 % spread", "lognormal", 0.45, 7.5),
    Case("two modes", "bimodal", 0.05, 5.8),
)
SDK_BESIDE: Final = CASES[1]


@dataclass(frozen=True, slots=True)
class Course:
    """What one contestant made, and its bill."""

    case: Case
    is_ours: bool
    made: Made
    bill: dict[str, Any]

    @property
    def requests(self) -> float:
        """Calls with a key, an image."""
        return float(self.bill["requests"]) / len(self.made.images)

    @property
    def waiting_share(self) -> float:
        """The extra waiting as a share of the mean latency."""
        return self.made.mean_waited_seconds / self.made.mean_latency_seconds


def bench(options: Options) -> Report:
    """Let ours learn each distribution, and the SDK poll at its interval, all at the same time."""
    of_all = [(case, True) for case in CASES] + [(SDK_BESIDE, False)]
    with ExitStack() as stack:
        ground = furnish(stack.enter_context(running_s3()))
        sandboxes = [stack.enter_context(_sandbox(case, options.seed)) for case, _ in of_all]
        contestants = [
            stack.enter_context(
                apart(ours.make, _ours(ground, sandbox, case))
                if is_ours
                else apart(vendor.make, _vendor(ground, sandbox))
            )
            for sandbox, (case, is_ours) in zip(sandboxes, of_all, strict=True)
        ]
        begin_together(contestants)
        say(f"{IMAGES} images each, {SLOTS} at a time")
        made = [contestant.result() for contestant in contestants]
        bills = [sandbox.bill() for sandbox in sandboxes]
    courses = [Course(case, is_ours, one, bill) for (case, is_ours), one, bill in zip(of_all, made, bills, strict=True)]
    return _report(options, courses)


def _sandbox(case: Case, seed: int) -> AbstractContextManager[SandboxServer]:
    return running_sandbox(speed=SPEED, latency_shape=case.shape, latency_spread=case.spread, seed=seed)


def _ours(ground: Ground, sandbox: SandboxServer, case: Case) -> ours.Order:
    return ours.Order(
        source=ground.manifest,
        destination=ground.destination(case.name.replace(" ", "").replace("%", "")),
        endpoint=sandbox.endpoint,
        environment=ground.s3.environment,
        limits=Limits(
            max_in_flight=SLOTS,
            requests_per_minute=REQUESTS_PER_MINUTE,
            expected_latency_seconds=LATENCY_SECONDS / SPEED,
        ),
        variations_per_source=math.ceil(IMAGES / len(ground.photos)),
    )


def _vendor(ground: Ground, sandbox: SandboxServer) -> vendor.Order:
    return vendor.Order(
        endpoint=sandbox.endpoint,
        photos=ground.photos,
        threads=SLOTS,
        poll_seconds=vendor.POLL_SECONDS / SPEED,
        images=IMAGES,
    )


def _report(options: Options, courses: list[Course]) -> Report:
    rows: list[list[Cell]] = []
    aims = []
    for course in courses:
        case, waited = course.case, course.made.mean_waited_seconds
        name = f"ours, {case.name}" if course.is_ours else f"the SDK, {case.name}"
        rows.append([name, course.requests, waited, percent(course.waiting_share, digits=1)])
        if course.is_ours:
            is_met = course.requests <= case.aim_requests and course.waiting_share < AIM_WAITING
            text = f"{case.name}: at most {case.aim_requests:g} requests an image, waiting under {percent(AIM_WAITING)}"
            aims.append(Aim(text, f"{course.requests:.2f}, {percent(course.waiting_share, digits=1)}", is_met))
    return Report(
        name="requests_per_image",
        title=f"Neither limit binds; a request takes {LATENCY_SECONDS / SPEED:.3g} s; {IMAGES} images each, learning "
        "included",
        columns=["", "requests an image", "extra waiting, seconds", "of the latency"],
        rows=rows,
        aims=aims,
        facts={
            "seed": options.seed,
            "parameters": {
                "speed": SPEED,
                "slots": SLOTS,
                "images": IMAGES,
                "requests_per_minute": REQUESTS_PER_MINUTE,
                "sdk_poll_seconds": vendor.POLL_SECONDS / SPEED,
            },
            "note": NOTE,
            "calls": {str(row[0]): course.bill["calls"] for row, course in zip(rows, courses, strict=True)},
        },
    )
