"""Which file an image means, and which of two images side by side stands in for the other."""

from __future__ import annotations

from typing import Any

import pytest

from stages.extract import ExtractSettings
from stages.extract.document import extract_document
from stages.extract.image_files import Candidate, parse_srcset, rendered_size

BLANK = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
BLUR = "data:image/jpeg;base64," + "QUJD" * 200
SIZE = "width=700 height=400"
THREE = "".join(f"<img src={BLUR}><img src=/{each}.jpg>" for each in range(3))


def extract(html: str) -> dict[str, Any]:
    page = f"<p>Before the pictures.</p>{html}<p>After the pictures.</p>"
    return extract_document(page.encode(), "http://example.org/", "text/html", ExtractSettings())


def images(html: str) -> list[str]:
    """Paths of the images of a fragment, blurs by their name here."""
    urls = [node["image_url"] for node in extract(html)["nodes"] if node["kind"] == "image"]
    return ["BLUR" if url == BLUR else url.removeprefix("http://example.org") for url in urls]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (f"<img src='{BLANK}' data-url=/hen.jpg>", ["/hen.jpg"]),
        ("<img data-big-file='/hen.webp?v=2'>", ["/hen.webp?v=2"]),
        (f"<img src='{BLANK}' data-widths='/hen-300.jpg 300w, /hen-900.jpg 900w'>", ["/hen-900.jpg"]),
        ("<picture><source data-files='/hen.png 900w'><img src=/blank.gif></picture>", ["/hen.png"]),
        ("<img src=/cock.jpg data-other=/hen.jpg>", ["/cock.jpg"]),
        (f"<img src='{BLANK}' data-placeholder=/egg.jpg alt='a.jpg'>", []),
        (f"<img src='{BLANK}' data-note='no.file.here'>", []),
        ("<img data-src='/my hen 2.jpg'>", ["/my%20hen%202.jpg"]),
        ("<img data-lazy-src='/a hen.jpg 300w, /b hen.jpg 900w'>", ["/b%20hen.jpg"]),
        ("<img srcset='/a hen.jpg 300w, /b.jpg 900w'>", ["/b.jpg"]),
        ("<img srcset='/a hen.jpg 300w'>", ["/a%20hen.jpg"]),
    ],
)
def test_files_in_attributes_that_no_list_knows_and_with_blanks(html: str, expected: list[str]) -> None:
    assert images(html) == expected


def test_blanks_do_not_make_descriptors_names() -> None:
    assert parse_srcset("a b.jpg 2x, c.jpg bogus, d 3x") == [
        Candidate("a%20b.jpg", None, 2.0),
        Candidate("c.jpg"),
        Candidate("d", None, 3.0),
    ]


@pytest.mark.parametrize(
    "name",
    ["pixel-art-fort.png", "gray-wolf.jpg", "grey-seal.jpg", "clear-lake.jpg", "loading-dock.jpg", "lazyDog.png"],
)
def test_a_word_in_a_name_makes_no_stand_in(name: str) -> None:
    assert images(f"<img src=/{name} data-src=/real.jpg>") == ["/real.jpg"]  # what a script would load counts more
    counter = f"<img src=/{name} alt=fort><noscript><img src='/count?page=1' alt=''></noscript>"
    assert images(counter) == [f"/{name}"]
    assert [row["rule"] for row in extract(counter)["dropped"]] == ["tracking_pixel"]
    assert images(f"<img src=/{name}><noscript><img src=/other.jpg alt=other></noscript>") == [f"/{name}", "/other.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        "blank.gif",
        "1x1.png",
        "grey.gif",
        "lazy-loading.svg",
        "image-placeholder.png",
        "loading-300x200.gif",
        "site_spacer.gif",
    ],
)
def test_names_of_stand_ins(name: str) -> None:
    pair = f"<img src=/{name}><noscript><img src=/hen.jpg alt=hen></noscript>"
    assert images(pair) == ["/hen.jpg"]
    assert [row["detail"] for row in extract(pair)["dropped"]] == [f"http://example.org/{name}"]
    assert images(f"<img src=/{name}>") == [f"/{name}"]  # nothing better is offered


