"""A long run of our flow at no latency: memory, CPU an image and calls of Prefect, by tenths of it.

Images are small, so that the sandbox and S3 (moto, all in memory) leave as much of the machine to the flow as they can.
"""

import math
from collections import Counter
from typing import Final

from benches.course import Course, Span
from benches.options import Options, say
from benches.prefect_server import Call
from benches.report import Aim, Cell, Report
from benches.scene import running_scene

MOST_VARIATIONS_A_SOURCE: Final = 1000
FEWEST_SOURCES: Final = 10
SIDE_PIXELS: Final = 512
IN_FLIGHT: Final = 16
SETTINGS: Final = {
    "requests_per_minute": 1e6,
    "poll_interval_seconds": 0.1,
    "megapixels": "0.25",
    "output_quality": 40,
}
# Threads, connections and caches that are filled once; the tenths are those of the rest.
WARM_UP_SHARE: Final = 0.05
TENTHS: Final = 10

AIM_GROWTH: Final = 0.1
AIM_CALLS_A_MINUTE: Final = 100.0
AIM_TASK_RUNS: Final = 300


def bench(options: Options) -> Report:
    """Make the images, and cut the run into tenths."""
    sources = max(FEWEST_SOURCES, math.ceil(options.soak_images / MOST_VARIATIONS_A_SOURCE))
    each = math.ceil(options.soak_images / sources)
    sandbox = {"latency_seconds": 0.0, "workers": 256, "seed": options.seed}
    with running_scene(sources=sources, side_pixels=SIDE_PIXELS, **sandbox) as scene:
        say(f"{sources * each:,} images")
        task_runs_before = scene.prefect.task_runs()
        course = scene.run(
            "augment", destination="soak", variations_per_source=each, max_in_flight=IN_FLIGHT, **SETTINGS
        )
        calls, task_runs = scene.prefect.calls(), scene.prefect.task_runs() - task_runs_before
    return _report(options, course, calls, task_runs, sources=sources)


def _tenths(course: Course) -> list[Span]:
    first = course.wanted * WARM_UP_SHARE
    tenth = (course.wanted - first) / TENTHS
    return [course.between(first + number * tenth, first + (number + 1) * tenth) for number in range(TENTHS)]


def _report(options: Options, course: Course, calls: list[Call], task_runs: int, *, sources: int) -> Report:
    tenths = _tenths(course)
    megabytes = [course.mean_rss_bytes(span) / 1e6 for span in tenths]
    cpu_ms = [span.cpu_ms() for span in tenths]
    calls_a_minute = [span.a_minute(calls, messages=False) for span in tenths]
    rows: list[list[Cell]] = []
    for number, (span, memory, cpu, a_minute) in enumerate(zip(tenths, megabytes, cpu_ms, calls_a_minute, strict=True)):
        events = span.a_minute(calls, messages=True)
        speed = span.images / span.seconds
        rows.append([str(number + 1), speed, memory, cpu["client"], cpu["prefect"], a_minute, events])
    memory_growth = megabytes[-1] / megabytes[0] - 1
    cost_growth = cpu_ms[-1]["client"] / cpu_ms[0]["client"] - 1
    whole = course.between(tenths[0].begin.kept, tenths[-1].end.kept)
    return Report(
        name="soak",
        title=f"{course.wanted:,} images of 0.25 megapixels in {course.whole().seconds / 60:.1f} minutes, "
        f"by tenths, after a warm-up of {WARM_UP_SHARE:.0%}",
        columns=[
            "tenth",
            "images a second",
            "memory, MB",
            "flow, CPU ms an image",
            "Prefect server, CPU ms an image",
            "Prefect calls a minute",
            "events a minute",
        ],
        rows=rows,
        aims=[
            Aim(
                f"memory grows by at most {AIM_GROWTH:.0%} from the first tenth to the last",
                f"{memory_growth:+.1%}",
                memory_growth <= AIM_GROWTH,
            ),
            Aim(
                f"an image costs at most {AIM_GROWTH:.0%} more CPU in the last tenth than in the first",
                f"{cost_growth:+.1%}",
                cost_growth <= AIM_GROWTH,
            ),
            Aim(
                f"fewer than {AIM_CALLS_A_MINUTE:g} calls of Prefect a minute in every tenth",
                f"{max(calls_a_minute):.0f} at the most",
                max(calls_a_minute) < AIM_CALLS_A_MINUTE,
            ),
            Aim(f"at most {AIM_TASK_RUNS} task runs", f"{task_runs}", task_runs <= AIM_TASK_RUNS),
        ],
        facts={
            "seed": options.seed,
            "parameters": {
                "images": course.wanted,
                "sources": sources,
                "side_pixels": SIDE_PIXELS,
                "max_in_flight": IN_FLIGHT,
                **SETTINGS,
            },
            "whole_cpu_ms": course.whole().cpu_ms(),
            "steady_cpu_ms": whole.cpu_ms(),
            "seconds": course.phases_seconds(),
            "images_a_second": whole.images / whole.seconds,
            "cpu_ms_by_tenth": cpu_ms,
            "calls": dict(Counter(call.kind for call in calls if not call.is_message)),
        },
    )
