"""`variations stage`: an S3 server and the sandbox API on this machine, to try everything on; nothing is paid."""

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

from flows.commands.exits import ALL_KEPT
from flows.commands.terminal import say
from variations.errors import BadInput
from variations.sandbox.stage import Stage, furnish, running_stage

_HEAD = "# Written by `variations stage`, which removes it when it ends: the way to the servers of one stage.\n"


def stage(*, speed: float = 4.0, env: Path = Path("stage.env")) -> int:
    """Serve an S3 server with ten photos and their manifest, and the sandbox API, on this machine until Ctrl-C.

    Args:
        speed: divides the API's latency of 15.84 s.
        env: file for the variables by which everything else finds the two; a shell reads it with `source`.

    Raises:
        BadInput: the file is there, and no stage's, or cannot be written.
    """
    if speed <= 0:
        raise BadInput("--speed is what the API's latency is divided by: more than 0")
    _check_is_ours(env)
    # Like Ctrl-C, so that what was started ends with this command.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running_stage(speed=speed) as standing:
        os.environ.update(standing.environment)
        asyncio.run(furnish(standing))
        try:
            _write(env, standing)
            s3_url = standing.environment["AWS_ENDPOINT_URL"]
            say(f"S3 at {s3_url}, sandbox API (not FLUX) at {standing.sandbox.base_url}")
            say(f"{standing.photos} photos and their manifest are at {standing.source}")
            say(f"In every other terminal:  source {env}")
            say("Ctrl-C ends both; what is in the bucket, and the bill, is gone then")
            # For whoever waits for it, and reads standard output.
            sys.stdout.write(f"{env}\n")
            sys.stdout.flush()
            _wait()
        finally:
            env.unlink(missing_ok=True)
        say(f"The sandbox's bill: {len(standing.sandbox.bill().lines)} requests accepted")
    return ALL_KEPT


def _check_is_ours(env: Path) -> None:
    try:
        if env.exists() and not env.read_text(encoding="utf-8").startswith(_HEAD):
            raise BadInput(f"{env} is no stage's: give --env another file")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{env} cannot be read: give --env another file ({error})") from error


def _write(env: Path, standing: Stage) -> None:
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in standing.environment.items()]
    try:
        env.write_text("".join([_HEAD, *lines]), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{env} cannot be written: {error.strerror}") from error


def _wait() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        say("")
