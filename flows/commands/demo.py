"""`variations demo`: the whole way on this machine, with nothing paid."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flows.commands.options import NO_OPTIONS
from flows.commands.run import run
from flows.commands.terminal import say
from variations.sandbox.stage import furnish, running_stage
from variations.storage import open_storage

SPEED: Final = 8.0
# As everywhere, but eight times as fast, like the sandbox.
PACE: Final = {"requests_per_minute": 480 * 2.0, "poll_interval_seconds": 0.5, "variations_per_source": 2}


def demo(*, output: Path = Path("demo-output")) -> int:
    """Run the flow on sample photos against a sandbox of the API and an S3 server on this machine; nothing is paid.

    Args:
        output: folder for a copy of the dataset; what an earlier demo left there is replaced.
    """
    with running_stage(speed=SPEED) as stage, _environment(stage.environment):
        say(f"S3 at {stage.environment['AWS_ENDPOINT_URL']}, sandbox API (not FLUX) at {stage.sandbox.base_url}")
        asyncio.run(furnish(stage))
        say(f"{stage.photos} photos and their manifest are at {stage.source}")
        options = NO_OPTIONS.model_copy(update=PACE)
        code = run(stage.source, stage.destination, options=options)
        asyncio.run(_copy(stage.destination, output))
        bill = stage.sandbox.bill()
    say(f"The sandbox's bill: {len(bill.lines)} requests accepted, {sum(line.cost_usd for line in bill.lines):.3f} USD")
    say(f"Look at {output}/images and {output}/metadata.parquet")
    return code


async def _copy(source: str, output: Path) -> None:
    if (output / "metadata.parquet").exists():
        shutil.rmtree(output)
    dataset = open_storage(source)
    async for entry in dataset.list():
        if not entry.key.startswith("_runs/"):
            path = output / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            await dataset.get_to_file(entry.key, path)
    await dataset.aclose()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    # What a user has set for the real API and the real S3 is not the demo's.
    for name in [name for name in os.environ if name.startswith(("VARIATIONS_", "SEGMIND_", "AWS_"))]:
        del os.environ[name]
    # A server that lives for a minute has no usage to report.
    os.environ.update({**variables, "DO_NOT_TRACK": "1"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
