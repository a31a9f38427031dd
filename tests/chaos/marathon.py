"""The sections of `make chaos`: each runs scenes of one kind, and tells what came of them as rows of counts."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from tests.variations.chaos.sweep import Swept, sweep

from . import scenarios
from .kills import DEATHS, kill_at, name_of
from .s3_proxy import S3Proxy, running_proxy
from .scene import Scene, Store, Verdict, running_api
from .workers import Workers, running_workers

IMAGES: Final = 200
KILLS: Final = 10
AT_ONCE: Final = 4

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Counts:
    """A row of the table: `runs` scenes, and over all of them what is in `Verdict`, by number.

    Attributes:
        dropped: were made, paid, and flagged by the quality gate.
        wrong: what went otherwise than it should, in words; empty where all is well.
    """

    name: str
    runs: int = 0
    images: int = 0
    kills: int = 0
    rows: int = 0
    kept: int = 0
    dropped: int = 0
    unknown: int = 0
    bill: int = 0
    accepted_twice: int = 0
    lost: int = 0
    wrong: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, verdict: Verdict, *, kills: int = 0, may_be_unknown: bool = False) -> "Counts":
        """Count one scene.

        Args:
            name: of the row.
            verdict: on it.
            kills: processes that were killed.
            may_be_unknown: whether images may be listed as unknown in place of being there.
        """
        is_right = verdict.is_sound and verdict.rows == verdict.images == verdict.kept + verdict.unknown
        if not may_be_unknown:
            is_right = is_right and verdict.is_complete
        return cls(
            name=name,
            runs=1,
            images=verdict.images,
            kills=kills,
            rows=verdict.rows,
            kept=verdict.kept,
            unknown=verdict.unknown,
            bill=verdict.bill,
            accepted_twice=len(verdict.accepted_twice),
            lost=len(verdict.lost),
            wrong=() if is_right else (f"{name}: {verdict}",),
        )

    def __add__(self, other: "Counts") -> "Counts":
        """Count both, under the first one's name."""
        numbers = {name: getattr(self, name) + getattr(other, name) for name in COLUMNS}
        return Counts(self.name, **numbers, wrong=self.wrong + other.wrong)


SIMULATED_RUNS: Final = 10_000
COLUMNS: Final = ("runs", "images", "kills", "rows", "kept", "dropped", "unknown", "bill", "accepted_twice", "lost")


@dataclass(frozen=True, slots=True)
class Ground:
    """What all sections share.

    Attributes:
        store: moto or Ceph.
        workers: starts processes.
        seed: of everything that is drawn.
    """

    store: Store
    workers: Workers
    seed: int

    @contextlib.contextmanager
    def scene(self, *, images: int = 6, proxy: S3Proxy | None = None) -> Iterator[Scene]:
        """Make a scene, with an API of its own."""
        with running_api() as api:
            yield Scene(self.store, api, self.workers, images=images, url=proxy.url if proxy else None)


def _tried(name: str, scenario: Callable[..., Verdict], *arguments: Any, kills: int = 0, **more: Any) -> Counts:
    """Run a scenario; what it raises is a row, too, and stops no other."""
    try:
        return Counts.of(name, scenario(*arguments, **more), kills=kills)
    except Exception as error:  # noqa: BLE001 - that is what the table is for
        return Counts(name, runs=1, wrong=(f"{name}: {type(error).__name__}: {error}",))


def killed_at_each_point(ground: Ground, say: Say) -> list[Counts]:
    """Kill a process at each labelled point, and run to the end."""
    total = Counts("killed at a labelled point")

    def kill(scene: Scene, labels: tuple[str, ...]) -> Verdict:
        outcome = kill_at(scene, *labels)
        if outcome.died != labels:
            raise AssertionError(f"nobody died at {set(labels) - set(outcome.died)}")
        return outcome.verdict

    with running_api() as api, ThreadPoolExecutor(AT_ONCE) as pool:

        def one(labels: tuple[str, ...]) -> Counts:
            scene = Scene(ground.store, api, ground.workers, images=6)
            return _tried(name_of(labels), kill, scene, labels, kills=len(labels))

        for done, counts in enumerate(pool.map(one, DEATHS), 1):
            total += counts
            say(f"{done}/{len(DEATHS)} {counts.name}: {_told(counts)}")
    return [total]


def twins(ground: Ground, say: Say) -> list[Counts]:
    """Start 2, 4 and 8 at once; let one take over, stop and sleep."""
    rows = []
    for count in (2, 4, 8):
        with ground.scene() as scene:
            rows.append(_tried(f"{count} twins", scenarios.twins, scene, count))
        say(f"{rows[-1].name}: {_told(rows[-1])}")
    for name, scenario in (
        ("killed while another waits", scenarios.heir),
        ("SIGTERM with little grace", scenarios.told_to_stop),
        ("asleep for longer than its lease", scenarios.sleeper),
    ):
        with ground.scene() as scene:
            rows.append(_tried(name, scenario, scene, kills=int(scenario is scenarios.heir)))
        say(f"{name}: {_told(rows[-1])}")
    return rows


