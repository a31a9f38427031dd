"""A PostgreSQL server of its own: a new cluster in a temporary folder, reached by a socket in it and nothing else."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from .processes import running, until

START_SECONDS: Final = 60.0
# Where Debian puts its programs, which are on nobody's PATH.
DEBIAN: Final = Path("/usr/lib/postgresql")
# What it refuses to run as is root; Debian's package brings a user for it.
USER: Final = "postgres"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None if it is not installed."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).parent
    folders = [folder for folder in DEBIAN.glob("*/bin") if (folder / "initdb").is_file()]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


@contextmanager
def running_database() -> Iterator[str | None]:
    """Run PostgreSQL where E2E_DATABASE says so, and yield the URL of its database; else None, which is SQLite."""
    if os.environ.get("E2E_DATABASE", "sqlite") != "postgresql":
        yield None
        return
    if (found := programs()) is None:
        # Where nobody may install it; CI does. Without E2E_DATABASE the same tests run on SQLite.
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgres(found) as url:
        yield url


@contextmanager
def running_postgres(programs: Path) -> Iterator[str]:
    """Run a server, and yield the URL of an empty database as Prefect wants it."""
    # Short: the path of a socket has a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
        user = {"user": USER, "group": USER, "extra_groups": []}
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    data = folder / "data"
    try:
        subprocess.run(  # noqa: S603
            [programs / "initdb", "--auth=trust", "--username=prefect", "--encoding=UTF8", "--no-sync", data],
            cwd=folder,
            env=env,
            capture_output=True,
            check=True,
            **user,
        )
        # What is lost when the machine loses its power is not asked for here.
        settings = ["-c", "listen_addresses=", "-c", "fsync=off"]
        command: list[str | Path] = [programs / "postgres", "-D", data, "-k", folder, *settings]
        with running("postgres", command, folder=folder, env=env, **user) as server:
            socket = folder / ".s.PGSQL.5432"
            until("PostgreSQL's socket", socket.exists, seconds=START_SECONDS, every=0.2, processes=[server])
            # Its own database, for it is empty and there.
            yield f"postgresql+asyncpg://prefect@/postgres?host={folder}"
            # Not the patient end, which waits for its clients.
            server.end(signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
