"""A place to try runs on, with photos, a manifest and an empty destination; and the judge of what became of them."""

import contextlib
import functools
import io
import itertools
import json
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import boto3.session
import pyarrow.parquet as pq
from botocore.exceptions import ClientError
from PIL import Image

from variations.dataset import METADATA_KEY
from variations.ledger.records import Group, Intended
from variations.sandbox import Sandbox, running_sandbox
from variations.sandbox.bill import BillLine
from variations.sandbox.s3_server import running_s3
from variations.uris import public_uri

from .ceph import running_ceph
from .worker import DONE, LEFT, STOPPED, Order
from .workers import Worker, WorkerHangs, Workers

# A minute of a run's waiting takes half a second. What is real: the sandbox, the store, and the ages by their clocks.
HURRY: Final = 120.0
HISTORY_DELAY_SECONDS: Final = 0.2
# Longer than the history may need to show a submit, with time to spare on a machine that is busy.
RESUBMIT_AFTER_SECONDS: Final = 1.0
LIMITS: Final = {"max_in_flight": 4, "poll_interval_seconds": 8.0, "deadline_seconds": 2400.0}
WORKERS_AT_MOST: Final = 6


@dataclass(frozen=True, slots=True)
class Store:
    """An S3 server, and the keys to it."""

    url: str
    access_key: str = "MADEUPACCESSKEY"
    secret_key: str = field(default="made-up-secret", repr=False)

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables by which boto3 finds it, at its own address or at a proxy's."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """Return the client of this process, which many threads may use."""
        return _client(self)


@functools.cache
def _client(store: Store) -> Any:
    session = boto3.session.Session(store.access_key, store.secret_key, region_name="us-east-1")
    return session.client("s3", endpoint_url=store.url)


@contextlib.contextmanager
def running_store(kind: str) -> Iterator[Store]:
    """Run moto, in this process, or Ceph."""
    with contextlib.ExitStack() as stack:
        if kind == "ceph":
            ceph = stack.enter_context(running_ceph())
            store = Store(ceph.endpoint, ceph.access_key, ceph.secret_key)
        else:
            store = Store(stack.enter_context(running_s3()))
        try:
            yield store
        finally:
            store.client().close()


@contextlib.contextmanager
def running_api(**changes: Any) -> Iterator[Sandbox]:
    """Run the sandbox, fast, with much money, and with a history that is soon up to date."""
    settings = {"speed": 50, "latency_spread": 0.3, "credits": 1e6, "history_delay_seconds": HISTORY_DELAY_SECONDS}
    with running_sandbox(**{**settings, **changes}) as sandbox:
        yield sandbox


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the bill says of a dataset.

    Attributes:
        images: that were wanted.
        rows, kept, unknown, failed: of the metadata.
        bill: submits that the API accepted.
        accepted_twice: inputs that were accepted more than once.
        lost: requests that were paid for, and whose image is neither kept nor listed as unknown.
        rows_twice: images with more than one row.
        files_missing: rows that say kept, and whose file is not there.
    """

    images: int
    rows: int
    kept: int
    unknown: int
    failed: int
    bill: int
    accepted_twice: tuple[str, ...]
    lost: tuple[str, ...]
    rows_twice: tuple[str, ...]
    files_missing: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was paid twice and nothing that was paid is lost."""
        return not (self.accepted_twice or self.lost or self.rows_twice or self.files_missing)

    @property
    def is_complete(self) -> bool:
        """Whether every image is there, and each was paid for once."""
        return self.is_sound and self.images == self.rows == self.kept == self.bill


