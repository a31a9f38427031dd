"""The vendor's SDK as a contestant: on a pool of threads, as its own documentation has it poll."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, TypeVar

import httpx
from segmind import InferenceTimeout, SegmindClient, SegmindError

from benches.apart import Ready
from benches.made import Image, Made
from variations.api.client import Endpoint
from variations.parameters import MODEL

T = TypeVar("T")
# What `segmind.run` does where nothing else is asked for.
POLL_SECONDS: Final = 1.0
DEADLINE_SECONDS: Final = 600.0
RESET_HEADER: Final = "x-rate-limit-reset-at-utc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made.

    Attributes:
        endpoint: the sandbox.
        photos: the sources' URLs, taken in turn.
        threads: of the pool, each with one request at a time.
        poll_seconds: between two polls: the SDK's own, divided by the sandbox's speed.
        images: how many; None as many as it can until it is stopped.
    """

    endpoint: Endpoint
    photos: Sequence[str]
    threads: int
    poll_seconds: float
    images: int | None = None


def make(order: Order, ready: Ready) -> Made:
    """Make the images and fetch each, without storing it; returns them.

    What breaks on the way is asked for again, but for a submit, which may have been accepted: that image is lost.
    """
    client = SegmindClient(api_key=order.endpoint.api_key, base_url=f"{order.endpoint.base_url}/v1")
    times = ready()
    # The SDK drops the headers of what it raises, so they are read as they arrive.
    gate = _Gate(times.stops_at)
    client._client.event_hooks = {"response": [gate.hear]}
    numbers = iter(range(order.images)) if order.images is not None else itertools.count()
    taking = threading.Lock()
    images: list[Image] = []
    lost: list[int] = []

    def take() -> Iterator[int]:
        while True:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    def work(files: httpx.Client) -> None:
        for number in take():
            try:
                images.append(_image(client, files, gate, order, number))
            except _Over:
                return
            except httpx.TransportError:
                lost.append(number)

    time.sleep(max(0.0, times.starts_at - time.time()))
    with httpx.Client() as files, ThreadPoolExecutor(order.threads) as pool:
        for future in [pool.submit(work, files) for _ in range(order.threads)]:
            future.result()
    client._client.close()
    in_order = sorted(images, key=lambda image: image.submitted_at)
    return Made(in_order, cpu_seconds=time.process_time(), lost_submits=len(lost))


def _image(client: SegmindClient, files: httpx.Client, gate: "_Gate", order: Order, number: int) -> Image:
    inputs = {"redux_image": order.photos[number % len(order.photos)], "megapixels": "0.25", "seed": number + 1}

    def submit() -> tuple[float, Any]:
        return time.time(), client.submit_async(MODEL, **inputs)

    submitted_at, job = gate.patiently(submit)
    body = gate.patiently(
        lambda: job.wait(timeout=gate.left_seconds(), interval=order.poll_seconds), repeated=httpx.TransportError
    )
    done_at = time.time()
    gate.patiently(lambda: files.get(body["output"]).raise_for_status(), repeated=httpx.TransportError)
    return Image(submitted_at, done_at, body["metrics"]["total_time"])


class _Over(Exception):
    """The time is up."""


class _Gate:
    """Wait where the API says 429, at which the SDK gives up: until the moment that the answer names, as one does."""

    def __init__(self, stops_at: float) -> None:
        self._stops_at = stops_at
        self._opens_at = 0.0

    def hear(self, answer: httpx.Response) -> None:
        """Take in an answer."""
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            reset_at = datetime.fromisoformat(answer.headers[RESET_HEADER])
            # By the API's clock, which tells whole seconds in its header.
            self._opens_at = time.time() + (reset_at - parsedate_to_datetime(answer.headers["date"])).total_seconds()

    def left_seconds(self) -> float:
        """Return how long a request may take."""
        return min(DEADLINE_SECONDS, self._stops_at - time.time())

    def patiently(self, call: Callable[[], T], *, repeated: type[Exception] | tuple[()] = ()) -> T:
        """Call, and again after each 429 and each error that may be repeated.

        Raises:
            _Over: the time is up.
        """
        while True:
            if self.left_seconds() <= 0:
                raise _Over
            try:
                return call()
            except repeated:
                continue
            except InferenceTimeout as error:
                if self._stops_at < math.inf:
                    raise _Over from error
                raise
            except SegmindError as error:
                if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                time.sleep(max(0.0, min(self._opens_at - time.time(), self.left_seconds())))
