"""Where a worker can be told to die: labelled points before and after each step that is durable or costs money.

A point wraps a public method and kills its process there, from within: no handler, no `finally`, no buffer has its way.
A label stands for the N-th time that its step is reached in that process.
"""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from variations.api.client import Client
from variations.dataset import METADATA_KEY
from variations.layout import OPEN_KEY
from variations.ledger.records import Accepted, Ended, Group, Intended, Record, Settled, Withdrawn
from variations.models import Completed
from variations.storage.local import LocalStorage
from variations.storage.s3 import S3Storage
from variations.uris import public_uri

When = Literal["before", "after"]
# Of a write: its key, and its content; b"" for one that comes from a file.
Concerns = Callable[[str, bytes], bool]

_WRITES: Final = ("put", "put_if_absent", "replace")
_POLL_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class Write:
    """A write to the destination, by its key and content."""

    when: When
    concerns: Concerns

    def install(self, dies: "_Dies") -> None:
        """Wrap every method that writes."""
        for storage in (S3Storage, LocalStorage):
            for name in _WRITES:
                setattr(storage, name, self._wrapped(getattr(storage, name), dies))

    def _wrapped(self, write: Callable[..., Awaitable[Any]], dies: "_Dies") -> Callable[..., Awaitable[Any]]:
        async def wrapped(storage: Any, key: str, data: bytes | Path, **more: Any) -> Any:
            is_it = self.concerns(key, data if isinstance(data, bytes) else b"")
            if is_it and self.when == "before":
                dies()
            written = await write(storage, key, data, **more)
            # A conditional write that came too late did not write.
            if is_it and self.when == "after" and written is not None:
                dies()
            return written

        return wrapped


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the API; `says` looks at its answer."""

    method: str
    when: When
    says: Callable[[Any], bool] = lambda _: True

    def install(self, dies: "_Dies") -> None:
        """Wrap the method."""
        call = getattr(Client, self.method)

        async def wrapped(client: Client, *arguments: Any, **more: Any) -> Any:
            if self.when == "before":
                dies()
            answer = await call(client, *arguments, **more)
            if self.when == "after" and self.says(answer):
                dies()
            return answer

        setattr(Client, self.method, wrapped)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A submit that is accepted, and whose answer has not been handed over."""

    def install(self, dies: "_Dies") -> None:
        """Wrap the submit."""
        submit = Client.submit

        async def wrapped(client: Client, inputs: Any) -> Any:
            if not dies.is_next():
                return await submit(client, inputs)
            leaving = asyncio.create_task(submit(client, inputs))
            # Not by the seed: another scene on the same sandbox may have an image of the same.
            source = public_uri(inputs["redux_image"])
            while True:
                bill = json.loads((await client.http.get(dies.bill_url)).content)
                if any(public_uri(line["source"]) == source for line in bill["lines"]):
                    dies.now()
                if leaving.done():
                    # Whatever it was, it was not accepted: the next one is.
                    return await leaving
                await asyncio.sleep(_POLL_SECONDS)

        Client.submit = wrapped  # type: ignore[method-assign]


Point = Write | Call | Unanswered


class _Dies:
    """Count how often a point is reached, and die there the last time."""

    def __init__(self, label: str, times: int, bill_url: str) -> None:
        self.bill_url = bill_url
        self._label = label
        self._left = times

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            self.now()

    def is_next(self) -> bool:
        """Count, and return whether this is the last time."""
        self._left -= 1
        return self._left <= 0

    def now(self) -> None:
        """Die."""
        os.write(2, last_words(self._label).encode() + b"\n")
        os.kill(os.getpid(), signal.SIGKILL)


def last_words(label: str) -> str:
    """Return what a process writes to standard error before it dies at a point."""
    return f"dies at {label.partition(':')[0]}"


def _lock(concerns: Callable[[dict[str, Any]], bool]) -> Concerns:
    return lambda key, content: key == OPEN_KEY and concerns(json.loads(content))


def _journal(*kinds: type[Record]) -> Concerns:
    def concerns(key: str, content: bytes) -> bool:
        return "/journal/" in key and any(isinstance(record, kinds) for record in Group.of_bytes(content).records)

    return concerns


def _opening(*, first: bool) -> Concerns:
    """Return whether a journal is claimed, as its first object, or taken over, as a later one."""

    def concerns(key: str, content: bytes) -> bool:
        if "/journal/" not in key:
            return False
        group = Group.of_bytes(content)
        return not group.records and (group.header.number == 0) == first

    return concerns


def _adopted(key: str, content: bytes) -> bool:
    return "/journal/" in key and any(
        isinstance(record, Accepted) and record.found_in != "answer" for record in Group.of_bytes(content).records
    )


def _both(name: str, concerns: Concerns) -> dict[str, Point]:
    return {f"{name}-before": Write("before", concerns), f"{name}-after": Write("after", concerns)}


POINTS: Final[dict[str, Point]] = {
    **_both("lock", _lock(lambda run: run["beat"] == 0)),
    **_both("begin", _lock(lambda run: run["beat"] > 0 and run["writer"] is not None)),
    **_both("plan-shard", lambda key, _: "/plan/shard-" in key),
    **_both("plan", lambda key, content: key.endswith("/plan.json") and content != b"{}\n"),
    **_both("claim", _opening(first=True)),
    **_both("intent", _journal(Intended)),
    "post-before": Call("submit", "before"),
    "post-unanswered": Unanswered(),
    "post-after": Call("submit", "after"),
    **_both("accepted", _journal(Accepted)),
    "done-after": Call("poll", "after", lambda status: isinstance(status, Completed)),
    **_both("image", lambda key, _: key.startswith("images/")),
    **_both("settled", _journal(Settled)),
    **_both("withdrawn", _journal(Withdrawn)),
    **_both("part", lambda key, _: "/metadata/part-" in key),
    **_both("ended", _journal(Ended)),
    **_both("metadata", lambda key, _: key == METADATA_KEY),
    **_both("receipt", lambda key, content: key.endswith("/receipt.json") and b'"crashed"' not in content),
    **_both("release", _lock(lambda run: run["writer"] is None)),
    # What only the next run comes to, that closes this one.
    **_both("void", lambda key, content: key.endswith("/plan.json") and content == b"{}\n"),
    **_both("takeover", _opening(first=False)),
    **_both("crashed", lambda key, content: key.endswith("/receipt.json") and b'"crashed"' in content),
    **_both("adopted", _adopted),
}


def install(die_at: str, *, bill_url: str) -> None:
    """Let this process die at a point.

    Args:
        die_at: its label, or `label:N` for the N-th time.
        bill_url: where the sandbox shows its bill.

    Raises:
        KeyError: there is no such point.
    """
    label, _, times = die_at.partition(":")
    POINTS[label].install(_Dies(label, int(times or 1), bill_url))
