"""The shared clients of S3 and their threads. The only module that imports boto3.

Endpoint, region, profile and credentials that are not given come from where boto3 looks for them: the environment,
the AWS configuration files, the machine's role. Storages with the same options share one client and its threads.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import boto3
import boto3.session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.handlers import add_expect_header

from variations.storage.keys import without_secrets
from variations.storage.s3_errors import EndpointNotAUrl

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_DEFAULT_REGION = "us-east-1"  # where a store other than Amazon's says it is, and nobody configured anything
_PART_BYTES_MAX = 32 << 20
_PARTS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class S3Options:
    """How the store is reached; what is None is left to boto3.

    `attempts` is how often a request is sent before it fails (SlowDown, 5xx, resets, time-outs), `threads` how
    many requests are under way at once, in this process and over all storages with these options. A file of
    `multipart_bytes` or more goes up in parts, side by side (one PUT carries 5 GB at most, and costs less CPU).
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    attempts: int = 5
    threads: int = 16
    multipart_bytes: int = 64 << 20


class Connection:
    """One client and its threads, and what was learned with it of the store; to be had from `shared_connection`.

    Attributes:
        endpoint: the store's address, for messages.
        known_buckets: those that have answered as if they were there.
        bucket_regions: of those that somebody asked for.
        wants_bare_etags: whether the store takes `If-Match` without quotes only.
    """

    def __init__(self, options: S3Options) -> None:
        self.endpoint = without_secrets(options.endpoint_url) if options.endpoint_url else "the store"
        self.known_buckets: set[str] = set()
        self.bucket_regions: dict[str, str] = {}
        self.wants_bare_etags = False
        self._options = options
        # None is the client for all requests, a region the one that signs URLs for it. boto3's clients may be used by
        # many threads at once, and made by one at a time.
        self._clients: dict[str | None, S3Client] = {}
        self._making = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=options.threads, thread_name_prefix="s3")

    async def run(self, request: "Callable[[S3Client], T]") -> T:
        """Return what the request returns, called with the client in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, request)

    def client_in(self, region: str | None) -> "S3Client":
        """Return the client that signs for Amazon's servers in a region, or with None the one for all requests.

        The first call takes some 100 ms of CPU.
        """
        with self._making:
            if region not in self._clients:
                self._clients[region] = _make_client(self._options, region=region)
            return self._clients[region]

    def close(self) -> None:
        """Wait for the threads and close the clients' sockets."""
        self._pool.shutdown(wait=True)
        for client in self._clients.values():
            client.close()

    def _call(self, request: "Callable[[S3Client], T]") -> T:
        client = self.client_in(None)
        self.endpoint = without_secrets(client.meta.endpoint_url)
        return request(client)


_connections: dict[tuple[int, S3Options], Connection] = {}
_connections_lock = threading.Lock()


def shared_connection(options: S3Options) -> Connection:
    """Return the one connection of this process with these options."""
    # Neither threads nor sockets outlive a fork, so a child process makes its own.
    key = (os.getpid(), options)
    with _connections_lock:
        if key not in _connections:
            _connections[key] = Connection(options)
        return _connections[key]


def close_clients() -> None:
    """Close every shared client, once what its threads do is done; a storage that is used again opens a new one."""
    with _connections_lock:
        connections = list(_connections.values())
        _connections.clear()
    for connection in connections:
        connection.close()


def upload_in_parts(
    client: "S3Client", file: BinaryIO, bucket: str, key: str, *, extra: dict[str, Any], options: S3Options
) -> None:
    """Store a large file, a few parts at a time."""
    parts = TransferConfig(
        multipart_threshold=options.multipart_bytes,
        multipart_chunksize=min(options.multipart_bytes, _PART_BYTES_MAX),
        max_concurrency=_PARTS_AT_ONCE,
    )
    client.upload_fileobj(file, bucket, key, ExtraArgs=extra, Config=parts)


def is_amazon(client: "S3Client") -> bool:
    """Return whether the client speaks to Amazon's servers, where a bucket lives in one of many regions."""
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _make_client(options: S3Options, *, region: str | None) -> "S3Client":
    session = boto3.session.Session(profile_name=options.profile)
    config = Config(
        # Addressing is left at "auto": path style at an endpoint that was set, virtual hosts at Amazon's.
        signature_version="s3v4",
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        # A signed URL has to name the region's own host: the global one redirects, and a signature does not follow.
        s3={"addressing_style": "virtual"} if region else None,
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        max_pool_connections=options.threads,
        tcp_keepalive=True,
        # Else it is put together anew for each request.
        user_agent=f"Boto3/{boto3.__version__} variations",
    )
    region = region or options.region or session.region_name or _DEFAULT_REGION
    try:
        client = session.client("s3", region_name=region, endpoint_url=options.endpoint_url, config=config)
    except ValueError as error:
        raise EndpointNotAUrl from error
    # What is put is small, and hardly ever refused: asking first whether it may be sent only takes time.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client
