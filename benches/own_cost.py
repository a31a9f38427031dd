"""What an image costs at no latency and no limit: CPU, images a second and calls of Prefect, beside a plain flow.

Both flows make images of 1 megapixel of the same sources, against the same sandbox, S3 and Prefect server. Sandbox and
S3 are the world outside, and what they take is in the facts only. But they share the processors of this machine with
the flow, so its images a second are a lower bound.
"""

import itertools
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from benches.course import Course
from benches.options import Options, say
from benches.report import Aim, Report
from benches.scene import Scene, running_scene
from variations.images import inspect_image

SOURCES: Final = 10
SIDE_PIXELS: Final = 1024
OUR_IMAGES: Final = 2_000
PLAIN_IMAGES: Final = 150
DECODED_IMAGES: Final = 60
# Shares of the images, between which neither the start nor the end of a run shows.
STEADY: Final = (0.1, 0.9)
IN_FLIGHT: Final = 16
# The sandbox answers a poll once the image is made, so that each takes one. The gallery is no part of an image's
# way, and the plain flow makes none: it takes some 12 ms for each image that it shows.
OUR_SETTINGS: Final = {"requests_per_minute": 1e6, "poll_interval_seconds": 0.1, "gallery": False}

AIM_TIMES: Final = 10.0
AIM_MS: Final = 20.0
AIM_MS_WITHOUT_DECODING: Final = 10.0
AIM_CALLS_A_MINUTE: Final = 100.0
AIM_TASK_RUNS: Final = 300


@dataclass(frozen=True, slots=True)
class Cost:
    """What a flow cost.

    Attributes:
        images: that it made.
        images_a_second: in the steady part.
        cpu_ms: an image, by process: `client` is the flow's, `prefect` that server's, the others are outside.
        steady_cpu_ms: in the steady part.
        calls_a_minute, events_a_minute: that Prefect's server got in the steady part: HTTP requests, and messages on
            the websocket of its events.
        task_runs: that it knows of.
        seconds: by phase of the run.
    """

    images: int
    images_a_second: float
    cpu_ms: dict[str, float]
    steady_cpu_ms: dict[str, float]
    calls_a_minute: float
    events_a_minute: float
    task_runs: int
    seconds: dict[str, float]

    @property
    def ms(self) -> float:
        """CPU an image of the flow's process and of the Prefect server."""
        return self.cpu_ms["client"] + self.cpu_ms["prefect"]

    @property
    def steady_ms(self) -> float:
        """The same in the steady part: without the start, and without what Prefect's server does once a run is over."""
        return self.steady_cpu_ms["client"] + self.steady_cpu_ms["prefect"]

    def row(self, name: str) -> list[str | float | int]:
        """Return its row of the table."""
        return [
            name,
            self.images,
            self.images_a_second,
            self.cpu_ms["client"],
            self.cpu_ms["prefect"],
            self.ms,
            self.steady_ms,
            self.calls_a_minute,
            self.events_a_minute,
            self.task_runs,
        ]


def bench(options: Options) -> Report:
    """Run our flow and the plain one, and weigh the decoding by itself."""
    sandbox = {"latency_seconds": 0.0, "workers": 256, "seed": options.seed}
    with running_scene(sources=SOURCES, side_pixels=SIDE_PIXELS, **sandbox) as scene:
        say(f"our flow, {OUR_IMAGES} images")
        ours = _cost(scene, "augment", OUR_IMAGES, **OUR_SETTINGS)
        decoding_ms = _decoding_ms(scene, "augment")
        say(f"a plain flow, {PLAIN_IMAGES} images")
        plain = _cost(scene, "plain", PLAIN_IMAGES)
    return _report(options, ours, plain, decoding_ms=decoding_ms)


def _cost(scene: Scene, flow: str, images: int, **settings: Any) -> Cost:
    task_runs = scene.prefect.task_runs()
    course: Course = scene.run(
        flow, destination=flow, variations_per_source=images // SOURCES, max_in_flight=IN_FLIGHT, **settings
    )
    steady = course.between(*(images * share for share in STEADY))
    calls = scene.prefect.calls()
    return Cost(
        images=images,
        images_a_second=steady.images / steady.seconds,
        cpu_ms=course.whole().cpu_ms(),
        steady_cpu_ms=steady.cpu_ms(),
        calls_a_minute=steady.a_minute(calls, messages=False),
        events_a_minute=steady.a_minute(calls, messages=True),
        task_runs=scene.prefect.task_runs() - task_runs,
        seconds=course.phases_seconds(),
    )


def _decoding_ms(scene: Scene, destination: str) -> float:
    """Return the CPU that it takes to look at an image to its last pixel, on average."""
    images = list(itertools.islice(scene.images(destination), DECODED_IMAGES))
    # The first time, what it needs is imported.
    inspect_image(images[0])
    began = time.process_time()
    for image in images:
        inspect_image(image)
    return (time.process_time() - began) / len(images) * 1e3


def _report(options: Options, ours: Cost, plain: Cost, *, decoding_ms: float) -> Report:
    times = plain.ms / ours.ms
    # The plain flow stores whatever comes.
    alike_times = plain.ms / (ours.ms - decoding_ms)
    client_ms = ours.cpu_ms["client"]
    rest_ms = client_ms - decoding_ms
    return Report(
        name="own_cost",
        title="1 megapixel, no latency, no limit; CPU an image of the flow's process and of the Prefect server",
        columns=[
            "",
            "images",
            "images a second",
            "flow, ms",
            "Prefect server, ms",
            "both, ms",
            "without start and end",
            "Prefect calls a minute",
            "events a minute",
            "task runs",
        ],
        rows=[ours.row("ours"), plain.row("a plain flow, 3 tasks an image")],
        aims=[
            Aim(
                f"at least {AIM_TIMES:g} times less CPU than the plain flow, with Prefect's server",
                f"{times:.1f} times; {alike_times:.1f} where neither looks at its images",
                times >= AIM_TIMES,
            ),
            Aim(
                f"at most {AIM_MS:g} ms of CPU an image, decoding included", f"{client_ms:.1f} ms", client_ms <= AIM_MS
            ),
            Aim(
                f"at most {AIM_MS_WITHOUT_DECODING:g} ms without decoding",
                f"{rest_ms:.1f} ms ({decoding_ms:.1f} ms are the decoding)",
                rest_ms <= AIM_MS_WITHOUT_DECODING,
            ),
            Aim(
                f"fewer than {AIM_CALLS_A_MINUTE:g} calls of Prefect a minute",
                f"{ours.calls_a_minute:.0f} a minute",
                ours.calls_a_minute < AIM_CALLS_A_MINUTE,
            ),
            Aim(f"at most {AIM_TASK_RUNS} task runs", f"{ours.task_runs}", ours.task_runs <= AIM_TASK_RUNS),
        ],
        facts={
            "seed": options.seed,
            "parameters": {
                "sources": SOURCES,
                "side_pixels": SIDE_PIXELS,
                "max_in_flight": IN_FLIGHT,
                "steady": STEADY,
                **OUR_SETTINGS,
            },
            "decoding_ms": decoding_ms,
            "decoded_images": DECODED_IMAGES,
            "ours": asdict(ours),
            "plain": asdict(plain),
        },
    )
