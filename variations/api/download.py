"""Fetch an output file from an address that an answer named: only from where outputs come from, and only so much."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from variations import errors
from variations.api.http import TRANSPORT_ERRORS

OUTPUT_HOST: Final = "images.segmind.com"
MAX_OUTPUT_BYTES: Final = 50_000_000
MAX_REDIRECTS: Final = 3
# What a compressed body may be packed with: at most a thousandfold, of a chunk of some KB at a time.
_ENCODINGS: Final = {"", "identity", "gzip", "deflate"}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

_HEADERS: Final = {"accept": "image/*", "accept-encoding": "identity"}

Resolver = Callable[[str], Awaitable[list[str]]]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


async def resolve(host: str) -> list[str]:
    """Return the IP addresses of a host, in text."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class OutputPolicy:
    """Where outputs may be fetched from, and how large they may be.

    Args:
        api_host: the API's own host; its outputs may come from there.
        allowed_hosts: further ones that a setting adds.
        max_bytes: of one file.
    """

    api_host: str
    allowed_hosts: Collection[str] = ()
    max_bytes: int = MAX_OUTPUT_BYTES

    async def check(self, url: str, *, resolve: Resolver = resolve) -> None:
        """Refuse an address that outputs do not come from.

        A private address (loopback, link-local, the cloud's metadata service) is refused unless it is one of the API's
        own, as a sandbox's is.

        Raises:
            OutputRefused: it is not http(s), not an allowed host, or in a private range.
            ServiceUnavailable: the host's address cannot be found out.
        """
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
            # Another parser may see another host in the same text; the one that sends it has to agree.
            sent_to, port = httpx.URL(url).host.lower(), parts.port
        except (ValueError, httpx.InvalidURL) as error:
            raise errors.OutputRefused("the output's address is not a URL") from error
        if parts.scheme not in {"http", "https"} or not host:
            raise errors.OutputRefused(f"an output is fetched over http(s) only, not {parts.scheme or 'nothing'}")
        if "@" in parts.netloc:
            raise errors.OutputRefused(f"the output's address at {host} carries a user name")
        if sent_to != host or port == 0:
            raise errors.OutputRefused("the output's address names no single host")
        api_host = self.api_host.lower()
        if host not in {api_host, OUTPUT_HOST, *(allowed.lower() for allowed in self.allowed_hosts)}:
            raise errors.OutputRefused(f"outputs do not come from {host}; VARIATIONS_OUTPUT_HOSTS can allow it")
        private = {address for address in await _addresses(host, resolve) if not _is_public(address)}
        # Its addresses may change from one question to the next, so the API's own host is not asked for twice.
        if private and host != api_host and not private <= await _addresses(api_host, resolve):
            raise errors.OutputRefused(f"{host} is at a private address, which is not the API's")


async def _addresses(host: str, resolve: Resolver) -> set[_Address]:
    try:
        found = [host.strip("[]")] if _is_address(host) else await resolve(host)
    except (OSError, UnicodeError) as error:
        raise errors.ServiceUnavailable(f"the address of {host} cannot be found out ({error})") from error
    return {_unwrapped(ipaddress.ip_address(text.split("%", maxsplit=1)[0])) for text in found}


def _unwrapped(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 one only wraps, and any other as it is."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: _Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


async def fetch_output(
    http: httpx.AsyncClient, url: str, *, policy: OutputPolicy, resolve: Resolver = resolve
) -> bytes:
    """Fetch one output file, without a key; every hop of a redirect is checked like the first.

    Raises:
        OutputRefused: a hop leads where outputs do not come from, or the file is larger than allowed.
        OutputUnavailable: 404 and other answers that asking again does not change.
        ServiceUnavailable: no whole answer; it may be asked for again.
    """
    for _ in range(MAX_REDIRECTS + 1):
        await policy.check(url, resolve=resolve)
        try:
            async with http.stream("GET", url, headers=_HEADERS, follow_redirects=False) as answer:
                if answer.has_redirect_location:
                    url = _target(url, answer)
                    continue
                _check_code(answer)
                return await _read(answer, max_bytes=policy.max_bytes)
        except TRANSPORT_ERRORS as error:
            cause = error.__cause__ or error
            raise errors.ServiceUnavailable(f"the output broke off ({type(cause).__name__})") from error
    raise errors.OutputRefused(f"more than {MAX_REDIRECTS} redirects")


def _target(url: str, answer: httpx.Response) -> str:
    try:
        return urljoin(url, answer.headers["location"])
    except ValueError as error:
        raise errors.OutputRefused("the output's redirect leads to what is not a URL") from error


def _check_code(answer: httpx.Response) -> None:
    code = answer.status_code
    if answer.is_success:
        return
    if code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
        raise errors.ServiceUnavailable(f"the output's host answered {code}")
    raise errors.OutputUnavailable(f"the output's host answered {code}")


async def _read(answer: httpx.Response, *, max_bytes: int) -> bytes:
    too_large = errors.OutputRefused(f"the output is larger than {max_bytes:,} bytes")
    if answer.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise errors.OutputRefused("the output is packed in a way that is not opened")
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    content = bytearray()
    # Counted as it comes, decompressed: neither the header nor a compressed body can slip past.
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > max_bytes:
            raise too_large
    return bytes(content)
