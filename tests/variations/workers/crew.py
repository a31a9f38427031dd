"""A run with workers in the simulated world: a parent, its workers, and the bill."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from tests.variations.chaos.driver import Chaos, a_manifest, look
from tests.variations.chaos.world import CALM, Process, World
from variations.engine.limits import Limits
from variations.receipt import Receipt, RunStopped

ITEMS = 24
SHARDS = 8
Doing = Callable[["Crewed"], Awaitable[None]]


class Crewed(Chaos):
    """A run of some images with workers, in a world in which nothing goes wrong by itself."""

    own_limits: Limits | None = None
    is_broken = False
    # Seconds until each worker begins, in the order of their start; those after them begin at once.
    begin_after: tuple[float, ...] = ()

    async def help(self, process: Process, run_id: str) -> None:
        """Work on a run, unless no worker can."""
        if self.is_broken:
            raise RuntimeError("it does not start here")
        number = list(self.works_for).index(process.name)
        await process.clock.sleep(self.begin_after[number] if number < len(self.begin_after) else 0.0)
        await super().help(process, run_id)

    def limits(self) -> Limits:
        """How hard every process goes."""
        return self.own_limits or replace(super().limits(), max_cost_usd=0.0)

    def parent(self) -> Process:
        """Start the process that plans and publishes."""
        process = self.process()
        process.spawn(self.work(process))
        return process

    def workers(self) -> list[Process]:
        """Return the workers so far."""
        return [self.world.processes[name] for name in self.works_for]

    def accepted_by(self, process: Process) -> int:
        """Return how many submits of a process were accepted."""
        return sum(1 for billed in self.world.bill() if billed.process == process.name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(3600):
            while not condition():  # noqa: ASYNC110 - what it looks at is other code's
                await asyncio.sleep(0.05)

    async def receipt_of(self, process: Process) -> Receipt:
        """Wait for the end of a run, and return its receipt."""
        exit_ = await process.wait()
        if isinstance(exit_.error, RunStopped):
            return exit_.error.receipt
        assert isinstance(exit_.result, Receipt), exit_
        return exit_.result


def crewed(
    doing: Doing,
    *,
    workers: int = 2,
    limits: Limits | None = None,
    seed: int = 1,
    begin_after: tuple[float, ...] = (),
) -> None:
    """Do it in a world of its own; afterwards nobody paid twice, and what was paid is there."""
    with _manifest() as chaos_of:
        crew = chaos_of(World(seed, rates=CALM))
        crew.crew, crew.own_limits, crew.begin_after = workers, limits, begin_after

        async def main(_: World) -> list[str]:
            await doing(crew)
            await crew.world.quiet()
            return await look(crew)

        with patch("variations.planning.planner.MAX_SHARDS", SHARDS):
            assert crew.world.run(main) == []
        assert crew.world.complaints == []


@contextmanager
def _manifest() -> Iterator[Callable[[World], Crewed]]:
    with a_manifest(ITEMS) as manifest:
        yield lambda world: Crewed(world, manifest, ITEMS, resubmits=False, retries=False, budget=0)
