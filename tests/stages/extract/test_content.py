"""What looks like furniture, a control or a hidden part by one word or attribute, and is content."""

from __future__ import annotations

from typing import Any

import pytest

from stages.extract import ExtractSettings
from stages.extract.document import extract_document

BEFORE = "The ferry leaves the old harbour at nine and crosses the sound in a little under an hour."
AFTER = "On the far shore a path of pale gravel climbs from the pier to the lighthouse on the ridge."
TEXT = "Weavers settled here when the mills opened, and their looms could be heard in every street."
PAGE = f"<p>{BEFORE}</p>%s<p>{AFTER}</p>" + f"<p>{AFTER}</p>" * 9  # so that no fragment is most of the page


def extract(html: str) -> dict[str, Any]:
    return extract_document(html.encode(), "http://example.org/a/page.html", "text/html", ExtractSettings())


def texts(document: dict[str, Any]) -> list[str]:
    return [node["text"] for node in document["nodes"] if node["kind"] == "text"]


def within(html: str) -> list[str]:
    """Texts of a fragment that stands between two paragraphs."""
    found = texts(extract(PAGE % html))
    assert found[0] == BEFORE and found[-10:] == [AFTER] * 10
    return found[1:-10]


def rules(html: str) -> list[str]:
    return [row["rule"] for row in extract(PAGE % html)["dropped"]]


@pytest.mark.parametrize(
    "html",
    [
        "<div class='gutter'><p>{}</p></div>",
        "<div class='row gutter'><p>Mills of the north.</p></div>",
        "<div class='permalink'><p>{}</p><p>{}</p></div>",
        "<p><span class='permalink'>{}</span></p>",
        "<section><div class='sidebar'><h3>The looms</h3><p>{}</p></div><p>{}</p></section>",
        "<div class='social-history'><h2>Social history</h2><p>{}</p></div>",
        "<div class='navigation-history'><p>{}</p><p>{}</p></div>",
        "<div id='cookie-recipes'><h2>Oat</h2><p>{}</p><p>{}</p><p>{}</p></div>",
        "<div class='promo-shot'><p>{}</p><img src=loom.jpg></div>",
        "<div class='consent-law'><h2>First</h2><p>{}</p></div><div class='consent-law'><h2>Second</h2><p>{}</p></div>",
    ],
)
def test_a_class_word_takes_no_block_that_speaks_for_itself(html: str) -> None:
    found = " ".join(within(html.replace("{}", TEXT)))
    assert found.count(TEXT) == html.count("{}")
    assert all(word in found for word in ("Mills", "Social", "Oat", "looms") if word in html)


@pytest.mark.parametrize(
    "html",
    [
        "<div class='social-links'><p>Follow the mill on all of its channels, day by day and week by week.</p></div>",
        "<div class='sidebar'><h3>Mills</h3><p>{}</p><ul><li><a href=a>Looms of the north and south</a></ul></div>",
        "<div class='cookie-banner'><h2>Cookies</h2><p>{}</p><p>{}</p><p>{}</p><button>Accept</button></div>",
        "<div class='newsletter'><h2>News</h2><p>{}</p><form><input name=email></form></div>",
        "<div class='related-posts'><h3><a href=a>Looms</a></h3><p>{}</p><h3><a href=b>Mills</a></h3><p>{}</p></div>",
        "<div class='consent-text'><p>{}</p><p>{}</p></div>",
    ],
)
def test_a_class_word_is_believed_of_the_rest(html: str) -> None:
    html = html.replace("{}", TEXT)
    assert within(f"<blockquote>{html}</blockquote>") == []
    assert "boilerplate" in rules(f"<blockquote>{html}</blockquote>")


def test_a_page_that_guesses_would_empty_is_looked_at_again() -> None:
    blocks = "".join(f"<div class='newsletter'><p>{TEXT} ({number})</p></div>" for number in range(8))
    document = extract(f"<h1>Letters</h1><nav><a href=/>Start</a></nav>{blocks}<div class='sidebar'>More</div>")
    assert texts(document) == ["Letters", *(f"{TEXT} ({number})" for number in range(8))]
    assert [row["rule"] for row in document["dropped"]] == ["furniture", "boilerplate"]
    asides = "".join(f"<aside class='box'><p>{TEXT} ({number})</p></aside>" for number in range(8))
    assert len(texts(extract(f"<h1>Letters</h1>{asides}"))) == 9


