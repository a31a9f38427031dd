"""Signatures and credentials in what a run is given: the API gets them, and nobody else."""

import json
import logging
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from variations import errors
from variations.job import Job
from variations.sandbox import Sandbox
from variations.storage import Storage, open_storage

from .examples import SIGNATURE
from .scene import Scene


async def everything_in(storage: Storage) -> bytes:
    """Return every object, parquet files read: compressed pages would hide what they hold."""
    found = []
    async for entry in storage.list():
        content = await storage.get(entry.key)
        found += [entry.key.encode(), content]
        if entry.key.endswith(".parquet"):
            found.append(str(pq.read_table(pa.BufferReader(content)).to_pylist()).encode())
    return b"\n".join(found)


async def test_a_signature_reaches_the_api_and_nothing_else(
    s3_uri: str, api: Sandbox, moto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether we sign or the manifest's author did: no object of the destination and no log record has it."""
    caplog.set_level(logging.DEBUG, logger="variations")
    scene = Scene(s3_uri, api)
    await scene.furnish("ours", "theirs", "again")
    storage = open_storage(s3_uri)
    signed = await storage.presigned_url("photos/theirs.jpg", expires_seconds=600)
    rows: list[dict[str, Any]] = [
        {"url": "photos/ours.jpg", "label": signed},
        {"url": signed},
        {"url": f"{moto_url}/{s3_uri[5:]}/photos/gone.jpg?X-Amz-Signature={SIGNATURE}"},
        {"url": f"ftp://h/a.jpg?X-Amz-Signature={SIGNATURE}"},
    ]
    await storage.put("manifest.jsonl", "\n".join(map(json.dumps, rows)).encode())
    receipt = await scene.run()
    assert (receipt.kept, receipt.failed, receipt.rejected) == (2, 1, 1)
    api.advance_clock(10)
    async with httpx.AsyncClient(base_url=api.base_url, headers={"x-api-key": api.api_key}) as http:
        history = await http.get("/inference-request/request-history?per_page=100&page=1")
    assert history.text.count("X-Amz-Signature") >= 3
    secrets = [SIGNATURE, "X-Amz-Signature", "X-Amz-Credential", "AKIA"]
    content = await everything_in(scene.dataset)
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("variations"))
    told = json.dumps(receipt.as_dict()) + receipt.markdown()
    for secret in secrets:
        assert secret.encode() not in content
        assert secret not in logged
        assert secret not in told


@pytest.mark.parametrize(
    "uri",
    [
        f"https://bucket.example.com/m.csv?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}",
        f"s3://bucket/m.csv?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}",
        f"s3://bucket/m.csv?AWSAccessKeyId=AKIA&Signature={SIGNATURE}&Expires=1",
        f"s3://AKIA:{SIGNATURE}@bucket/m.csv",
        f"https://me:{SIGNATURE}@example.com/m.csv",
    ],
)
def test_a_place_that_carries_a_secret_is_refused(uri: str) -> None:
    """It would show in plans, receipts and logs; the refusal does not repeat it."""
    for source, destination in ((uri, "out"), ("m.csv", uri)):
        with pytest.raises(errors.BadInput) as caught:
            Job(source, destination)
        assert SIGNATURE not in str(caught.value)
        assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a?b=c/m.csv", "s3://bucket/me@example.com/m.csv", "m.csv?Signature=1", "file:///a@b/m.csv"]
)
def test_a_place_with_odd_letters_is_none(uri: str) -> None:
    """In a key and in a file's name they are letters."""
    assert Job(uri, "out").source == uri
    assert Job("m.csv", uri).destination == uri
