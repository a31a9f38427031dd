"""One run of chaos: a dataset of some images, made by processes that die, sleep and meet each other, drawn from a seed.

Afterwards a reference model looks at what the API has billed and what the dataset says, and names what does not fit.
"""

import asyncio
import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

import pyarrow.parquet as pq

from tests.variations.engine.simulation import output_url
from variations.api.client import Client
from variations.dataset import METADATA_KEY
from variations.engine.limits import Limits
from variations.errors import StoppedByUser, VariationsError
from variations.gate import Gate, OnFlagged
from variations.job import Job
from variations.layout import RUNS_PREFIX
from variations.ledger.journal import Journal
from variations.ledger.writer import Writer
from variations.parameters import Parameters
from variations.planned import read_planned
from variations.planning.recipe import Recipe
from variations.receipt import Receipt, RunStopped
from variations.run import Run, running
from variations.workers.worker import WorkerRun, working

from .api import Billed
from .world import CALM, Exit, Process, Rates, World

PRICE_USD: Final = 0.031
# After so long nothing is on its way any more, and the history has caught up with everything.
CALM_SECONDS: Final = 900.0
_DISTURBANCES: Final = (
    *("kill", "kill", "kill at a call", "kill at a step", "stall", "stall at a call", "stall at a step"),
    *("stall at a step", "interrupt", "expire", "none"),
)
# Parts of "<call> <key>".
_STEPS: Final = ("plan.json", "open.json", "/journal/", "00000000.jsonl", "submit ", "metadata", "receipt", "images/")
# What the world makes has one size, and looks alike; and its sources are nowhere.
GATE: Final = Gate(size_percent=0, twin_bits=0, sources=False)
PARAMETERS: Final = Parameters(megapixels="0.25")
RECIPE: Final = Recipe(gate=GATE)
# How often a place is filled where flagged images are made again.
ROLLS: Final = 3


@dataclass(frozen=True)
class Found:
    """What a run of chaos came to.

    Attributes:
        problems: what the reference model found; there must be none.
        events: how often what happened, for the report.
    """

    seed: int
    problems: tuple[str, ...]
    events: Counter[str]
    story: str = field(repr=False, default="")


