"""Captions in the markup of the tools that make pages, and where only a reader sees them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stages.extract.document import extract_document
from stages.extract.settings import ExtractSettings


def nodes_of(html: str) -> list[dict[str, Any]]:
    page = f"<article><p>A first paragraph.</p>{html}<p>A last paragraph.</p></article>"
    found: list[dict[str, Any]] = extract_document(
        page.encode(), "http://site.test/a/page.html", "text/html; charset=utf-8", ExtractSettings()
    )["nodes"]
    return found


def captions_of(html: str) -> dict[str, str | None]:
    """Caption by the name of the picture's file."""
    return {node["image_url"].rpartition("/")[2]: node["caption"] for node in nodes_of(html) if node["kind"] == "image"}


GENERATORS = {
    "docbook": (
        """<div class="figure"><a id="fig-loom"></a><p class="title"><b>Figure 2.1. A loom</b></p><div
        class="figure-contents"><div class="mediaobject" align="center"><img src="loom.png" align="middle" alt="A loom">
        </div></div></div><br class="figure-break">""",
        {"loom.png": "Figure 2.1. A loom"},
    ),
    "docbook, media object": (
        """<div class="informalfigure"><div class="mediaobject"><img src="warp.png"><div class="caption"><p>The
        warp.</p>
        </div></div></div>""",
        {"warp.png": "The warp."},
    ),
    "docbook 5.2, html5": (
        """<figure class="figure"><img src="loom.png"><figcaption><span class="label">Figure 1. </span>A
        loom</figcaption></figure>""",
        {"loom.png": "Figure 1. A loom"},
    ),
    "asciidoctor": (
        """<div id="img-loom" class="imageblock text-center"><div class="content"><img src="loom.png" alt="Loom"
        width="300"></div><div class="title">Figure 1. A loom in use</div></div>""",
        {"loom.png": "Figure 1. A loom in use"},
    ),
    "sphinx, html4": (
        """<div class="figure align-center" id="id1"><img alt="../_images/loom.png" src="../_images/loom.png" /><p
        class="caption"><span class="caption-number">Fig. 1 </span><span class="caption-text">A loom.</span><a
        class="headerlink" href="#id1" title="Permalink to this image">\u00b6</a></p><div class="legend">Seen from
        above.</div></div>""",
        {"loom.png": "Fig. 1 A loom. Seen from above."},
    ),
    "sphinx, html5": (
        """<figure class="align-default" id="id2"><a class="reference internal image-reference" href="loom.png"><img
        alt="loom" src="loom.png" style="width: 400px;" /></a><figcaption><p><span class="caption-text">A loom.</span><a
        class="headerlink" href="#id2">\u00b6</a></p><div class="legend"><p>Seen from above.</p></div></figcaption>
        </figure>""",
        {"loom.png": "A loom. Seen from above."},
    ),
    "sphinx-gallery": (
        """<div class="sphx-glr-thumbnails"><div class="sphx-glr-thumbcontainer" tooltip="How a loom is set up, in four
        steps."><img alt="" src="sphx_glr_loom_thumb.png" /><p></p><div class="sphx-glr-thumbnail-title">Setting up a
        loom</div></div></div>""",
        {"sphx_glr_loom_thumb.png": "Setting up a loom"},
    ),
    "latexml": (
        """<figure id="S1.F1" class="ltx_figure"><img src="x1.png" id="S1.F1.g1" class="ltx_graphics ltx_centering">
        <figcaption class="ltx_caption ltx_centering"><span class="ltx_tag ltx_tag_figure">Figure 1: </span>Warp and
        weft.</figcaption></figure>""",
        {"x1.png": "Figure 1: Warp and weft."},
    ),
    "latexml, panels": (
        """<figure id="S1.F2" class="ltx_figure"><div class="ltx_flex_figure"><div class="ltx_flex_cell
        ltx_flex_size_2">
        <figure id="S1.F2.sf1" class="ltx_figure ltx_figure_panel"><img src="x2.png" class="ltx_graphics"><figcaption
        class="ltx_caption">(a) Warp</figcaption></figure></div><div class="ltx_flex_cell"><img src="x3.png"
        class="ltx_graphics ltx_figure_panel"></div></div><figcaption class="ltx_caption"><span class="ltx_tag
        ltx_tag_figure">Figure 2: </span>Both threads.</figcaption></figure>""",
        {"x2.png": "(a) Warp", "x3.png": "Figure 2: Both threads."},
    ),
    "mediawiki, thumb": (
        """<div class="thumb tright"><div class="thumbinner" style="width:222px;"><a href="/wiki/File:Loom.jpg"
        class="image"><img src="220px-Loom.jpg" width="220" height="165" class="thumbimage" /></a><div
        class="thumbcaption"><div class="magnify"><a href="/wiki/File:Loom.jpg" class="internal" title="Enlarge"></a>
        </div>A hand <a href="/wiki/Loom">loom</a>.</div></div></div>""",
        {"220px-Loom.jpg": "A hand loom."},
    ),
    "mediawiki, parsoid": (
        """<figure class="mw-default-size mw-halign-right" typeof="mw:File/Thumb"><a href="/wiki/File:Loom.jpg"
        class="mw-file-description"><img src="250px-Loom.jpg" class="mw-file-element" width="250" height="180"></a>
        <figcaption>A hand loom.</figcaption></figure>""",
        {"250px-Loom.jpg": "A hand loom."},
    ),
    "mediawiki, gallery": (
        """<ul class="gallery mw-gallery-traditional"><li class="gallerybox" style="width: 155px"><div class="thumb"
        style="width: 150px;"><span typeof="mw:File"><a href="/wiki/File:A.jpg"><img src="120px-A.jpg"></a></span></div>
        <div class="gallerytext">A shuttle of wood</div></li><li class="gallerybox" style="width: 155px"><div
        style="width: 155px"><div class="thumb"><div style="margin:15px auto;"><a class="image"><img src="120px-B.jpg">
        </a></div></div><div class="gallerytext"><p>A reed of steel</p></div></div></li></ul>""",
        {"120px-A.jpg": "A shuttle of wood", "120px-B.jpg": "A reed of steel"},
    ),
    "mediawiki, several": (
        """<div class="thumb tmulti tright"><div class="thumbinner multiimageinner"><div class="trow"><div
        class="tsingle">
        <div class="thumbimage"><img src="A.jpg"></div><div class="thumbcaption">Before</div></div><div class="tsingle">
        <div class="thumbimage"><img src="B.jpg"></div><div class="thumbcaption">After</div></div></div></div></div>""",
        {"A.jpg": "Before", "B.jpg": "After"},
    ),
    "mediawiki, infobox": (
        """<table class="infobox"><tr><td colspan="2" class="infobox-image"><span typeof="mw:File"><a><img src="A.jpg">
        </a></span><div class="infobox-caption">A draw loom in Lyon</div></td></tr><tr><th class="infobox-label">Made
        of</th><td class="infobox-data">Wood</td></tr></table>""",
        {"A.jpg": "A draw loom in Lyon"},
    ),
    "wordpress, classic": (
        """<div id="attachment_5" style="width: 310px" class="wp-caption alignnone"><img aria-describedby="c5"
        class="size-medium wp-image-5" src="loom-300x200.jpg" width="300" height="200"><p id="c5"
        class="wp-caption-text">My <em>new</em> loom</p></div>""",
        {"loom-300x200.jpg": "My new loom"},
    ),
    "wordpress, blocks": (
        """<figure class="wp-block-image size-large"><img src="loom-1024x683.jpg" class="wp-image-7"><figcaption
        class="wp-element-caption">My new loom</figcaption></figure>""",
        {"loom-1024x683.jpg": "My new loom"},
    ),
    "wordpress, gallery": (
        """<div id="gallery-1" class="gallery galleryid-9 gallery-columns-2"><dl class="gallery-item"><dt
        class="gallery-icon landscape"><a href="a.html"><img src="a-150x150.jpg"></a></dt><dd class="wp-caption-text
        gallery-caption" id="gallery-1-11">Warping</dd></dl><dl class="gallery-item"><dt class="gallery-icon"><a
        href="b.html"><img src="b-150x150.jpg"></a></dt><dd class="wp-caption-text gallery-caption">Weaving</dd></dl>
        <br style="clear: both"></div>""",
        {"a-150x150.jpg": "Warping", "b-150x150.jpg": "Weaving"},
    ),
    "wordpress, gallery block": (
        """<figure class="wp-block-gallery has-nested-images"><figure class="wp-block-image"><img
        src="a.jpg"><figcaption
        class="wp-element-caption">Warping</figcaption></figure><figure class="wp-block-image"><img
        src="b.jpg"></figure>
        <figcaption class="blocks-gallery-caption wp-element-caption">My year</figcaption></figure>""",
        {"a.jpg": "Warping", "b.jpg": "My year"},
    ),
    "pandoc, html4": (
        '<div class="figure"><img src="loom.png" alt="A loom." /><p class="caption">A loom.</p></div>',
        {"loom.png": "A loom."},
    ),
    "pandoc, html5": (
        """<figure id="fig"><img src="loom.png" alt="A loom." /><figcaption aria-hidden="true">A loom.</figcaption>
        </figure>""",
        {"loom.png": "A loom."},
    ),
    "quarto": (
        """<div id="fig-loom" class="quarto-float quarto-figure quarto-figure-center anchored"><figure
        class="quarto-float
        quarto-float-fig figure"><div aria-describedby="fig-loom-caption"><img src="loom.png" class="img-fluid
        figure-img"></div><figcaption class="quarto-float-caption-bottom quarto-float-caption quarto-float-fig"
        id="fig-loom-caption">Figure&nbsp;1: A loom</figcaption></figure></div>""",
        {"loom.png": "Figure 1: A loom"},
    ),
    "doxygen": (
        """<div class="image"><img src="loom.png" alt="loom.png"/><div class="caption">States of the
        loom</div></div>""",
        {"loom.png": "States of the loom"},
    ),
    "texinfo": (
        """<div class="float"><a name="loom"></a><div class="center"><img src="loom.png" alt="loom"></div><div
        class="float-caption"><p><strong>Figure 3.1: </strong>A loom.</p></div></div>""",
        {"loom.png": "Figure 3.1: A loom."},
    ),
    "tex4ht": (
        """<div class="figure"><p class="noindent"><img src="loom.png" alt="PIC"><br></p><div class="caption"><span
        class="id">Figure 1: </span><span class="content">A loom.</span></div></div>""",
        {"loom.png": "Figure 1: A loom."},
    ),
    "latex2html": (
        """<div align="CENTER"><a name="17"></a><table><caption align="BOTTOM"><strong>Figure 1:</strong> A
        loom.</caption>
        <tr><td><img width="400" height="300" src="img1.png" alt="loom"></td></tr></table></div>""",
        {"img1.png": "Figure 1: A loom."},
    ),
    "notion": (
        """<figure id="9d1e" class="image"><a href="loom.png"><img style="width:432px" src="loom.png"/></a><figcaption>A
        loom in my room</figcaption></figure>""",
        {"loom.png": "A loom in my room"},
    ),
    "medium": (
        """<figure name="ab12" id="ab12" class="graf graf--figure graf-after--p"><img class="graf-image"
        data-image-id="1*x.jpeg" data-width="1600" src="1-x.jpeg"><figcaption class="imageCaption">A loom, by <a
        href="https://photos.test">Ada</a></figcaption></figure>""",
        {"1-x.jpeg": "A loom, by Ada"},
    ),
    "blogger": (
        """<table align="center" cellpadding="0" class="tr-caption-container"><tbody><tr><td style="text-align:
        center;"><a
        href="loom.jpg"><img border="0" src="s320-loom.jpg"></a></td></tr><tr><td class="tr-caption"
        style="text-align: center;">Grandmother's loom</td></tr></tbody></table>""",
        {"s320-loom.jpg": "Grandmother's loom"},
    ),
    "a class of a site": (
        """<div class="article-media"><picture><img src="loom.jpg"></picture><span
        class="article-media__credit">Press</span>
        <p class="article-media__imageCaption">Weavers on strike</p></div>""",
        {"loom.jpg": "Weavers on strike"},
    ),
    "a class, each below its picture": (
        """<div class="story"><img src="a.jpg"><div class="photo-caption">First</div><img src="b.jpg"><div
        class="photo-caption">Second</div></div>""",
        {"a.jpg": "First", "b.jpg": "Second"},
    ),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_captions_of_generators(name: str) -> None:
    html, expected = GENERATORS[name]
    assert captions_of(html) == expected
    # each is one text node, named as a caption, and stands in no other
    said = [(node["tag"], node["text"]) for node in nodes_of(html) if node["kind"] == "text"]
    for caption in expected.values():
        pieces = [text for tag, text in said if tag in ("figcaption", "caption") and text in (caption or "")]
        assert " ".join(pieces) == caption
        assert sum(text in (caption or "") for _, text in said) == len(pieces)


LOOK = {
    "a table of a picture and a line": (
        "<table><tr><td><img src=a.jpg></td></tr><tr><td>A loom from 1810</td></tr></table>",
        {"a.jpg": "A loom from 1810"},
    ),
    "a table of pictures with a line to each": (
        "<table><tr><td><img src=a.jpg><td><img src=b.jpg></tr><tr><td>Warping<td>Weaving</tr>"
        "<tr><td><img src=c.jpg><td></tr><tr><td>Cutting<td></tr></table>",
        {"a.jpg": "Warping", "b.jpg": "Weaving", "c.jpg": "Cutting"},
    ),
    "a table of two pictures with one line": (
        "<table><tr><td><img src=a.jpg><td><img src=b.jpg></tr><tr><td colspan=2>Before and after</tr></table>",
        {"a.jpg": "Before and after", "b.jpg": "Before and after"},
    ),
    "lines above are headings unless labelled": (
        "<table><tr><td>Achievements</td></tr><tr><td><img src=a.jpg></td></tr></table>"
        "<table><tr><td>Fig. 4: A loom</td></tr><tr><td><img src=b.jpg></td></tr></table>",
        {"a.jpg": None, "b.jpg": "Fig. 4: A loom"},
    ),
    "labelled paragraphs below": (
        "<p><img src=a.jpg></p><p>Figure 1: Warp.</p><p><img src=b.jpg></p><p>Figure 2. Weft.</p>",
        {"a.jpg": "Figure 1: Warp.", "b.jpg": "Figure 2. Weft."},
    ),
    "labelled paragraphs above": (
        "<p>Figure 1: Warp.</p><p><a href=a.html><img src=a.jpg></a></p><p>Figure 2. Weft.</p><img src=b.jpg>",
        {"a.jpg": "Figure 1: Warp.", "b.jpg": "Figure 2. Weft."},
    ),
    "other languages": (
        "<p><img src=a.jpg></p><p>Abb. 3 \u2013 Ein Webstuhl</p><p>Text.</p>"
        "<p><img src=b.jpg></p><p>\u56fe2\uff1a\u7ec7\u5e03\u673a</p>",
        {"a.jpg": "Abb. 3 \u2013 Ein Webstuhl", "b.jpg": "\u56fe2\uff1a\u7ec7\u5e03\u673a"},
    ),
    "a sentence about a figure is no caption": (
        "<p><img src=a.jpg></p><p>Figure 1 shows how the warp is bound.</p>",
        {"a.jpg": None},
    ),
    "a picture and a slanted line in one paragraph": (
        "<p align=center><img src=a.jpg><br><em>A loom from 1810</em></p>",
        {"a.jpg": "A loom from 1810"},
    ),
    "a picture and a labelled line in one paragraph": (
        "<p><img src=a.jpg><br>Figure 7: A <b>loom</b></p>",
        {"a.jpg": "Figure 7: A loom"},
    ),
    "a picture in a paragraph of text": ("<p>Some words <img src=a.jpg> <em>and more</em>.</p>", {"a.jpg": None}),
    "the next paragraph is text": ("<p><img src=a.jpg></p><p>Then the warp is bound.</p>", {"a.jpg": None}),
}


@pytest.mark.parametrize("name", LOOK)
def test_captions_by_their_look(name: str) -> None:
    html, expected = LOOK[name]
    assert captions_of(html) == expected
    captions = [node["text"] for node in nodes_of(html) if node["tag"] == "figcaption"]
    assert sorted(captions) == sorted({caption for caption in expected.values() if caption})


def test_captions_stand_below_pictures_that_share_their_paragraph() -> None:
    read = nodes_of("<p><img src=a.jpg><br>Figure 7: A loom</p>")
    assert [node["tag"] for node in read] == ["p", "img", "figcaption", "p"]


@pytest.mark.parametrize(
    "html",
    [
        "<div class=photo-caption>words</div><img src=a.png>" * 3_000,
        "<div class=figure>" + "<p class=title>some words</p>" * 3_000 + "<img src=a.png>" * 200 + "</div>",
        "<p>" + "<img src=a.png>" * 6_000 + "Figure 1: words</p>",
        "<table><tr>" * 120 + "<td><img src=a.png><td>Figure 1: words</table>" * 120,
        "<p>Figure 1: words</p><p><img src=a.png></p>" * 3_000,
    ],
    ids=["named", "titles", "pictures", "tables", "labelled"],
)
def test_captions_cost_time_that_grows_with_the_page(html: str) -> None:
    began = time.process_time()
    assert nodes_of(html)
    assert time.process_time() - began < 3
