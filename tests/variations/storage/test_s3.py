"""What is special about S3: pages, broken bodies, conditions, signatures, and each way to be refused."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from variations.errors import (
    AccessDenied,
    BadInput,
    BucketNotFound,
    CredentialsRefused,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    StorageUnavailable,
)
from variations.storage import S3Options, Storage, close_clients, open_storage
from variations.storage.s3_client import shared_connection

REAL_ENDPOINT = os.environ.get("TEST_S3_ENDPOINT")

Serve = Callable[..., str]


def at(endpoint: str, *, attempts: int = 1, threads: int = 16) -> S3Options:
    """Reach a test's own server, without patience."""
    return S3Options(
        endpoint_url=endpoint,
        attempts=attempts,
        threads=threads,
        connect_timeout_seconds=2,
        read_timeout_seconds=2,
    )


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder."""
    return [path.name for path in folder.iterdir()]


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    """Return all keys of a listing."""
    return [entry.key async for entry in storage.list(prefix)]


async def folders_of(storage: Storage, prefix: str = "") -> list[str]:
    """Return the names of all folders directly below a prefix."""
    return [name async for name in storage.folders(prefix)]


async def time_of(storage: Storage) -> datetime:
    """Return the store's own time."""
    return await storage.now()


async def store_empty(storage: Storage, keys: list[str], *, bucket: str) -> None:
    """Store many empty objects."""
    if REAL_ENDPOINT:
        await asyncio.gather(*(storage.put(key, b"") for key in keys))
    else:  # into its memory, for thousands of requests take a while
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for key in keys:
            backend.put_object(bucket, storage.uri_of(key).removeprefix(f"s3://{bucket}/"), b"")


@pytest.fixture
async def dating() -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Serve an empty listing with the given line in its head, at an endpoint of its own."""
    async with AsyncExitStack() as stack:

        async def serve(line: str) -> str:
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{line}\r\n\r\n"

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head.encode() + body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()

            server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield serve


@pytest.fixture(scope="module")
def many(bucket: str, s3_options: S3Options) -> tuple[Storage, list[str]]:
    """Give a prefix with 2,500 objects."""
    storage = open_storage(f"s3://{bucket}/{uuid.uuid4().hex}", s3=s3_options)
    keys = [f"{number % 7}/{number:05} ü+.png" for number in range(2500)]
    asyncio.run(store_empty(storage, keys, bucket=bucket))
    return storage, sorted(keys)


async def test_a_listing_goes_over_its_pages(many: tuple[Storage, list[str]]) -> None:
    """All of 2,500 keys come, in order, once, and a prefix selects among them."""
    storage, keys = many
    assert await keys_of(storage) == keys
    assert await keys_of(storage, "3/00") == [key for key in keys if key.startswith("3/00")]


async def test_a_listing_that_is_left_early_asks_for_no_more_pages(
    many: tuple[Storage, list[str]], truncating: Serve
) -> None:
    """The first key costs one request."""
    seen: list[Any] = []
    storage = open_storage(many[0].uri, s3=at(truncating(times=0, seen=seen)))
    assert (await anext(storage.list())).key == many[1][0]
    assert len(seen) == 1


async def test_folders_cost_one_request_whatever_lies_in_them(
    many: tuple[Storage, list[str]], truncating: Serve
) -> None:
    """The 2,500 objects in seven folders are not walked."""
    seen: list[Any] = []
    storage = open_storage(many[0].uri, s3=at(truncating(times=0, seen=seen)))
    assert await folders_of(storage) == list("0123456")
    assert len(seen) == 1


async def test_folders_go_over_their_pages(s3_storage: Storage, bucket: str, truncating: Serve, naps: Any) -> None:
    """All of 1,200 come, in the order of their names, also where S3's own is another and a page breaks off."""
    names = [f"{number:03}{end}" for number in range(600) for end in ("", "-b")]
    await store_empty(s3_storage, [f"runs/{name}/{file}" for name in names for file in "xy"], bucket=bucket)
    seen: list[Any] = []
    storage = open_storage(s3_storage.uri, s3=at(truncating(times=1, seen=seen)), sleep=naps)
    assert await folders_of(storage, "runs/") == names
    assert len(seen) == 3
    assert naps.seconds == [0.5]