@dataclass
class Chaos:
    """The drawn plan of one run.

    Attributes:
        items: images wanted.
        resubmits: whether unknown ones are submitted again after a wait.
        budget: of each process, in images; 0 for none.
        outputs: images that each request is for.
        retries: whether the last processes try again what failed.
        canary: of each run, so many variations that are made and looked at before the rest, which is made whatever
            they came to.
        on_flagged: what becomes of images that show nothing.
        crew: of each process, so many workers that make its shards; 0 where it makes them itself.
        works_for: of each worker the process that it works for.
        runs: what each process works at.
    """

    world: World
    manifest: Path
    items: int
    resubmits: bool
    retries: bool
    budget: int
    outputs: int = 1
    on_flagged: OnFlagged = "keep"
    crew: int = 0
    canary: int = 0
    works_for: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Run | WorkerRun] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    names: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def job(self) -> Job:
        """What every process is to do."""
        wait = CALM_SECONDS / 2 if self.resubmits else None
        gate = replace(GATE, on_flagged=self.on_flagged, max_rolls=ROLLS)
        recipe = replace(
            RECIPE,
            parameters=PARAMETERS.model_copy(update={"num_outputs": self.outputs}),
            resubmit_after_seconds=wait,
            retry_failed=self.retries,
            gate=gate,
            canary=self.canary,
        )
        return Job(str(self.manifest), str(self.manifest.parent / "dataset"), recipe)

    def limits(self) -> Limits:
        """How hard every process goes."""
        return Limits(
            max_in_flight=8,
            requests_per_minute=0,
            deadline_seconds=300,
            poll_interval_seconds=8,
            max_cost_usd=self.budget * PRICE_USD,
            grace_seconds=10,
        )

    def process(self) -> Process:
        """Return a new process."""
        return Process(self.world, f"p{next(self.names)}")

    async def work(self, process: Process, *, wait: bool = False, stop_after: float | None = None) -> Receipt:
        """Run from beginning to end, as a flow does."""
        token = f"{process.name}-{int(process.random() * 16**8):08x}"
        writer = Writer(token=token.replace("p", "", 1), host="simulated", pid=1)
        async with running(
            self.job(),
            storage=process.storage,
            client=Client(process.http, endpoint=self.world.endpoint),
            limits=self.limits(),
            clock=process.clock,
            random=process.random,
            writer=writer,
        ) as run:
            self.runs[process.name] = run
            if stop_after is not None:
                asyncio.get_running_loop().call_later(stop_after, run.engine.stop, StoppedByUser("SIGTERM"))
            await run.check()
            await run.recover(wait=wait)
            plan = await run.plan(workers=self.crew)
            if plan.canary:
                await _make_all(run)
            if plan.canary and plan.canary_shards != plan.shards and run.engine.stopped_by is None:
                canary = await run.look_at_canary()
                if canary is not None:
                    self.events["canaries"] += 1
                    await run.go_on("passed" if canary.is_good else "allowed")
            if self.crew and not (plan.canary and run.engine.stopped_by):
                crew = await run.open_to_workers()
                await crew.lead(Workers(self, process, run.run_id), workers=self.crew)
            else:
                await _make_all(run)
            return await run.publish()

    async def help(self, process: Process, run_id: str) -> None:
        """Work on a run that another process has planned, as a worker's flow does."""
        planned = await read_planned(process.storage, run_id)
        assert planned is not None
        async with working(
            planned,
            storage=process.storage,
            client=Client(process.http, endpoint=self.world.endpoint),
            limits=planned.limits(self.limits()),
            clock=process.clock,
            random=process.random,
            writer=Writer(token=f"{int(process.random() * 16**16):016x}", host="simulated", pid=1),
            label=process.name,
        ) as run:
            self.runs[process.name] = run
            await run.check()
            await run.join()
            await _make_all(run)

    async def disturb(self, process: Process) -> None:
        """Do to a process what is drawn, at a moment that is drawn."""
        random = self.world.random
        what = random.choice(_DISTURBANCES)
        self.events[what] += 1
        after = random.choice((0.2, 2.0, 20.0, 60.0)) * random.random()
        # Of the calls at which it may strike: any, or those of one step, where most depends on what comes between.
        step = random.choice(_STEPS) if what.endswith("at a step") else ""
        number = random.choice((1, 1, 2, 3, 10, 30)) if step else random.randrange(1, 250)
        seconds = random.choice((20.0, 90.0, 200.0, 600.0))
        seen = 0

        def at_call(call: str, key: str) -> None:
            nonlocal seen
            seen += step in f"{call} {key}"
            if seen >= number and not process.is_over:
                process.on_call = lambda *_: None
                process.kill() if what.startswith("kill") else process.stall(seconds)

        if what.endswith(("at a call", "at a step")):
            process.on_call = at_call
            return
        await asyncio.sleep(after)
        if process.is_over:
            return
        if what == "kill":
            process.kill()
        elif what == "stall":
            process.stall(seconds)
        elif what == "interrupt":
            process.interrupt()
        elif what == "expire":
            process.expire_credentials()


class Workers:
    """Starts workers of a run as processes of the same world, and now and then disturbs one."""

    def __init__(self, chaos: Chaos, parent: Process, run_id: str) -> None:
        self._chaos = chaos
        self._parent = parent.name
        self._run_id = run_id

    async def start(self) -> str:
        """Start one."""
        process = self._chaos.process()
        self._chaos.events["workers"] += 1
        self._chaos.works_for[process.name] = self._parent
        process.spawn(self._chaos.help(process, self._run_id))
        if self._chaos.world.rates is not CALM and self._chaos.world.random.random() < 0.5:
            self._chaos.world.in_the_open(self._chaos.disturb(process))
        return process.name

    async def ended(self, labels: Collection[str]) -> dict[str, str]:
        """Tell which have ended, by their scheduler's word."""
        processes = [self._chaos.world.processes[label] for label in labels]
        return {one.name: f"{_why(one.exit)}: {one.exit.error}" for one in processes if one.exit is not None}

    async def withdraw(self, labels: Collection[str]) -> None:
        """Leave them: who comes too late finds the run over."""