def test_a_stand_in_gives_way_to_its_own_picture_only() -> None:
    stand_in = f"<img src='{BLANK}' alt=hen>"
    assert images(f"{stand_in}<noscript><img src=/hen.jpg alt=hen></noscript>") == ["/hen.jpg"]
    document = extract(f"{stand_in}<noscript><img src=/egg.jpg alt=egg></noscript>")
    assert [row["rule"] for row in document["dropped"]] == ["placeholder"]
    assert [node["alt"] for node in document["nodes"] if node["kind"] == "image"] == ["egg"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (f"<img src=/60/hen.jpg?q=20 {SIZE}><noscript><img src=/1400/hen.jpg {SIZE}></noscript>", ["/1400/hen.jpg"]),
        (f"<img src=/tiny.jpg alt=hen {SIZE}><noscript><img src=/x.jpg alt=hen {SIZE}></noscript>", ["/x.jpg"]),
        ("<img src=/w/900/hen.jpg><noscript><img src=/w/300/hen.jpg></noscript>", ["/w/900/hen.jpg"]),
        ("<img src=/a-300x200.jpg><noscript><img src=/b-300x200.jpg></noscript>", ["/a-300x200.jpg", "/b-300x200.jpg"]),
        ("<div><img src=/max/60/hen.jpg alt=hen><img data-src=/max/1400/hen.jpg></div>", ["/max/1400/hen.jpg"]),
        (f"<div><img src='{BLUR}' alt=''><picture><img src=/a.jpg alt=hen></picture></div>", ["/a.jpg"]),
        (f"<div><img src=/a.jpg alt=hen><img src='{BLUR}' alt=''></div>", ["/a.jpg"]),
        (f"<div><img src='{BLUR}' alt=egg><img src=/a.jpg alt=hen></div>", ["BLUR", "/a.jpg"]),
        (f"<div>{THREE}</div>", ["BLUR", "/0.jpg", "BLUR", "/1.jpg", "BLUR", "/2.jpg"]),
        ("<div><img src=/w/800/hen.jpg><img src=/w/900/hen.jpg></div>", ["/w/800/hen.jpg", "/w/900/hen.jpg"]),
    ],
)
def test_blurred_stand_ins(html: str, expected: list[str]) -> None:
    assert images(html) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"width": "0", "height": "0", "style": "width:100%;height:auto"}, (None, None)),
        ({"width": "100", "style": "max-width: 9px; width: 100%"}, (None, None)),
        ({"width": "600", "height": "400", "style": "height: auto; max-width: 100%"}, (600, 400)),
        ({"width": "600", "height": "400", "style": "width: 300px; height: auto"}, (300, 200)),
        ({"width": "600", "height": "400", "style": "width: 12em !important"}, (None, 400)),
        ({"width": "600", "height": "400", "style": "WIDTH: 50.5px"}, (50, 400)),
        ({"width": "600", "style": "min-width: 10px"}, (600, None)),
        ({"width": "1", "height": "1", "style": "width: 50vw; height: calc(1px + 2em)"}, (None, None)),
    ],
)
def test_styles_count_for_more_than_attributes(
    attributes: dict[str, str | None], expected: tuple[int | None, int | None]
) -> None:
    assert rendered_size(attributes) == expected


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ("width=0 height=0 style='width:100%;height:auto'", True),
        ("width=0 height=0 sizes=100vw class='w-full h-auto'", True),
        ("width=0 height=0 alt='A hen' class='w-full h-auto'", True),
        ("width=0 height=0", False),
        ("width=1 height=1 alt=''", False),
        ("style='width:1px;height:1px'", False),
        ("style='width:0;height:0'", False),
    ],
)
def test_pictures_of_no_size_and_pixels(attributes: str, kept: bool) -> None:
    document = extract(f"<img src=/hen.jpg {attributes}>")
    found = [(node["rendered_width"], node["rendered_height"]) for node in document["nodes"] if node["kind"] == "image"]
    assert found == ([(None, None)] if kept else [])
    assert [row["rule"] for row in document["dropped"]] == ([] if kept else ["tracking_pixel"])