def test_labels_that_are_not_read_are_told() -> None:
    assert within("<h2>Looms <a class=permalink href=#l>Permalink to this part</a></h2>") == ["Looms"]
    assert "unread" in rules("<h2>Looms <a class=permalink href=#l>Permalink to this part</a></h2>")
    assert within("<h2><a class=permalink href=#l>Looms</a></h2>") == ["Looms"]
    assert rules("<h2>Looms<a class=headerlink href=#l>\u00b6</a></h2>") == []
    code = "<table><tr><td class=gutter><pre>1\n2\n3</pre><td class=code><pre>weave(loom)</pre></table>"
    assert within(code) == ["weave(loom)"]
    assert within("<div>A loom<div class='tooltip-content'>A machine</div></div>") == ["A loom"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p aria-hidden=true>{}</p>", [TEXT]),
        ("<h2 aria-label=Looms><span aria-hidden=true>Looms</span></h2>", ["Looms"]),
        ("<p>It costs <span aria-hidden=true>5 crowns</span><span class=sr-only>five crowns</span>.</p>", None),
        # signs, what scripts show over the page, and what is there twice
        ("<p>{} <i class=icon aria-hidden=true>\u2192</i></p>", [TEXT]),
        ("<div aria-hidden=true class='modal fade'><p>{}</p></div>", []),
        ("<div class=slide aria-hidden=true><p>{}</p></div>", []),
        ("<p aria-hidden=true tabindex=-1>{}</p>", []),
        ("<div aria-hidden=true role=dialog><p>{}</p></div>", []),
        ("<p>{}</p><p aria-hidden=true>{}</p>", [TEXT]),
        ("<p><span><math><mi>x</mi></math></span><span aria-hidden=true>x x</span></p>", ["x"]),
    ],
)
def test_aria_hidden_is_not_hidden(html: str, expected: list[str] | None) -> None:
    found = within(html.replace("{}", TEXT))
    assert found == (["It costs 5 crowns."] if expected is None else expected)


def test_captions_hidden_from_assistive_software_are_captions() -> None:
    page = "<figure><img src=loom.jpg alt='A loom'><figcaption aria-hidden=true>A loom</figcaption></figure>"
    assert [node["caption"] for node in extract(page)["nodes"] if node["kind"] == "image"] == ["A loom"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h3><button aria-expanded=false>Who wove?</button></h3><p>{}</p>", ["Who wove?", TEXT]),
        ("<button aria-expanded=false><h3>Who wove?</h3></button><p>{}</p>", ["Who wove?", TEXT]),
        ("<dl><dt><button>Who wove?</button></dt><dd>{}</dd></dl>", ["Who wove?", TEXT]),
        ("<input type=checkbox id=a><h3><label for=a>Who wove?</label></h3><p>{}</p>", ["Who wove?", TEXT]),
        ("<button class=accordion>Who wove?</button><div class=panel><p>{}</p></div>", ["Who wove?", TEXT]),
        ("<label><p>{}</p></label>", [TEXT]),
        ("<fieldset><legend>Looms</legend><p>{}</p></fieldset>", ["Looms", TEXT]),
        ("<fieldset><legend>Send</legend><label>Name <input></label></fieldset>", []),
        ("<output>{}</output>", [TEXT]),
        ("<button>Play</button><label for=q>Search</label><output for=q>7</output>", []),
    ],
)
def test_what_controls_hold_may_be_content(html: str, expected: list[str]) -> None:
    assert within(html.replace("{}", TEXT)) == expected


def test_pictures_in_buttons() -> None:
    page = PAGE % "<button><img src=zoom.jpg width=640 height=480></button><button><img src=lens.png></button>"
    document = extract(page)
    images = [node["image_url"] for node in document["nodes"] if node["kind"] == "image"]
    assert images == ["http://example.org/a/zoom.jpg"]
    assert [(row["rule"], row["detail"]) for row in document["dropped"]] == [
        ("form_control", "http://example.org/a/lens.png")
    ]


@pytest.mark.parametrize(
    "html",
    [
        "<aside class='docs-aside docs-aside--tip'><p>Mind the step.</p></aside>",
        "<aside class='admonitionNote'><p>Mind the step.</p></aside>",
        "<aside aria-label='Warning'><p>Mind the step.</p></aside>",
        "<aside role='doc-tip'><p>Mind the step.</p></aside>",
        f"<aside class='box'><h3>Mind the step.</h3><p>{TEXT}</p></aside>",
    ],
)
def test_asides_of_the_text(html: str) -> None:
    assert within(html)[0] == "Mind the step."


