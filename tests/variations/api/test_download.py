"""Where an output may be fetched from, and how much of it."""

import gzip
from collections.abc import Awaitable, Callable

import httpx
import pytest

from variations import errors
from variations.api.download import MAX_REDIRECTS, OutputPolicy, fetch_output

from .conftest import Connection, RawServer

API_HOST = "api.segmind.com"
GOOD = "https://images.segmind.com/a.jpg"
PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.7"
ADDRESSES = {API_HOST: [PUBLIC], "images.segmind.com": [PUBLIC], "cdn.example": [PUBLIC]}
POLICY = OutputPolicy(API_HOST, ("CDN.example", "inner.example", "2130706433", "0x7f.1", "017700000001"))


def resolver(**more: list[str]) -> Callable[[str], Awaitable[list[str]]]:
    """Return what knows these hosts; `__` stands for a dot. The odd ways to write 127.0.0.1 are known too."""
    known = ADDRESSES | {name.replace("__", "."): found for name, found in more.items()}
    known |= {name: ["127.0.0.1"] for name in ("2130706433", "0x7f.1", "017700000001")}

    async def resolve(host: str) -> list[str]:
        if host not in known:
            raise OSError(-2, "Name or service not known")
        return known[host]

    return resolve


def web(pages: dict[str, httpx.Response]) -> tuple[httpx.AsyncClient, list[str]]:
    """Return a client of these pages, and the addresses that it was asked for."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        assert "x-api-key" not in request.headers
        return pages.get(str(request.url), httpx.Response(404))

    return httpx.AsyncClient(transport=httpx.MockTransport(answer)), asked


def moved(location: str, code: int = 302) -> httpx.Response:
    """Return a redirect."""
    return httpx.Response(code, headers={"location": location})


@pytest.mark.parametrize(
    "url",
    [
        GOOD,
        "https://IMAGES.segmind.com/a.jpg",
        "http://images.segmind.com:8080/a.jpg?x=1#y",
        "https://api.segmind.com/outputs/a.jpg",
        "https://cdn.example/a.jpg",
    ],
)
async def test_outputs_come_from_the_known_hosts(url: str) -> None:
    """The vendor's, the API's own, and those that a setting adds."""
    await POLICY.check(url, resolve=resolver())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "//images.segmind.com/a.jpg",
        "file:///etc/passwd",
        "file://images.segmind.com/etc/passwd",
        "ftp://images.segmind.com/a.jpg",
        "data:image/png;base64,AAAA",
        "gopher://images.segmind.com/",
        "https:///a.jpg",
        "https://evil.example/a.jpg",
        "https://images.segmind.com.evil.example/a.jpg",
        "https://evilimages.segmind.com/a.jpg",
        "https://images.segmind.com./a.jpg",
        "https://images.segmind.com@evil.example/a.jpg",
        "https://user:password@images.segmind.com/a.jpg",
        "https://@images.segmind.com/a.jpg",
        "https://evil.example\\@images.segmind.com/a.jpg",
        "https://images.segmind.com\\.evil.example/a.jpg",
        "https://images.segmind.com%00.evil.example/a.jpg",
        "https://images.segmind.com%2eevil.example/",
        "https://images.segmind.com:99999/a.jpg",
        "https://images.segmind.com:x/a.jpg",
        "https://images.segmind.com:0/a.jpg",
        " https://images.segmind.com/a.jpg",
        "https://images.segm\nind.com/a.jpg",
        "https://images.segmind.com/\x00",
        "https://[images.segmind.com]/a.jpg",
        "https://[::1/a.jpg",
        "https://images。segmind。com/a.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://017700000001/",
        "http://3232235777/",
        "https://" + "a" * 70_000 + ".example/",
    ],
)
async def test_every_other_address_is_refused_and_nothing_is_sent(url: str) -> None:
    """By its scheme, its host, its user info, its range, or because two readers disagree about it."""
    http, asked = web({})
    async with http:
        with pytest.raises(errors.OutputRefused) as caught:
            await fetch_output(http, url, policy=POLICY, resolve=resolver())
    assert asked == []
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",  # noqa: S104 - refused, not bound
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
        ),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fd00:ec2::254", "fe80::1%eth0"),
        *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "::127.0.0.1", "2001:db8::1"),
    ],
)
async def test_an_allowed_name_at_a_private_address_is_refused(address: str) -> None:
    """Loopback, private, link-local, the cloud's metadata: also wrapped, and also as one of several."""
    for found in ([address], [PUBLIC, address]):
        with pytest.raises(errors.OutputRefused, match="private"):
            await POLICY.check("https://inner.example/", resolve=resolver(inner__example=found))


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
async def test_an_allowed_name_at_a_public_address_is_fetched(address: str) -> None:
    """Wrapped ones too."""
    await POLICY.check("https://inner.example/", resolve=resolver(inner__example=[address]))


