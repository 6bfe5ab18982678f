"""URLs: one canonical form, so that one resource is asked for once and has one id.

Hosts are read as browsers read them (WHATWG URL: IDNA, IPv4 in decimal, octal or hexadecimal), so that the
host that is checked is the host that is connected to. Paths and queries follow RFC 3986 section 6.2.2; the
query keeps its order, because servers may depend on it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import idna
import xxhash
from w3lib.url import safe_url_string

DEFAULT_PORTS = {"http": 80, "https": 443}
# Longer request lines are refused by common servers.
MAX_URL_LENGTH = 8192

_STRIPPED = "".join(map(chr, range(0x21)))  # C0 controls and space, at both ends
_REMOVED = str.maketrans("", "", "\t\n\r")  # anywhere
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_LAST_LABEL_IS_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonicalize(url: str, base: str | None = None, *, drop_parameters: Collection[str] = ()) -> str:
    """The absolute canonical form of an http or https URL, without fragment, credentials and default port.

    `base`: the page (or `base href`) a relative URL is resolved against. `drop_parameters`: names of query
    parameters to leave out, compared without case; a trailing * matches any ending ("utm_*").
    ValueError, one line, for everything that is not a usable http(s) URL.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"URL longer than {MAX_URL_LENGTH} characters: {url[:80]!r}")
    text = url.strip(_STRIPPED).translate(_REMOVED)
    scheme = text.partition(":")[0].lower()
    if scheme in DEFAULT_PORTS or (base is not None and ":" not in text.partition("/")[0]):
        # browsers read a backslash of http URLs as a slash; leaving it would hide the host from our checks
        path, mark, query = text.partition("?")
        text = path.replace("\\", "/") + mark + query
    try:
        parts = urlsplit(urljoin(base, text) if base is not None else text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {url[:200]!r} ({error})") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"not an absolute http or https URL: {url[:200]!r}")
    host = _host(parts.hostname or "")
    if port is not None and port != DEFAULT_PORTS[parts.scheme]:
        host = f"{host}:{port}"
    try:
        safe = urlsplit(safe_url_string(SplitResult(parts.scheme, host, parts.path, parts.query, "").geturl()))
    except UnicodeError:
        raise ValueError(f"not a URL: {url[:200]!r} (lone surrogates)") from None
    query = _normalize_escapes(safe.query)
    if drop_parameters and query:
        query = _without(query, drop_parameters)
    result = f"{parts.scheme}://{host}{_remove_dot_segments(_normalize_escapes(safe.path))}"
    return f"{result}?{query}" if query else result


def canonicalize_image(url: str, base: str | None = None) -> str:
    """As `canonicalize`, but `data:` URIs, which carry the image themselves, are passed through unchanged."""
    stripped = url.strip(_STRIPPED)
    return stripped if stripped[:5].lower() == "data:" else canonicalize(url, base)


def url_id(url: str) -> str:
    """xxh3-128 hex (32 digits) of a canonical URL or `data:` URI."""
    return xxhash.xxh3_128_hexdigest(url.encode("utf-8", "surrogatepass"))


def host_of(url: str) -> str:
    """Host of a canonical URL, with the port where it is not the scheme's own: "example.org", "127.0.0.1:8080".

    It names whom politeness is owed to; http and https of one host are one.
    """
    return urlsplit(url).netloc


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL, "http://example.org": what one robots.txt speaks for (RFC 9309)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def read_url_list(path: str | Path) -> list[str]:
    """The distinct canonical URLs of a file, in its order.

    A `.csv` file has a header with a column `url`; any other file holds one URL a line, empty lines and lines
    that start with # are skipped. ValueError names file and line of the first bad URL.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    urls: dict[str, None] = {}
    for line, url in _csv_urls(path, text) if path.suffix.lower() == ".csv" else _plain_urls(text):
        try:
            urls[canonicalize(url)] = None
        except ValueError as error:
            raise ValueError(f"{path}:{line}: {error}") from None
    return list(urls)


def _plain_urls(text: str) -> list[tuple[int, str]]:
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _csv_urls(path: Path, text: str) -> list[tuple[int, str]]:
    rows = csv.reader(io.StringIO(text))
    try:
        header: Sequence[str] = next(rows, [])
        if "url" not in header:
            raise ValueError(f"{path}:1: no column named url in the header")
        column = header.index("url")
        return [(rows.line_num, row[column].strip()) for row in rows if len(row) > column and row[column].strip()]
    except csv.Error as error:
        raise ValueError(f"{path}:{rows.line_num}: {error}") from None


@lru_cache(maxsize=4096)
def _host(host: str) -> str:
    """Host as written to its canonical ASCII form; ValueError where no such host can exist."""
    if ":" in host:
        try:
            address = IPv6Address(host)
        except AddressValueError:
            raise ValueError(f"not an IPv6 address: [{host[:80]}]") from None
        if address.scope_id is not None:
            raise ValueError(f"IPv6 address with a zone: [{host[:80]}]")
        # Python versions differ in how they print ::ffff:0:0/96
        mapped = int(address) & 0xFFFFFFFF if address.ipv4_mapped else None
        return f"[{address}]" if mapped is None else f"[::ffff:{mapped >> 16:x}:{mapped & 0xFFFF:x}]"
    name = unquote(host).lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise ValueError(f"not an internationalised host name: {host[:80]!r}") from None
    name = name.removesuffix(".")
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise ValueError(f"not a host name: {host[:80]!r}")
    return _ipv4(name) if _LAST_LABEL_IS_NUMBER.search(name) else name


def _ipv4(name: str) -> str:
    """Dotted decimal form of an IPv4 address in any base and number of parts (WHATWG URL, IPv4 parser)."""
    numbers = []
    for part in name.split("."):
        base = 16 if part.startswith("0x") else 8 if len(part) > 1 and part.startswith("0") else 10
        try:
            numbers.append(int(part[2:] or "0", 16) if base == 16 else int(part, base))
        except ValueError:
            raise ValueError(f"not an IPv4 address: {name[:80]!r}") from None
    *leading, last = numbers
    if len(numbers) > 4 or any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        raise ValueError(f"not an IPv4 address: {name[:80]!r}")
    return str(IPv4Address(last + sum(number << (8 * (3 - i)) for i, number in enumerate(leading))))


def _normalize_escapes(text: str) -> str:
    """Escapes in upper case, and those of unreserved characters decoded (RFC 3986, 6.2.2)."""
    if "%" not in text:
        return text

    def normal(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else f"%{match[1].upper()}"

    return _ESCAPE.sub(normal, text)


def _remove_dot_segments(path: str) -> str:
    """RFC 3986, 5.2.4, for an absolute or empty path."""
    if "/." not in path:
        return path or "/"
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _without(query: str, names: Collection[str]) -> str:
    exact = {name.lower() for name in names if not name.endswith("*")}
    prefixes = tuple(sorted(name[:-1].lower() for name in names if name.endswith("*")))

    def kept(field: str) -> bool:
        name = unquote(field.partition("=")[0]).lower()
        return name not in exact and not (prefixes and name.startswith(prefixes))

    return "&".join(field for field in query.split("&") if kept(field))
