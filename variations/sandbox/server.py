"""Serve a sandbox on a loopback port: in the background of a test or a demo, or in the foreground."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any, Final, TypeVar

import uvicorn

from variations.sandbox.answers import ConnectionProtocol
from variations.sandbox.app import create_app
from variations.sandbox.bill import Bill
from variations.sandbox.control import PREFIX
from variations.sandbox.faults import Fault
from variations.sandbox.service import Service
from variations.sandbox.settings import SandboxSettings

Result = TypeVar("Result")
START_TIMEOUT_SECONDS: Final = 20.0
CALL_TIMEOUT_SECONDS: Final = 60.0
BACKLOG: Final = 2048


class Sandbox:
    """Look into a sandbox that runs, and turn its knobs, from any thread but its own.

    Attributes:
        base_url: its root, such as `http://127.0.0.1:8080`; API addresses and `/__sandbox` lie below it.
    """

    def __init__(self, service: Service, base_url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.base_url = base_url
        self._service = service
        self._loop = loop

    def __repr__(self) -> str:
        return f"Sandbox({self.base_url!r})"

    @property
    def api_key(self) -> str:
        """Return the key that it accepts."""
        return self._service.settings.api_key

    @property
    def settings(self) -> SandboxSettings:
        """Return the settings as they are now."""
        return self._service.settings

    @property
    def bill_url(self) -> str:
        """Return where a browser sees the bill."""
        return f"{self.base_url}{PREFIX}/bill"

    def bill(self) -> Bill:
        """Return what was accepted, what it cost and how many calls were made."""
        return self._call(lambda: _now(self._service.bill))

    def set_faults(self, *faults: Fault | str) -> None:
        """Replace every ordered fault; a text reads `name:probability[:count]`, none at all ends them.

        Raises:
            ValueError: a name or a number is wrong.
        """
        orders = _as_faults(faults)
        self._call(lambda: _now(lambda: self._service.faults.order(orders)))

    def faults(self) -> list[dict[str, Any]]:
        """Return the ordered faults and how often each one struck."""
        return self._call(lambda: _now(self._service.faults.describe))

    def configure(self, **changes: Any) -> None:
        """Change settings while it runs; `credits` sets the balance.

        Raises:
            ValueError: a setting is unknown, fixed or out of bounds.
        """
        self._call(lambda: _now(lambda: self._service.configure(changes)))

    def now(self) -> float:
        """Return the time of its clock in epoch seconds."""
        return self._service.clock.now()

    def advance_clock(self, seconds: float) -> None:
        """Move its clock ahead and return once what became due is settled.

        Raises:
            ValueError: time only goes forward.
        """
        self._call(lambda: self._service.advance_clock(seconds))

    def reset(self) -> None:
        """Forget everything and come back to the settings, faults and clock of the start."""
        self._call(self._service.reset)

    def _call(self, make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(CALL_TIMEOUT_SECONDS)


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
    server = _Server(chosen, _as_faults(faults), listener)
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
    server = _Server(settings, _as_faults(faults), _listen(host, port), on_start=on_start)
    # uvicorn raises the signal again once it has shut down in order; Ctrl-C is an ordinary end here.
    with contextlib.suppress(KeyboardInterrupt):
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
            access_log=False,
            log_config=None,
            log_level="critical",
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
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _as_faults(faults: Iterable[Fault | str]) -> list[Fault]:
    return [Fault.parse(fault) if isinstance(fault, str) else fault for fault in faults]


async def _now(call: Callable[[], Result]) -> Result:
    return call()
