"""Text-side and image-side decisions on a handful of documents, each made to fail one rule."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import xxhash
from pydantic import ValidationError

from schemas.decision import DECISION
from schemas.document import DOCUMENT
from schemas.image import IMAGE
from stages.filter.image_rules import decide_images
from stages.filter.settings import Bounds, DocumentRules, FilterSettings, ImageRules, ParagraphRules
from stages.filter.text_rules import decide_text
from stages.text.scores import ScoreText, ScoreTextSettings

GOOD = (
    "The gallery shows the pictures that we took in the summer, and each of them has its own story to tell. "
    "If you look at the first one, you will see that the light was not good; but it is still one of our best."
)
OTHER = "They came to the river in the morning, and it was so cold that nobody wanted to go into the water at all."


def image(url: str, **facts: Any) -> dict[str, Any]:
    return {
        "kind": "image",
        "tag": "img",
        "image_url": url,
        "image_id": xxhash.xxh3_128_hexdigest(url.encode()),
        **facts,
    }


def make(*nodes: list[str | dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    full = [
        [
            {"kind": "text", "tag": "p", "text": node, "separator": "\n\n"} if isinstance(node, str) else node
            for node in own
        ]
        for own in nodes
    ]
    documents = pa.table(
        {
            "document_id": [f"d{i}" for i in range(len(nodes))],
            "url": [f"http://example.org/{i}" for i in range(len(nodes))],
            "nodes": pa.array(full, DOCUMENT.field("nodes").type),
        }
    )
    return documents, ScoreText(ScoreTextSettings())(documents)


def short(decisions: pa.Table) -> list[tuple[Any, ...]]:
    names = ("kind", "document_id", "position", "rule")
    return [tuple(row[name] for name in names) for row in decisions.to_pylist()]


def test_first_failing_rule_decides_and_says_why() -> None:
    documents, scores = make([GOOD, image("http://x.org/a.jpg"), "Too short", "12 34 56 78 90 12 !!", GOOD])
    kept, decisions = decide_text(documents, scores, FilterSettings())
    assert kept.to_pylist() == []  # the document repeats itself
    assert decisions.schema.equals(DECISION)
    assert short(decisions) == [
        ("paragraph", "d0", 2, "num_words"),
        ("paragraph", "d0", 3, "special_characters"),
        ("document", "d0", None, "word_repetition"),
    ]
    first = decisions.to_pylist()[0]
    assert (first["value"], first["low"], first["high"], first["detail"]) == (2.0, 4.0, 1000.0, "Too short")
    assert first["subject_id"] == "d0" and first["action"] == "drop"


def test_kept_positions() -> None:
    documents, scores = make(
        [GOOD, image("http://x.org/a.jpg"), "Too short", OTHER, image("http://x.org/logo.png")],
        [image("http://x.org/a.jpg"), OTHER],
    )
    kept, _ = decide_text(documents, scores, FilterSettings())
    assert kept.to_pylist() == [
        {"document_id": "d0", "positions": [0, 1, 3]},
        {"document_id": "d1", "positions": [0, 1]},
    ]


def test_image_rules_that_need_no_bytes() -> None:
    documents, scores = make(
        [
            GOOD,
            image("http://logo.org/site-icon.png"),
            image("http://x.org/a.SVG?v=1"),
            image("http://x.org/b.jpg", rendered_width=100, rendered_height=200),
            image("http://x.org/b.jpg", rendered_width=200, rendered_height=20),
            image("http://x.org/c"),
            image("http://x.org/c"),
            image("http://logo.org/kept.jpeg"),
        ]
    )
    kept, decisions = decide_text(documents, scores, FilterSettings())
    assert [row[2:] for row in short(decisions)] == [
        (1, "url_words"),
        (2, "format"),
        (3, "rendered_width"),
        (4, "rendered_height"),
        (6, "repeated_in_document"),
    ]
    assert kept.to_pylist() == [{"document_id": "d0", "positions": [0, 5, 7]}]


def test_documents_without_images_go() -> None:
    documents, scores = make([GOOD], [GOOD, image("http://x.org/button.png")])
    kept, decisions = decide_text(documents, scores, FilterSettings())
    assert kept.num_rows == 0
    assert [
        (row["document_id"], row["rule"], row["value"]) for row in decisions.to_pylist() if row["kind"] == "document"
    ] == [
        ("d0", "num_images", 0.0),
        ("d1", "num_images", 0.0),
    ]


def test_languages() -> None:
    german = (
        "Das ist ein Satz, den man lesen kann, und er ist lang genug, um nicht an der Zahl der Wörter zu scheitern."
    )
    documents, scores = make([german, image("http://x.org/a.jpg")], [GOOD, image("http://x.org/a.jpg")])
    kept, decisions = decide_text(documents, scores, FilterSettings(document=DocumentRules(languages=("en",))))
    assert kept.column("document_id").to_pylist() == ["d1"]
    assert [(row["rule"], row["detail"]) for row in decisions.to_pylist()] == [("languages", "de")]
    kept, _ = decide_text(documents, scores, FilterSettings())
    assert kept.num_rows == 2


def test_languages_without_lists_skip_those_rules() -> None:
    russian = "Это длинный русский текст, который никто не читает, но который всё же понятен каждому из нас, и тебе."
    documents, scores = make([russian, image("http://x.org/a.jpg")])
    kept, decisions = decide_text(documents, scores, FilterSettings())
    assert (kept.num_rows, decisions.num_rows) == (1, 0)


def test_document_ratios_are_those_of_the_kept_paragraphs() -> None:
    documents, scores = make([GOOD, " ".join(str(i * 7919) for i in range(60)), image("http://x.org/a.jpg")])
    strict = DocumentRules(special_characters=Bounds(max=0.275))
    kept, _ = decide_text(documents, scores, FilterSettings(document=strict))
    assert kept.num_rows == 1  # the digits went before the ratio was taken
    loose = FilterSettings(
        paragraph=ParagraphRules(
            special_characters=Bounds(),
            stop_words=Bounds(),
            character_repetition=Bounds(),
            word_repetition=Bounds(),
            punctuation=Bounds(),
        ),
        document=DocumentRules(
            special_characters=Bounds(max=0.275), character_repetition=Bounds(), word_repetition=Bounds()
        ),
    )
    kept, decisions = decide_text(documents, scores, loose)
    assert kept.num_rows == 0
    assert short(decisions) == [("document", "d0", None, "special_characters")]


def test_nothing_in_nothing_out() -> None:
    documents, scores = make()
    kept, decisions = decide_text(documents, scores, FilterSettings())
    assert kept.num_rows == decisions.num_rows == 0
    with pytest.raises(ValueError, match="1 documents but 0 rows"):
        decide_text(make([GOOD])[0], scores, FilterSettings())


def test_settings_from_a_spec() -> None:
    spec = FilterSettings.model_validate({"image": {"formats": ["png"]}, "paragraph": {"num_words": {"min": 2}}})
    assert spec.image.formats == ("png",)
    assert spec.paragraph.num_words == Bounds(min=2)
    with pytest.raises(ValidationError, match=r"min 3\.0 is above max 2\.0"):
        Bounds(min=3, max=2)
    with pytest.raises(ValidationError):
        FilterSettings.model_validate({"paragraph": {"num_wrods": {"min": 2}}})


def fetched(url: str, **facts: Any) -> dict[str, Any]:
    return {
        "image_id": xxhash.xxh3_128_hexdigest(url.encode()),
        "url": url,
        "status": "ok",
        "original_format": "jpeg",
        "original_width": 400,
        "original_height": 300,
        "sha256": url,
        **facts,
    }


URLS = [f"http://x.org/{i}" for i in range(8)]


def test_image_side() -> None:
    documents, scores = make([GOOD, *map(image, URLS)], [OTHER, GOOD, image(URLS[1])])
    kept, _ = decide_text(documents, scores, FilterSettings())
    images = pa.Table.from_pylist(
        [
            fetched(URLS[0]),
            fetched(URLS[1], status="error", reason="http_status", original_format=None, sha256=None),
            fetched(URLS[2], original_format="gif"),
            fetched(URLS[3], original_width=149),
            fetched(URLS[4], original_height=149),
            fetched(URLS[5], original_width=700),
            fetched(URLS[6], sha256=URLS[0]),
        ],
        schema=IMAGE,
    )
    after, decisions = decide_images(kept, documents, scores, images, None, FilterSettings())
    assert after.to_pylist() == [{"document_id": "d0", "positions": [0, 1]}]
    assert short(decisions) == [
        ("image", "d0", 2, "status"),
        ("image", "d0", 3, "format"),
        ("image", "d0", 4, "original_width"),
        ("image", "d0", 5, "original_height"),
        ("image", "d0", 6, "aspect_ratio"),
        ("image", "d0", 7, "repeated_in_document"),
        ("image", "d0", 8, "status"),
        ("image", "d1", 2, "status"),
        ("document", "d1", None, "num_images"),
    ]
    assert [row["detail"] for row in decisions.to_pylist()[:2]] == ["http_status", "gif"]
    assert decisions.to_pylist()[6]["detail"] == "not fetched"


def test_images_of_many_documents_are_furniture() -> None:
    pages = [[GOOD, image(URLS[0] + f"?{i}"), image(URLS[1] + f"{i}")] for i in range(4)]
    documents, scores = make(*pages)
    kept, _ = decide_text(documents, scores, FilterSettings())
    urls = [node["image_url"] for page in pages for node in page if isinstance(node, dict)]
    images = pa.Table.from_pylist(
        [fetched(url, sha256="same" if url.startswith(URLS[0]) else url) for url in urls], schema=IMAGE
    )
    contents = sorted(set(images.column("sha256").to_pylist()))
    shown = [4 if content == "same" else 1 for content in contents]
    frequency = pa.table({"content": contents, "num_documents": shown})
    rules = FilterSettings(image=ImageRules(documents=Bounds(max=3)))
    after, decisions = decide_images(kept, documents, scores, images, frequency, rules)
    assert {tuple(row["positions"]) for row in after.to_pylist()} == {(0, 2)}
    assert {(row["rule"], row["value"], row["high"]) for row in decisions.to_pylist()} == {("documents", 4.0, 3.0)}


def test_too_many_images_drop_the_document() -> None:
    documents, scores = make([GOOD, *map(image, URLS)])
    kept, _ = decide_text(documents, scores, FilterSettings())
    images = pa.Table.from_pylist(list(map(fetched, URLS)), schema=IMAGE)
    rules = FilterSettings(document=DocumentRules(num_images=Bounds(min=1, max=7)))
    after, decisions = decide_images(kept, documents, scores, images, None, rules)
    assert after.num_rows == 0
    assert [(row["rule"], row["value"]) for row in decisions.to_pylist()] == [("num_images", 8.0)]


def test_a_thumbnail_takes_no_full_picture_of_the_same_file_with_it() -> None:
    file = "http://h/a.jpg"
    thumbnail, full = image(file, rendered_width=80), image(file, rendered_width=640)
    documents, scores = make([GOOD, OTHER, thumbnail, full, image(file)])
    kept, decisions = decide_text(documents, scores, FilterSettings())
    assert kept.column("positions").to_pylist() == [[0, 1, 3]]
    assert short(decisions) == [("image", "d0", 2, "rendered_width"), ("image", "d0", 4, "repeated_in_document")]