async def test_the_markers_of_folders_are_not_listed(s3_storage: Storage, bucket: str, s3_options: S3Options) -> None:
    """An empty object whose key ends in a slash, the root's own included, is no entry."""
    prefix = s3_storage.uri.removeprefix(f"s3://{bucket}/")
    async with httpx.AsyncClient() as client:
        for marker in (f"{prefix}/", f"{prefix}/folder/"):
            answer = await client.put(f"{s3_options.endpoint_url}/{bucket}/{marker}")
            if answer.status_code == 403:
                # Only where TEST_S3_ENDPOINT names one: such a key is none of ours, so the storage signs no PUT of it.
                pytest.skip("a real store takes no unsigned PUT")
    await s3_storage.put("folder/a", b"")
    assert await keys_of(s3_storage) == ["folder/a"]
    assert await folders_of(s3_storage) == ["folder"]
    assert await folders_of(s3_storage, "folder/") == []


async def test_content_type_and_metadata_arrive(s3_storage: Storage) -> None:
    """Metadata that is no printable ASCII comes percent-encoded, and a percent sign always."""
    metadata = {"plain": "some text/1", "place": "Zürich 100%", "spaces": " a ", "lines": "a\nb"}
    await s3_storage.put("a.png", b"1", content_type="image/png", metadata=metadata)
    async with httpx.AsyncClient() as client:
        answer = await client.get(await s3_storage.presigned_url("a.png", expires_seconds=60))
    assert answer.headers["content-type"] == "image/png"
    assert {name: answer.headers[f"x-amz-meta-{name}"] for name in metadata} == {
        "plain": "some text/1",
        "place": "Z%C3%BCrich 100%25",
        "spaces": "%20a%20",
        "lines": "a%0Ab",
    }


async def test_a_metadata_name_that_is_no_header_is_bad_input(s3_storage: Storage) -> None:
    """The name is in the message."""
    with pytest.raises(BadInput, match="Größe"):
        await s3_storage.put("a", b"", metadata={"Größe": "1"})


async def test_a_large_file_goes_up_in_parts(s3_storage: Storage, s3_endpoint: str, tmp_path: Path) -> None:
    """Above the threshold the file is stored whole, and its entry is the store's."""
    source = tmp_path / "large"
    content = os.urandom(6 << 20)
    source.write_bytes(content)
    options = S3Options(endpoint_url=s3_endpoint, multipart_bytes=5 << 20)
    put = await open_storage(s3_storage.uri, s3=options).put("large", source, content_type="image/png")
    assert put.size == 6 << 20
    assert put.etag.endswith("-2")  # the ETag of an upload in two parts
    assert put == await s3_storage.head("large")
    assert await s3_storage.get("large") == content


@pytest.mark.parametrize("key", ["a.png", "b c+d%20/ü?#&.png"])
async def test_a_presigned_url_fetches_without_credentials(s3_storage: Storage, key: str) -> None:
    """Any HTTP client gets the object with it; the signature is version 4, and expires as told."""
    await s3_storage.put(key, b"content")
    url = await s3_storage.presigned_url(key, expires_seconds=120)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Expires=120" in url
    async with httpx.AsyncClient() as client:
        answer = await client.get(url)
    assert answer.content == b"content"


@pytest.mark.parametrize("seconds", [0, -1, 7 * 24 * 3600 + 1])
async def test_a_presigned_url_lives_up_to_a_week(s3_storage: Storage, seconds: int) -> None:
    """What S3 would refuse later is refused at once."""
    with pytest.raises(BadInput, match="604800"):
        await s3_storage.presigned_url("a", expires_seconds=seconds)


async def test_a_presigned_url_needs_no_request(bucket: str) -> None:
    """At an endpoint that was set, signing works while nothing listens there."""
    storage = open_storage(f"s3://{bucket}", s3=at("http://127.0.0.1:9"))
    url = await storage.presigned_url("a", expires_seconds=60)
    assert url.startswith(f"http://127.0.0.1:9/{bucket}/a?")


async def test_a_url_at_amazon_names_the_region_of_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is signed for the host of the region, since a signature does not follow a redirection."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = shared_connection(S3Options()).client_in("eu-central-1")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"})
    assert url.startswith("https://bucket.s3.eu-central-1.amazonaws.com/k?")
    assert "%2Feu-central-1%2Fs3%2F" in url


