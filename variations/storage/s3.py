"""A prefix of a bucket, with S3 called in threads.

An S3-compatible store needs conditional writes (`If-None-Match: *`, `If-Match`), strong consistency and
`ListObjectsV2`; every contract test also runs against one (`TEST_S3_ENDPOINT`).
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from variations.errors import BadInput, BucketNotFound, PreconditionFailed, StorageError, StorageUnavailable
from variations.storage.base import Entry
from variations.storage.files import open_for_upload, temporary_beside, writing_locally
from variations.storage.keys import (
    S3_KEY_MAX_BYTES,
    S3Location,
    check_key,
    check_prefix,
    printable,
    s3_prefix,
    s3_root_uri,
)
from variations.storage.s3_client import S3Options, is_amazon, shared_connection, upload_in_parts
from variations.storage.s3_errors import (
    BROKEN_BODY,
    EndpointNotAUrl,
    answer_code,
    answer_status,
    broke_off,
    translate,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

PRESIGNED_SECONDS_MAX = 7 * 24 * 3600
"""The longest life of a presigned URL with signature version 4."""

_BODY_ATTEMPTS = 3
_CONFLICT_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.5
_CHUNK_BYTES = 1 << 20
_METADATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_METADATA_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


class S3Storage:
    """A prefix of a bucket.

    Keys are literal, up to 1,024 bytes of UTF-8 with the prefix. A listing leaves out the empty objects whose key
    ends in `/`, with which consoles mark folders. A call that is cancelled may still take effect: its thread goes on.

    Args:
        location: the bucket, and the prefix with or without its trailing slash.
        options: how the store is reached.
        sleep: waits between two tries, in seconds.
    """

    def __init__(
        self,
        location: S3Location,
        *,
        options: S3Options | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._bucket = location.bucket
        self._prefix = s3_prefix(location.path)
        self._options = options or S3Options()
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"S3Storage({self.uri!r})"

    @property
    def uri(self) -> str:
        """The root, as `s3://bucket/prefix`."""
        return s3_root_uri(self._bucket, self._prefix)

    def uri_of(self, key: str) -> str:
        """Return the whole URI of a key, literally."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield every object whose key starts with `prefix`, in the order of their UTF-8, page by page."""
        check_prefix(prefix, root=self.uri)
        token: str | None = None
        while True:
            page = await self._repeating_broken_bodies(prefix, partial(self._page, prefix, token), doing="list")
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                if key and not key.endswith("/"):
                    yield _entry(key, size=item["Size"], modified=item["LastModified"], etag=item["ETag"])
            token = page.get("NextContinuationToken")
            if token is None:
                return

    async def folders(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the names of the folders directly below `prefix`, in the order of their UTF-8, without a slash.

        All pages are fetched first: S3 sorts a name with its slash, and has `a-b/` before `a/`. An empty object with
        which a console marks a folder makes it one.

        Raises:
            BadInput: the prefix does not end in `/`.
        """
        check_prefix(prefix, root=self.uri)
        if prefix and not prefix.endswith("/"):
            raise BadInput(f"{printable(self.uri)}: {prefix!r} names no folder to look in: end it in '/'")
        names: set[str] = set()
        token: str | None = None
        while True:
            request = partial(self._page, prefix, token, delimiter="/")
            page = await self._repeating_broken_bodies(prefix, request, doing="list")
            for item in page.get("CommonPrefixes", ()):
                names.add(item["Prefix"].removeprefix(self._prefix + prefix).removesuffix("/"))
            token = page.get("NextContinuationToken")
            if token is None:
                break
        for name in sorted(names, key=str.encode):
            yield name

    async def now(self) -> datetime:
        """Return the store's own time in UTC, to the second: the `Date` of its answer to a listing of one object.

        Raises:
            BucketNotFound: there is no such bucket.
            StorageError: the answer has no date, or one that cannot be read.
        """
        with self._errors("", doing="list"):
            try:
                answer = await self._run(
                    lambda client: client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
                )
                date = _date(answer)
            except ClientError as error:
                # A refusal to list is dated, too, and all that somebody gets who may only read and write objects.
                if answer_code(error) != "AccessDenied":
                    raise
                date = _date(error.response)
        if date is None:
            raise StorageError(f"{printable(self.uri)}: the answer of the store has no Date that can be read")
        return date

    async def head(self, key: str) -> Entry | None:
        """Return what the store says of one object, or None if there is none.

        Raises:
            BucketNotFound: there is no such bucket.
        """
        self._check(key)
        with self._errors(key, doing="read"):
            try:
                return await self._run(partial(self._head, key))
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise

    async def exists(self, key: str) -> bool:
        """Return whether the object is there."""
        return await self.head(key) is not None

    async def get(self, key: str) -> bytes:
        """Return the whole object; a body that breaks off or arrives corrupt is fetched again.

        Raises:
            ObjectNotFound: there is no such object.
            StorageUnavailable: no try brought the whole body.
        """
        self._check(key)
        return await self._repeating_broken_bodies(key, partial(self._get, key), doing="read")

    async def get_to_file(self, key: str, path: Path) -> None:
        """Write the object to `path`, whole or not at all, a chunk at a time; missing folders are made.

        Raises:
            ObjectNotFound: there is no such object.
            StorageUnavailable: no try brought the whole body.
        """
        self._check(key)
        await self._repeating_broken_bodies(key, partial(self._get_to_file, key, path), doing="read")

    async def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Entry:
        """Write the object, replacing what is there; a `Path` is streamed from the file.

        Metadata values are sent percent-encoded where they are not printable ASCII, which is all that S3 takes.

        Raises:
            BadInput: the file cannot be read, or the metadata has a name that S3 does not take.
        """
        self._check(key)
        extra = _content(content_type) | _metadata(metadata, uri=self.uri_of(key))
        with self._errors(key, doing="write"):
            return await self._run(partial(self._put, key, data, extra))

    async def put_if_absent(self, key: str, data: bytes, *, content_type: str | None = None) -> Entry | None:
        """Write the object if there is none, atomically; None says that somebody was first.

        "Somebody" can be this very call: a PUT whose answer was lost is sent again, and finds its own object. Who
        must know reads the object, which therefore has to name its writer.
        """
        self._check(key)
        with self._errors(key, doing="write"):
            return await self._put_on_condition(key, data, {"IfNoneMatch": "*"} | _content(content_type))

    async def replace(self, key: str, data: bytes | Path, *, etag: str, content_type: str | None = None) -> Entry:
        """Write the object, up to 5 GB, if it is still the one with `etag`, atomically.

        As with `put_if_absent`, the replacement that got ahead may be this call's own.

        Raises:
            PreconditionFailed: it has been replaced or removed since.
        """
        self._check(key)
        connection = shared_connection(self._options)
        # Amazon's servers take both forms, Ceph's only the bare one, where a quoted tag never matches. Asking in the
        # other form after a 412 is safe: both name the same content, and the store still compares.
        quoted, bare = f'"{etag}"', etag
        forms = (bare, quoted) if connection.wants_bare_etags else (quoted, bare)
        with self._errors(key, doing="write"):
            for form in forms:
                entry = await self._put_on_condition(key, data, {"IfMatch": form} | _content(content_type))
                if entry is not None:
                    connection.wants_bare_etags = form == bare
                    return entry
        raise PreconditionFailed(
            f"{printable(self.uri_of(key))}: it was replaced or removed by somebody else: read it again"
        )

    async def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is no error."""
        self._check(key)
        with self._errors(key, doing="delete"):
            await self._run(lambda client: client.delete_object(Bucket=self._bucket, Key=self._prefix + key))

    async def presigned_url(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL that fetches the object without credentials until it expires.

        It is not checked that the object is there. Signed with temporary credentials, it dies with them.

        Raises:
            BadInput: S3 signs for 1 s to 7 days.
        """
        self._check(key)
        if not 1 <= expires_seconds <= PRESIGNED_SECONDS_MAX:
            raise BadInput(
                f"{printable(self.uri_of(key))}: a presigned URL lives 1 to {PRESIGNED_SECONDS_MAX} s,"
                f" not {expires_seconds}"
            )
        with self._errors(key, doing="read"):
            return await self._run(partial(self._presigned_url, key, expires_seconds))

    async def aclose(self) -> None:
        """Do nothing: client and threads are shared, see `close_clients`."""

    def _check(self, key: str) -> None:
        check_key(key, root=self.uri)
        if (length := len((self._prefix + key).encode())) > S3_KEY_MAX_BYTES:
            raise BadInput(f"{printable(self.uri_of(key))}: the key has {length} bytes, S3 takes {S3_KEY_MAX_BYTES}")

    async def _run(self, request: "Callable[[S3Client], T]") -> T:
        connection = shared_connection(self._options)
        try:
            answer = await connection.run(request)
        except ClientError as error:
            if answer_code(error) in {"NoSuchKey", "PreconditionFailed"}:
                connection.known_buckets.add(self._bucket)
            raise
        connection.known_buckets.add(self._bucket)
        return answer

    @contextmanager
    def _errors(self, key: str, *, doing: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, ResponseParserError, EndpointNotAUrl) as error:
            endpoint = shared_connection(self._options).endpoint
            raise translate(error, uri=self.uri_of(key), doing=doing, endpoint=endpoint) from error

    async def _repeating_broken_bodies(self, key: str, request: "Callable[[S3Client], T]", *, doing: str) -> T:
        cause: Exception | None = None
        for attempt in range(_BODY_ATTEMPTS):
            if attempt:
                await self._sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                with self._errors(key, doing=doing):
                    return await self._run(request)
            except _BodyBrokenError as error:
                cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise broke_off(self.uri_of(key), attempts=_BODY_ATTEMPTS) from cause

    async def _put_on_condition(self, key: str, data: bytes | Path, extra: dict[str, Any]) -> Entry | None:
        for attempt in range(_CONFLICT_ATTEMPTS):
            if attempt:
                await self._sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                return await self._run(partial(self._put_in_one, key, data, extra))
            except ClientError as error:
                status = answer_status(error)
                if status == 412 or answer_code(error) == "NoSuchKey":  # noqa: PLR2004
                    return None
                # 409 ConditionalRequestConflict: another write of this key is under way, nobody has won yet.
                if status != 409:  # noqa: PLR2004
                    raise
        raise StorageUnavailable(
            f"{printable(self.uri_of(key))}: other writes of this object got in the way {_CONFLICT_ATTEMPTS} times:"
            " repeat later"
        )

    def _page(self, prefix: str, token: str | None, client: "S3Client", *, delimiter: str | None = None) -> Any:
        extra: dict[str, Any] = {} if token is None else {"ContinuationToken": token}
        if delimiter is not None:
            extra["Delimiter"] = delimiter
        page = client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, **extra)
        if "IsTruncated" not in page:
            # Botocore repeats a page whose XML breaks off, and takes one of which nothing arrived for an empty one.
            raise _BodyBrokenError
        return page

    def _head(self, key: str, client: "S3Client") -> Entry:
        try:
            answer: Any = client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as error:
            bucket_is_known = self._bucket in shared_connection(self._options).known_buckets
            if answer_code(error) not in {"400", "403", "404"} or (answer_code(error) == "404" and bucket_is_known):
                raise
            # The answer to a HEAD has no body to name the cause: a missing bucket looks like a missing key, a wrong
            # secret like a missing permission. A GET has one; if it succeeds, its headers say the same.
            answer = client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            answer["Body"].close()
        return _entry(key, size=answer["ContentLength"], modified=answer["LastModified"], etag=answer["ETag"])

    def _get(self, key: str, client: "S3Client") -> bytes:
        body = client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
        try:
            return body.read()
        except BROKEN_BODY as error:
            raise _BodyBrokenError from error
        finally:
            body.close()

    def _get_to_file(self, key: str, path: Path, client: "S3Client") -> None:
        body = client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
        try:
            with writing_locally(path, uri=self.uri_of(key)), temporary_beside(path) as temporary:
                while chunk := _read(body):
                    temporary.file.write(chunk)
                temporary.file.flush()
                temporary.path.replace(path)
        finally:
            body.close()

    def _put(self, key: str, data: bytes | Path, extra: dict[str, Any], client: "S3Client") -> Entry:
        if isinstance(data, bytes):
            return self._put_in_one(key, data, extra, client)
        with open_for_upload(data, uri=self.uri_of(key)) as file:
            if _size(file) < self._options.multipart_bytes:
                return self._put_in_one(key, data, extra, client)
            upload_in_parts(client, file, self._bucket, self._prefix + key, extra=extra, options=self._options)
        # The transfer gives no ETag back. In between somebody may have replaced the object, then it is theirs.
        return self._head(key, client)

    def _put_in_one(self, key: str, data: bytes | Path, extra: dict[str, Any], client: "S3Client") -> Entry:
        with ExitStack() as stack:
            body: bytes | BinaryIO
            if isinstance(data, bytes):
                body, size = data, len(data)
            else:
                body = stack.enter_context(open_for_upload(data, uri=self.uri_of(key)))
                size = _size(body)
            answer = client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, **extra)
        date = _date(answer)
        if date is None:
            return self._head(key, client)
        return _entry(key, size=size, modified=date, etag=answer["ETag"])

    def _presigned_url(self, key: str, expires_seconds: int, client: "S3Client") -> str:
        if is_amazon(client):
            # A signature holds for one region, and S3 does not redirect who comes with one for another.
            client = shared_connection(self._options).client_in(self._region(client))
        return client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": self._prefix + key}, ExpiresIn=expires_seconds
        )

    def _region(self, client: "S3Client") -> str:
        regions = shared_connection(self._options).bucket_regions
        if self._bucket not in regions:
            answer: Any
            try:
                answer = client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if answer_status(error) == 404:  # noqa: PLR2004
                    raise BucketNotFound(f"s3://{self._bucket}: there is no such bucket") from error
                answer = error.response  # 403 names the region, too
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            regions[self._bucket] = headers.get("x-amz-bucket-region", client.meta.region_name)
        return regions[self._bucket]


class _BodyBrokenError(Exception):
    """The request was answered, and its body did not arrive whole."""


def _read(body: Any) -> bytes:
    try:
        chunk: bytes = body.read(_CHUNK_BYTES)
    except BROKEN_BODY as error:
        raise _BodyBrokenError from error
    return chunk


def _is_missing(error: ClientError) -> bool:
    return answer_code(error) in {"404", "NoSuchKey"}


def _date(answer: Any) -> datetime | None:
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def _entry(key: str, *, size: int, modified: datetime, etag: str) -> Entry:
    # The ETag without its quotes, so that it compares equal whichever answer it came with.
    return Entry(key=key, size=size, modified=modified.astimezone(UTC), etag=etag.strip('"'))


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _content(content_type: str | None) -> dict[str, Any]:
    return {} if content_type is None else {"ContentType": content_type}


def _metadata(metadata: dict[str, str] | None, *, uri: str) -> dict[str, Any]:
    if not metadata:
        return {}
    for name in metadata:
        if not _METADATA_NAME.fullmatch(name):
            raise BadInput(f"{printable(uri)}: {name!r} cannot be a metadata name: use letters, digits, '-' and '_'")
    return {"Metadata": {name: _metadata_value(value) for name, value in metadata.items()}}


def _metadata_value(value: str) -> str:
    # Leading and trailing spaces would be lost in a header.
    return quote(value, safe=_METADATA_SAFE if value == value.strip() else _METADATA_SAFE.replace(" ", ""))
