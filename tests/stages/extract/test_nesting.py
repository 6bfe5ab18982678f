"""Depth as the parser finds it: held against the parser itself, for tags in any order."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser

from stages.extract.document import extract_document
from stages.extract.nesting import balanced, is_safe
from stages.extract.settings import ExtractSettings
from stages.extract.source import read_source
from stages.extract.vocabulary import word_set
from stages.web.links import links

MAX_DEPTH = 40
COPIES = 1 << 20


def parser_depth(html: str) -> int:
    """The deepest node of the page, counted from the root."""
    node = LexborHTMLParser(html, options=LexborDocumentOptions.WO_EVENTS).root
    depth = deepest = 0
    while node is not None:
        if node.first_child is not None:
            node, depth = node.first_child, depth + 1
            deepest = max(deepest, depth)
            continue
        while node is not None and node.next is None:
            node, depth = node.parent, depth - 1
        node = None if node is None else node.next
    return deepest


# What leaves elements open although an end tag seems to close them, or hides tags that a simple scan would see.
LEAKS = [
    *(f"<{tag}><div></{tag}>" for tag in ("a", "b", "i", "font", "nobr", "code", "span", "sup", "label", "form")),
    "<div></x>",
    "<div></p>",
    "<span><div></span></div>",
    "<div></span><span></div>",
    "<b><p></b></p>",
    "<!--><div>",
    "<!---><div><!--x--!><p><div>",
    "<div '></div '>",
    "<div><?</div>",
    "<div><!</div>",
    "<div></ </div>",
    "<svg><style><g>",
    "<svg><title><g></title>",
    "<svg><td>",
    "<math><mi><math>",
    "<math><style><mi></style>",
    "<div><svg><![CDATA[</svg></div>]]>",
    "<script><!--<script></script>--></script><div>",
    "<select><xmp></select><div></xmp>",
    "<select><h1><ul></select><ul>",
    "<table><div>",
    "<table><tr><td><b>",
    "<tr><div></tr>",
    "<frameset><ruby></frameset>",
    "<template><div>",
    "<noscript><div></noscript><div>",
    "<object><div></object><p></div><div>",
    "<p><b>",
    "<annotation-xml><font></annotation-xml>",
    "<select></b><b><select>",
    "<table><i></table><li></i><table>",
]


@pytest.mark.parametrize("unit", LEAKS)
def test_no_page_is_deeper_than_it_seems(unit: str) -> None:
    page = "<body>" + unit * 300 + "deep text"
    if not is_safe(page, MAX_DEPTH, COPIES):
        page, _ = balanced(page, MAX_DEPTH)
    assert parser_depth(page) <= 2 * MAX_DEPTH + 16  # the parser adds <tbody>, <tr> and what stands around them


TAGS = sorted(
    word_set(
        "a b i font nobr code div p span li ul dd dt table tr td caption select option button form svg g math mi desc",
        "title style script template object h1 pre ruby rt noscript xmp html body br img sup frameset center",
    )
)
UNIT = st.lists(
    st.one_of(
        st.sampled_from(TAGS).map("<{}>".format),
        st.sampled_from(TAGS).map("</{}>".format),
        st.sampled_from(
            ["x", "<!-->", "<!--", "-->", "<![CDATA[", "]]>", "<?", "'", '"', "</ ", "<a b='", "<g/>", ">"]
        ),
    ),
    min_size=1,
    max_size=8,
).map("".join)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=200)
@given(UNIT)
def test_tags_in_any_order_nest_no_deeper_than_is_said(unit: str) -> None:
    page = "<body>" + unit * 120
    if not is_safe(page, MAX_DEPTH, COPIES):
        page, _ = balanced(page, MAX_DEPTH)
    assert parser_depth(page) <= 2 * MAX_DEPTH + 16


@settings(derandomize=True, deadline=None, max_examples=100)
@given(UNIT)
def test_a_balanced_page_is_safe_and_stays_as_it_is_read(unit: str) -> None:
    page, _ = balanced("<body>" + unit * 60, MAX_DEPTH)
    again, num_cut = balanced(page, MAX_DEPTH)
    assert num_cut == 0
    assert parser_depth(again) <= 2 * MAX_DEPTH + 16


def test_pages_as_people_write_them_are_left_alone() -> None:
    block = """<p>One <b>two<p>three</b> <a name=x><a href=y>z</a><ul><li>a<li>b <ul><li>c</ul></ul><dl><dt>d<dd>e</dl>
      <table><form><tr><td>f<td><font size=2>g<tr><th>h</table></form><select><option>i<option selected>j</select>
      <svg viewBox="0 0 1 1"><title>k</title><path d="M0 0"/><g><circle r=1 /></g><style>.a{b:c}</style></svg>
      <!-- <div> --><script>"<div>" < "<p>"</script><div><span>l</div><h2>m<h3>n</h3></h2>
      <img alt="a > b" src='o'><math><mi>p</mi></math><button>q<br>r</button><textarea><div></textarea>"""
    page = f"<!DOCTYPE html><html><head><title>x</title></head><body>{block * 300}</body></html>"
    assert is_safe(page, 512, COPIES)
    image = f"<p><img src='data:image/png;base64,{'A' * 20_000}'>"
    assert is_safe(f"<body>{image * 300}", 512, COPIES)


def test_a_balanced_page_keeps_its_text_its_links_and_its_pictures() -> None:
    deep = "<p>a &lt; b < c</p><i>e</i><img src=f.png><xmp><g></xmp><textarea><h></textarea><table><td>i</table>"
    page = (
        "<title>t<u</title><a href=d>d</a><script>no</script><style>no</style><!-- no -->"
        + "<div>" * 600
        + deep
        + "</x></div>" * 600
    )
    read = extract_document(page.encode(), "http://h/", "text/html", ExtractSettings())
    assert read["title"] == "t<u"
    assert [node["text"] or node["image_url"] for node in read["nodes"]][:3] == ["d", "a < b < c e", "http://h/f.png"]
    assert any(row["rule"] == "max_depth" for row in read["dropped"])
    assert links(page.encode(), "text/html", "http://h/") == ["http://h/d"]


def test_repeated_roots_and_attributes_are_cut() -> None:
    roots = "".join(f"<body a{i}=1>" for i in range(5000))
    html, _ = read_source(f"<p>x{roots}<p>y".encode(), "text/html", ExtractSettings())[:2]
    assert html.count("<body") <= 64
    tag = "<p " + " ".join(f"a{i}='>'" for i in range(5000)) + ">deep text"
    html, cut = read_source(tag.encode(), "text/html", ExtractSettings())[:2]
    assert len(html) < 4000 and html.endswith(">deep text")
    assert cut == [("max_attributes", "1 tags with more than 256 attributes")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        "<a><div></a>",
        "<div></x>",
        "<sup>1",
        "<figure><figcaption>words <img src=a.png></figcaption>",
        "<source srcset='a.png 1w, b.png 2w'><img src=x.png>",
        "<math><annotation encoding=tex>",
        "<a rel=license href='http://['>",
    ],
)
def test_a_hostile_page_is_read_in_seconds(unit: str) -> None:
    page = ("<p>" + unit * 8_000 + "deep text").encode()
    start = time.process_time()
    links(page, "text/html", "http://h/")
    extract_document(page, "http://h/", "text/html", ExtractSettings())
    assert time.process_time() - start < 20  # many minutes, if each tag looked at all the others


@pytest.mark.parametrize(
    "page",
    [
        "<sup>" + "1" * 500_000 + "x</sup>",
        "<img src=a.png width='1" + " " * 500_000 + "x'>",
        "<figure>" + "<figcaption>some words</figcaption>" * 20_000 + "<img src=a.png>" * 500,
        "<pre>" + "\n" * 1_000_000 + "x",
        "a" + "\u0301\u0316" * 300_000,
    ],
    ids=["raised", "width", "captions", "blank lines", "marks"],
)
def test_a_long_piece_is_read_in_seconds(page: str) -> None:
    start = time.process_time()
    read = extract_document(f"<p>{page}".encode(), "http://h/", "text/html", ExtractSettings())
    assert time.process_time() - start < 20
    assert read["nodes"] and all(len(node["caption"] or "") <= 10_000 for node in read["nodes"])
