"""Slices: the images and sentences of a document in reading order, and the ids of their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import xxhash


class Slice(NamedTuple):
    """One image or one sentence of a document (schemas.shard.SLICE without vectors and matches)."""

    kind: str  # "image" | "sentence"
    node: int  # index into the document's nodes
    start: int  # characters in the node's text; 0 and 0 for an image
    end: int
    content_id: str  # key of its vectors: schemas.embedding.EMBEDDING.content_id


def sentence_content_id(text: str) -> str:
    """xxh3-128 hex of the sentence."""
    return str(xxhash.xxh3_128_hexdigest(f"sentence\0{text}".encode()))


def image_content_id(sha256: str) -> str:
    """xxh3-128 hex of the image, by the sha256 hex of its stored bytes."""
    return str(xxhash.xxh3_128_hexdigest(f"image\0{sha256}".encode()))


def slices(
    nodes: Sequence[Mapping[str, Any]],
    spans: Sequence[Sequence[Mapping[str, int]] | None],
    sha256: Mapping[str, str],
) -> list[Slice]:
    """Slices of a document in reading order.

    nodes: kind, text and image_id of each node (schemas.document.NODE); spans: one a node, the sentence spans
    of `SplitSentences` (start, end), None or empty for image nodes; sha256: of the stored bytes by image_id.
    A KeyError names an image_id without bytes: such nodes have to be left out before (see `without`).
    """
    found = []
    for index, (node, sentences) in enumerate(zip(nodes, spans, strict=True)):
        if node["kind"] == "image":
            found.append(Slice("image", index, 0, 0, image_content_id(sha256[node["image_id"]])))
            continue
        for span in sentences or ():
            start, end = span["start"], span["end"]
            found.append(Slice("sentence", index, start, end, sentence_content_id(node["text"][start:end])))
    return found