async def test_the_address_comes_from_the_environment_too(
    bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AWS_ENDPOINT_URL set, and no region anywhere, a look-alike works with no option at all."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    storage = open_storage(f"s3://{bucket}/{uuid.uuid4().hex}")
    await storage.put("a", b"1")
    assert await storage.get("a") == b"1"
    close_clients()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_body_that_breaks_off_is_fetched_again(
    s3_storage: Storage, truncating: Serve, naps: Any, tmp_path: Path, times: int
) -> None:
    """After one or two broken bodies get and get_to_file have the whole object, with a wait before each further try."""
    content = os.urandom(3_000_000)
    await s3_storage.put("a", content)
    endpoint = truncating(times=times, cut=1_500_000)
    storage = open_storage(s3_storage.uri, s3=at(endpoint), sleep=naps)
    assert await storage.get("a") == content
    assert naps.seconds == [0.5, 1.0][:times]
    endpoint = truncating(times=times, cut=1_500_000)
    storage = open_storage(s3_storage.uri, s3=at(endpoint), sleep=naps)
    await storage.get_to_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert names_in(tmp_path) == ["out"]


# A store that TEST_S3_ENDPOINT names may keep none, and then nothing tells that a body is corrupt; moto, in CI, does.
@pytest.mark.skipif(REAL_ENDPOINT is not None, reason="not every store keeps the checksum")
async def test_a_body_that_arrives_corrupt_is_fetched_again(s3_storage: Storage, truncating: Serve, naps: Any) -> None:
    """The checksum that was stored with the object tells."""
    await s3_storage.put("a", b"content")
    endpoint = truncating(times=1, cut=0, corrupt=True)
    storage = open_storage(s3_storage.uri, s3=at(endpoint), sleep=naps)
    assert await storage.get("a") == b"content"
    assert len(naps.seconds) == 1


async def test_a_body_that_always_breaks_off_is_unavailable(
    s3_storage: Storage, truncating: Serve, naps: Any, tmp_path: Path
) -> None:
    """After three tries it is one line with the URI, and the target file as it was."""
    await s3_storage.put("a", b"x" * 1000)
    (tmp_path / "out").write_bytes(b"before")
    endpoint = truncating(times=99, cut=500)
    storage = open_storage(s3_storage.uri, s3=at(endpoint), sleep=naps)
    for call in (storage.get("a"), storage.get_to_file("a", tmp_path / "out")):
        with pytest.raises(StorageUnavailable, match="3 times") as caught:
            await call
        assert s3_storage.uri_of("a") in str(caught.value)
    assert (tmp_path / "out").read_bytes() == b"before"
    assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize("cut", [0, 300])
async def test_a_page_of_a_listing_that_breaks_off_is_fetched_again(
    s3_storage: Storage, truncating: Serve, naps: Any, cut: int
) -> None:
    """A listing is whole, or fails: of a page that never arrives nothing is taken for an empty one."""
    for key in ("a", "b", "c"):
        await s3_storage.put(key, b"")
    endpoint = truncating(times=1, cut=cut)
    storage = open_storage(s3_storage.uri, s3=at(endpoint, attempts=2), sleep=naps)
    assert await keys_of(storage) == ["a", "b", "c"]
    endpoint = truncating(times=99, cut=cut)
    storage = open_storage(s3_storage.uri, s3=at(endpoint), sleep=naps)
    with pytest.raises(StorageUnavailable) as caught:
        await keys_of(storage)
    assert s3_storage.uri in str(caught.value)


async def test_the_time_is_that_of_the_store(dating: Callable[[str], Awaitable[str]]) -> None:
    """It is what the head of the answer says, however far that is from this machine's."""
    storage = open_storage("s3://bucket/prefix", s3=at(await dating("Date: Sat, 29 Feb 2020 23:59:58 GMT")))
    assert await storage.now() == datetime(2020, 2, 29, 23, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize("line", ["X-Date: none", "Date: today"])
async def test_a_store_that_does_not_tell_its_time_is_an_error(
    dating: Callable[[str], Awaitable[str]], line: str
) -> None:
    """This machine's time is no substitute."""
    storage = open_storage("s3://bucket/prefix", s3=at(await dating(line)))
    with pytest.raises(StorageError, match=r"^s3://bucket/prefix: .*Date"):
        await storage.now()


async def test_the_time_is_told_without_the_right_to_list(answering: Serve) -> None:
    """One request for the prefix is sent, and the date of its refusal will do."""
    seen: list[Any] = []
    storage = open_storage("s3://bucket/prefix", s3=at(answering((403, "AccessDenied"), seen=seen)))
    assert abs(datetime.now(UTC) - await storage.now()) < timedelta(seconds=30)
    [request] = seen
    assert "prefix=prefix%2F" in request.path
    assert "max-keys=1" in request.path


async def test_a_missing_bucket_is_named(s3_options: S3Options, tmp_path: Path) -> None:
    """Every method tells it from a missing object, head included, whose answer does not say."""
    storage = open_storage("s3://no-such-bucket-here/a", s3=s3_options)
    for call in (
        keys_of(storage),
        folders_of(storage),
        storage.now(),
        storage.get("b"),
        storage.get_to_file("b", tmp_path / "out"),
        storage.head("b"),
        storage.exists("b"),
        storage.put("b", b""),
        storage.put_if_absent("b", b""),
        storage.delete("b"),
    ):
        with pytest.raises(BucketNotFound) as caught:
            await call
        assert "s3://no-such-bucket-here/a" in str(caught.value)
        assert "\n" not in str(caught.value)


CALLS: list[Callable[[Storage], Any]] = [
    lambda storage: storage.get("k"),
    lambda storage: storage.get_to_file("k", Path("never-written")),
    lambda storage: storage.put("k", b""),
    lambda storage: storage.put_if_absent("k", b""),
    lambda storage: storage.replace("k", b"", etag="x"),
    lambda storage: storage.head("k"),
    lambda storage: storage.exists("k"),
    lambda storage: storage.delete("k"),
    keys_of,
    folders_of,
]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidAccessKeyId", CredentialsRefused),
        (403, "SignatureDoesNotMatch", CredentialsRefused),
        (400, "ExpiredToken", CredentialsRefused),
        (403, "RequestTimeTooSkewed", CredentialsRefused),
        (503, "SlowDown", StorageUnavailable),
        (500, "InternalError", StorageUnavailable),
        (400, "InvalidBucketName", BadInput),
        (400, "SomethingNew", StorageError),
        (403, "", AccessDenied),
    ],
)
async def test_every_refusal_is_one_line_with_the_uri(
    answering: Serve, secrets_of_tests: tuple[str, str], status: int, code: str, error: type[Exception]
) -> None:
    """Whatever the method, the same error, and no text of the answer, let alone a key, in it."""
    endpoint = answering((status, code))
    storage = open_storage("s3://bucket/prefix", s3=at(endpoint))
    # Of a refusal to list the time is taken.
    for call in CALLS if code == "AccessDenied" else [*CALLS, time_of]:
        with pytest.raises(error) as caught:
            await call(storage)
        message = str(caught.value)
        of_prefix = call in {keys_of, folders_of, time_of}
        assert message.startswith("s3://bucket/prefix/: " if of_prefix else "s3://bucket/prefix/k: ")
        assert "\n" not in message
        assert "line one" not in message
        assert not any(secret in message for secret in secrets_of_tests)


