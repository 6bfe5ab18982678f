"""Links of a page, and which of them a crawl may follow."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.extract.document import extract_document
from stages.extract.settings import ExtractSettings
from stages.web.links import in_scope, links
from stages.web.settings import CrawlSettings

BASE = "http://h/docs/index.html"


def found(html: str, **chosen: object) -> list[str]:
    crawl = CrawlSettings(**chosen)  # type: ignore[arg-type]  # checked by pydantic
    return links(html.encode(), "text/html; charset=utf-8", BASE, crawl)


def test_document_order_each_once_canonical() -> None:
    html = """<body><p><a href="b.html#x">b</a> <a href='/c?utm_source=1&q=2'>c</a>
      <map><area href="../d"></map> <a href="b.html#y">b again</a> <a name=e>no link</a>
      <a href=" HTTP://H:80/f ">f</a> <a href="">self</a> <a href="mailto:x@y">m</a> <a href="javascript:void(0)">j</a>
      <a href="https://other.org">o</a> <a href="http://[bad">bad</a> <link href="style.css"> <img src="i.png">"""
    assert found(html) == [
        "http://h/docs/b.html",
        "http://h/c?q=2",
        "http://h/d",
        "http://h/f",
        "http://h/docs/index.html",
        "https://other.org/",
    ]
    assert found(html, drop_parameters=[])[1] == "http://h/c?utm_source=1&q=2"


def test_base_href_the_first_one_counts_for_all_links() -> None:
    html = '<p><a href=a>a</a><base href="/other/"><base href="/third/"><a href=b>b</a>'
    assert found(html) == ["http://h/other/a", "http://h/other/b"]
    assert found('<base href="javascript:x"><p><a href=a>a</a>') == ["http://h/docs/a"]


def test_nofollow_is_honoured() -> None:
    html = '<p><a href=a rel="external NoFollow">a</a><a href=b rel=noopener>b</a>'
    assert found(html) == ["http://h/docs/b"]
    for directive in ("nofollow", "noindex, NOFOLLOW", "none"):
        assert found(f'<meta name=Robots content="{directive}"><p><a href=a>a</a>') == []
    assert found("<meta name=interloom content=nofollow><p><a href=a>a</a>") == []
    assert found("<meta name=otherbot content=nofollow><p><a href=a>a</a>") == ["http://h/docs/a"]
    assert found("<meta name=robots content=noindex><p><a href=a>a</a>") == ["http://h/docs/a"]


def test_what_is_hidden_is_no_link_and_noscript_is() -> None:
    html = "<p><template><a href=t>t</a></template><noscript><a href=n>n</a></noscript><!-- <a href=c>c</a> -->"
    assert found(html) == ["http://h/docs/n"]


@pytest.mark.parametrize("charset", ["utf-8", "windows-1252", "shift_jis"])
def test_paths_are_read_in_the_page_s_charset(charset: str) -> None:
    text = {"utf-8": "ü", "windows-1252": "ü", "shift_jis": "日"}[charset]
    body = f"<p><a href='/{text}'>x</a> {text * 20}".encode(charset)
    assert links(body, f"text/html; charset={charset}", BASE) == [
        {"ü": "http://h/%C3%BC", "日": "http://h/%E6%97%A5"}[text]
    ]


def test_queries_are_escaped_in_the_encoding_of_the_page() -> None:
    body = "<meta charset=gb2312><p><a href='/\u6d2a?q=\u6d2a'>\u6d2a</a><img src='\u6d2a?q=\u6d2a'>".encode("gbk")
    assert links(body, "text/html", BASE) == ["http://h/%E6%B4%AA?q=%BA%E9"]
    nodes = extract_document(body, BASE, "text/html", ExtractSettings())["nodes"]
    assert [node["image_url"] for node in nodes][-1] == "http://h/docs/%E6%B4%AA?q=%BA%E9"


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (b"", 0),
        (b"%PDF-1.7 <p><a href=x>", 0),
        (b"\x00" * 1000, 0),
        (b"<p><a href='" + b"x" * 100_000 + b"'>", 0),  # longer than an address may be
        (b"<p>" + b"<a href=x>" * 1000, 1),
    ],
    ids=["nothing", "pdf", "zeros", "long", "many"],
)
def test_odd_bodies_give_few_links_and_no_error(body: bytes, number: int) -> None:
    assert len(links(body, None, BASE)) == number
    assert len(links(body, "text/html; charset=zlib_codec", BASE)) == number


@pytest.mark.slow
def test_a_hostile_page_costs_little() -> None:
    for body in (b"<div>" * 300_000 + b"<a href=x>", b"<p><a href=x>" * 30_000, b"<b><p>" * 50_000, b"<p " * 100_000):
        start = time.process_time()
        links(body, "text/html", BASE)
        assert time.process_time() - start < 5


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.text("<>a= href'\"/base#:?%&;\x00é", max_size=200).map(str.encode)))
def test_any_bytes_can_be_read(body: bytes) -> None:
    for url in links(b"<p>" + body, "text/html", BASE):
        assert url.startswith(("http://", "https://"))


SEEDS = ["http://h/docs/start.html", "https://other.org:8443/wiki/"]


@pytest.mark.parametrize(
    ("chosen", "inside", "outside"),
    [
        (
            {"scope": "host"},
            ["http://h/x", "https://h/docs/a", "https://other.org:8443/"],
            ["http://www.h/", "http://h:8080/", "https://other.org/"],
        ),
        (
            {"scope": "prefix"},
            ["http://h/docs/a/b", "https://h/docs/", "https://other.org:8443/wiki/x?y"],
            ["http://h/docs", "http://h/docs2/x", "http://h/", "https://other.org:8443/w"],
        ),
        (
            {"scope": "regex", "scope_regex": r"^https?://[^/]+/docs/.*\.html$"},
            ["http://z/docs/a.html"],
            ["http://z/docs/a.pdf", "http://z/x?/docs/a.html"],
        ),
        ({"scope": "any"}, ["http://anything/"], []),
    ],
)
def test_scope(chosen: dict[str, str], inside: list[str], outside: list[str]) -> None:
    crawl = CrawlSettings(**chosen)  # type: ignore[arg-type]  # checked by pydantic
    assert [url for url in inside + outside if in_scope(url, SEEDS, crawl)] == inside


@pytest.mark.parametrize(
    "chosen", [{"scope": "regex"}, {"scope_regex": "x"}, {"scope": "regex", "scope_regex": "("}, {"user_agent": "é"}]
)
def test_settings_that_make_no_sense_are_refused(chosen: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        CrawlSettings(**chosen)  # type: ignore[arg-type]  # that is the point