async def _make_all(run: Run | WorkerRun) -> None:
    places = asyncio.Semaphore(12)
    making = set()

    async def make(shard: int) -> None:
        try:
            await run.make(shard)
        finally:
            places.release()

    while True:
        await places.acquire()
        shard = await run.take()
        if shard is None:
            break
        making.add(asyncio.create_task(make(shard)))
    await asyncio.gather(*making)


def run_chaos(seed: int, *, manifest: Path, items: int = 50, tell: bool = False) -> Found:
    """Run one seed; the same seed gives the same run. `tell` asks for the story even if there is no problem."""
    world = World(seed)
    random = world.random
    world.rates = Rates().times(random.choice((0.0, 0.5, 1.0, 1.0, 3.0)))
    chaos = Chaos(
        world,
        manifest,
        items,
        resubmits=random.random() < 0.3,
        retries=random.random() < 0.2,
        budget=random.choice((0, 0, 0, items, items + items // 2)),
    )
    # Drawn apart, so that a seed without workers is what it was before there were any.
    apart = Random(seed)  # noqa: S311 - no secret
    chaos.crew = apart.choice((1, 2, 2, 3, 4)) if apart.random() < 0.4 else 0
    chaos.canary = apart.choice((1, 4, 10)) if apart.random() < 0.3 else 0
    chaos.on_flagged = apart.choice(("keep", "drop", "reroll", "reroll", "reroll"))
    world.api.blank_share = apart.choice((0.0, 0.1, 0.3, 0.6))
    chaos.outputs = apart.choice((2, 3, 4)) if apart.random() < 0.3 else 1
    chaos.budget *= chaos.outputs
    # With many shards a run is mostly parquet, and takes five times as long.
    largest = 200 if random.random() < 0.04 else random.choice((2, 3, 5, 8))
    with patch("variations.planning.planner.MAX_SHARDS", largest):
        problems = world.run(lambda _: _main(chaos))
    problems += [f"complaint: {complaint}" for complaint in world.complaints]
    return Found(seed, tuple(problems), chaos.events, world.story() if problems or tell else "")


async def _main(chaos: Chaos) -> list[str]:
    world, random = chaos.world, chaos.world.random
    for _ in range(random.choice((1, 2, 2, 3))):
        twins = random.choice((1, 1, 2, 2, 3))
        chaos.events["twins"] += twins > 1
        processes = [chaos.process() for _ in range(twins)]
        disturbing = []
        for process in processes:
            stop_after = 60 * random.random() if random.random() < 0.15 else None
            process.spawn(chaos.work(process, wait=random.random() < 0.5, stop_after=stop_after))
            disturbing.append(asyncio.create_task(chaos.disturb(process)))
            await asyncio.sleep(random.choice((0.0, 0.0, 0.1, 5.0)) * random.random())
        await asyncio.sleep(random.choice((5.0, 40.0, 100.0, 4000.0)) * random.random())
        if random.random() < 0.5:
            for process in processes:
                await process.wait()
        for disturbance in disturbing:
            await disturbance
        for exit_ in (process.exit for process in processes if process.exit is not None):
            chaos.events[f"exit: {_why(exit_)}"] += 1
    world.rates = CALM
    return await _calm(chaos)


def _why(exit_: Exit) -> str:
    error = exit_.error.reason if isinstance(exit_.error, RunStopped) else exit_.error
    return error.code if isinstance(error, VariationsError) else exit_.how


async def _calm(chaos: Chaos) -> list[str]:
    """Let everything end, run until nothing is left to do, and look."""
    for process in list(chaos.world.processes.values()):
        if not process.is_over and chaos.world.random.random() < 0.5:
            process.kill()
        await process.wait()
    await chaos.world.quiet()
    problems: list[str] = []
    receipt: Receipt | None = None
    # Until there was nothing to do: one to recover and make the rest, one to see that this was all, more where a budget
    # ends each of them.
    while receipt is None or receipt.wanted:
        await asyncio.sleep(CALM_SECONDS)
        process = chaos.process()
        process.spawn(chaos.work(process))
        exit_ = await process.wait()
        if exit_.error is not None and not isinstance(exit_.error, RunStopped):
            problems.append(f"the run in a calm world ended with {exit_.error!r}")
        elif isinstance(exit_.error, RunStopped) and exit_.error.receipt.stopped_by != "budget":
            problems.append(f"the run in a calm world was stopped: {exit_.error!r}")
        if problems:
            break
        receipt = exit_.error.receipt if isinstance(exit_.error, RunStopped) else exit_.result
    await chaos.world.quiet()
    await asyncio.sleep(CALM_SECONDS)
    return problems + await look(chaos)


async def look(chaos: Chaos) -> list[str]:
    """Compare the bill with the dataset: the reference model."""
    rows = _rows_of(chaos)
    return [*_bill(chaos, rows), *_images(chaos, rows), *_budgets(chaos), *await _journals(chaos)]


def _rows_of(chaos: Chaos) -> list[dict[str, Any]]:
    content = chaos.world.store.get(METADATA_KEY)
    return pq.read_table(io.BytesIO(content)).to_pylist() if content else []


def _bill(chaos: Chaos, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Every image has one row, no variation was accepted twice, and what was paid is there, or was dropped."""
    of_item: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["output_index"]):
        of_item.setdefault((row["source_uri"], row["seed"]), []).append(row)
    places = _places(of_item.values())
    if len(places) != chaos.items:
        yield f"{len(rows)} rows of {len(of_item)} variations of {len(places)} sources, {chaos.items} were wanted"
    for name, filled in places.items():
        yield from _place(chaos, name, filled)
    chaos.events["images"] += chaos.items * chaos.outputs
    chaos.events["rows"] += len(rows)
    for inputs, requests in chaos.world.accepted().items():
        if len(requests) > 1 and not chaos.retries:
            chaos.events["accepted twice"] += 1
            yield f"{inputs} was accepted {len(requests)} times: {requests}"
    for billed in chaos.world.bill():
        chaos.events["paid"] += billed.outputs if billed.cost_usd else 0
        images = of_item.get((billed.inputs["redux_image"].partition("?")[0], billed.inputs["seed"]), [])
        if not images:
            yield f"{billed.request_id} was billed, and has no row"
        elif billed.cost_usd:
            yield from _paid(chaos, billed, images)


def _paid(chaos: Chaos, billed: Billed, images: list[dict[str, Any]]) -> Iterator[str]:
    """Each image of a request that was paid is there, or was dropped, once; what it did not make costs nothing."""
    files = {output_url(billed.request_id, index): index for index in range(billed.outputs)}
    for row in images:
        index = files.pop(row["output_url"], None) if row["request_id"] == billed.request_id else None
        if index is None:
            # It is given up with what was flagged, where that is made again.
            due = {"failed", "rejected"}
        else:
            is_dropped = chaos.on_flagged != "keep" and chaos.world.api.is_blank(billed.request_id, index)
            due = {"rejected" if is_dropped else "kept"}
        if row["status"] not in due:
            yield f"{billed.request_id} was paid, and an image is {row['status']}: {row['request_id']}, {row['error']}"
    cost_usd = sum(row["cost_usd"] for row in images)
    # A row has what earlier attempts cost, and that of one that is submitted again it may never have.
    if not (chaos.retries or chaos.resubmits) and abs(cost_usd - billed.cost_usd) > PRICE_USD / 1000:
        yield f"{billed.request_id} cost {billed.cost_usd:.3f}, and its rows say {cost_usd:.3f}"
    chaos.events["lost"] += len(files)
    if files:
        yield f"{billed.request_id} was paid, and its images {sorted(files.values())} have no row"


def _places(variations: Iterable[list[dict[str, Any]]]) -> dict[str, list[list[dict[str, Any]]]]:
    """Return the variations of each source, by their rows, in the order in which they took each other's place."""
    places: dict[str, list[list[dict[str, Any]]]] = {}
    for images in sorted(variations, key=lambda images: images[0]["roll"]):
        places.setdefault(images[0]["source_id"], []).append(images)
    return places


def _place(chaos: Chaos, name: str, filled: list[list[dict[str, Any]]]) -> Iterator[str]:
    """A place is filled anew where what was made for it is flagged, and so many times; nothing is left to do there."""
    chaos.events["made again"] += len(filled) - 1
    if any([row["output_index"] for row in images] != list(range(chaos.outputs)) for images in filled):
        yield f"{name} has the images {[[row['output_index'] for row in images] for images in filled]}"
    statuses = [{row["status"] for row in images} for images in filled]
    if [images[0]["roll"] for images in filled] != list(range(len(filled))):
        yield f"{name} was filled by {[images[0]['roll'] for images in filled]}"
    if any(earlier != {"rejected"} for earlier in statuses[:-1]):
        yield f"{name} was filled anew after {statuses}"
    most = ROLLS if chaos.on_flagged == "reroll" else 1
    is_vacant = "rejected" in statuses[-1] and not statuses[-1] & {"kept", "unknown"}
    if len(filled) > most or (is_vacant and len(filled) < most):
        yield f"{name} was filled {len(filled)} times: {statuses}"


def _images(chaos: Chaos, rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is kept is there, and is the image of its request; what may be submitted again does not stay unknown."""
    for row in rows:
        chaos.events[f"row: {row['status']}"] += 1
        chaos.events["dropped"] += row["status"] == "rejected" and row["verdict"] is not None
        if row["status"] == "unknown" and chaos.resubmits:
            yield f"{row['variation_id']} is unknown, though it may be submitted again: {row['error']}"
        if row["status"] != "kept":
            continue
        # The history names the images of a request in any order.
        index = int(row["output_url"].removesuffix(".jpg").rpartition("-")[2])
        content = chaos.world.api.content(row["request_id"], index)
        is_flagged = row["verdict"] == "flagged: blank"
        if is_flagged != chaos.world.api.is_blank(row["request_id"], index) or row["verdict"] not in _VERDICTS:
            yield f"{row['file_name']} has the verdict {row['verdict']}"
        sha256 = hashlib.sha256(content).hexdigest()
        if chaos.world.store.get(row["file_name"]) != content or row["sha256"] != sha256:
            yield f"{row['file_name']} is not the image of {row['request_id']}"


_VERDICTS: Final = {"passed", "flagged: blank"}


def _budgets(chaos: Chaos) -> Iterator[str]:
    if not chaos.budget:
        return
    spent: Counter[str] = Counter()
    for billed in chaos.world.bill():
        # One that failed costs nothing, and leaves room for another one.
        spent[chaos.works_for.get(billed.process, billed.process)] += billed.outputs if billed.state != "FAILED" else 0
    for process, images in spent.items():
        if images > chaos.budget and not chaos.retries:
            yield f"{process} had {images} images accepted, with a budget for {chaos.budget}"


async def _journals(chaos: Chaos) -> list[str]:
    """Replay every journal: no variation may have two accepted submits in one."""
    problems = []
    storage = Process(chaos.world, "reader").storage
    places = {tuple(key.split("/")[1:4:2]) for key in chaos.world.store.keys(RUNS_PREFIX) if "/journal/" in key}
    for run_id, shard in sorted(places):
        journal = Journal(storage, run_id=run_id, shard=int(shard), writer="")
        await journal.replay()
        problems += [f"{item.variation_id}: {item.request_ids}" for item in journal.story.accepted_twice()]
    return problems


@contextmanager
def a_manifest(items: int = 50) -> Iterator[Path]:
    """Write a manifest of so many sources."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest.jsonl")
        rows = [{"id": f"s{number}", "url": f"https://photos.example/{number}.jpg"} for number in range(items)]
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        yield path
