"""A stage to try everything on: an S3 server and the sandbox API on loopback ports, with photos and a manifest."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from variations.sandbox import Sandbox, running_sandbox, sample_photos
from variations.sandbox.s3_server import running_s3
from variations.storage import open_storage

BUCKET: Final = "demo"


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands on it. `environment` are the variables by which a run finds the API and the S3 server."""

    sandbox: Sandbox
    source: str
    destination: str
    photos: int
    environment: dict[str, str]


@contextlib.contextmanager
def running_stage(*, speed: float) -> Iterator[Stage]:
    """Put up the servers; the S3 server has an empty bucket until `furnish`.

    Args:
        speed: divides the API's latency of 15.84 s.
    """
    with running_s3() as s3_url, running_sandbox(speed=speed) as sandbox:
        httpx.put(f"{s3_url}/{BUCKET}").raise_for_status()
        yield Stage(
            sandbox=sandbox,
            source=f"s3://{BUCKET}/manifest.parquet",
            destination=f"s3://{BUCKET}/dataset",
            photos=len(sample_photos()),
            environment={
                "AWS_ENDPOINT_URL": s3_url,
                "AWS_ACCESS_KEY_ID": "demo",
                "AWS_SECRET_ACCESS_KEY": "demo",
                "AWS_DEFAULT_REGION": "us-east-1",
                "SEGMIND_API_KEY": sandbox.api_key,
                "SEGMIND_BASE_URL": sandbox.base_url,
                "SEGMIND_HISTORY_URL": f"{sandbox.base_url}/inference-request/request-history",
                "SEGMIND_UPLOAD_URL": f"{sandbox.base_url}/upload-asset",
            },
        )


async def furnish(stage: Stage) -> None:
    """Put the sample photos and a manifest of them into the bucket; the environment has to be the stage's."""
    photos = sample_photos()
    bucket = open_storage(f"s3://{BUCKET}")
    for photo in photos:
        await bucket.put(f"photos/{photo.name}", photo)
    manifest = pa.table(
        {
            "id": [photo.name for photo in photos],
            "url": [bucket.uri_of(f"photos/{photo.name}") for photo in photos],
            "subject": [photo.stem.partition("-")[0] for photo in photos],
        }
    )
    sink = io.BytesIO()
    pq.write_table(manifest, sink)
    await bucket.put(stage.source.removeprefix(f"s3://{BUCKET}/"), sink.getvalue())
    await bucket.aclose()
