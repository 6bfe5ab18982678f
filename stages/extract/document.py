"""One page to one document: the row that `schemas.document` asks for, less what only the runner knows."""

from __future__ import annotations

from typing import Any

from stages.extract.appendages import find_appendages
from stages.extract.furniture import find_main
from stages.extract.head import read_head
from stages.extract.prose import Prose
from stages.extract.settings import ExtractSettings
from stages.extract.source import read_source
from stages.extract.tree import parse
from stages.extract.walk import Walk
from stages.text.normal_form import text_hash

# What guesses have left of a page's text outside links, below which they are not believed, ...
_TOO_LITTLE = 0.1
_ENOUGH = 0.5  # ... and what the page without them must have
_MIN_TEXT = 200  # characters


def extract_document(body: bytes, url: str, content_type: str | None, settings: ExtractSettings) -> dict[str, Any]:
    """The document of an HTML page at `url` (final URL, absolute), as a dict of `OUTPUT`'s columns.

    Raises `NotAPage` (one line) for bodies that are not HTML, are empty or larger than `settings.max_bytes`.
    """
    html, cut, encoding = read_source(body, content_type, settings)
    tree = parse(html, settings.max_depth)
    head = read_head(tree, url, encoding)
    start, end = 0, len(tree.tags)
    prose = Prose(tree)
    walk = Walk(tree, head.base_url, encoding, settings, prose)
    main = find_main(tree) if settings.main_content == "auto" else None
    if main is not None:
        walk.drop_range(start, main[0], "outside_main")
        walk.drop_range(main[1], end, "outside_main")
        start, end = main
    walk.page_text = tree.text_sums[end] - tree.text_sums[start] - tree.link_sums[end] + tree.link_sums[start]
    if settings.main_content == "auto":
        walk.appendages = find_appendages(tree, prose, start, end)
    before = list(walk.dropped)
    walk.run(start, end)
    if walk.num_characters < _TOO_LITTLE * walk.page_text and walk.page_text >= _MIN_TEXT:
        second = Walk(tree, head.base_url, encoding, settings, prose, walk.page_text, guesses=False, dropped=before)
        second.run(start, end)
        if second.num_characters >= _ENOUGH * walk.page_text:
            walk = second
    walk.dropped += [{"kind": "text", "rule": rule, "detail": detail} for rule, detail in cut]
    if tree.deep:
        walk.dropped.append({"kind": "text", "rule": "max_depth", "detail": f"{tree.deep} subtrees too deep"})
    texts = [node["text"] for node in walk.nodes if node["kind"] == "text"]
    return {
        "url": url,
        "canonical_url": head.canonical_url,
        "title": head.title,
        "language": head.language,
        "license": head.license,
        "meta_robots": head.meta_robots,
        "meta_tdm": head.meta_tdm,
        "text_hash": text_hash("\n\n".join(texts)) if texts else None,
        "nodes": walk.nodes,
        "dropped": walk.dropped,
    }
