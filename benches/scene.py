"""What a flow needs to run: the sandbox, an S3 server with sources and a manifest, and a Prefect server."""

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import boto3
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benches.course import Course
from benches.flow_process import run_flow
from benches.prefect_server import PrefectServer, running_prefect
from benches.servers import S3Server, SandboxServer, cpu_seconds, running_s3, running_sandbox
from variations.sandbox import sample_photos

BUCKET: Final = "bench"
SOURCE_QUALITY: Final = 85
# A Prefect server with nothing to do takes some 2 % of a processor.
QUIET_SHARE: Final = 0.1
QUIET_SECONDS: Final = 1.0
WORK_OFF_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Scene:
    """The three servers; `source` is the manifest."""

    sandbox: SandboxServer
    s3: S3Server
    prefect: PrefectServer
    source: str

    def run(self, flow: str, *, destination: str, **parameters: Any) -> Course:
        """Run a flow from the manifest into a folder of the bucket, and wait until Prefect's server is done with it.

        Raises:
            RuntimeError: it failed, or did not keep every image.
        """
        course = run_flow(
            flow,
            {"source": self.source, "destination": f"s3://{BUCKET}/{destination}", **parameters},
            environment={**self.sandbox.environment, **self.s3.environment, **self.prefect.environment},
            pids={"sandbox": self.sandbox.pid, "s3": self.s3.pid, "prefect": self.prefect.pid},
        )
        last = course.samples[-1]
        if last.kept < course.wanted:
            raise RuntimeError(f"the flow {flow} kept {last.kept:g} of {course.wanted} images: {course.result}")
        worked_off = {**last.cpu_seconds, "prefect": self._prefect_seconds_when_quiet()}
        return replace(course, samples=[*course.samples, replace(last, at=time.time(), cpu_seconds=worked_off)])

    def _prefect_seconds_when_quiet(self) -> float:
        """Return what the Prefect server's CPU time comes to once it has worked off what it was told."""
        give_up_at = time.monotonic() + WORK_OFF_SECONDS
        after = cpu_seconds(self.prefect.pid)
        while time.monotonic() < give_up_at:
            before = after
            time.sleep(QUIET_SECONDS)
            after = cpu_seconds(self.prefect.pid)
            if after - before < QUIET_SHARE * QUIET_SECONDS:
                break
        return after

    def images(self, destination: str) -> Iterator[bytes]:
        """Yield the images that a flow has stored, in the order of their keys."""
        store = boto3.client(
            "s3",
            endpoint_url=self.s3.url,
            aws_access_key_id=self.s3.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.s3.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.s3.environment["AWS_DEFAULT_REGION"],
        )
        found = store.list_objects_v2(Bucket=BUCKET, Prefix=f"{destination}/images/")
        for entry in found["Contents"]:
            yield store.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()


@contextlib.contextmanager
def running_scene(*, sources: int, side_pixels: int, **sandbox: Any) -> Iterator[Scene]:
    """Run the servers, and put sources and a manifest of them into the bucket.

    Args:
        sources: rows of the manifest, each of an image of its own.
        side_pixels: of each source, a square JPEG.
        **sandbox: its settings.
    """
    with running_s3() as s3, running_sandbox(**sandbox) as api, running_prefect() as prefect:
        uri = s3.make_bucket(BUCKET)
        photos = [_square(path.read_bytes(), side_pixels) for path in sample_photos()]
        names = [f"photos/{number:05}.jpg" for number in range(sources)]
        manifest = io.BytesIO()
        pq.write_table(pa.table({"id": names, "url": [f"{uri}/{name}" for name in names]}), manifest)
        with httpx.Client(base_url=f"{s3.url}/{BUCKET}/") as http:
            for number, name in enumerate(names):
                http.put(name, content=photos[number % len(photos)]).raise_for_status()
            http.put("manifest.parquet", content=manifest.getvalue()).raise_for_status()
        yield Scene(api, s3, prefect, f"{uri}/manifest.parquet")


def _square(photo: bytes, side_pixels: int) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        image.convert("RGB").resize((side_pixels, side_pixels)).save(file, "JPEG", quality=SOURCE_QUALITY)
    return file.getvalue()
