"""A real S3 server for tests: Ceph's object gateway with one monitor and one disk, on loopback.

It needs Debian and root. Everything it keeps lies in a temporary folder, and goes with it.
"""

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

PACKAGES: Final = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
START_TIMEOUT_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 20.0

_ACCESS_KEY: Final = "MADEUPCEPHACCESSKEY"
_SECRET_KEY: Final = "made-up-ceph-secret"
_WITHOUT_SETTINGS: Final = {"ceph-authtool", "monmaptool"}
_POLL_SECONDS: Final = 0.1
_LOG_TAIL_LINES: Final = 15

# One copy of everything, in one placement group a pool. Every part finds its key in one keyring: the gateway does not
# start without keys.
_SETTINGS: Final = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {folder}/keyring
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
run dir = {folder}
log file = {folder}/$name.log
admin socket =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1

[mon.a]
mon data = {folder}/mon

[osd.0]
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block create = true
bluestore block size = {disk_bytes}
osd memory target = 939524096

[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{s3_port} tcp_nodelay=1
rgw thread pool size = 64
"""
_MAY: Final = {
    "mon.": ("mon=allow *",),
    "client.admin": ("mon=allow *", "osd=allow *"),
    "osd.0": ("mon=allow profile osd", "osd=allow *"),
    "client.rgw.a": ("mon=allow rw", "osd=allow rwx"),
}
_DISK_BYTES: Final = 10 << 30  # of a sparse file


@dataclass(frozen=True, slots=True)
class Ceph:
    """Where the store is, and the keys of its one user, who may make buckets."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


class CephFailed(Exception):
    """A part of Ceph did not start, or did not do what it was told; the message ends with what it wrote last."""


def install() -> None:
    """Install Debian's packages, unless they are there.

    Raises:
        CephFailed: apt-get could not.
    """
    if all(map(shutil.which, ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd"))):
        return
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]):
        _run(command, timeout_seconds=900)


@contextlib.contextmanager
def running_ceph() -> Iterator[Ceph]:
    """Install Ceph if need be, run it with an empty store, and end it on leaving.

    Raises:
        CephFailed: a part of it did not start.
    """
    install()
    with tempfile.TemporaryDirectory(prefix="ceph-") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        mon_port, s3_port = _free_ports(2)
        settings = folder / "ceph.conf"
        fsid = str(uuid.uuid4())
        settings.write_text(
            _SETTINGS.format(
                fsid=fsid, mon_port=mon_port, s3_port=s3_port, folder=folder, disk_bytes=_DISK_BYTES
            ).lstrip()
        )
        for part in ("mon", "osd", "rgw"):
            (folder / part).mkdir()
        cluster = _Cluster(folder, settings, deadline=time.monotonic() + START_TIMEOUT_SECONDS)

        keyring, monitors = folder / "keyring", folder / "monitors"
        for who, caps in _MAY.items():
            allowed = [word for cap in caps for word in ("--cap", *cap.split("="))]
            create = () if keyring.exists() else ("--create-keyring",)
            cluster.run("ceph-authtool", keyring, *create, "-n", who, "--gen-key", *allowed)
        cluster.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monitors)
        cluster.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
        mon = daemons.enter_context(cluster.daemon("mon.a", "ceph-mon", "-i", "a"))
        cluster.wait_for(mon, lambda: _listens(mon_port))
        disk = str(uuid.uuid4())
        cluster.run("ceph", "osd", "new", disk, "0")
        cluster.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", disk)
        daemons.enter_context(cluster.daemon("osd.0", "ceph-osd", "-i", "0"))
        gateway = daemons.enter_context(cluster.daemon("client.rgw.a", "radosgw", "-n", "client.rgw.a"))
        endpoint = f"http://127.0.0.1:{s3_port}"
        cluster.wait_for(gateway, lambda: _answers(endpoint))
        cluster.run(
            *("radosgw-admin", "-n", "client.rgw.a", "user", "create", "--uid=tests", "--display-name=tests"),
            *(f"--access-key={_ACCESS_KEY}", f"--secret-key={_SECRET_KEY}"),
        )
        yield Ceph(endpoint=endpoint, access_key=_ACCESS_KEY, secret_key=_SECRET_KEY)


@dataclass(frozen=True, slots=True)
class _Daemon:
    name: str
    process: "subprocess.Popen[bytes]"


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What all parts share: a folder, the settings in it, and the time by which everything has to stand."""

    folder: Path
    settings: Path
    deadline: float

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run a command to its end."""
        own = () if program in _WITHOUT_SETTINGS else ("-c", self.settings)
        try:
            _run([program, *map(str, own + arguments)], timeout_seconds=max(1.0, self.deadline - time.monotonic()))
        except CephFailed as error:
            raise CephFailed(f"{error}\n{self._tails()}") from error

    @contextlib.contextmanager
    def daemon(self, name: str, program: str, *arguments: str) -> "Iterator[_Daemon]":
        """Run a daemon, and end it by its process id."""
        with (self.folder / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                [program, "-f", "-c", str(self.settings), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the tests: they end their daemons themselves, in order.
                start_new_session=True,
            )
        try:
            yield _Daemon(name, process)
        finally:
            _end(process)

    def wait_for(self, daemon: _Daemon, is_there: Callable[[], bool]) -> None:
        """Ask again and again until something is there.

        Raises:
            CephFailed: the daemon ended, or the time is over.
        """
        while not is_there():
            if (status := daemon.process.poll()) is not None:
                raise CephFailed(f"{daemon.name} ended with {status}\n{self._tails()}")
            if time.monotonic() > self.deadline:
                raise CephFailed(f"{daemon.name} did not answer in {START_TIMEOUT_SECONDS:.0f} s\n{self._tails()}")
            time.sleep(_POLL_SECONDS)

    def _tails(self) -> str:
        lines: list[str] = []
        for path in sorted(itertools.chain(self.folder.glob("*.out"), self.folder.glob("*.log"))):
            lines.append(f"{path.name}:")
            lines += [f"  {line}" for line in path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]]
        return "\n".join(lines)


def _run(command: list[str], *, timeout_seconds: float) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise CephFailed(f"{error}") from error
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_LOG_TAIL_LINES:])
        raise CephFailed(f"`{' '.join(command)}` ended with {done.returncode}:\n{tail}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        # All at once, or the same one may come twice.
        found = [open_sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in found]


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=5)
    except httpx.TransportError:
        return False
    return True
