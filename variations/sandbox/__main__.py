"""The command line: `python -m variations.sandbox`."""

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from variations.sandbox.faults import FAULTS, Fault
from variations.sandbox.handle import Sandbox
from variations.sandbox.server import require_loopback, serve
from variations.sandbox.settings import CountedCalls, LatencyShape, SandboxSettings

_SETTINGS = SandboxSettings()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a sandbox until Ctrl-C or SIGTERM and return the exit code.

    Args:
        argv: the arguments after the command's name; those of the process where it is None.
    """
    parser = _parser()
    given = vars(parser.parse_args(argv))
    host, port, faults = given.pop("host"), given.pop("port"), given.pop("fault")
    try:
        require_loopback(host)
        settings = SandboxSettings(**given)
    except ValueError as error:
        parser.error(str(error))
    try:
        serve(settings, host=host, port=port, faults=faults, on_start=_announce)
    except OSError as error:
        sys.stderr.write(f"cannot listen on {host}:{port}: {error.strerror or error}\n")
        return 1
    return 0


def _announce(sandbox: Sandbox) -> None:
    sys.stdout.write(f"sandbox (not FLUX) at {sandbox.base_url}  key {sandbox.api_key}  bill {sandbox.bill_url}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="variations sandbox",
        description="The Flux Redux Dev API on this machine, with faults to order. It is not FLUX: "
        "an output is its source, cropped and recoloured.",
        epilog="faults: " + "; ".join(f"{name}: {text}" for name, text in FAULTS.items()),
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    add("--port", type=int, default=0, help="0 for a free one (default)")
    add("--speed", type=float, default=_SETTINGS.speed, help="divides every latency (default: %(default)s)")
    add(
        "--latency-seconds",
        type=float,
        default=_SETTINGS.latency_seconds,
        help="mean before --speed (default: %(default)s, the real API's)",
    )
    add(
        "--latency-spread",
        type=float,
        default=_SETTINGS.latency_spread,
        help="standard deviation as a share of the mean (default: %(default)s)",
    )
    add("--latency-shape", choices=get_args(LatencyShape), default=_SETTINGS.latency_shape)
    add("--workers", type=int, default=_SETTINGS.workers, help="requests worked on at once (default: %(default)s)")
    add(
        "--requests-per-minute",
        type=int,
        default=_SETTINGS.requests_per_minute,
        help="the plan's limit, 0 for none (default: %(default)s)",
    )
    add(
        "--rate-limit-counts",
        choices=get_args(CountedCalls),
        default=_SETTINGS.rate_limit_counts,
        help="which calls the limit counts (default: %(default)s)",
    )
    add("--credits", type=float, default=_SETTINGS.credits, help="the balance in USD (default: %(default)s)")
    add("--free-credits", type=float, default=_SETTINGS.free_credits, help="spent first (default: %(default)s)")
    add("--spend-limit-usd", type=float, default=None, help="a team's limit (default: none)")
    add(
        "--price",
        dest="price_usd",
        metavar="USD",
        type=float,
        default=_SETTINGS.price_usd,
        help="of one delivered image (default: %(default)s)",
    )
    add(
        "--history-delay-seconds",
        type=float,
        default=_SETTINGS.history_delay_seconds,
        help="how late the request history is (default: %(default)s)",
    )
    add("--seed", type=int, default=_SETTINGS.seed, help="of latencies and faults (default: %(default)s)")
    add(
        "--image-threads",
        type=int,
        default=_SETTINGS.image_threads,
        help="threads that make images (default: %(default)s)",
    )
    add("--api-key", default=_SETTINGS.api_key, help="the key that is accepted (default: a made-up one)")
    add(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NAME:PROBABILITY[:COUNT]",
        help="order a fault; may be repeated",
    )
    return parser


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
