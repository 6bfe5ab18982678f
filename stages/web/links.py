"""Links of a page: where a crawl may go next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

import pyarrow as pa
from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser

from stages.extract.settings import ExtractSettings
from stages.extract.source import NotAPage, read_source
from stages.row_function import ERROR, Limits
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize, host_of

# Directives of a robots meta tag under which no link of the page is followed.
_UNFOLLOWED = frozenset({"nofollow", "none"})
_SOURCE = ExtractSettings()


def links(body: bytes, content_type: str | None, base_url: str, settings: CrawlSettings | None = None) -> list[str]:
    """Distinct canonical http(s) URLs that a page links to (a, area), in document order; never raises.

    `content_type`: the header, for the charset. `base_url`: the page's final URL; a `base href` goes before it.
    `settings`: whose product token robots meta tags are read for, and which query parameters are dropped.
    No links: a page whose robots meta tag says nofollow or none, links that say rel=nofollow, bytes that are no
    page.
    """
    settings = settings or CrawlSettings()
    try:
        html, _, encoding = read_source(body, content_type, _SOURCE)
    except NotAPage:
        return []
    # without mutation events: with them the parser is quadratic in the options of a <select>
    parser = LexborHTMLParser(html, options=LexborDocumentOptions.WO_EVENTS)
    base: str | None = None
    hrefs: list[str] = []
    for node in parser.css("a[href], area[href], base[href], meta[name][content]"):
        attributes = node.attributes
        if node.tag == "meta":
            if (attributes["name"] or "").strip().lower() in ("robots", settings.product):
                directives = re.split(r"[,\s]+", (attributes["content"] or "").lower())
                if not _UNFOLLOWED.isdisjoint(directives):
                    return []
            continue
        href = attributes["href"] or ""
        if node.tag == "base":
            base = href if base is None else base  # the first one counts (HTML standard)
        elif "nofollow" not in (attributes.get("rel") or "").lower().split():
            hrefs.append(href)
    return _canonical(hrefs, _base(base, base_url), encoding, settings.drop_parameters)


LINKED = pa.field("links", pa.list_(pa.string()))


class Links:
    """`links` as a row function, so that pages that end a parser, or take it too long, end no crawl.

    Input: body, content_type, final_url. Output: LINKED, empty where a page has none, null where it ended its reader.
    """

    name = "links"
    libraries = ("ada-url", "selectolax", "chardetng-py")
    weights = None
    batch_size = 64
    limits = Limits()
    output = pa.schema([LINKED, ERROR])

    def __init__(self, settings: CrawlSettings) -> None:
        self.settings = settings

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows in, as many rows out."""
        pages = zip(*(rows.column(name).to_pylist() for name in ("body", "content_type", "final_url")), strict=True)
        found = [links(body, content_type, url, self.settings) for body, content_type, url in pages]
        return pa.table([pa.array(found, LINKED.type), pa.nulls(len(found), ERROR.type)], schema=self.output)


def in_scope(url: str, seeds: Iterable[str], settings: CrawlSettings) -> bool:
    """Whether a canonical URL may be followed, given the canonical seeds and the scope that the settings name."""
    match settings.scope:
        case "any":
            return True
        case "regex":
            return re.search(settings.scope_regex or "", url) is not None
        case "host":
            return host_of(url) in _hosts(tuple(seeds))
        case "prefix":
            return _place(url).startswith(_folders(tuple(seeds)))


@lru_cache(maxsize=16)
def _hosts(seeds: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(host_of, seeds))


@lru_cache(maxsize=16)
def _folders(seeds: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({_place(seed).rpartition("/")[0] + "/" for seed in seeds}))


def _place(url: str) -> str:
    """Host and path: what is compared for `scope: prefix`."""
    parts = urlsplit(url)
    return parts.netloc + parts.path


def _base(href: str | None, base_url: str) -> str:
    if href is None:
        return base_url
    try:
        return canonicalize(href, base_url)
    except ValueError:
        return base_url


def _canonical(hrefs: Iterable[str], base: str, encoding: str, drop_parameters: tuple[str, ...]) -> list[str]:
    urls: dict[str, None] = {}
    for href in dict.fromkeys(hrefs):
        try:
            urls[canonicalize(href, base, drop_parameters=drop_parameters, encoding=encoding)] = None
        except ValueError:
            continue  # mailto:, javascript:, tel: and what is no URL at all
    return list(urls)
