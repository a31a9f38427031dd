"""The handle on a sandbox that runs in another thread."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from variations.sandbox.bill import Bill
from variations.sandbox.control import PREFIX
from variations.sandbox.faults import Fault
from variations.sandbox.service import Service
from variations.sandbox.settings import SandboxSettings

Result = TypeVar("Result")
CALL_TIMEOUT_SECONDS: Final = 60.0


class Sandbox:
    """Look into a sandbox that runs, and turn its knobs, from any thread but its own.

    Each call waits for the sandbox's thread: an async test whose own loop serves the sources calls
    `advance_clock` through `asyncio.to_thread`.

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
        orders = as_faults(faults)
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


def as_faults(faults: Iterable[Fault | str]) -> list[Fault]:
    """Return faults, those written as text read.

    Raises:
        ValueError: a text is none.
    """
    return [Fault.parse(fault) if isinstance(fault, str) else fault for fault in faults]


async def _now(call: Callable[[], Result]) -> Result:
    return call()
