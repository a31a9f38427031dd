"""Ctrl-C and SIGTERM: the first stops in order, the second at once."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from variations.engine.engine import Engine
from variations.errors import StoppedByUser

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(engine: Engine) -> Iterator[None]:
    """Stop the engine at the first signal and interrupt everything at the second; the third is the system's own.

    The handlers that were there before come back at the end. Elsewhere than in a main thread, do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    received = 0

    def stop(number: signal.Signals) -> None:
        nonlocal received
        received += 1
        # Counted here: the engine may have been stopped by something else, and this be the first word of the user.
        if received > 1:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            # Out of the event loop, through every `finally` there is: a server that was started must not stay behind.
            raise KeyboardInterrupt
        engine.stop(StoppedByUser(f"stopped by {number.name}; the same command goes on where this one stopped"))

    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


Handlers = dict[signal.Signals, Any]


def handlers_now() -> Handlers:
    """Return what is done now at each of the signals."""
    return {number: signal.getsignal(number) for number in SIGNALS}


@contextmanager
def handled_by(handlers: Handlers) -> Iterator[None]:
    """Do the same at each signal as when `handlers_now` was called, whatever others have put in the place since.

    Those of `stop_on_signals` are still the event loop's; what was put before them is gone while this lasts, and back
    at its end. Elsewhere than in a main thread, do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = handlers_now()
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
