"""`variations demo`: the whole way on this machine, with nothing paid."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Final

from config.prefect_defaults import set_prefect_defaults
from flows.commands.options import NO_OPTIONS
from flows.commands.run import run
from flows.commands.terminal import say
from variations.engine.limits import LATENCY_SECONDS
from variations.errors import BadInput
from variations.layout import RUNS_PREFIX
from variations.sandbox.stage import furnish, running_stage
from variations.storage import open_storage

SPEED: Final = 8.0
# As everywhere, but eight times as fast, like the sandbox.
PACE: Final = {"requests_per_minute": 60 * SPEED, "variations_per_source": 2}
# Lies in what the demo wrote: nothing else is ever replaced.
MARKER: Final = ".variations-demo"
# What a user has set for the real API, the real S3 and a Prefect server is not the demo's.
_NOT_THE_DEMOS: Final = ("VARIATIONS_", "SEGMIND_", "AWS_", "PREFECT_")


def demo(*, output: Path = Path("demo-output")) -> int:
    """Run the flow on sample photos against a sandbox of the API and an S3 server on this machine; nothing is paid.

    Args:
        output: folder for a copy of the dataset; what an earlier demo left there is replaced.

    Raises:
        BadInput: the folder holds something else.
    """
    folder = output.absolute()
    claim(folder)
    expected = {"VARIATIONS_EXPECTED_LATENCY_SECONDS": str(LATENCY_SECONDS / SPEED)}
    with running_stage(speed=SPEED) as stage, _environment({**stage.environment, **expected}):
        say(f"S3 at {stage.environment['AWS_ENDPOINT_URL']}, sandbox API (not FLUX) at {stage.sandbox.base_url}")
        asyncio.run(furnish(stage))
        say(f"{stage.photos} photos and their manifest are at {stage.source}")
        options = NO_OPTIONS.model_copy(update=PACE)
        code = run(stage.source, stage.destination, options=options)
        _clear(folder)
        asyncio.run(_copy(stage.destination, folder))
        bill = stage.sandbox.bill()
    say(f"The sandbox's bill: {len(bill.lines)} requests accepted, {sum(line.cost_usd for line in bill.lines):.3f} USD")
    say(f"Look at {output}/report.html in a browser, {output}/images and {output}/metadata.parquet")
    return code


def claim(folder: Path) -> None:
    """Mark a folder as the demo's: one that is absent, empty, or was marked before.

    Raises:
        BadInput: it holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The demo leaves no `_runs`: where they are, a run of the user's has been.
        is_ours = (folder / MARKER).is_file() and not (folder / RUNS_PREFIX).exists()
        if any(folder.iterdir()) and not is_ours:
            raise BadInput(f"{folder} is not empty, and no demo's: give --output another folder, or empty this one")
        (folder / MARKER).write_text("`variations demo` replaces all that is in this folder.\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{folder} cannot be the demo's output: {error.strerror}") from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()


async def _copy(source: str, folder: Path) -> None:
    dataset = open_storage(source)
    async for entry in dataset.list():
        if not entry.key.startswith(RUNS_PREFIX):
            path = folder / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            await dataset.get_to_file(entry.key, path)
    await dataset.aclose()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in before:
        if name.startswith(_NOT_THE_DEMOS) and name != "PREFECT_HOME":
            del os.environ[name]
    # In an empty folder lies no variations.toml, prefect.toml or .env either.
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        # A server that lives for a minute has no usage to report. Without profiles, Prefect has no other server.
        os.environ.update({**variables, "DO_NOT_TRACK": "1", "PREFECT_PROFILES_PATH": f"{folder}/profiles.toml"})
        set_prefect_defaults()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
