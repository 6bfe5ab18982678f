"""What hangs on to a text without a mark that says so."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stages.extract.document import extract_document
from stages.extract.settings import ExtractSettings

TEXT = "".join(f"<p>{'The weaver binds the warp before the cloth is begun. ' * 4}{n}</p>" for n in range(4))
BIO = "<div class=box><img src=me.jpg><h3>Ada</h3><p>Ada writes about looms, and lives by the river.</p></div>"
HEADLINES = (
    "<div class=row>"
    + "".join(
        f"<div><a href={n}.html><img src={n}.jpg></a><h4><a href={n}.html>Another story, no. {n}</a></h4></div>"
        for n in range(3)
    )
    + "</div>"
)


def read(page: str, **options: Any) -> dict[str, Any]:
    body = f"<body>{page}</body>".encode()
    return extract_document(body, "http://site.test/a.html", "text/html; charset=utf-8", ExtractSettings(**options))


def texts(page: str, **options: Any) -> list[str]:
    return [node["text"] for node in read(page, **options)["nodes"] if node["kind"] == "text"]


def images(page: str) -> list[str]:
    return [node["image_url"].rpartition("/")[2] for node in read(page)["nodes"] if node["kind"] == "image"]


@pytest.mark.parametrize(
    "behind",
    [
        HEADLINES,
        "<h3>Also of interest</h3>" + HEADLINES,
        BIO,
        "<div>34 people like this</div>",
        "<div><div><input name=q><p>Write to us whenever you find that something in this text is wrong.</p></div>",
        "<ul><li><a href=1.html>One</a> <li>2 May</ul>",
    ],
    ids=["headlines", "with heading", "author", "counter", "form", "list"],
)
def test_what_follows_the_text_and_is_none_goes_with_a_row(behind: str) -> None:
    page = f"<div class=wrap><h1>Looms</h1><div class=text><img src=loom.jpg>{TEXT}</div>{behind}</div>"
    found = read(page)
    assert [node["text"] for node in found["nodes"] if node["kind"] == "text"][1:] == texts(TEXT)
    assert images(page) == ["loom.jpg"]
    assert {row["rule"] for row in found["dropped"]} == {"appendage"}


@pytest.mark.parametrize(
    "behind",
    [
        "<p>A last word.</p>",
        f"<div>{TEXT}</div>",
        "<div class=footnotes><ol><li>See <a href=b.html>the other text</a>.</ol></div>",
        "<div id=references>Ada, <a href=b.html>On looms</a>, 1843.</div>",
        "<figure><img src=b.jpg><figcaption>A loom.</figcaption></figure>",
        "<pre>weave --now</pre>",
        "<h2>Then</h2><p>More.</p>",
        "<blockquote>Words of another.</blockquote>",
        "<table><tr><td>1<td>2</table>",
    ],
)
def test_what_belongs_to_the_text_stays_behind_it(behind: str) -> None:
    page = f"<div class=wrap><h1>Looms</h1><div class=text>{TEXT}</div>{behind}</div>"
    assert texts(page) == ["Looms", *texts(TEXT), *texts(behind)]
    assert not read(page)["dropped"]


def test_sections_of_one_kind_belong_together_however_short() -> None:
    page = f"<main><div class=part>{TEXT}</div><div class=part>Short.</div><div class=other>Short too.</div></main>"
    assert texts(page) == [*texts(TEXT), "Short."]


def test_headlines_before_the_text_go_and_its_title_does_not() -> None:
    page = f"<div>{HEADLINES}<div class=top><h1>Looms</h1><p>A summary.</p></div><div>{TEXT}</div></div>"
    assert texts(page) == ["Looms", "A summary.", *texts(TEXT)]
    assert images(page) == []


def test_a_page_of_short_blocks_has_no_one_text() -> None:
    page = "<div><div><p>One loom.</p></div><div>Two looms.</div><div><img src=a.jpg></div></div>"
    assert texts(page) == ["One loom.", "Two looms."] and images(page) == ["a.jpg"]


def test_portraits_of_authors_are_no_pictures_of_the_text() -> None:
    page = (
        f"<div class=byline><a rel=author href=ada.html><img src=a.jpg> Ada</a></div><img class=user-avatar src=b.jpg>"
        f"<figure class=author><img src=c.jpg><figcaption>The author in 1968</figcaption></figure>{TEXT}"
        f"<div class='article author-ada'><img src=d.jpg>{TEXT}</div>"
    )
    assert images(page) == ["c.jpg", "d.jpg"]
    assert [row["detail"].rpartition("/")[2] for row in read(page)["dropped"] if row["rule"] == "portrait"] == [
        "a.jpg",
        "b.jpg",
    ]


def test_text_for_browsers_without_scripts_weighs_nothing() -> None:
    noise = f"<noscript>{TEXT * 5}</noscript>"
    page = f"<main><div class=share-it>{noise}</div><div class=text>{TEXT}</div><div>{noise}34 likes</div></main>"
    assert texts(page) == texts(TEXT)
    assert texts(page, main_content="page") == [*texts(TEXT), "34 likes"]


LIST = (
    "<ul><li><a href=1.html>The reed and what it is made of, by hand</a></ul><p><a href=2.html><img src=2.jpg></a></p>"
)


@pytest.mark.parametrize(
    "title", ["Most read", "Related stories", "More from Ada", "\u00c4hnliche Beitr\u00e4ge", "Lire aussi :"]
)
def test_links_below_a_heading_of_other_stories_go_in_the_middle_of_a_text(title: str) -> None:
    page = f"<div>{TEXT}<div><h4>{title}</h4></div>{LIST}<p>A last word.</p></div>"
    assert texts(page) == [*texts(TEXT), "A last word."] and images(page) == []
    # a heading alone does not say so
    words = f"<div>{TEXT}<h4>{title}</h4><p>The reed is made of steel.</p></div>"
    assert texts(words)[-1] == "The reed is made of steel."


@pytest.mark.parametrize("title", ["27 commentaires", "Comments (3)", "Leave a comment", "2 Responses", "No comments"])
def test_what_readers_wrote_goes(title: str) -> None:
    said = (
        "<ol><li>" + "<p>I have read this and I do not think that it is right at all, I am afraid.</p>" * 20 + "</ol>"
    )
    assert texts(f"<div>{TEXT}<header><h2>{title}</h2></header>{said}</div>") == texts(TEXT)


def test_a_page_of_headings_costs_time_that_grows_with_it() -> None:
    began = time.process_time()
    assert texts(f"<div>{TEXT}{'<h2>Comments</h2><p>Words of the text.</p>' * 3_000}</div>")
    assert time.process_time() - began < 3


def test_a_chapter_on_comments_or_a_discussion_is_text() -> None:
    for title in ("Comments", "Discussion", "Responses"):
        assert texts(f"<div>{TEXT}<h2>{title}</h2><p>A comment begins with two dashes.</p></div>") == [
            *texts(TEXT),
            title,
            "A comment begins with two dashes.",
        ]
    form = "<form><textarea name=c></textarea></form><p>I have read this and I do not think that it is right.</p>"
    assert texts(f"<div>{TEXT}<h2>Comments</h2>{form}</div>") == texts(TEXT)
