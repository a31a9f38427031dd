"""What the sandbox remembers of a request it accepted, and how each endpoint tells it."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from variations.sandbox.images import CONTENT_TYPES, Made
from variations.sandbox.validation import InferenceRequest

State = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]


@dataclass(slots=True, eq=False)
class Record:
    """Hold one accepted request: about a kilobyte, because a hundred thousand of them stay in memory.

    Attributes:
        request_id: a UUID4, as text.
        model: the slug.
        source: `redux_image` as sent, a long data: URL abridged.
        sent: the other fields as sent, as compact JSON.
        seed: the seed that is used.
        outputs_wanted: how many images it makes.
        endpoint: `v2`, or `v1` for a blocking call.
        submitted_at, started_at, completed_at: epoch seconds of the sandbox's clock; the last two are known in
            advance, for the queue is.
        settled: `COMPLETED` or `FAILED` once it is over.
        error: why it failed.
        cost_usd: what it was charged.
        remaining_credits: the balance after it.
        file_sizes: of its images, in bytes.
        made: what its images are.
        work: the task that makes it, until it is over.
    """

    request_id: str
    model: str
    source: str = field(repr=False)
    sent: bytes = field(repr=False)
    seed: int
    outputs_wanted: int
    endpoint: Literal["v1", "v2"]
    submitted_at: float
    started_at: float
    completed_at: float
    settled: Literal["COMPLETED", "FAILED"] | None = None
    error: str | None = None
    cost_usd: float = 0.0
    remaining_credits: float = 0.0
    file_sizes: tuple[int, ...] = ()
    made: Made = "variation"
    work: asyncio.Task[None] | None = field(default=None, repr=False)

    def state(self, now: float) -> State:
        """Return the state at `now` (epoch seconds)."""
        if self.settled is not None and now >= self.completed_at:
            return self.settled
        return "QUEUED" if now < self.started_at else "PROCESSING"

    def request(self) -> InferenceRequest:
        """Return what was asked for, to make it again."""
        return InferenceRequest(self.source, json.loads(self.sent))

    def body_as_sent(self) -> dict[str, Any]:
        """Return the submit's fields, a long data: URL abridged."""
        return {"redux_image": self.source, **json.loads(self.sent)}

    def file_name(self, output_index: int, signature: str) -> str:
        """Return an output's file name; `signature` makes it unguessable."""
        return f"{self.request_id.replace('-', '')}{output_index}{signature}.{self.request().value('output_format')}"


class Wording:
    """Put a record into the words of each endpoint, with absolute URLs below one root.

    Args:
        root: such as `http://127.0.0.1:8080`.
        sign: returns the unguessable part of an output's name, from request id and output number.
    """

    def __init__(self, root: str, sign: Callable[[str, int], str]) -> None:
        self._root = root.rstrip("/")
        self._sign = sign

    def urls(self, record: Record) -> dict[str, str]:
        """Return the two addresses that every v2 answer carries."""
        base = f"{self._root}/v2/requests/{record.request_id}"
        return {"status_url": f"{base}/status", "response_url": base}

    def accepted(self, record: Record) -> dict[str, Any]:
        """Return the answer to a submit."""
        poll_url = f"{self._root}/v1/requests/{record.request_id}"
        return {"request_id": record.request_id, "status": "QUEUED", **self.urls(record), "poll_url": poll_url}

    def status(self, record: Record, now: float) -> dict[str, Any]:
        """Return the answer to a status call: no output, whatever the state."""
        state = record.state(now)
        if state == "FAILED":
            return self.failed(record)
        metrics = self.metrics(record) if state == "COMPLETED" else {}
        if state == "PROCESSING":
            metrics = {"queue_time": _seconds(record.started_at - record.submitted_at)}
        return {"request_id": record.request_id, "status": state, **self.urls(record), "metrics": metrics}

    def failed(self, record: Record) -> dict[str, Any]:
        """Return the body that goes with a 422. Its metrics have no cost: nothing was charged."""
        return {
            "request_id": record.request_id,
            "status": "FAILED",
            "error": record.error,
            **self.urls(record),
            "metrics": _times(record),
        }

    def result(self, record: Record, now: float) -> dict[str, Any]:
        """Return the final body, or before its time what a status call returns."""
        if record.state(now) != "COMPLETED":
            return self.status(record, now)
        images = [self._image(record, index) for index in range(len(record.file_sizes))]
        urls = [image["url"] for image in images]
        return {
            "request_id": record.request_id,
            "status": "COMPLETED",
            "output": urls[0] if len(urls) == 1 else urls,
            "images": images,
            "seed": record.seed,
            "metrics": self.metrics(record),
        }

    def metrics(self, record: Record) -> dict[str, float]:
        """Return cost, balance and times of a completed request, in USD and seconds."""
        return {"cost": record.cost_usd, "remaining_credits": record.remaining_credits, **_times(record)}

    def output_urls(self, record: Record) -> list[str]:
        """Return the addresses of every image."""
        return [self._image(record, index)["url"] for index in range(len(record.file_sizes))]

    def _image(self, record: Record, index: int) -> dict[str, Any]:
        name = record.file_name(index, self._sign(record.request_id, index))
        return {
            "url": f"{self._root}/outputs/{name}",
            "content_type": CONTENT_TYPES[name.rpartition(".")[2]],
            "file_name": name,
            "file_size": record.file_sizes[index],
        }


class Signer:
    """Sign an output's name with a secret of this process."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __call__(self, request_id: str, output_index: int) -> str:
        """Return 16 hex digits."""
        message = f"{request_id}/{output_index}".encode()
        return hashlib.blake2b(message, key=self._secret, digest_size=8).hexdigest()


def _times(record: Record) -> dict[str, float]:
    return {
        "queue_time": _seconds(record.started_at - record.submitted_at),
        "inference_time": _seconds(record.completed_at - record.started_at),
        "total_time": _seconds(record.completed_at - record.submitted_at),
    }


def _seconds(value: float) -> float:
    return round(value, 4)
