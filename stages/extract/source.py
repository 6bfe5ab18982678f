"""The source of a page: bytes that are HTML, decoded, and made safe to parse.

HTML parsers are quadratic in nesting and in the attributes of a tag, and the standard's "reconstruct the
active formatting elements" can multiply unclosed inline tags by every paragraph after them. A real page
never gets near; a hostile one would hold a worker for minutes. Cheap vectorised counts over the bytes say
which pages come near, and only those are rewritten here, tag by tag, before the parser sees them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from stages.extract.nesting import ATTRIBUTE, MAX_ATTRIBUTES, TOKEN, balanced, has_many_attributes, is_safe
from stages.extract.settings import ExtractSettings
from stages.text.normal_form import decode


class NotAPage(ValueError):
    """The body is no HTML that can be read; the message is the row's error line."""


_HTML_TYPES = ("text/html", "application/xhtml+xml", "application/xml", "text/xml", "application/octet-stream", "")
_MAGIC = {
    b"%PDF": "PDF",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"\xff\xd8\xff": "JPEG",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"RIFF": "RIFF",
}
_MARKUP = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|title|meta|link|script|style|table|div|main|article|section|p|h[1-6]|br"
    rb"|ul|ol|dl|pre|span|a|img|figure|picture|center|font|b|i|em|strong|blockquote|form|header|nav|frameset)"
    rb"[\s/>]",
    re.IGNORECASE,
)
_XML = re.compile(rb"\s*<\?xml[^>]*>(?>\s|<!--(?>.*?-->)|<\?[^>]*>|<!DOCTYPE[^>]*>)*+<([a-zA-Z][^\s/>]*)", re.DOTALL)
_XML_PROLOG = re.compile(r"^\s*<\?xml[^>]*\?>")

# A tag up to a quote in which a tag ends or begins before the quote is closed.
_OPEN_QUOTE = re.compile(
    r"<[a-zA-Z][^<>\"']*+(?:\"[^\"<>]*+\"[^<>\"']*+|'[^'<>]*+'[^<>\"']*+)*+(?P<quote>[\"'])[^\"'<>]*+[<>]"
)
_QUOTED = re.compile(r"=\s*(?P<quote>[\"'])(?P<value>.*?)(?P<closed>(?P=quote)|\Z)", re.DOTALL)
_SWALLOWED = re.compile(r"[^<>]*>")
_HOLDS_TAG = re.compile(r">[^<>]*<[/a-zA-Z]")

_COPIES = 8  # of formatting elements the parser may make, as a multiple of the tags that a page may have
_FEW_TAGS = 128  # of a short page, which cannot be deep
_SHORT = 1 << 14


class Source(NamedTuple):
    """A page's HTML, safe to parse."""

    html: str
    cut: list[tuple[str, str]]
    """(rule, detail) of what was left out."""
    encoding: str
    """The codec it was read with, in which browsers also escape the queries of its URLs."""


def read_source(body: bytes, content_type: str | None, settings: ExtractSettings) -> Source:
    """The source of a page; NotAPage when the body is none."""
    if not body.strip():
        raise NotAPage("empty body")
    if len(body) > settings.max_bytes:
        raise NotAPage(f"{len(body)} bytes of HTML, more than extract.max_bytes {settings.max_bytes}")
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type not in _HTML_TYPES:
        raise NotAPage(f"not HTML: content type {media_type[:80]!r}")
    for magic, name in _MAGIC.items():
        if body.startswith(magic):
            raise NotAPage(f"not HTML: the body is {name}")
    if (root := _XML.match(body[:4096])) and root.group(1).lower() not in (b"html", b"xhtml:html"):
        raise NotAPage(f"not HTML: XML document <{root.group(1)[:40].decode('ascii', 'replace')}>")
    text, encoding = decode(body, content_type)
    if encoding.startswith(("utf-16", "utf-32")):
        body = text.encode()
    if not _MARKUP.search(body):
        raise NotAPage("not HTML: no tag found")
    if body.count(b"\0") > len(body) // 20:
        raise NotAPage("not HTML: binary data")
    text = _mend_quotes(_XML_PROLOG.sub("", text, count=1))
    return Source(*_tame(text, settings), encoding)


