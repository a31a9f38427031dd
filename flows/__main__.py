"""The command line: `variations …`, or `python -m flows …`."""

import sys
from collections.abc import Sequence

from flows.commands import app
from flows.commands.exits import BAD_INPUT, STOPPED, UNEXPECTED
from variations.errors import BadInput, RunPaused, VariationsError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; an error that was foreseen is one line."""
    try:
        code = app(arguments, result_action="return_value")
    except VariationsError as error:
        print(f"variations: {error}", file=sys.stderr)  # noqa: T201
        code = BAD_INPUT if isinstance(error, BadInput) else STOPPED if isinstance(error, RunPaused) else UNEXPECTED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
