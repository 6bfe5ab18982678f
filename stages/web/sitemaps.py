"""Sitemaps (sitemaps.org, protocol 0.9): the pages that a site lists, and the sitemaps that an index lists.

Read are urlset and sitemapindex in any namespace or none, text files of a URL a line, RSS and Atom, each as it is or
packed by gzip. Of extensions (image, video, news, xhtml) nothing is taken: pictures are found on their pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from stages.web.content_coding import BadCoding, TooLarge, decode
from stages.web.fetched import one_line

# What the protocol allows a file, unpacked.
MAX_BYTES = 52_428_800
MAX_URLS = 50_000
# Beyond these a file is an attack or a fault: elements in each other, and characters of a text that is kept.
_MOST_DEEP = 32
_MOST_CHARACTERS = 8192
_MOST_OF_A_DATE = 64
_STEP = 1 << 16
_GZIP = b"\x1f\x8b"
_BLANKS = b" \t\r\n"

# Element by its path, without prefixes -> what it starts, and below it the elements that say where and of when.
_ENTRIES: dict[tuple[str, ...], tuple[str, str, str]] = {
    ("urlset", "url"): ("page", "loc", "lastmod"),
    ("sitemapindex", "sitemap"): ("sitemap", "loc", "lastmod"),
    ("rss", "channel", "item"): ("page", "link", "pubDate"),
    ("RDF", "item"): ("page", "link", "date"),
    ("feed", "entry"): ("page", "link", "updated"),
}
_ROOTS = {path[0] for path in _ENTRIES}


@dataclass
class Sitemap:
    """What a file lists, in its order: (URL as written, lastmod as written or None)."""

    pages: list[tuple[str, str | None]] = field(default_factory=list)
    sitemaps: list[tuple[str, str | None]] = field(default_factory=list)
    fault: str | None = None
    """One line about what ended the reading early, or made it impossible; what came before is there."""

    @property
    def full(self) -> bool:
        return len(self.pages) + len(self.sitemaps) >= MAX_URLS


def read_sitemap(body: bytes) -> Sitemap:
    """What a sitemap's bytes list; never raises, whatever they are."""
    if body.startswith(_GZIP):
        try:
            body = decode(body, "gzip", MAX_BYTES)
        except TooLarge:
            return Sitemap(fault=f"unpacked it has more than {MAX_BYTES} bytes")
        except BadCoding as error:
            return Sitemap(fault=str(error))
    if len(body) > MAX_BYTES:
        return Sitemap(fault=f"it has more than {MAX_BYTES} bytes")
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip(_BLANKS)
    if start.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        return _xml(start)
    return _text(start)


def _text(body: bytes) -> Sitemap:
    """A URL a line, in UTF-8."""
    found = Sitemap()
    for line in body.decode("utf-8", "replace").splitlines():
        url = line.strip()
        if url:
            if found.full:
                found.fault = f"it lists more than {MAX_URLS} URLs"
                break
            if not url.lower().startswith(("http://", "https://")):
                found.fault = "it is neither XML nor a list of URLs"
                break
            found.pages.append((url[:_MOST_CHARACTERS], None))
    return found


class _Ends(Exception):
    """The reading ends here, for this reason."""


def _xml(body: bytes) -> Sitemap:
    found = Sitemap()
    reader = _Reader(found)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parse: Callable[[bytes, bool], int] = parser.Parse
    try:
        for start in range(0, len(body), _STEP):
            parse(body[start : start + _STEP], False)
        parse(b"", True)
    except _Ends as end:
        found.fault = str(end)
    except expat.ExpatError as error:
        found.fault = f"it is not XML: {expat.ErrorString(error.code)}, line {error.lineno}"
    except (LookupError, ValueError) as error:  # an encoding that there is not, or that expat cannot take
        found.fault = f"it is not XML: {one_line(str(error), 200)}"
    return found


class _Reader:
    """Takes entries from the events of a parser."""

    def __init__(self, found: Sitemap) -> None:
        self._found = found
        self._path: list[str] = []
        self._entry: tuple[str, str, str] | None = None
        self._depth = 0  # of the entry that is open
        self._kept: dict[str, str] = {}
        self._taking: str | None = None  # of the entry's elements the one whose text is kept

    def doctype(self, *_: object) -> None:
        # No sitemap has one; entities that grow without end need one.
        raise _Ends("it has a document type, as no sitemap has")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name.rpartition(":")[2])
        depth = len(self._path)
        if depth > _MOST_DEEP:
            raise _Ends(f"its elements lie in each other more than {_MOST_DEEP} deep")
        if depth == 1 and self._path[0] not in _ROOTS:
            raise _Ends(f"its root is <{one_line(name, 40)}>")
        if self._entry is None:
            self._entry = _ENTRIES.get(tuple(self._path))
            if self._entry is not None:
                if self._found.full:
                    raise _Ends(f"it lists more than {MAX_URLS} URLs")
                self._depth, self._kept = depth, {}
        elif depth == self._depth + 1 and self._path[-1] in self._entry[1:] and self._path[-1] not in self._kept:
            if (href := attributes.get("href")) is None:
                self._taking = self._path[-1]
            elif attributes.get("rel", "alternate") == "alternate":
                # Atom has its address in an attribute; others of its links lead to no page of the site's.
                self._kept[self._path[-1]] = href[:_MOST_CHARACTERS]

    def end(self, _: str) -> None:
        if self._entry is not None and len(self._path) == self._depth:
            kind, where, when = self._entry
            url = self._kept.get(where, "").strip()
            if url:
                date = one_line(self._kept.get(when, ""), _MOST_OF_A_DATE) or None
                (self._found.pages if kind == "page" else self._found.sitemaps).append((url, date))
            self._entry = None
        self._taking = None
        self._path.pop()

    def text(self, data: str) -> None:
        if self._taking is not None:
            kept = self._kept.get(self._taking, "")
            self._kept[self._taking] = (kept + data)[:_MOST_CHARACTERS]
