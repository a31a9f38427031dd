"""The command line: `variations …`, or `python -m flows …`."""

import sys
from collections.abc import Sequence

from cyclopts import CycloptsError
from pydantic import ValidationError

from flows.commands import app
from flows.commands.exits import BAD_INPUT, INTERRUPTED, code_of
from variations.errors import VariationsError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; an error that was foreseen is one line."""
    try:
        code = app(arguments, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        code = _say(_wrong_usage(error), BAD_INPUT)
    except VariationsError as error:
        code = _say(str(error), code_of(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"variations: {text}\n")
    return code


def _wrong_usage(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        problems = error.__cause__.errors(include_url=False)
        return "; ".join(
            f"--{_option(problem['loc'])} is {problem['input']!r}: {problem['msg']}" for problem in problems
        )
    return " ".join(str(error).split())


def _option(location: tuple[int | str, ...]) -> str:
    return str(location[0]).replace("_", "-") if location else "option"


if __name__ == "__main__":
    main()
