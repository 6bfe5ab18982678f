"""Sitemaps as they are found: by the protocol, nearly so, and hostile."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.web import sitemaps as module
from stages.web.sitemaps import Sitemap, read_sitemap

NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
IMAGES = """<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"
  xmlns:image="http://www.google.com/schemas/sitemap-image/1.1" xmlns:xhtml="http://www.w3.org/1999/xhtml">
  <url>
    <image:image><image:loc>http://h/a.jpg</image:loc></image:image>
    <loc> http://h/a?x=1&amp;y=2 </loc>
    <xhtml:link rel="alternate" hreflang="de" href="http://h/de/a"/>
    <lastmod>2026-01-01T10:00:00+00:00</lastmod><priority>0.8</priority>
  </url>
  <url><loc><![CDATA[http://h/b]]></loc><loc>http://h/second</loc><lastmod></lastmod></url>
  <url><lastmod>2026-01-02</lastmod></url>
</urlset>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><link href="http://h/"/><updated>2026-02-02T00:00:00Z</updated>
<entry><link rel="edit" href="http://h/edit"/><link href="http://h/a"/><updated>2026-01-01T00:00:00Z</updated></entry>
</feed>"""
RSS = """<rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom"><channel><link>http://h/</link>
<atom:link href="http://h/feed" rel="self"/>
<item><atom:link rel="self" href="http://h/self"/><link>http://h/a</link>
<pubDate>Thu, 01 Jan 2026 00:00:00 GMT</pubDate>
</item></channel></rss>"""


@pytest.mark.parametrize(
    ("body", "pages"),
    [
        (IMAGES, [("http://h/a?x=1&y=2", "2026-01-01T10:00:00+00:00"), ("http://h/b", None)]),
        (f"\n <urlset {NAMESPACE}><url><loc>http://h/ä</loc></url></urlset>", [("http://h/ä", None)]),
        ("<urlset><url><loc>http://h/a</loc></url></urlset>", [("http://h/a", None)]),
        ("<s:urlset xmlns:s='x'><s:url><s:loc>http://h/a</s:loc></s:url></s:urlset>", [("http://h/a", None)]),
        ("<s:urlset><s:url><s:loc>http://h/a</s:loc></s:url></s:urlset>", [("http://h/a", None)]),
        (
            "http://h/a\r\n\r\n  http://h/b \nhttp://h/c",
            [("http://h/a", None), ("http://h/b", None), ("http://h/c", None)],
        ),
        (ATOM, [("http://h/a", "2026-01-01T00:00:00Z")]),
        (RSS, [("http://h/a", "Thu, 01 Jan 2026 00:00:00 GMT")]),
        ("<rdf:RDF xmlns:rdf='r'><item><link>http://h/a</link></item></rdf:RDF>", [("http://h/a", None)]),
        ("", []),
    ],
)
def test_what_is_listed(body: str, pages: list[tuple[str, str | None]]) -> None:
    encoded = body.encode()
    bom = b"\xef\xbb\xbf"
    for each in (encoded, bom + encoded, gzip.compress(encoded, mtime=0), gzip.compress(bom + encoded, mtime=0)):
        assert read_sitemap(each) == Sitemap(pages)


def test_an_index_lists_sitemaps() -> None:
    body = f"<sitemapindex {NAMESPACE}><sitemap><loc>http://h/1.xml.gz</loc><lastmod>2026</lastmod></sitemap></sitemapindex>"
    assert read_sitemap(body.encode()) == Sitemap(sitemaps=[("http://h/1.xml.gz", "2026")])


def test_other_encodings() -> None:
    text = '<?xml version="1.0" encoding="{}"?><urlset><url><loc>http://h/é</loc></url></urlset>'
    for name, codec in (("UTF-16", "utf-16"), ("ISO-8859-1", "latin-1")):
        assert read_sitemap(text.format(name).encode(codec)) == Sitemap([("http://h/é", None)])


FIRST = b"<urlset><url><loc>http://h/a</loc></url>"
LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><urlset><url><loc>http://h/&b;</loc></url></urlset>'


@pytest.mark.parametrize(
    ("body", "pages", "fault"),
    [
        (FIRST, 1, "it is not XML: no element found, line 1"),
        (FIRST + b"<url><loc>http://h/b</url></urlset>", 1, "it is not XML: mismatched tag, line 1"),
        (FIRST + b"<url><loc>http://h/&nbsp;</loc></url>", 1, "it is not XML: undefined entity, line 1"),
        (FIRST + b"<a>" * 40, 1, "its elements lie in each other more than 32 deep"),
        (LAUGHS, 0, "it has a document type, as no sitemap has"),
        (b"<!DOCTYPE html><html>404", 0, "it has a document type, as no sitemap has"),
        (b"<!doctype html><html>404", 0, "it is not XML: syntax error, line 1"),
        (b"<html><body>404", 0, "its root is <html>"),
        (b"Not found", 0, "it is neither XML nor a list of URLs"),
        (b'<?xml version="1.0" encoding="klingon"?><urlset/>', 0, "it is not XML: unknown encoding: klingon"),
        (b"\x1f\x8bnot gzip", 0, None),
        (gzip.compress(FIRST + b"</urlset>", mtime=0)[:-12], 0, "body ends inside its compressed stream"),
    ],
)
def test_faults_are_told_and_cost_what_comes_after_them(body: bytes, pages: int, fault: str | None) -> None:
    found = read_sitemap(body)
    assert len(found.pages) == pages and found.fault
    assert fault is None or found.fault == fault


def test_the_limits_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_URLS", 3)
    for listed in (b"http://h/a\n" * 4, b"<urlset>" + b"<url><loc>http://h/a</loc></url>" * 4 + b"</urlset>"):
        found = read_sitemap(listed)
        assert (len(found.pages), found.fault) == (3, "it lists more than 3 URLs")
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    assert read_sitemap(b"http://h/" + b"a" * 100).fault == "it has more than 100 bytes"


def test_a_bomb_is_not_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(b" " * (3 * module.MAX_BYTES), 9, mtime=0)
    tracemalloc.start()
    found = read_sitemap(bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        found == Sitemap(fault="unpacked it has more than 52428800 bytes") and most < 2 * module.MAX_BYTES + 10_000_000
    )


@given(
    st.binary(max_size=200) | st.text("<>/ urlsetloc!&;[]='\"?-", max_size=200).map(lambda text: f"<{text}".encode())
)
def test_nothing_raises(body: bytes) -> None:
    found = read_sitemap(body)
    assert all(url for url, _ in found.pages + found.sitemaps)