@pytest.mark.parametrize(
    ("api_host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/outputs/a.jpg"),
        ("::1", "http://[::1]:8080/outputs/a.jpg"),
        ("gpu.internal", "http://gpu.internal/outputs/a.jpg"),
    ],
)
async def test_a_private_api_may_have_private_outputs(api_host: str, url: str) -> None:
    """As a sandbox and a dedicated endpoint do; their outputs still come from known hosts only."""
    policy = OutputPolicy(api_host)
    resolve = resolver(gpu__internal=[PRIVATE])
    await policy.check(url, resolve=resolve)
    with pytest.raises(errors.OutputRefused):
        await policy.check("http://169.254.169.254/latest/meta-data", resolve=resolve)


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.8", "127.0.0.1", "::1", "::ffff:10.0.0.8"])
async def test_a_private_api_opens_no_address_but_its_own(address: str) -> None:
    """Not the cloud's metadata, not its neighbours, not as one of several."""
    policy = OutputPolicy("gpu.internal", ("inner.example", "169.254.169.254"))
    for found in ([address], [PRIVATE, address], [PUBLIC, address]):
        with pytest.raises(errors.OutputRefused, match="private"):
            await policy.check(
                "https://inner.example/", resolve=resolver(gpu__internal=[PRIVATE], inner__example=found)
            )
    with pytest.raises(errors.OutputRefused, match="private"):
        await policy.check("http://169.254.169.254/", resolve=resolver(gpu__internal=[PRIVATE]))


@pytest.mark.parametrize("found", [[PRIVATE], ["::ffff:10.0.0.7"], [PUBLIC, PRIVATE]])
async def test_another_name_of_the_apis_own_address_is_fetched(found: list[str]) -> None:
    """Wrapped, or beside a public one."""
    policy = OutputPolicy("gpu.internal", ("inner.example",))
    await policy.check(
        "https://inner.example/", resolve=resolver(gpu__internal=[PRIVATE, "10.0.0.9"], inner__example=found)
    )


async def test_a_host_whose_address_cannot_be_found_out_may_be_asked_for_again() -> None:
    """A name server may be away for a moment."""
    with pytest.raises(errors.ServiceUnavailable, match=r"inner\.example"):
        await POLICY.check("https://inner.example/", resolve=resolver())


async def test_redirects_are_followed_between_known_hosts() -> None:
    """Relative ones too, at most three."""
    pages = {
        GOOD: moved("/b.jpg"),
        "https://images.segmind.com/b.jpg": moved("https://cdn.example/c.jpg", 307),
        "https://cdn.example/c.jpg": moved("//images.segmind.com/d.jpg", 301),
        "https://images.segmind.com/d.jpg": httpx.Response(200, content=b"image"),
    }
    http, asked = web(pages)
    async with http:
        assert await fetch_output(http, GOOD, policy=POLICY, resolve=resolver()) == b"image"
    assert asked == list(pages)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "http://127.0.0.1:9/",
        "http://[::1]:9/",
        "//evil.example/",
        "http://images.segmind.com@evil.example/",
        "http://[broken",
        "http://2130706433/",
    ],
)
async def test_a_redirect_to_elsewhere_is_refused_and_nothing_is_sent_there(target: str) -> None:
    """Every hop is checked like the first, even where the HTTP client would follow redirects by itself."""
    http, asked = web({GOOD: moved(target)})
    http.follow_redirects = True
    async with http:
        with pytest.raises(errors.OutputRefused):
            await fetch_output(http, GOOD, policy=POLICY, resolve=resolver())
    assert asked == [GOOD]


async def test_a_redirect_without_end_is_refused() -> None:
    """After three hops."""
    http, asked = web({GOOD: moved(GOOD)})
    async with http:
        with pytest.raises(errors.OutputRefused, match="redirects"):
            await fetch_output(http, GOOD, policy=POLICY, resolve=resolver())
    assert len(asked) == MAX_REDIRECTS + 1


async def test_a_name_that_turns_private_between_two_hops_is_refused() -> None:
    """Every hop is resolved anew."""
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def resolve(host: str) -> list[str]:
        return [PUBLIC] if host == API_HOST else answers.pop(0)

    http, asked = web({"https://cdn.example/a.jpg": moved("/b.jpg")})
    async with http:
        with pytest.raises(errors.OutputRefused):
            await fetch_output(http, "https://cdn.example/a.jpg", policy=POLICY, resolve=resolve)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (404, errors.OutputUnavailable),
        (403, errors.OutputUnavailable),
        (410, errors.OutputUnavailable),
        (304, errors.OutputUnavailable),
        (429, errors.ServiceUnavailable),
        (500, errors.ServiceUnavailable),
        (503, errors.ServiceUnavailable),
    ],
)
async def test_a_code_says_whether_asking_again_may_help(code: int, expected: type[Exception]) -> None:
    """Busy or not there."""
    http, _ = web({GOOD: httpx.Response(code)})
    async with http:
        with pytest.raises(expected):
            await fetch_output(http, GOOD, policy=POLICY, resolve=resolver())