async def test_access_denied_says_that_the_object_may_be_missing(answering: Serve) -> None:
    """Without the right to list, S3 answers 403 for an object that is not there."""
    endpoint = answering((403, "AccessDenied"))
    storage = open_storage("s3://bucket", s3=at(endpoint))
    with pytest.raises(AccessDenied, match=r"s3:GetObject.*s3:ListBucket.*missing object"):
        await storage.get("k")
    with pytest.raises(AccessDenied, match="s3:PutObject"):
        await storage.put("k", b"")


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({}, "no credentials were found"),
        ({"AWS_ACCESS_KEY_ID": "KEY"}, "incomplete"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    ],
)
async def test_credentials_that_are_not_there_are_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], text: str
) -> None:
    """Without keys, with half of them or with an unknown profile nothing is sent, and the message says what to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A client keeps the credentials that it was made with, so this one is new.
    storage = open_storage("s3://bucket/prefix", s3=at(f"http://127.0.0.1:{1 + len(environment)}", threads=len(text)))
    for call in [*CALLS, time_of, lambda storage: storage.presigned_url("k", expires_seconds=60)]:
        with pytest.raises(CredentialsRefused, match=text) as caught:
            await call(storage)
        assert "s3://bucket/prefix" in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_an_endpoint_where_nobody_listens_is_unavailable() -> None:
    """The message names the URI and the endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        storage = open_storage("s3://bucket/prefix", s3=at(endpoint))
        with pytest.raises(StorageUnavailable, match=endpoint) as caught:
            await storage.get("k")
    assert str(caught.value).startswith("s3://bucket/prefix/k: ")


