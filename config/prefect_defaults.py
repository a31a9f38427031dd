"""Prefect's settings that do not suit a run on a small machine, unless somebody set them."""

import os
from typing import Final

# The temporary server's first start on a fresh PREFECT_HOME was measured at 38 - 47 s on 2 cores (its database
# migrations), later ones at 15 - 17 s; Prefect allows 20.
DEFAULTS: Final = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # A server that lives for one run has nothing to report about itself to anybody.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def set_prefect_defaults() -> None:
    """Set them in the environment, where the processes that Prefect starts find them too."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
