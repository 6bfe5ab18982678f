"""Nodes as dicts of schemas.document.NODE."""

from __future__ import annotations

import re
from typing import Any

from stages.text.normal_form import normalize

_FILE_NAME = re.compile(r"\S+\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?|avif)", re.IGNORECASE)
ALT_LENGTH = 2000  # characters of alt and title kept
CAPTION_LENGTH = 10_000  # characters of a caption that its images carry; its text nodes hold all of it


def alt_text(attributes: dict[str, str | None]) -> str | None:
    """The alt text, unless it is a file name (Sphinx and others put the URL there)."""
    alt = normalize(attributes.get("alt") or "")[:ALT_LENGTH]
    return None if not alt or alt == attributes.get("src") or _FILE_NAME.fullmatch(alt) else alt


def merge_facts(target: dict[str, Any], other: dict[str, Any]) -> None:
    """Take over from `other` what `target` does not say of the same picture."""
    for key in ("alt", "title", "caption", "rendered_width", "rendered_height"):
        if target[key] is None:
            target[key] = other[key]


def new_node(kind: str, tag: str, **values: Any) -> dict[str, Any]:
    """A node with the given values, null elsewhere."""
    node: dict[str, Any] = dict.fromkeys(
        (
            "kind",
            "tag",
            "text",
            "separator",
            "image_url",
            "image_id",
            "alt",
            "title",
            "caption",
            "rendered_width",
            "rendered_height",
        )
    )
    node.update(kind=kind, tag=tag, **values)
    return node
