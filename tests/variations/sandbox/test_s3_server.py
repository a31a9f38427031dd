"""The S3 server on this machine, where it is more than moto's."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from moto.s3.models import S3Backend

from variations.sandbox.s3_server import running_s3

# It looks for one, and at nothing in it.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, Signature=0"}


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_of_two_conditional_writes_at_once_one_is_first(monkeypatch: pytest.MonkeyPatch, condition: str) -> None:
    """Though moto looks at the condition of both before it writes, where they can meet in between."""
    with running_s3() as url, ThreadPoolExecutor(2) as pool:
        httpx.put(f"{url}/bucket").raise_for_status()
        value = "*"
        if condition == "If-Match":
            value = httpx.put(f"{url}/bucket/key", content=b"first", headers=SIGNED).headers["ETag"]
        meeting = threading.Barrier(2)
        put = S3Backend.put_object

        def put_late(backend: Any, *arguments: Any, **more: Any) -> Any:
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.3)
            return put(backend, *arguments, **more)

        monkeypatch.setattr(S3Backend, "put_object", put_late)

        def write(content: bytes) -> int:
            return httpx.put(f"{url}/bucket/key", content=content, headers={**SIGNED, condition: value}).status_code

        assert sorted(pool.map(write, [b"one", b"other"])) == [200, 412]