async def test_an_endpoint_that_never_answers_is_unavailable() -> None:
    """The time-out is an option."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = S3Options(
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}", attempts=1, read_timeout_seconds=0.1
        )
        with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
            await open_storage("s3://bucket", s3=options).get("k")


async def test_an_endpoint_that_is_no_url_is_bad_input() -> None:
    """It is found at the first call."""
    with pytest.raises(BadInput, match="endpoint"):
        await open_storage("s3://bucket", s3=at("localhost")).get("k")


async def test_a_conflict_is_tried_again(answering: Serve, naps: Any) -> None:
    """409 says that another write is under way: only the next answer tells who won."""
    conflict = (409, "ConditionalRequestConflict")
    endpoint = answering(conflict, conflict, (412, "PreconditionFailed"))
    assert await open_storage("s3://b-1", s3=at(endpoint), sleep=naps).put_if_absent("k", b"") is None
    assert naps.seconds == [0.5, 1.0]
    endpoint = answering(conflict, (200, ""))
    assert await open_storage("s3://b-1", s3=at(endpoint), sleep=naps).put_if_absent("k", b"") is not None
    endpoint = answering(conflict)
    with pytest.raises(StorageUnavailable, match="s3://b-1/k"):
        await open_storage("s3://b-1", s3=at(endpoint), sleep=naps).put_if_absent("k", b"")


async def test_a_store_that_wants_its_etags_bare_gets_them(answering: Serve) -> None:
    """The quoted form is tried once, and after a success with the bare one that is sent first."""
    seen: list[Any] = []
    endpoint = answering((412, "PreconditionFailed"), (200, ""), seen=seen)
    storage = open_storage("s3://bucket", s3=at(endpoint, threads=3))
    await storage.replace("k", b"", etag="abc")
    await storage.replace("k", b"", etag="abc")
    assert [request.headers["If-Match"] for request in seen] == ['"abc"', "abc", "abc"]


async def test_an_object_that_was_removed_is_not_replaced(answering: Serve) -> None:
    """Amazon's servers answer a condition on a missing object with 404."""
    endpoint = answering((404, "NoSuchKey"))
    with pytest.raises(PreconditionFailed):
        await open_storage("s3://bucket", s3=at(endpoint)).replace("k", b"", etag="abc")
    endpoint = answering((404, "NoSuchBucket"))
    with pytest.raises(BucketNotFound):
        await open_storage("s3://bucket", s3=at(endpoint)).replace("k", b"", etag="abc")


async def test_a_missing_object_costs_one_request_once_the_bucket_is_known(answering: Serve) -> None:
    """The first 404 of a HEAD is explained by a GET, later ones are taken as they are."""
    seen: list[Any] = []
    endpoint = answering((404, "NoSuchKey"), seen=seen)
    storage = open_storage("s3://bucket-of-its-own", s3=at(endpoint))
    assert await storage.head("a") is None
    assert await storage.head("b") is None
    assert [request.method for request in seen] == ["HEAD", "GET", "HEAD"]
    with pytest.raises(ObjectNotFound):
        await storage.get("a")


async def test_a_slow_answer_is_repeated_by_the_client(answering: Serve) -> None:
    """SlowDown is repeated as often as the options say, without being seen."""
    seen: list[Any] = []
    endpoint = answering((503, "SlowDown"), (200, ""), seen=seen)
    await open_storage("s3://bucket", s3=at(endpoint, attempts=2)).put("k", b"1")
    assert len(seen) == 2


async def test_as_many_requests_are_under_way_as_threads(
    pairing: Callable[[], tuple[str, list[int]]],
) -> None:
    """Two threads carry two requests at a time, and no more, whichever storage they come from."""
    endpoint, under_way = pairing()
    storages = [open_storage(f"s3://bucket/{number}", s3=at(endpoint, threads=2)) for number in range(20)]
    await asyncio.gather(*(storage.put("k", b"") for storage in storages))
    assert len(under_way) == 20
    assert max(under_way) == 2


async def test_the_first_may_be_oneself(s3_storage: Storage, losing: Serve) -> None:
    """A conditional PUT whose answer was lost is sent again and finds its own object: only reading it tells."""
    storage = open_storage(s3_storage.uri, s3=at(losing(method="PUT", times=1), attempts=2))
    assert await storage.put_if_absent("k", b"written by me") is None
    assert await storage.get("k") == b"written by me"
    storage = open_storage(s3_storage.uri, s3=at(losing(method="PUT", times=0), attempts=2))
    before = await storage.replace("r", b"before", etag=(await s3_storage.put("r", b"")).etag)
    losing(method="PUT", times=1)
    with pytest.raises(PreconditionFailed):
        await storage.replace("r", b"written by me", etag=before.etag)
    assert await storage.get("r") == b"written by me"
