"""A server in a process of its own: `python -m benches.serve sandbox '{"speed": 10}'`, or `s3`.

Its first line of standard output is its URL. It ends where its standard input does, so that it outlives nobody.
"""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator

from variations.sandbox import running_sandbox
from variations.sandbox.s3_server import running_s3


def main(kind: str, settings: str = "{}") -> None:
    """Serve until standard input ends."""
    # Ctrl-C reaches every process of a terminal: whoever started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with running_s3() if kind == "s3" else _sandbox(settings) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()


@contextlib.contextmanager
def _sandbox(settings: str) -> Iterator[str]:
    with running_sandbox(**json.loads(settings)) as sandbox:
        yield sandbox.base_url


if __name__ == "__main__":
    main(*sys.argv[1:])
