"""Extraction: golden fragments, hostile pages, encodings, and what a page says about itself."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import conform
from schemas.document import DOCUMENT
from stages.extract import OUTPUT, Extract, ExtractSettings
from stages.extract.document import extract_document
from stages.extract.image_files import Candidate, parse_srcset
from stages.row_function import RowFunction

GOLDEN = Path(__file__).parent / "golden"
URL = "http://example.org/a/b/page.html"


def extract(html: str | bytes, content_type: str | None = "text/html; charset=utf-8", **options: Any) -> dict[str, Any]:
    body = html.encode() if isinstance(html, str) else html
    return extract_document(body, URL, content_type, ExtractSettings(**options))


def run(pages: list[bytes | None], **options: Any) -> list[dict[str, Any]]:
    rows = pa.table(
        {
            "url": [URL] * len(pages),
            "content_type": pa.nulls(len(pages), pa.string()),
            "body": pa.array(pages, pa.large_binary()),
        }
    )
    return Extract(ExtractSettings(**options))(rows).to_pylist()


def render(document: dict[str, Any]) -> str:
    """A document as lines that a person can check."""
    lines = [
        f"{name}: {document[name]}"
        for name in ("title", "language", "canonical_url", "license", "meta_robots")
        if document[name]
    ]
    for node in document["nodes"]:
        if node["kind"] == "text":
            lines.append(f"[{node['tag']}] {node['text']!r} {node['separator']!r}")
        else:
            facts = [
                f"{k}={node[k]!r}" for k in ("alt", "title", "caption", "rendered_width", "rendered_height") if node[k]
            ]
            lines.append(" ".join(["[img]", node["image_url"], *facts]))
    lines += [f"- {row['kind']} {row['rule']}: {row['detail']}" for row in document["dropped"]]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.html")))
def test_golden(name: str) -> None:
    document = extract((GOLDEN / f"{name}.html").read_bytes())
    assert render(document) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_row_function_gives_the_contract() -> None:
    function = Extract(ExtractSettings())
    assert isinstance(function, RowFunction)
    added = ("document_id", "page_id", "modified", "image_bodies", "consent", "provenance")
    assert OUTPUT.names == [name for name in DOCUMENT.names if name not in added] + ["error"]
    rows = pa.table(
        {
            "url": [URL, URL],
            "content_type": pa.array(["text/html", None]),
            "body": pa.array([b"<p>Hello</p><img src=a.jpg>", b"%PDF-1.7"], pa.large_binary()),
        }
    )
    out = function(rows)
    assert out.schema.equals(OUTPUT)
    good = out.slice(0, 1).drop_columns(["error"])
    for name in ("document_id", "page_id"):
        good = good.append_column(name, pa.array(["x"]))
    for name in ("modified", "image_bodies", "consent", "provenance"):
        good = good.append_column(name, pa.nulls(1, DOCUMENT.field(name).type))
    conform(good, DOCUMENT)
    bad = out.to_pylist()[1]
    assert bad["error"] == "not HTML: the body is PDF"
    assert bad["nodes"] == [] and bad["dropped"] == []


def test_rows_do_not_depend_on_their_neighbours() -> None:
    pages = [path.read_bytes() for path in sorted(GOLDEN.glob("*.html"))]
    together = run([*pages])
    assert together == [run([page])[0] for page in pages]


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", None, "empty body"),
        (b" \n ", "text/html", "empty body"),
        (b"\x89PNG\r\n\x1a\n", None, "not HTML: the body is PNG"),
        (b"{}", "application/json", "not HTML: content type 'application/json'"),
        (b"just words", "text/html", "not HTML: no tag found"),
        (b"<?xml version='1.0'?><rss><channel/></rss>", "text/xml", "not HTML: XML document <rss>"),
        (b"<p>" + b"\0" * 100, "text/html", "not HTML: binary data"),
        (None, None, "no body"),
    ],
)
def test_pages_that_are_none(body: bytes | None, content_type: str | None, message: str) -> None:
    rows = pa.table(
        {
            "url": [URL],
            "content_type": pa.array([content_type], pa.string()),
            "body": pa.array([body], pa.large_binary()),
        }
    )
    row = Extract(ExtractSettings())(rows).to_pylist()[0]
    assert row["error"] == message


def test_xhtml_is_html() -> None:
    page = (
        '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Hi</p></body></html>'
    )
    assert [node["text"] for node in extract(page, "application/xhtml+xml")["nodes"]] == ["Hi"]


HOSTILE = {
    "nested": "<div>" * 100_000 + "deep text" + "</div>" * 100_000,
    "nested, unclosed": "<div>" * 100_000 + "deep text",
    "attributes": "<p " + " ".join(f"a{i}=1" for i in range(50_000)) + ">deep text",
    "attributes without a space": "<p " + "".join(f'a{i}="1"' for i in range(50_000)) + ">deep text",
    "options": "<select>" + "<option>" * 50_000 + "</select><p>deep text",
    "unclosed formatting": "".join(f"<b id={i}>" for i in range(400)) + "<p>deep text</p>" * 20_000,
    "unclosed comments": "<p>deep text</p>" + "<!--" * 100_000,
    "unclosed tags": "<p>deep text</p>" + "<a " * 100_000,
    "unclosed quotes": "<p>deep text</p>" + "<div>" * 600 + "<a b='" * 50_000,
    "lists": "<ul><li>" * 50_000 + "deep text",
    "links": "<a href=x>deep text" * 50_000,
    "tables": "<table><tr><td>" * 20_000 + "deep text",
    "images": "<p>deep text" + "<img src=a.jpg>" * 50_000,
    "srcset": "<p>deep text<img srcset='" + "a.jpg 1w," * 100_000 + "'>",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_pages_cost_at_most_their_cap(name: str) -> None:
    start = time.process_time()
    row = run([HOSTILE[name].encode()])[0]
    seconds = time.process_time() - start
    assert row["error"] is None
    assert any("deep text" in (node["text"] or "") for node in row["nodes"])
    assert seconds < 8  # minutes without the caps; generous for a busy machine


def test_caps_say_what_they_cut() -> None:
    deep = extract("<div>" * 1000 + "<p>text</p>", max_depth=100)
    assert [node["text"] for node in deep["nodes"]] == ["text"]
    assert any(row["rule"] == "max_depth" for row in deep["dropped"])
    long = extract("<p>word</p>" * 500, max_nodes=100)
    assert len(long["nodes"]) == 100
    assert {"kind": "text", "rule": "max_nodes", "detail": "page cut after 100 of 500 tags"} in long["dropped"]
    many = extract("".join(f"<img src={i}.jpg>" for i in range(5)), max_images=2)
    assert sum(node["kind"] == "image" for node in many["nodes"]) == 2
    assert [row["rule"] for row in many["dropped"]] == ["max_images"] * 3
    large = run([b"<p>" + b"x" * 2000], max_bytes=1024)[0]
    assert large["error"] == "2003 bytes of HTML, more than extract.max_bytes 1024"


def test_fifty_megabytes_are_refused() -> None:
    row = run([b"<p>" + b"x " * (25 << 20)])[0]
    assert row["error"].startswith("52428803 bytes of HTML")


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_bytes_give_a_row(noise: bytes, cut: int) -> None:
    page = (GOLDEN / "sphinx.html").read_bytes()
    row = run([page[: cut * 5] + noise + page[cut * 5 :]])[0]
    assert (row["error"] is None) == bool(row["nodes"] or row["dropped"]) or row["error"] is None
    assert row["error"] is None or "\n" not in row["error"]


ENCODED = "Grüße aus Köln \u2013 schöne Straße"


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (f"<p>{ENCODED}".encode(), "text/html; charset=iso-8859-1"),  # header lies, the bytes are UTF-8
        (f"<p>{ENCODED}".encode("cp1252"), "text/html; charset=utf-8"),  # header lies the other way
        (f"<meta charset=windows-1252><p>{ENCODED}".encode("cp1252"), None),
        (f"<meta charset=utf-8><p>{ENCODED}".encode("cp1252"), "text/html; charset=windows-1252"),
        (b"\xef\xbb\xbf" + f"<p>{ENCODED}".encode(), "text/html; charset=iso-8859-1"),
        (b"\xff\xfe" + f"<p>{ENCODED}".encode("utf-16-le"), None),
        (f"<meta charset=utf-16><p>{ENCODED}".encode(), None),  # unreadable if it were true
        (f"<p>{ENCODED}".encode() + b"\xc3", None),  # cut inside a character
    ],
)
def test_encodings(body: bytes, header: str | None) -> None:
    assert [node["text"] for node in extract(body, header)["nodes"]] == [ENCODED]


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("shift_jis", "これは日本語の文章です。"),
        ("gb18030", "这是一个中文句子。"),
        ("koi8-r", "Это русский текст."),
        ("iso2022_jp", "日本語"),
    ],
)
def test_declared_legacy_encodings(codec: str, text: str) -> None:
    body = f"<meta charset={codec.replace('2022_', '-2022-')}><p>{text}".encode(codec)
    assert [node["text"] for node in extract(body, None)["nodes"]] == [text]


def test_data_uris() -> None:
    uri = "data:image/png;base64," + base64.b64encode(b"x" * 900).decode()
    kept = extract(f'<img src="{uri}">')
    assert kept["nodes"][0]["image_url"] == uri
    dropped = extract(f'<img src="{uri}">', data_uris="drop")
    assert dropped["nodes"] == []
    assert [row["rule"] for row in dropped["dropped"]] == ["data_uri"]
    assert [row["rule"] for row in extract(f'<img src="{uri}">', max_data_uri=600)["dropped"]] == ["data_uri_too_long"]


def test_image_id_is_the_hash_of_the_url() -> None:
    first, second = extract("<img src=../x.jpg><p>a<img src=http://EXAMPLE.org:80/a/x.jpg>")["nodes"][::2]
    assert first["image_id"] == second["image_id"]
    assert len(first["image_id"]) == 32


def test_target_width_chooses() -> None:
    html = "<img srcset='s.jpg 300w, m.jpg 800w, l.jpg 1600w'>"
    chosen = {w: extract(html, target_width=w)["nodes"][0]["image_url"].rsplit("/")[-1] for w in (100, 799, 800, 9999)}
    assert chosen == {100: "s.jpg", 799: "s.jpg", 800: "m.jpg", 9999: "l.jpg"}


def test_parse_srcset() -> None:
    assert parse_srcset("a.jpg, b,c.jpg 2x , d.jpg 100w 50h,, e.jpg (x, y) 3x") == [
        Candidate("a.jpg"),
        Candidate("b,c.jpg", None, 2.0),
        Candidate("d.jpg", 100),
        Candidate("e.jpg", None, 3.0),
    ]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab, \t(1)wx.:/"), max_size=60))
def test_parse_srcset_never_fails(value: str) -> None:
    for candidate in parse_srcset(value):
        assert candidate.url and not candidate.url.endswith(",") and " " not in candidate.url


def test_whole_page_on_request() -> None:
    page = (GOLDEN / "furniture.html").read_text()
    assert "We use cookies." not in render(extract(page, main_content="page")).split("- ")[0]
    auto, whole = extract(page), extract(page, main_content="page")
    assert [node["text"] for node in auto["nodes"]] == [node["text"] for node in whole["nodes"]]


def test_same_text_same_hash() -> None:
    a = extract("<div><p>One  two</p><p>three</p></div>")
    b = extract("<article><p>One <i>two</i></p>\n<img src=x.jpg><p>three</p></article>")
    assert a["text_hash"] == b["text_hash"]
    assert extract("<img src=x.jpg>")["text_hash"] is None


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([("robots", "noai, noimageai")], "noai, noimageai"),
        ([("ROBOTS", " NoIndex "), ("robots", "noai")], "NoIndex; noai"),
        ([("robots", "max-snippet: 20; noai")], "max-snippet:20, noai"),
        ([("interloom", "noai noimageai")], "interloom: noai noimageai"),
        (
            [("googlebot", "noindex, unavailable_after: 25 Jun 2031")],
            "googlebot: noindex, unavailable_after:25 Jun 2031",
        ),
        ([("robots", "unavailable_after: 2031-06-25")], "unavailable_after:2031-06-25"),
        ([("description", "none of this has noai in it")], None),
        ([("keywords", "index follow")], None),
        ([("two words", "noai")], None),
        ([("robots", "")], None),
    ],
)
def test_meta_robots(tags: list[tuple[str, str]], said: str | None) -> None:
    html = "".join(f'<meta name="{name}" content="{content}">' for name, content in tags)
    assert extract(f"<head>{html}</head><p>x</p>")["meta_robots"] == said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([("tdm-reservation", "1")], "1"),
        ([("TDM-Reservation", " 0 "), ("tdm-reservation", "1")], "0"),
        ([("tdm-policy", "https://h/p.json"), ("tdm-reservation", "1")], "1 https://h/p.json"),
        ([("tdm-policy", "https://h/p.json")], None),
        ([("tdm-reservation", "")], None),
    ],
)
def test_meta_tdm(tags: list[tuple[str, str]], said: str | None) -> None:
    html = "".join(f'<meta name="{name}" content="{content}">' for name, content in tags)
    assert extract(f"<head>{html}</head><p>x</p>")["meta_tdm"] == said