def _mend_quotes(text: str) -> str:
    """The page with attribute values ended at their tag's `>` where a quote that is not closed swallows what follows.

    Told by a value that holds the end of its tag and the begin of another, and whose closing quote is followed by more
    than a tag may have there: it opens the next value, or stands in the text. So is one that nothing closes.
    """
    pieces: list[str] = []
    position = done = 0
    while suspect := _OPEN_QUOTE.search(text, position):
        position = suspect.end()
        tag = TOKEN.match(text, suspect.start())
        if tag is None or tag["attributes"] is None:
            continue
        end = _end_of_swallowing_tag(text, tag)
        if end is None:
            position = max(position, tag.start("rest"))
        else:
            pieces += [text[done:end], suspect["quote"]]
            position = done = end
    return "".join([*pieces, text[done:]])


def _end_of_swallowing_tag(text: str, tag: re.Match[str]) -> int | None:
    """Index of the `>` that a quoted value of the tag has swallowed, or None."""
    start, end = tag.span("attributes")
    for attribute in ATTRIBUTE.finditer(text, start, end):
        value = _QUOTED.search(attribute[0])
        if value is None or not _SWALLOWED.match(value["value"]):
            continue
        first = attribute.start() + value.start("value")
        closing = attribute.start() + value.end("value")
        unclosed = closing >= len(text) or not value["closed"]
        following = text[closing + 1 : closing + 2]
        opens_another = value["value"].rstrip().endswith("=") and _HOLDS_TAG.search(value["value"])
        in_text = following not in ("", " ", "\t", "\n", "\r", "\f", "/", ">") and _HOLDS_TAG.search(value["value"])
        if unclosed or opens_another or in_text:
            return text.index(">", first)
    return None


def _tame(text: str, settings: ExtractSettings) -> tuple[str, list[tuple[str, str]]]:
    cut: list[tuple[str, str]] = []
    data = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)
    less = np.flatnonzero(data[:-1] == ord("<"))
    following = data[less + 1]
    opens = ((following | 0x20) >= ord("a")) & ((following | 0x20) <= ord("z"))
    closes = following == ord("/")

    num_opens = int(np.count_nonzero(opens))
    if num_opens > settings.max_nodes:
        end = int(less[np.flatnonzero(opens)[settings.max_nodes]])
        cut.append(("max_nodes", f"page cut after {settings.max_nodes} of {num_opens} tags"))
        text = bytes(data[:end]).decode("utf-8", "replace")
        kept = less < end
        less, opens, closes = less[kept], opens[kept], closes[kept]
        data = data[:end]

    few = num_opens <= _FEW_TAGS and len(data) <= _SHORT
    if few or is_safe(text, settings.max_depth, _COPIES * settings.max_nodes):
        return text, cut
    text, num_long = _cut_attributes(text)
    if num_long:
        cut.append(("max_attributes", f"{num_long} tags with more than {MAX_ATTRIBUTES} attributes"))
        if is_safe(text, settings.max_depth, _COPIES * settings.max_nodes):
            return text, cut
    text, num_deep = balanced(text, settings.max_depth)
    if num_deep:
        cut.append(("max_depth", f"{num_deep} tags below depth {settings.max_depth} ignored"))
    return text, cut


def _cut_attributes(text: str) -> tuple[str, int]:
    """Tags with the first attributes only."""
    pieces: list[str] = []
    position = num_cut = 0
    for tag in TOKEN.finditer(text):
        if not has_many_attributes(tag["attributes"] or ""):
            continue
        start, end = tag.span("attributes")
        for count, attribute in enumerate(ATTRIBUTE.finditer(text, start, end)):
            if count == MAX_ATTRIBUTES:
                pieces += [text[position : attribute.start()], ">"]
                position = tag.end()
                num_cut += 1
                break
    pieces.append(text[position:])
    return "".join(pieces), num_cut