def clock(ground: Ground, say: Say) -> list[Counts]:
    """Restart 59 and 61 minutes later by the API's clock."""
    rows = []
    for minutes in (59, 61):
        total = Counts(f"restarted after {minutes} minutes")
        for die_at in ("accepted-after:4", "post-unanswered:3"):
            with ground.scene() as scene:
                total += _tried(
                    f"{die_at} {total.name}", scenarios.hours_later, scene, kills=1, minutes=minutes, die_at=die_at
                )
        rows.append(total)
        say(f"{total.name}: {_told(total)}")
    return rows


def s3_faults(ground: Ground, say: Say) -> list[Counts]:
    """Run through a store that fails now and then, and one that fails for good."""
    rows = []
    for name, scenario, images in (
        ("S3 busy, slow and cut off", scenarios.bad_weather, 40),
        ("S3 credentials expire", scenarios.credentials_expire, 6),
    ):
        with (
            running_proxy(ground.store.url, seed=ground.seed) as proxy,
            ground.scene(images=images, proxy=proxy) as scene,
        ):
            rows.append(_tried(name, scenario, scene, proxy))
            struck = ", ".join(f"{kind} {count}" for kind, count in sorted(proxy.struck().items()))
        say(f"{name}: {_told(rows[-1])} ({struck})")
    return rows


def killed_at_random(
    ground: Ground, say: Say, *, images: int = IMAGES, kills: int = KILLS, dropping: bool = False
) -> list[Counts]:
    """Kill a run again and again at random moments."""
    name = f"killed {kills} times at random" + (", replies dropped" if dropping else "")
    with ground.scene(images=images) as scene:
        try:
            verdict, died = scenarios.killed_at_random(scene, kills=kills, seed=ground.seed, dropping=dropping)
        except Exception as error:  # noqa: BLE001 - that is what the table is for
            counts = Counts(name, runs=1, wrong=(f"{name}: {type(error).__name__}: {error}",))
        else:
            counts = Counts.of(name, verdict, kills=died, may_be_unknown=dropping)
    say(f"{name}: {_told(counts)}")
    return [counts]


def killed_at_random_and_replies_dropped(ground: Ground, say: Say) -> list[Counts]:
    """Do so while the API accepts a tenth of the submits without a word."""
    return killed_at_random(ground, say, dropping=True)


def simulated(ground: Ground, say: Say, *, runs: int = SIMULATED_RUNS) -> list[Counts]:
    """Simulate runs on a clock, an API and a store of their own, each with what a seed draws for it."""

    def tell(swept: Swept) -> None:
        if swept.runs % 500 == 0 or swept.runs == runs:
            say(f"{swept.runs:,} simulated runs, {len(swept.failing)} of them wrong")

    first = (ground.seed - 1) * runs
    swept = sweep(range(first, first + runs), told=tell)
    events = swept.events
    say(", ".join(f"{event} {count:,}" for event, count in events.most_common()))
    counts = Counts(
        "simulated runs",
        runs=swept.runs,
        images=events["images"],
        kills=events["exit: killed"],
        rows=events["rows"],
        kept=events["row: kept"],
        dropped=events["dropped"],
        unknown=events["row: unknown"],
        bill=events["paid"],
        accepted_twice=events["accepted twice"],
        lost=events["lost"],
        wrong=tuple(f"seed {seed}: {problem}" for seed, problem in sorted(swept.failing.items())),
    )
    return [counts]


Section = Callable[[Ground, Say], list[Counts]]

# A section more is a line more: it is given the ground and a way to tell how far it is, and returns rows of the table.
SECTIONS: Final[list[tuple[str, Section]]] = [
    ("kills", killed_at_each_point),
    ("twins", twins),
    ("clock", clock),
    ("s3", s3_faults),
    ("marathon", killed_at_random),
    ("dropped", killed_at_random_and_replies_dropped),
    ("simulated", simulated),
]


@contextlib.contextmanager
def ground(store: Store, *, seed: int) -> Iterator[Ground]:
    """Run what all sections share."""
    with running_workers() as workers:
        yield Ground(store, workers, seed)


def _told(counts: Counts) -> str:
    if counts.wrong:
        return "WRONG: " + "; ".join(counts.wrong)
    unknown = f", {counts.unknown} unknown" if counts.unknown else ""
    return f"{counts.kept} of {counts.images} kept{unknown}, {counts.bill} on the bill"
