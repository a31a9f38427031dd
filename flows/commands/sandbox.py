"""`variations sandbox`: the API on this machine."""

from typing import Annotated

from cyclopts import Parameter

from variations.sandbox.__main__ import main


def sandbox(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Serve the sandbox API on a loopback port; it is not FLUX. `--help` behind it lists its options."""
    return main(list(arguments)) or 0
