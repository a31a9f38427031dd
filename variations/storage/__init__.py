"""Where things lie: one small interface over S3 and local folders."""

import asyncio
from collections.abc import Awaitable, Callable

from variations.storage.base import Entry, Storage
from variations.storage.keys import S3Location, parse_uri, split_uri
from variations.storage.local import LocalStorage
from variations.storage.s3 import S3Storage
from variations.storage.s3_client import S3Options, close_clients

__all__ = ["Entry", "S3Options", "Storage", "close_clients", "open_storage", "split_uri"]


def open_storage(
    uri: str,
    *,
    s3: S3Options | None = None,
    missing_ok: bool = False,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Storage:
    """Return the storage at `s3://bucket/prefix`, `file:///folder` or a path. Nothing is asked of it yet.

    Args:
        uri: the root. `s3://` is literal, `file://` percent-encoded, a relative path is made absolute.
        s3: how S3 is reached; without it, as boto3's own configuration says.
        missing_ok: read a local folder that is not there as an empty one, as is due for a destination before its
            first run. Without it, reading raises BucketNotFound. Writing makes it in either case.
        sleep: waits between two tries, in seconds.

    Raises:
        BadInput: it is no such URI.
    """
    location = parse_uri(uri)
    if isinstance(location, S3Location):
        return S3Storage(location, options=s3, sleep=sleep)
    return LocalStorage(location, missing_ok=missing_ok)
