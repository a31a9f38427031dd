"""The stage of the end-to-end tests: Prefect, S3, the API, what `variations deploy` makes, and workers."""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from variations.ledger.lock import OpenRun, look
from variations.ledger.writer import Writer
from variations.sandbox import Sandbox, running_sandbox, sample_photos
from variations.sandbox.s3_server import running_s3
from variations.storage import open_storage
from variations.workers.roster import Roster, Sign

from .prefect_server import PrefectServer, running_server
from .processes import Running, kill_all, running, until

# Of a request that the test does not hold up.
LATENCY_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 10
SLOTS: Final = 4
POOL: Final = "variations"
COMMAND_SECONDS: Final = 180.0
# From the click to the first line; the process of a flow run takes some ten seconds to start.
BEGIN_SECONDS: Final = 240.0
END_SECONDS: Final = 240.0
FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


@dataclass(frozen=True, slots=True)
class Sources:
    """A manifest of photos in a bucket of its own, and where their dataset is to grow."""

    source: str
    destination: str


@dataclass(frozen=True)
class Stage:
    """What stands on it.

    Attributes:
        server: Prefect's.
        sandbox: the API.
        s3_url: the S3 server.
        folder: where everything runs, with a log of each process.
        env: all of the environment of a worker.
        user_env: that of the user's shell, in which the key is.
    """

    server: PrefectServer
    sandbox: Sandbox
    s3_url: str
    folder: Path
    env: Mapping[str, str]
    user_env: Mapping[str, str]

    def variations(self, *arguments: str) -> str:
        """Run a command as a user does; returns what it prints."""
        done = subprocess.run(  # noqa: S603
            [Path(sys.executable).with_name("variations"), *arguments],
            cwd=self.folder,
            env=dict(self.user_env),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"variations {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def worker(self, name: str) -> Iterator[Running]:
        """Start a worker of the pool: a process that is a machine of its own, as far as Prefect knows."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        with running(name, [*command, "--name", name], folder=self.folder, env=self.env) as process:
            yield process

    def online(self) -> set[str]:
        """Return the names of the workers of which the server has heard of late."""
        workers = self.server.post(f"/work_pools/{POOL}/workers/filter", {})
        return {worker["name"] for worker in workers if worker["status"] == "ONLINE"}

    def fill(self, bucket: str, *, photos: int) -> Sources:
        """Make a bucket with photos and a manifest of them."""
        root = f"{self.s3_url}/{bucket}"
        httpx.put(root).raise_for_status()
        chosen = sample_photos()[:photos]
        assert len(chosen) == photos
        for photo in chosen:
            httpx.put(f"{root}/photos/{photo.name}", content=photo.read_bytes()).raise_for_status()
        urls = [f"s3://{bucket}/photos/{photo.name}" for photo in chosen]
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": [photo.name for photo in chosen], "image_url": urls}), sink)
        httpx.put(f"{root}/manifest.parquet", content=sink.getvalue()).raise_for_status()
        return Sources(f"s3://{bucket}/manifest.parquet", f"s3://{bucket}/dataset")

    def writer(self, sources: Sources) -> Writer | None:
        """Return the process that has the run which is open on a dataset; None where there is none."""
        run = asyncio.run(_open_run(sources.destination))
        return run.writer if run is not None else None

    def signs(self, sources: Sources) -> list[Sign]:
        """Return the signs of life of the workers of the run that is open on a dataset."""

        async def read() -> list[Sign]:
            run = await _open_run(sources.destination)
            if run is None:
                return []
            async with aclosing(open_storage(sources.destination)) as storage:
                return await Roster(storage, run.run_id, lease_seconds=run.lease_seconds).signs()

        return asyncio.run(read())

    def until_ended(self, flow_run_id: str, *, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Wait for the end of a flow run; returns its last state."""

        def state() -> dict[str, Any] | None:
            now = self.server.flow_run(flow_run_id)["state"]
            return now if now["type"] in FINAL else None

        return until(f"the end of the flow run {flow_run_id}", state, seconds=seconds)


async def _open_run(destination: str) -> OpenRun | None:
    async with aclosing(open_storage(destination)) as storage:
        seen = await look(storage)
        return seen.run if seen is not None else None


@contextmanager
def running_stage(folder: Path, *, database_url: str | None) -> Iterator[Stage]:
    """Put up the servers, and run `variations deploy`; a worker is started by who needs one.

    Args:
        folder: for everything.
        database_url: Prefect's database; None for SQLite.
    """
    (folder / "tmp").mkdir()
    own = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "PREFECT_HOME": str(folder / "prefect"),
        # Where the tests run from another checkout than the one that is installed.
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }
    with ExitStack() as stack:
        # Flow runs whose worker went without a word would be left.
        stack.callback(kill_all, "HOME", own["HOME"])
        s3_url = stack.enter_context(running_s3())
        sandbox = stack.enter_context(running_sandbox(latency_seconds=LATENCY_SECONDS))
        server = stack.enter_context(running_server(folder, own, database_url=database_url))
        env = {
            **own,
            "PREFECT_API_URL": server.api_url,
            # Prefect's own worker asks every ten seconds for something to do.
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "AWS_ENDPOINT_URL": s3_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        # The workers are told the rest by the blocks that `variations deploy` makes of it.
        user_env = {
            **env,
            "SEGMIND_API_KEY": sandbox.api_key,
            "SEGMIND_BASE_URL": sandbox.base_url,
            "SEGMIND_HISTORY_URL": f"{sandbox.base_url}/inference-request/request-history",
            "SEGMIND_UPLOAD_URL": f"{sandbox.base_url}/upload-asset",
            "VARIATIONS_LEASE_SECONDS": str(LEASE_SECONDS),
            "VARIATIONS_EXPECTED_LATENCY_SECONDS": str(LATENCY_SECONDS),
        }
        yield Stage(server, sandbox, s3_url, folder, env, user_env)
