"""What pages say of their use, as documents are made of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.phases.consent import judged
from schemas.document import DOCUMENT
from stages.web.consent.page import PageConsent
from stages.web.settings import CrawlSettings

OURS = PageConsent.of(CrawlSettings())


def document(number: int, meta_robots: str | None = None, x_robots_tag: str | None = None) -> dict[str, Any]:
    text = {"kind": "text", "text": f"words {number}"}
    picture = {"kind": "image", "image_url": f"http://h/{number}.png", "image_id": str(number)}
    return {
        "document_id": f"{number:032x}",
        "page_id": f"{number:032x}",
        "url": f"http://h/{number}",
        "meta_robots": meta_robots,
        "nodes": [picture, text, picture],
        "dropped": [],
        "consent": {"x_robots_tag": x_robots_tag},
    }


def test_pictures_that_are_kept_back_go_with_a_decision_each_and_the_words_stay() -> None:
    rows = [
        document(0),
        document(1, "noimageai, noarchive"),
        document(2, "otherbot: noimageai"),
        document(3, None, "noimageindex"),
        document(4, "index"),
    ]
    table = pa.Table.from_pylist(rows, schema=DOCUMENT)
    made, decisions = judged(table, OURS)
    assert made.schema == table.schema
    kinds = [[node["kind"] for node in nodes] for nodes in made.column("nodes").to_pylist()]
    whole, words = ["image", "text", "image"], ["text"]
    assert kinds == [whole, words, whole, words, whole]
    assert made.drop_columns(["nodes", "consent"]) == table.drop_columns(["nodes", "consent"])
    told = [consent["signals"] for consent in made.column("consent").to_pylist()]
    assert [each and [said["said"] for said in each] for each in told] == [
        None,
        ["meta_robots: noimageai, noarchive"],
        ["meta_robots: otherbot: noimageai"],
        None,
        ["meta_robots: index"],
    ]
    assert [(row["url"], row["rule"], row["detail"]) for row in decisions] == [
        ("http://h/1.png", "kept_back", "meta_robots: noimageai"),
        ("http://h/1.png", "kept_back", "meta_robots: noimageai"),
        ("http://h/3.png", "kept_back", "x_robots_tag: noimageindex"),
        ("http://h/3.png", "kept_back", "x_robots_tag: noimageindex"),
    ]
    again, nothing = judged(table, OURS.model_copy(update={"page_image_directives": ()}))
    assert again.column("nodes") == table.column("nodes") and nothing == []
    silent = pa.Table.from_pylist([document(0), document(1)], schema=DOCUMENT)
    assert judged(silent, OURS)[0] is silent
