"""URLs: one canonical form, so that one resource is asked for once and has one id.

URLs are read, joined and written as browsers do it (WHATWG URL standard, by ada), so that the host that is checked is
the host that is connected to. On top of that, escapes are brought into one spelling (RFC 3986, 6.2.2), and user,
password, fragment, an empty query and a host's last dot are left out; the query keeps its order, because servers may
depend on it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import xxhash
from ada_url import URL

# Longer request lines are refused by common servers.
MAX_URL_LENGTH = 8192

_STRIPPED = "".join(map(chr, range(0x21)))  # C0 controls and space, at both ends
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|\[[0-9a-f:]+\]")
_MAX_HOST = 253  # RFC 1035, less the dots' own bytes
# An escape; before it, what would make one with the character it stands for ("%4%31" is no "%41").
_ESCAPE = re.compile(r"(%[0-9A-Fa-f]?)?%([0-9A-Fa-f]{2})")
# What most URLs are made of: named hosts, no port, nothing to escape. Without dot segments and punycode, and short
# enough for any bound on its parts, such a URL is its own canonical form, and need not be taken apart to be told so.
_PLAIN = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
    r"/[\w~!$&()*+,;=:@/.-]*(?:\?[\w~!$&()*+,;=:@/?.-]+)?",
    re.ASCII,
)
_MAX_PLAIN = 250
_OUTSIDE_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonicalize(
    url: str, base: str | None = None, *, drop_parameters: Collection[str] = (), encoding: str = "utf-8"
) -> str:
    """The absolute canonical form of an http or https URL, without fragment, credentials and default port.

    `base`: the page (or `base href`) a relative URL is resolved against. `drop_parameters`: names of parameters to
    leave out of the query, and of the path where they stand behind a semicolon, compared without case; a trailing *
    matches any ending ("utm_*"). `encoding`: the codec of the page that the URL stands on, in which browsers escape its
    query.
    The result is ASCII, at most MAX_URL_LENGTH characters long, and its own canonical form.
    ValueError, one line, for everything that is not a usable http(s) URL.
    """
    if not drop_parameters and len(url) <= _MAX_PLAIN and _is_plain(url):
        return url
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"URL longer than {MAX_URL_LENGTH} characters: {url[:80]!r}")
    try:
        parts = URL(_escape_query(url, encoding), base)
    except UnicodeError:
        raise ValueError(f"not a URL: {url[:200]!r} (lone surrogates)") from None
    except ValueError:
        absolute = base is not None or url.strip(_STRIPPED)[:4].lower() == "http"
        said = "not a URL" if absolute else "not an absolute http or https URL"
        raise ValueError(f"{said}: {url[:200]!r}") from None
    if parts.protocol not in ("http:", "https:"):
        raise ValueError(f"not an absolute http or https URL: {url[:200]!r}")
    host = parts.hostname.removesuffix(".")
    if len(host) > _MAX_HOST or not _HOST.fullmatch(host):
        raise ValueError(f"not a host name: {host[:80]!r}")
    path, query = _normalize_escapes(parts.pathname), _normalize_escapes(parts.search[1:])
    if drop_parameters:
        query = _without(query, drop_parameters)
        if ";" in path:
            path = "/".join(_segment_without(segment, drop_parameters) for segment in path.split("/"))
    port = f":{parts.port}" if parts.port else ""
    result = f"{parts.protocol}//{host}{port}{path}"
    result = f"{result}?{query}" if query else result
    if len(result) > MAX_URL_LENGTH:
        raise ValueError(f"URL longer than {MAX_URL_LENGTH} characters when escaped: {url[:80]!r}")
    return result


def _is_plain(url: str) -> bool:
    return _PLAIN.fullmatch(url) is not None and "/." not in url and "xn--" not in url


def canonicalize_image(url: str, base: str | None = None, *, encoding: str = "utf-8") -> str:
    """As `canonicalize`, but `data:` URIs, which carry the image themselves, are passed through unchanged."""
    stripped = url.strip(_STRIPPED)
    return stripped if stripped[:5].lower() == "data:" else canonicalize(url, base, encoding=encoding)


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


def _escape_query(url: str, encoding: str) -> str:
    """The URL with its query's characters outside ASCII escaped as browsers do on a page in another codec than UTF-8.

    WHATWG URL, "percent-encode after encoding": what the codec lacks becomes a numeric character reference.
    """
    rest, mark, query = url.partition("#")[0].partition("?")
    if query.isascii() or encoding.startswith("utf"):
        return url

    def escaped(run: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in run[0].encode(encoding))

    def referred(character: re.Match[str]) -> str:
        try:
            return escaped(character)
        except UnicodeEncodeError:
            return f"%26%23{ord(character[0])}%3B"

    try:
        return rest + mark + _OUTSIDE_ASCII.sub(escaped, query)
    except UnicodeEncodeError:
        return rest + mark + re.sub(r"[^\x00-\x7f]", referred, query)


def _normalize_escapes(text: str) -> str:
    """Escapes in upper case, and those of unreserved characters decoded (RFC 3986, 6.2.2)."""
    if "%" not in text:
        return text

    def normal(match: re.Match[str]) -> str:
        character = chr(int(match[2], 16))
        if match[1] is None and character in _UNRESERVED:
            return character
        return f"{match[1] or ''}%{match[2].upper()}"

    return _ESCAPE.sub(normal, text)


def _segment_without(segment: str, names: Collection[str]) -> str:
    name, _, fields = segment.partition(";")
    rest = _without(fields, names, ";")
    return f"{name};{rest}" if rest else name


def _without(fields: str, names: Collection[str], separator: str = "&") -> str:
    exact = {name.lower() for name in names if not name.endswith("*")}
    prefixes = tuple(sorted(name[:-1].lower() for name in names if name.endswith("*")))

    def kept(field: str) -> bool:
        name = unquote(field.partition("=")[0]).lower()
        return name not in exact and not (prefixes and name.startswith(prefixes))

    return separator.join(field for field in fields.split(separator) if kept(field))
