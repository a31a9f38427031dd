"""Under a slot limit, without a request limit: how much longer it takes than if no slot were ever idle."""

import math
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

# At which two cores are not busy with it, and what a call takes on a busy machine is little beside a latency.
SPEED: Final = 2.0
SPREAD: Final = 0.2
SLOTS: Final = 64
IMAGES: Final = 510
AIM_OF_THE_IDEAL: Final = 0.95
AIM_REQUESTS: Final = 8.0
IDEAL: Final = (
    "The latencies that the API tells of these very images, in the order of their submits, where the next one begins "
    "in a slot at the moment the one before is done."
)


def bench(options: Options) -> Report:
    """Let ours and the SDK make the same number of images at the same time, each against a sandbox of its own."""
    with ExitStack() as stack:
        ground = furnish(stack.enter_context(running_s3()))
        sandboxes = {name: stack.enter_context(_sandbox(options.seed)) for name in ("ours", "the SDK")}
        contestants = {
            "ours": stack.enter_context(apart(ours.make, _ours(ground, sandboxes["ours"]))),
            "the SDK": stack.enter_context(apart(vendor.make, _vendor(ground, sandboxes["the SDK"]))),
        }
        begin_together(contestants.values())
        say(f"{IMAGES} images each, {SLOTS} at a time")
        made = {name: contestant.result() for name, contestant in contestants.items()}
        bills = {name: sandbox.bill() for name, sandbox in sandboxes.items()}
    return _report(options, made, bills)


def _sandbox(seed: int) -> AbstractContextManager[SandboxServer]:
    # Its own workers are never what binds.
    return running_sandbox(speed=SPEED, latency_spread=SPREAD, workers=2 * SLOTS, seed=seed)


def _ours(ground: Ground, sandbox: SandboxServer) -> ours.Order:
    return ours.Order(
        source=ground.manifest,
        destination=ground.destination("ours"),
        endpoint=sandbox.endpoint,
        environment=ground.s3.environment,
        limits=Limits(max_in_flight=SLOTS, requests_per_minute=0.0, expected_latency_seconds=LATENCY_SECONDS / SPEED),
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


def _report(options: Options, made: dict[str, Made], bills: dict[str, dict[str, Any]]) -> Report:
    rows: list[list[Cell]] = []
    shares, requests = {}, {}
    for name, one in made.items():
        ideal_seconds = one.ideal_seconds(SLOTS)
        shares[name] = ideal_seconds / one.seconds
        requests[name] = bills[name]["requests"] / len(one.images)
        rows.append(
            [name, len(one.images), one.seconds, ideal_seconds, percent(shares[name], digits=1), requests[name]]
        )
    return Report(
        name="slot_limit",
        title=f"{SLOTS} in flight and no request limit; a request takes {LATENCY_SECONDS / SPEED:.3g} s, "
        f"{percent(SPREAD)} spread",
        columns=["", "images", "seconds", "ideal seconds", "of the ideal", "requests an image"],
        rows=rows,
        aims=[
            Aim(
                f"at least {percent(AIM_OF_THE_IDEAL)} of the ideal",
                percent(shares["ours"], digits=1),
                shares["ours"] >= AIM_OF_THE_IDEAL,
            ),
            Aim(
                f"with at most {AIM_REQUESTS:g} requests an image",
                f"{requests['ours']:.2f}",
                requests["ours"] <= AIM_REQUESTS,
            ),
        ],
        facts={
            "seed": options.seed,
            "parameters": {
                "speed": SPEED,
                "latency_spread": SPREAD,
                "slots": SLOTS,
                "images": IMAGES,
                "sdk_poll_seconds": vendor.POLL_SECONDS / SPEED,
            },
            "ideal": IDEAL,
            "waited_seconds": {name: one.mean_waited_seconds for name, one in made.items()},
            "latency_seconds": {name: one.mean_latency_seconds for name, one in made.items()},
            "lost_submits": {name: one.lost_submits for name, one in made.items()},
            "cpu_seconds": {name: one.cpu_seconds for name, one in made.items()},
            "calls": {name: bill["calls"] for name, bill in bills.items()},
        },
    )
