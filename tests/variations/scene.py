"""A place with photos, a manifest and a destination, and the sandbox: what whole runs are tried on."""

import asyncio
import io
import json
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from variations import errors
from variations.api.client import Client, Endpoint
from variations.api.http import default_http_client
from variations.clock import SystemClock
from variations.dataset import METADATA_KEY
from variations.engine.limits import Limits
from variations.job import Job
from variations.ledger.writer import Writer
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.recipe import Recipe
from variations.receipt import Receipt
from variations.run import Run, open_run, running
from variations.sandbox import Sandbox
from variations.storage import Storage, open_storage

LIMITS = Limits(max_in_flight=8, requests_per_minute=0, poll_interval_seconds=0.02, deadline_seconds=20)
SMALL = Recipe(parameters=Parameters(megapixels="0.25"))


def photo(name: str) -> bytes:
    """Return a small image, of its own shade: the same one for a name, whatever the manifest it is in."""
    shade = zlib.crc32(name.encode()) % 256
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize((64, 64))
    Image.merge("RGB", [image, image, Image.new("L", (64, 64), shade)]).save(buffer, "JPEG")
    return buffer.getvalue()


def endpoint_of(api: Sandbox, *, key: str | None = None) -> Endpoint:
    """Return the sandbox as the API."""
    root = api.base_url
    history, upload = f"{root}/inference-request/request-history", f"{root}/upload-asset"
    return Endpoint(key or api.api_key, root, history, upload)


@dataclass
class Scene:
    """A place with photos, a manifest and a destination, and the API; `changed` is what is asked for in another way."""

    place: str
    api: Sandbox
    changed: Job | None = None

    @property
    def job(self) -> Job:
        """From the manifest to the destination."""
        return self.changed or Job(f"{self.place}/manifest.jsonl", f"{self.place}/dataset", SMALL)

    @property
    def dataset(self) -> Storage:
        """The destination."""
        return open_storage(self.job.destination, missing_ok=True)

    async def furnish(self, *rows: str | Mapping[str, Any]) -> None:
        """Write photos, and the manifest that names them; a row that is no text is written as it is."""
        storage = open_storage(self.place, missing_ok=True)
        lines = []
        for row in rows:
            if isinstance(row, str):
                await storage.put(f"photos/{row}.jpg", photo(row))
                row = {"id": row, "url": f"photos/{row}.jpg"}  # noqa: PLW2901 - that is its row
            lines.append(json.dumps(row))
        await storage.put("manifest.jsonl", "\n".join(lines).encode())

    @asynccontextmanager
    async def opened(self, job: Job | None = None, *, limits: Limits = LIMITS, **changes: Any) -> AsyncIterator[Run]:
        """Open a run."""
        async with open_run(job or self.job, endpoint=endpoint_of(self.api, **changes), limits=limits) as run:
            yield run

    async def run(self, job: Job | None = None, *, limits: Limits = LIMITS) -> Receipt:
        """Run from beginning to end, as a flow does."""
        async with self.opened(job, limits=limits) as run:
            await run.check()
            plan = await planned(run)
            await asyncio.gather(*(run.make(shard) for shard in range(plan.shards)))
            return await run.publish()

    async def rows(self) -> list[dict[str, Any]]:
        """Read the metadata."""
        return pq.read_table(io.BytesIO(await self.dataset.get(METADATA_KEY))).to_pylist()

    async def keys(self, prefix: str = "") -> list[str]:
        """List the destination."""
        return [entry.key async for entry in self.dataset.list(prefix)]


async def planned(run: Run) -> Plan:
    """Take the dataset in hand, and plan."""
    await run.recover()
    return await run.plan()


def tried_again(job: Job) -> Job:
    """Return a job that tries again what failed."""
    return replace(job, recipe=replace(job.recipe, retry_failed=True))


class Refusing:
    """A storage that refuses to write some keys."""

    def __init__(self, storage: Storage, *, refuses: Callable[[str], bool]) -> None:
        self._storage = storage
        self.refuses = refuses

    def __getattr__(self, name: str) -> Any:
        """Hand out all but what is refused."""
        return getattr(self._storage, name)

    async def put(self, key: str, data: Any, **options: Any) -> Any:
        """Write, or not."""
        return await self._write(self._storage.put, key, data, options)

    async def put_if_absent(self, key: str, data: Any, **options: Any) -> Any:
        """Write, or not."""
        return await self._write(self._storage.put_if_absent, key, data, options)

    async def replace(self, key: str, data: Any, **options: Any) -> Any:
        """Write, or not."""
        return await self._write(self._storage.replace, key, data, options)

    async def _write(self, write: Callable[..., Awaitable[Any]], key: str, data: Any, options: dict[str, Any]) -> Any:
        if self.refuses(key):
            raise errors.AccessDenied(f"{key}: access denied")
        return await write(key, data, **options)


@asynccontextmanager
async def refusing_run(scene: Scene, refuses: Callable[[str], bool]) -> AsyncIterator[tuple[Run, Any]]:
    """Open a run whose destination refuses keys."""
    storage: Any = Refusing(scene.dataset, refuses=refuses)
    async with default_http_client(max_connections=8) as http:
        client = Client(http, endpoint=endpoint_of(scene.api))
        async with running(scene.job, storage=storage, client=client, limits=LIMITS, clock=SystemClock()) as run:
            yield run, storage


def dead_writer() -> Writer:
    """Return a process of this machine that is gone."""
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    return replace(Writer.this_process(since=datetime.now(UTC)), pid=ended.pid, started="0")


@asynccontextmanager
async def killed(scene: Scene, *, writer: Writer) -> AsyncIterator[Run]:
    """Open a run as of another process, which writes nothing more at its end, as one that is killed."""
    storage: Any = Refusing(scene.dataset, refuses=lambda _: False)
    async with default_http_client(max_connections=8) as http:
        client = Client(http, endpoint=endpoint_of(scene.api))
        parts: dict[str, Any] = {"storage": storage, "client": client, "limits": LIMITS, "clock": SystemClock()}
        async with running(scene.job, **parts, writer=writer) as run:
            yield run
            storage.refuses = lambda _: True


async def killed_in_flight(scene: Scene, *, writer: Writer) -> str:
    """Run until every request is in flight, and kill it there; by now they are done. Return its id."""
    scene.api.configure(speed=1, latency_seconds=30.0)
    async with killed(scene, writer=writer) as run:
        plan = await planned(run)
        making = asyncio.gather(*(run.make(shard) for shard in range(plan.shards)))
        async with asyncio.timeout(30):
            while run.engine.progress.in_flight < plan.new:  # noqa: ASYNC110 - a counter knows no event
                await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    scene.api.configure(speed=1000)
    scene.api.advance_clock(31)
    return run.run_id
