"""S3 through boto3, in threads. The only module that imports boto3.

Endpoint, region, profile and credentials that are not given come from where boto3 looks for them: the environment,
the AWS configuration files, the machine's role. Storages with the same options share one client and its threads.

An S3-compatible store needs conditional writes (`If-None-Match: *`, `If-Match`), strong consistency and
`ListObjectsV2`; every contract test also runs against one (`VARIATIONS_TEST_S3_ENDPOINT`).
"""

import asyncio
import io
import os
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote, urlsplit

import boto3.session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from variations.errors import BadInput, BucketNotFound, PreconditionFailed, StorageUnavailable
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
    without_secrets,
)
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

_DEFAULT_REGION = "us-east-1"  # where a store other than Amazon's says it is, and nobody configured anything
_BODY_ATTEMPTS = 3
_CONFLICT_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.5
_CHUNK_BYTES = 1 << 20
# One PUT carries at most 5 GB. From here on parts are sent side by side; below, one PUT costs the least CPU.
_MULTIPART = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=4)
_METADATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_METADATA_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


@dataclass(frozen=True, slots=True)
class S3Options:
    """How the store is reached; what is None is left to boto3.

    `attempts` is how often a request is sent before it fails (SlowDown, 5xx, resets, time-outs), `threads` how
    many requests are under way at once, in this process and over all storages with these options.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    attempts: int = 5
    threads: int = 16


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
                    yield Entry(key=key, size=item["Size"], modified=item["LastModified"], etag=_etag(item["ETag"]))
            token = page.get("NextContinuationToken")
            if token is None:
                return

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
        connection = _shared(self._options)
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
        connection = _shared(self._options)
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
            endpoint = _shared(self._options).endpoint
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

    def _page(self, prefix: str, token: str | None, client: "S3Client") -> Any:
        extra: dict[str, Any] = {} if token is None else {"ContinuationToken": token}
        try:
            return client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, **extra)
        except ResponseParserError as error:  # the XML ends too early
            raise _BodyBrokenError from error

    def _head(self, key: str, client: "S3Client") -> Entry:
        try:
            answer: Any = client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as error:
            bucket_is_known = self._bucket in _shared(self._options).known_buckets
            if answer_code(error) not in {"400", "403", "404"} or (answer_code(error) == "404" and bucket_is_known):
                raise
            # The answer to a HEAD has no body to name the cause: a missing bucket looks like a missing key, a wrong
            # secret like a missing permission. A GET has one; if it succeeds, its headers say the same.
            answer = client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            answer["Body"].close()
        return Entry(key=key, size=answer["ContentLength"], modified=answer["LastModified"], etag=_etag(answer["ETag"]))

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
            if _size(file) < _MULTIPART.multipart_threshold:
                return self._put_in_one(key, data, extra, client)
            client.upload_fileobj(file, self._bucket, self._prefix + key, ExtraArgs=extra, Config=_MULTIPART)
        # The transfer gives no ETag back. In between somebody may have replaced the object, then it is theirs.
        return self._head(key, client)

    def _put_in_one(self, key: str, data: bytes | Path, extra: dict[str, Any], client: "S3Client") -> Entry:
        with ExitStack() as stack:
            body: BinaryIO = (
                io.BytesIO(data)
                if isinstance(data, bytes)
                else stack.enter_context(open_for_upload(data, uri=self.uri_of(key)))
            )
            size = len(data) if isinstance(data, bytes) else _size(body)
            answer = client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, **extra)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date is None:
            return self._head(key, client)
        return Entry(key=key, size=size, modified=_http_date(date), etag=_etag(answer["ETag"]))

    def _presigned_url(self, key: str, expires_seconds: int, client: "S3Client") -> str:
        if _is_amazon(client) and self._bucket not in _shared(self._options).known_buckets:
            # A signature holds for one region. Any request makes the client learn which is the bucket's.
            try:
                client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if answer_status(error) == 404:  # noqa: PLR2004
                    raise BucketNotFound(f"{printable(self.uri_of(key))}: there is no such bucket") from error
        return client.generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": self._prefix + key}, ExpiresIn=expires_seconds
        )


def close_clients() -> None:
    """Close every shared client, once what its threads do is done; a storage that is used again opens a new one."""
    with _connections_lock:
        connections = list(_connections.values())
        _connections.clear()
    for connection in connections:
        connection.close()


class _BodyBrokenError(Exception):
    """The request was answered, and its body did not arrive whole."""


class _Connection:
    """One client and its threads; boto3's clients may be used by many threads, and made by one at a time."""

    def __init__(self, options: S3Options) -> None:
        self.known_buckets: set[str] = set()
        self.wants_bare_etags = False
        self.endpoint = without_secrets(options.endpoint_url) if options.endpoint_url else "the store"
        self._options = options
        self._client: S3Client | None = None
        self._making = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=options.threads, thread_name_prefix="s3")

    async def run(self, request: "Callable[[S3Client], T]") -> T:
        """Return what the request returns, called with the client in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, request)

    def close(self) -> None:
        """Wait for the threads and close the client's connections."""
        self._pool.shutdown(wait=True)
        if self._client is not None:
            self._client.close()

    def _call(self, request: "Callable[[S3Client], T]") -> T:
        with self._making:
            if self._client is None:
                # Some 100 ms of reading JSON, so it is done here in the thread, and once.
                self._client = _make_client(self._options)
                self.endpoint = without_secrets(self._client.meta.endpoint_url)
            client = self._client
        return request(client)


_connections: dict[tuple[int, S3Options], _Connection] = {}
_connections_lock = threading.Lock()


def _shared(options: S3Options) -> _Connection:
    # Neither threads nor sockets outlive a fork, so a child process makes its own.
    key = (os.getpid(), options)
    with _connections_lock:
        if key not in _connections:
            _connections[key] = _Connection(options)
        return _connections[key]


def _make_client(options: S3Options) -> "S3Client":
    session = boto3.session.Session(profile_name=options.profile)
    config = Config(
        # Addressing is left at "auto": path style at an endpoint that was set, virtual hosts at Amazon's.
        signature_version="s3v4",
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        max_pool_connections=options.threads,
        tcp_keepalive=True,
    )
    region = options.region or session.region_name or _DEFAULT_REGION
    try:
        return session.client("s3", region_name=region, endpoint_url=options.endpoint_url, config=config)
    except ValueError as error:
        raise EndpointNotAUrl from error


def _read(body: Any) -> bytes:
    try:
        chunk: bytes = body.read(_CHUNK_BYTES)
    except BROKEN_BODY as error:
        raise _BodyBrokenError from error
    return chunk


def _is_missing(error: ClientError) -> bool:
    return answer_code(error) in {"404", "NoSuchKey"}


def _is_amazon(client: "S3Client") -> bool:
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _etag(text: str) -> str:
    # Without its quotes, so that it compares equal whichever answer it came with.
    return text.strip('"')


def _http_date(text: str) -> datetime:
    return parsedate_to_datetime(text).astimezone(UTC)


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
