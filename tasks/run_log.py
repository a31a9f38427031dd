"""What the library says while a flow runs, in the run's own log: that it waits for another run, or for a store."""

import logging
from typing import Final

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

_HANDLER: Final = APILogHandler()
# Outside of a flow run there is no log of one.
_HANDLER.addFilter(lambda _: bool(FlowRunContext.get() or TaskRunContext.get()))


def log_the_library() -> None:
    """Send the library's log lines to Prefect, from now on; to do it again changes nothing."""
    logging.getLogger("variations").addHandler(_HANDLER)
