"""A plain flow to measure ours against: three Prefect tasks an image, as one would write it first.

It does less than ours does: it keeps no journal, looks at no image and writes no metadata.
"""

import asyncio
import os
from typing import TYPE_CHECKING, Final

import boto3
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from variations.engine.progress import watched

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

POLL_SECONDS: Final = 1.0
PRESIGN_SECONDS: Final = 3600


@task(retries=2, cache_policy=NO_CACHE)
async def submit(http: httpx.AsyncClient, s3: "S3Client", *, source: str, seed: int) -> str:
    """Ask for an image, and return the request's id."""
    bucket, _, key = source.removeprefix("s3://").partition("/")
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=PRESIGN_SECONDS)
    answer = await http.post("/v2/flux-redux-dev", json={"redux_image": url, "seed": seed})
    return str(answer.raise_for_status().json()["request_id"])


@task(retries=2, cache_policy=NO_CACHE)
async def poll(http: httpx.AsyncClient, *, request_id: str) -> str:
    """Wait for an image, and return its URL."""
    while True:
        answer = await http.get(f"/v2/requests/{request_id}/status")
        status = answer.raise_for_status().json()["status"]
        if status == "COMPLETED":
            result = await http.get(f"/v2/requests/{request_id}")
            return str(result.raise_for_status().json()["images"][0]["url"])
        if status == "FAILED":
            raise RuntimeError(f"request {request_id} failed")
        await asyncio.sleep(POLL_SECONDS)


@task(retries=2, cache_policy=NO_CACHE)
async def write(http: httpx.AsyncClient, s3: "S3Client", *, url: str, bucket: str, key: str) -> None:
    """Store an image."""
    image = await http.get(url)
    content = image.raise_for_status().content
    await asyncio.to_thread(s3.put_object, Bucket=bucket, Key=key, Body=content, ContentType="image/jpeg")


@flow
async def plain(source: str, destination: str, variations_per_source: int, max_in_flight: int) -> None:
    """Turn a manifest into images.

    Args:
        source: the manifest, a parquet file in S3 with a column `url`.
        destination: bucket and prefix.
        variations_per_source: of each row.
        max_in_flight: images worked on at once.
    """
    s3 = boto3.client("s3")
    bucket, _, prefix = destination.removeprefix("s3://").partition("/")
    manifest_bucket, _, manifest_key = source.removeprefix("s3://").partition("/")
    manifest = s3.get_object(Bucket=manifest_bucket, Key=manifest_key)["Body"].read()
    urls = pq.read_table(pa.BufferReader(manifest)).column("url").to_pylist()
    places = asyncio.Semaphore(max_in_flight)
    progress = watched()
    progress.total = len(urls) * variations_per_source
    headers = {"x-api-key": os.environ["SEGMIND_API_KEY"]}
    async with httpx.AsyncClient(base_url=os.environ["SEGMIND_BASE_URL"], headers=headers, timeout=60.0) as http:

        async def make(row: int, seed: int) -> None:
            async with places:
                request_id = await submit(http, s3, source=urls[row], seed=seed)
                url = await poll(http, request_id=request_id)
                await write(http, s3, url=url, bucket=bucket, key=f"{prefix}/{row:06}-{seed}.jpg")
                progress.kept += 1

        await asyncio.gather(
            *(make(row, seed) for row in range(len(urls)) for seed in range(1, variations_per_source + 1))
        )
