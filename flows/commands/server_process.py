"""Prefect's server, as a process that ends with the one that started it. `temporary_server` runs it by its path.

Its argument is the number of the socket on which it listens, which it has inherited. Its standard input is a pipe on
which nothing is ever sent: it is closed by who started it, or by the system when that process is gone, however it went.
"""

import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

# To finish what it has been told, and close its database.
END_SECONDS: Final = 5.0


def main() -> None:
    """Serve until standard input ends."""
    server = uvicorn.Server(uvicorn.Config(_app, factory=True, lifespan="on", log_level="error"))
    # It watches from the first moment on: Prefect's import and its migrations take up to a minute.
    threading.Thread(target=_end_with_the_other, args=(server,), name="end-with-the-other", daemon=True).start()
    server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def _app() -> "FastAPI":
    from prefect.server.api.server import create_app  # noqa: PLC0415 - not before somebody watches

    return create_app(ephemeral=True, final=True)


def _end_with_the_other(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
    time.sleep(END_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main()
