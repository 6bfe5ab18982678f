"""The source of a page: bytes that are HTML, decoded, and made safe to parse.

HTML parsers are quadratic in nesting and in the attributes of a tag, and the standard's "reconstruct the
active formatting elements" can multiply unclosed inline tags by every paragraph after them. A real page
never gets near; a hostile one would hold a worker for minutes. Cheap vectorised counts over the bytes say
which pages come near, and only those are rewritten here, tag by tag, before the parser sees them.
"""

from __future__ import annotations

import re

import numpy as np

from stages.extract.settings import ExtractSettings
from stages.extract.vocabulary import word_set
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

_VOID = word_set(
    "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr"
)
_FORMATTING = word_set("a b big code em font i nobr s small strike strong tt u")
_FORMATTING_TAG = re.compile(r"</?(?:b|big|em|font|i|nobr|s|small|strike|strong|tt|u)(?:\s[^<>]*)?>", re.IGNORECASE)
# An open tag of the key closes an open element of the group, so that unclosed lists do not look deep.
_IMPLIED_END = {
    **dict.fromkeys(("li",), ("li",)),
    **dict.fromkeys(("dt", "dd"), ("dt", "dd")),
    **dict.fromkeys(("td", "th"), ("td", "th")),
    **dict.fromkeys(("tr",), ("td", "th", "tr")),
    **dict.fromkeys(("option", "optgroup"), ("option",)),
    **dict.fromkeys(("p", "div", "ul", "ol", "table", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "hr"), ("p",)),
}
# Comments and raw text elements are stepped over whole; what is unclosed runs to the end, as in the standard
# (and so that no pattern fails after a long look ahead: the scan stays linear).
_TAG = re.compile(
    r"<!--(?:.*?-->|.*)"
    r"|<(script|style|textarea|title|xmp|noframes)\b[^>]*+(?:>(?:.*?</\1\s*>|.*)|$)"
    r"|<(/?)([a-zA-Z][^\s/>]*+)(?:[^>\"']++|\"[^\"]*+(?:\"|$)|'[^']*+(?:'|$))*+(?:>|$)",
    re.DOTALL | re.IGNORECASE,
)
_ATTRIBUTE = re.compile(r"[^\s\"'<>/=]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+))?")

_MAX_ATTRIBUTES = 256  # of one tag; real ones have at most a few dozen
_LONG_TAG = 4096  # bytes without ">" from where a tag's attributes are counted
_MAX_FORMATTING = 64  # unclosed inline tags at once


def read_source(body: bytes, content_type: str | None, settings: ExtractSettings) -> tuple[str, list[tuple[str, str]]]:
    """(HTML that is safe to parse, what was cut as (rule, detail) pairs). NotAPage when there is none."""
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
    text = _XML_PROLOG.sub("", text, count=1)
    return _tame(text, settings)


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

    if _has_long_tags(data):
        text, num_long = _cut_attributes(text)
        if num_long:
            cut.append(("max_attributes", f"{num_long} tags with more than {_MAX_ATTRIBUTES} attributes"))

    depth = np.cumsum(opens.astype(np.int64) - closes)
    if len(depth) and int(depth.max()) > min(settings.max_depth, 4 * _MAX_FORMATTING):
        text, num_deep = _cut_depth(text, settings.max_depth)
        if num_deep:
            cut.append(("max_depth", f"{num_deep} tags below depth {settings.max_depth} ignored"))
    if len(depth) and int(depth[-1]) > 8 and int(depth[-1]) * int(np.count_nonzero(opens)) > 20 * settings.max_nodes:
        # inline markup carries nothing that nodes keep, so losing all of it changes no text
        text = _FORMATTING_TAG.sub("", text)
    return text, cut


def _has_long_tags(data: np.ndarray) -> bool:
    """Whether a stretch without ">" is long and has many separators, as a tag of many attributes has."""
    ends = np.flatnonzero(data == ord(">"))
    edges = np.concatenate(([0], ends, [len(data)]))
    long = np.flatnonzero(np.diff(edges) > _LONG_TAG)
    for index in long.tolist():
        stretch = bytes(data[edges[index] : edges[index + 1]])
        start = stretch.find(b"<")
        if start >= 0 and len(re.findall(rb"[\s/\"']+", stretch[start:])) > _MAX_ATTRIBUTES:
            return True
    return False


def _cut_attributes(text: str) -> tuple[str, int]:
    """Tags with the first attributes only."""
    pieces: list[str] = []
    position = num_cut = 0
    for tag in _TAG.finditer(text):
        if tag.group(3) is None or tag.end() - tag.start() <= _LONG_TAG:
            continue
        start = tag.start(3) + len(tag.group(3))
        end = start
        for count, attribute in enumerate(_ATTRIBUTE.finditer(text, start, tag.end() - 1)):
            if count == _MAX_ATTRIBUTES:
                pieces += [text[position:end], ">"]
                position = tag.end()
                num_cut += 1
                break
            end = attribute.end()
    pieces.append(text[position:])
    return "".join(pieces), num_cut


def _cut_depth(text: str, max_depth: int) -> tuple[str, int]:
    """The text without tags nested deeper than `max_depth`, or inside too many unclosed inline tags.

    What stands inside such tags stays, one level up, as in browsers.
    """
    stack: list[str] = []
    num_open: dict[str, int] = {}
    num_ignored: dict[str, int] = {}
    num_formatting = num_cut = position = 0
    pieces: list[str] = []
    for tag in _TAG.finditer(text):
        if tag.group(3) is None:
            continue
        name = tag.group(3).lower()
        if name in _VOID:
            continue
        ignore = False
        if tag.group(2):
            if num_ignored.get(name):
                num_ignored[name] -= 1
                ignore = True
            elif num_open.get(name):
                while True:
                    top = stack.pop()
                    num_open[top] -= 1
                    num_formatting -= top in _FORMATTING
                    if top == name:
                        break
        else:
            if stack and stack[-1] in _IMPLIED_END.get(name, ()):
                num_open[stack.pop()] -= 1
            if len(stack) >= max_depth or (num_formatting >= _MAX_FORMATTING and name in _FORMATTING):
                num_ignored[name] = num_ignored.get(name, 0) + 1
                num_cut += 1
                ignore = True
            else:
                stack.append(name)
                num_open[name] = num_open.get(name, 0) + 1
                num_formatting += name in _FORMATTING
        if ignore:
            pieces.append(text[position : tag.start()])
            position = tag.end()
    pieces.append(text[position:])
    return "".join(pieces), num_cut
