"""One HTTP request and its answer: streamed, capped, refused by its headers where they say so."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import aiohttp
from aiohttp.resolver import ThreadedResolver
from multidict import CIMultiDictProxy
from yarl import URL

from stages.web.addresses import AddressRefused, PublicResolver, public_socket, require_public_literal
from stages.web.connections import MAX_HEADER_LINE, BadFraming, Connector, said
from stages.web.content_coding import ACCEPT_ENCODING, BadCoding, TooLarge, decode
from stages.web.fetched import Failed, Failure, http_date
from stages.web.settings import CrawlSettings

REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """Status, headers and, when the headers were accepted, the body without content codings."""

    http_status: int
    headers: CIMultiDictProxy[str]
    body: bytes


def open_session(settings: CrawlSettings) -> aiohttp.ClientSession:
    """A session that keeps connections and resolved names, no cookies, and no request above its limits.

    Rows must not depend on their neighbours, hence no cookies; limits on connections are the turns' business.
    """
    private = settings.allow_private_networks
    connector = Connector(
        limit=0,
        resolver=ThreadedResolver() if private else PublicResolver(),
        socket_factory=None if private else public_socket,
        ttl_dns_cache=300,
        keepalive_timeout=15,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout),
        headers={"User-Agent": settings.user_agent, "Accept-Encoding": ACCEPT_ENCODING},
        max_line_size=MAX_HEADER_LINE,
        max_field_size=MAX_HEADER_LINE,
    )


async def address_of(session: aiohttp.ClientSession, url: str) -> str | None:
    """The first address of a canonical URL's host, as the session resolves names; null where it has none."""
    connector = session.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    parts = URL(url, encoded=True)
    try:
        found = await connector._resolve_host(parts.raw_host or "", parts.port or 0)
    except OSError:
        return None
    return min((each["host"] for each in found), default=None)


async def request(
    session: aiohttp.ClientSession,
    url: str,
    settings: CrawlSettings,
    *,
    accept: str,
    max_bytes: int,
    examine: Callable[[int, CIMultiDictProxy[str]], bool],
    timeout: float,
    cut: bool = False,
    method: Literal["GET", "HEAD"] = "GET",
    conditions: Mapping[str, str] | None = None,
) -> Answer:
    """Ask for a canonical URL, following nothing.

    `accept`: the Accept header. `examine`: sees status and headers before the body is read; returns whether the
    body is wanted, or raises Failed. `max_bytes`: of the body, as sent and decoded; above it the answer is
    too_large, or, with `cut`, what came first. `timeout`: seconds for all of it. `conditions`: further headers.
    Raises Failed for everything that goes wrong on the way.
    """
    if timeout <= 0:
        raise Failed(Failure("timeout", f"not complete within {settings.total_timeout:g} s", retryable=True))
    try:
        if not settings.allow_private_networks:
            require_public_literal(url)
        async with asyncio.timeout(timeout):
            async with session.request(
                method, URL(url, encoded=True), headers={"Accept": accept, **(conditions or {})}, allow_redirects=False
            ) as response:
                if not examine(response.status, response.headers) or method == "HEAD":
                    return Answer(response.status, response.headers, b"")
                _framed(response.headers)
                raw = await _read(response, max_bytes, cut)
        coding = ",".join(response.headers.getall("Content-Encoding", []))
        return Answer(response.status, response.headers, decode(raw, coding, max_bytes, cut=cut))
    except (aiohttp.ClientError, OSError, TimeoutError, TooLarge, BadCoding, ValueError) as error:
        raise Failed(failure_of(error, settings, max_bytes)) from None


def _framed(headers: CIMultiDictProxy[str]) -> None:
    """Raise BadCoding for transfer codings that are not ours to read: nobody has asked for any (RFC 9112, 6.1)."""
    codings = [each.strip().lower() for line in headers.getall("Transfer-Encoding", []) for each in line.split(",")]
    if codings not in ([], ["chunked"], ["identity"]):
        raise BadCoding(f"unknown transfer coding {', '.join(codings)[:40]!r}")


async def _read(response: aiohttp.ClientResponse, max_bytes: int, cut: bool) -> bytes:
    """The body as sent; no more than the cap and one chunk is ever held."""
    if not cut and (response.content_length or 0) > max_bytes:
        raise TooLarge
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise TooLarge
    return bytes(body)


def failure_of(error: Exception, settings: CrawlSettings, max_bytes: int) -> Failure:
    """The row's reason for an error of the network or the codec; details hold no address, port or time."""
    cause: Exception = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    match cause:
        case AddressRefused():
            return Failure("private_address", str(cause), status="refused")
        case TooLarge():
            return Failure("too_large", f"more than {max_bytes} bytes", status="refused")
        case BadCoding():
            return Failure("content_encoding", str(cause))
        case TimeoutError():
            limit = (
                f"no connection within {settings.connect_timeout:g} s"
                if isinstance(error, aiohttp.ConnectionTimeoutError)
                else f"not complete within {settings.total_timeout:g} s"
            )
            return Failure("timeout", limit, retryable=True)
        case ssl.SSLCertVerificationError():
            return Failure("tls", cause.verify_message)
        case ssl.SSLError():
            return Failure("tls", cause.reason or "the handshake failed")
        case socket.gaierror():
            return Failure("dns", "the host name does not resolve", retryable=True)
        case aiohttp.ClientResponseError():
            return Failure("protocol", said(cause))
        case BadFraming():
            return Failure("protocol", str(cause))
        case aiohttp.ClientPayloadError():
            return Failure("connection", "the body ended before its announced end", retryable=True)
        case aiohttp.ClientConnectionError() | OSError():
            return Failure("connection", "the connection was refused, reset or closed", retryable=True)
        case _:
            return Failure("protocol", f"{type(cause).__name__}: {cause}")


def retry_after(headers: CIMultiDictProxy[str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date (RFC 9110, 10.2.3), or null."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    date = http_date(value) if value else None
    return None if date is None else max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
