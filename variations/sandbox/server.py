"""Serve a sandbox on a loopback port: in the background of a test or a demo, or in the foreground."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any, Final

import uvicorn

from variations.sandbox.answers import ConnectionProtocol
from variations.sandbox.app import create_app
from variations.sandbox.faults import Fault
from variations.sandbox.handle import Sandbox, as_faults
from variations.sandbox.service import Service
from variations.sandbox.settings import SandboxSettings

START_TIMEOUT_SECONDS: Final = 20.0
BACKLOG: Final = 2048


@contextlib.contextmanager
def running_sandbox(
    settings: SandboxSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: Iterable[Fault | str] = (),
    **changes: Any,
) -> Iterator[Sandbox]:
    """Run a sandbox in a background thread, and stop it on leaving.

    Args:
        settings: its settings; the defaults where there are none.
        host: a loopback address; no other is bound.
        port: 0 for a free one.
        faults: ordered from the start; a text reads `name:probability[:count]`.
        **changes: single settings, such as `speed=100`.

    Raises:
        ValueError: the address is not a loopback one, or a setting is out of bounds.
        TypeError: there is no such setting.
        OSError: the port is taken.
    """
    chosen = replace(settings or SandboxSettings(), **changes)
    listener = _listen(host, port)
    server = _Server(chosen, as_faults(faults), listener)
    thread = threading.Thread(target=server.run_in_thread, name="sandbox", daemon=True)
    thread.start()
    try:
        yield server.wait_until_started()
    finally:
        server.stop()
        thread.join()


def serve(
    settings: SandboxSettings,
    *,
    host: str,
    port: int,
    faults: Iterable[Fault | str] = (),
    on_start: Callable[[Sandbox], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM; `on_start` is called once it answers.

    Raises:
        ValueError: the address is not a loopback one.
        OSError: the port is taken.
    """
    server = _Server(settings, as_faults(faults), _listen(host, port), on_start=on_start)
    server.run_in_thread()


class _Server(uvicorn.Server):
    """Run uvicorn with a service, and stop at once when asked to."""

    def __init__(
        self,
        settings: SandboxSettings,
        faults: list[Fault],
        listener: socket.socket,
        *,
        on_start: Callable[[Sandbox], None] | None = None,
    ) -> None:
        self._sandbox_settings = settings
        self._faults = faults
        self._listener = listener
        self._on_start = on_start
        self._sandbox: Sandbox | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._service: Service | None = None
        self._is_up = threading.Event()
        self._failure: BaseException | None = None
        host, port = listener.getsockname()[:2]
        self._root = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run_in_thread(self) -> None:
        """Serve until `stop` is called or a signal arrives."""
        try:
            asyncio.run(self._serve_service())
        except BaseException as error:
            self._failure = error
            if threading.current_thread() is threading.main_thread():
                raise
        finally:
            self._listener.close()
            self._is_up.set()

    def wait_until_started(self) -> Sandbox:
        """Return the handle once the server answers."""
        if not self._is_up.wait(START_TIMEOUT_SECONDS) or self._sandbox is None:
            raise RuntimeError("the sandbox did not start") from self._failure
        return self._sandbox

    def stop(self) -> None:
        """Ask the server to end, from another thread."""
        self.should_exit = True
        if self._loop is not None and self._leave is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._leave.set)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into an ordinary end, where uvicorn would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave the main loop on a signal."""
        super().handle_exit(sig, frame)
        self.stop()

    async def main_loop(self) -> None:
        """Tell that it is up, then keep the Date header fresh until it is time to leave."""
        assert self._loop is not None  # noqa: S101 - narrows the type
        assert self._leave is not None  # noqa: S101 - same
        assert self._service is not None  # noqa: S101 - same
        await self.on_tick(0)
        self._sandbox = Sandbox(self._service, self._root, self._loop)
        self._is_up.set()
        if self._on_start is not None:
            self._on_start(self._sandbox)
        while not self.should_exit:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leave.wait(), timeout=1.0)
            await self.on_tick(0)
        # Blocking calls wait for work that will not be done any more.
        await self._service.aclose()

    async def _serve_service(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        self._service = Service(self._sandbox_settings, self._faults)
        config = uvicorn.Config(
            create_app(self._service),
            http=ConnectionProtocol,
            ws="none",
            lifespan="off",
            # The application tells the time of the sandbox's own clock.
            date_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=2,
            backlog=BACKLOG,
        )
        super().__init__(config)
        await self.serve(sockets=[self._listener])


def require_loopback(host: str) -> None:
    """Let only an address of this machine's loopback through: the control endpoints need no key.

    Raises:
        ValueError: it is another one.
    """
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"the sandbox binds to a loopback address only, not to {host!r}")


def _listen(host: str, port: int) -> socket.socket:
    require_loopback(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, for asyncio turns Nagle's algorithm off on no other socket; left on, an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