class Scene:
    """A bucket with photos and a manifest, a destination, and the means to run workers on them.

    Args:
        store: the S3 server; with a bucket that is this scene's alone.
        sandbox: the API, perhaps shared: by its bucket each scene finds its own lines on the bill.
        workers: starts processes.
        images: how many photos.
        url: at which workers reach the store; a proxy's, or the store's own if None.
    """

    def __init__(
        self, store: Store, sandbox: Sandbox, workers: Workers, *, images: int, url: str | None = None
    ) -> None:
        self.sandbox = sandbox
        self.images = images
        self.bucket = f"chaos-{uuid.uuid4().hex[:12]}"
        self._workers = workers
        self._client = store.client()
        self._order = Order(
            source=f"s3://{self.bucket}/manifest.jsonl",
            destination=f"s3://{self.bucket}/dataset",
            base_url=sandbox.base_url,
            api_key=sandbox.api_key,
            environment=store.environment(url),
            hurry=HURRY,
            limits=LIMITS,
            max_shards=3 if images < 50 else None,
        )
        self._client.create_bucket(Bucket=self.bucket)
        names = [f"{number:04d}" for number in range(images)]
        for name in names:
            self._client.put_object(Bucket=self.bucket, Key=f"photos/{name}.jpg", Body=_photo(name))
        lines = [json.dumps({"id": name, "url": f"photos/{name}.jpg"}) for name in names]
        self._client.put_object(Bucket=self.bucket, Key="manifest.jsonl", Body="\n".join(lines).encode())

    def start(self, **changes: Any) -> Worker:
        """Start a worker."""
        limits = {**self._order.limits, **changes.pop("limits", {})}
        return self._workers.start(replace(self._order, limits=limits, **changes))

    def until_accepted(self, count: int, worker: Worker, *, timeout_seconds: float = 60.0) -> None:
        """Return once so many submits are on the bill, or the worker has ended."""
        give_up_at = time.monotonic() + timeout_seconds
        while len(self.bill()) < count and not worker.is_over(within_seconds=0.005):
            if time.monotonic() > give_up_at:
                raise WorkerHangs(
                    f"{worker!r}: no {count} submits in {timeout_seconds:.0f} s\n{worker.errors()[-4000:]}"
                )

    def run(self, **changes: Any) -> Worker:
        """Start a worker, and return it at its end."""
        return self.start(**changes).wait()

    def finish(self, *, at_most: int = WORKERS_AT_MOST, **changes: Any) -> Worker:
        """Run workers until one leaves nothing to do, and return it.

        What may never have been accepted is submitted again, once the history had the time to show it.
        """
        for _ in range(at_most):
            # First, so that one worker can do it all: what it then finds nowhere, the API never heard of.
            time.sleep(RESUBMIT_AFTER_SECONDS)
            worker = self.run(resubmit_after_seconds=RESUBMIT_AFTER_SECONDS, **changes)
            if worker.code == DONE:
                return worker
            if worker.code not in {LEFT, STOPPED}:
                break
        raise AssertionError(f"{worker!r} did not finish: {worker.said()}\n{worker.errors()[-4000:]}")

    def bill(self) -> list[BillLine]:
        """Return the lines of the bill that are this scene's."""
        return [line for line in self.sandbox.bill().lines if self.bucket in line.source]

    def rows(self) -> list[dict[str, Any]]:
        """Return the metadata's rows; none if there is no metadata yet."""
        try:
            content = self.get(METADATA_KEY)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return []
            raise
        found: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return found

    def get(self, key: str) -> bytes:
        """Return an object of the destination."""
        content: bytes = self._client.get_object(Bucket=self.bucket, Key=f"dataset/{key}")["Body"].read()
        return content

    def lose_metadata(self) -> None:
        """Remove the metadata, as nobody should."""
        self._client.delete_object(Bucket=self.bucket, Key=f"dataset/{METADATA_KEY}")

    def keys(self, prefix: str = "") -> list[str]:
        """List the destination."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"dataset/{prefix}")
        return [entry["Key"].removeprefix("dataset/") for page in pages for entry in page.get("Contents", ())]

    def records(self) -> list[Any]:
        """Return every record of every journal."""
        keys = [key for key in self.keys("_runs/") if "/journal/" in key]
        return list(itertools.chain.from_iterable(Group.of_bytes(self.get(key)).records for key in keys))

    def not_written_down(self) -> list[str]:
        """Return the requests on the bill of which no journal says that they were intended."""
        intended = {record.redux_image for record in self.intended()}
        return [line.request_id for line in self.bill() if public_uri(line.source) not in intended]

    def intended(self) -> list[Intended]:
        """Return every intent in the journals."""
        return [record for record in self.records() if isinstance(record, Intended)]

    def judge(self) -> Verdict:
        """Compare the dataset with the bill."""
        rows, bill, files = self.rows(), self.bill(), set(self.keys("images/"))
        status = Counter(row["status"] for row in rows)
        kept = {row["request_id"] for row in rows if row["status"] == "kept"}
        unknown = {row["seed"] for row in rows if row["status"] == "unknown"}
        # By the seed, which every image has its own of: the address of a source depends on the way to the store.
        seeds = Counter(line.seed for line in bill)
        images = Counter((row["variation_id"], row["output_index"]) for row in rows)
        return Verdict(
            images=self.images,
            rows=len(rows),
            kept=status["kept"],
            unknown=status["unknown"],
            failed=status["failed"],
            bill=len(bill),
            accepted_twice=tuple(str(seed) for seed, count in seeds.items() if count > 1),
            lost=tuple(
                line.request_id
                for line in bill
                if line.state != "FAILED" and line.request_id not in kept and line.seed not in unknown
            ),
            rows_twice=tuple(name for (name, _), count in images.items() if count > 1),
            files_missing=tuple(
                row["file_name"] for row in rows if row["status"] == "kept" and row["file_name"] not in files
            ),
        )


def _photo(name: str) -> bytes:
    shade = zlib.crc32(name.encode()) % 256
    buffer = io.BytesIO()
    image = Image.linear_gradient("L").resize((64, 64))
    Image.merge("RGB", [image, image, Image.new("L", (64, 64), shade)]).save(buffer, "JPEG")
    return buffer.getvalue()