LIMITED = OutputPolicy("127.0.0.1", max_bytes=100_000)
HEAD = b"HTTP/1.1 200 OK\r\n"


async def fetch(server: RawServer, http: httpx.AsyncClient) -> bytes:
    """Fetch from the raw server, at most 100,000 bytes."""
    return await fetch_output(http, f"{server.url}/a.jpg", policy=LIMITED)


async def test_a_file_of_the_largest_size_is_fetched(server: RawServer, http: httpx.AsyncClient) -> None:
    """Byte for byte, with a length and in chunks."""
    content = bytes(range(250)) * 400
    server.act = lambda connection: connection.answer(content)
    assert await fetch(server, http) == content
    chunks = HEAD + b"transfer-encoding: chunked\r\n\r\n186a0\r\n" + content + b"\r\n0\r\n\r\n"
    server.act = lambda connection: connection.write(chunks)
    assert await fetch(server, http) == content


async def test_a_length_over_the_limit_is_refused_before_the_body(server: RawServer, http: httpx.AsyncClient) -> None:
    """The body never comes, and is not waited for."""

    async def act(connection: Connection) -> None:
        await connection.write(HEAD + b"content-length: 100001\r\n\r\n")
        await connection.read_request()

    server.act = act
    with pytest.raises(errors.OutputRefused, match="larger"):
        await fetch(server, http)


def endless(chunk: bytes, headers: bytes, written: list[int]) -> Callable[[Connection], Awaitable[None]]:
    """Send chunks until the other side hangs up, at most 50 MB."""

    async def act(connection: Connection) -> None:
        await connection.write(HEAD + b"transfer-encoding: chunked\r\n" + headers + b"\r\n")
        for _ in range(50_000_000 // len(chunk)):
            await connection.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            written.append(len(chunk))

    return act


async def test_a_stream_without_a_length_is_cut_at_the_limit(server: RawServer, http: httpx.AsyncClient) -> None:
    """It is counted as it comes; the rest is not read."""
    written: list[int] = []
    server.act = endless(b"x" * 10_000, b"", written)
    with pytest.raises(errors.OutputRefused, match="larger"):
        await fetch(server, http)
    assert sum(written) < 40_000_000


async def test_a_gzip_bomb_is_cut_at_the_limit(server: RawServer, http: httpx.AsyncClient) -> None:
    """What counts is the unpacked size."""
    bomb = gzip.compress(b"\0" * 20_000_000)
    assert len(bomb) < LIMITED.max_bytes
    server.act = lambda connection: connection.answer(bomb, headers="content-encoding: gzip\r\n")
    with pytest.raises(errors.OutputRefused, match="larger"):
        await fetch(server, http)


async def test_a_gzipped_file_is_unpacked(server: RawServer, http: httpx.AsyncClient) -> None:
    """Though it was asked for as it is."""
    server.act = lambda connection: connection.answer(gzip.compress(b"image"), headers="content-encoding: GZip\r\n")
    assert await fetch(server, http) == b"image"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "deflate, gzip"])
async def test_a_body_packed_twice_or_unboundedly_is_refused(
    server: RawServer, http: httpx.AsyncClient, encoding: str
) -> None:
    """One chunk of it could unpack to gigabytes at once."""
    content = gzip.compress(gzip.compress(b"\0" * 1000))
    server.act = lambda connection: connection.answer(content, headers=f"content-encoding: {encoding}\r\n")
    with pytest.raises(errors.OutputRefused, match="packed"):
        await fetch(server, http)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HEAD + b"content-length: 100\r\n\r\nabc",
        HEAD + b"transfer-encoding: chunked\r\n\r\n20\r\nabc",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 200 \xff\xfe\r\ncontent-le",
    ],
    ids=["no answer", "short", "short chunk", "broken gzip", "not HTTP", "broken head"],
)
async def test_a_body_that_breaks_off_may_be_asked_again(
    server: RawServer, http: httpx.AsyncClient, content: bytes
) -> None:
    """It is never taken for the whole."""
    server.act = lambda connection: connection.write(content)
    with pytest.raises(errors.ServiceUnavailable):
        await fetch(server, http)


async def test_an_output_is_asked_for_without_the_key(server: RawServer, http: httpx.AsyncClient) -> None:
    """And as it is, not packed."""
    heads: list[str] = []

    async def on_connect(connection: Connection) -> None:
        heads.append(await connection.read_head())
        await connection.answer(b"image")

    server.on_connect = on_connect
    await fetch(server, http)
    assert "x-api-key" not in heads[0].lower()
    assert "accept-encoding: identity" in heads[0].lower()


async def test_the_machines_own_resolver_knows_loopback() -> None:
    """`localhost`, and the number that is 127.0.0.1, are at a private address."""
    policy = OutputPolicy(PUBLIC, ("localhost", "2130706433"))
    for host in ("localhost", "2130706433"):
        with pytest.raises(errors.OutputRefused, match="private"):
            await policy.check(f"http://{host}/")