@pytest.mark.parametrize(
    "html",
    [
        "<aside><p>Subscribe now.</p></aside>",
        f"<aside class='newsletter-callout'><p>{TEXT}</p></aside>",
        f"<aside><h3><a href=a>Looms</a></h3><p>{TEXT}</p><p>{TEXT}</p></aside>",
    ],
)
def test_asides_of_the_page(html: str) -> None:
    assert within(html) == [] and rules(html) == ["furniture"]


def test_menu_is_a_list() -> None:
    assert within("<menu><li>Soup of the day<li>Bread</menu>") == ["Soup of the day", "Bread"]
    assert rules("<menu><li><a href=a>Start</a><li><a href=b>Shop</a><li><a href=c>Help</a></menu>") == ["boilerplate"]


def test_what_stands_in_embedded_media_is_told() -> None:
    assert rules("<video src=a.mp4>Your browser plays no films.</video>") == ["embedded"]
    page = PAGE % "<object type='image/svg+xml' data=loom.svg><img src=loom.png></object>"
    assert [node["image_url"] for node in extract(page)["nodes"] if node["kind"] == "image"] == [
        "http://example.org/a/loom.png"
    ]


def test_tables_in_captions_and_headings_are_read_whole() -> None:
    table = "<table><tr><td>one<td>two<tr><td>three<td>four</table>"
    assert within(f"<figure><figcaption>Before {table} after</figcaption></figure>") == [
        "Before one two three four after"
    ]
    assert within(f"<table><caption>Looms{table}</caption><tr><td>a<td>b</table>")[0] == "Looms one two three four"
    assert within(f"<table><tr><td>Looms {table}<td>{TEXT}</table>") == ["Looms", "one | two", "three | four", TEXT]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<a href='/x>Harbour</a> and <b class='c'>pier</b>", ["Harbour and pier"]),
        ('<a href="/x>Harbour</a><p>Pier</p>', ["Harbour", "Pier"]),
        ('<a href="/x>Harbour</a> she said "no" <i>twice</i>', ['Harbour she said "no" twice']),
        ('<input type="text=""><p>Pier</p>', ["Pier"]),
        ('<input type="text="" name="q" value=""><div title="a"><p>Pier</p></div>', ["Pier"]),
        ('<img src=a.png alt="5" screen"><p title="x>Pier</p><p class="y">Quay</p>', ["Pier", "Quay"]),
        # values that hold tags by right
        ('<p title="a > b <i>c</i>">Pier</p>', ["Pier"]),
        ("<p data-note='<i title=\"a\">b</i>' class=x>Pier</p>", ["Pier"]),
        ('<p onclick="if (a > b) c()">Pier</p>', ["Pier"]),
    ],
)
def test_a_stray_quote_swallows_no_page(html: str, expected: list[str]) -> None:
    assert texts(extract(f"<p>{BEFORE}</p><div>{html}</div>{'<p>' + AFTER + '</p>'}"))[1:-1] == expected


def test_a_quote_that_nothing_closes_ends_with_its_tag() -> None:
    assert texts(extract(f"<p>{BEFORE}</p><p class='a>{TEXT}</p><p>{AFTER}</p>")) == [BEFORE, TEXT, AFTER]
    assert texts(extract(f"<p>{BEFORE}</p><p class='a>{TEXT}</p>" + f"<p>{AFTER}</p>" * 300))[1:3] == [TEXT, AFTER]


def test_headlines_of_other_pages_are_no_content() -> None:
    teasers = "".join(f"<li><a href=/{n}><img src={n}.jpg>The mill number {n} is open again</a></li>" for n in range(4))
    assert within(f"<ul>{teasers}</ul>") == [] and set(rules(f"<ul>{teasers}</ul>")) == {"boilerplate"}
    gallery = "".join(f"<li><a href={n}.jpg><img src=s{n}.jpg>Mill number {n}</a></li>" for n in range(4))
    assert within(f"<ul>{gallery}</ul>") == [f"Mill number {n}" for n in range(4)]


def test_what_follows_the_article_is_outside() -> None:
    article = f"<article><h1>Mills</h1>{f'<p>{TEXT}</p>' * 4}</article>"
    document = extract(f"<main><img src=lead.jpg>{article}<div><p>{BEFORE}</p></div></main>")
    assert texts(document) == ["Mills", *[TEXT] * 4]
    assert document["nodes"][0]["kind"] == "image"
    assert [row["rule"] for row in document["dropped"]] == ["outside_main"]
