"""What a page says about which sentence a picture belongs to: its caption, the figures that a text names, and place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.encoders.cosine import Mask, Single
from stages.text.figure_labels import caption_label, names, referred

CAPTION_TAGS = ("figcaption", "caption")
_CLOSE = 64  # captions, in reading order, before and behind a picture among which its own is looked for


@dataclass(frozen=True)
class Standing:
    """Where a slice stands."""

    node: int  # index into the document's nodes
    content: Mapping[str, Any]  # that node (schemas.document.NODE)
    text: str = ""  # of a sentence


@dataclass(frozen=True)
class Evidence:
    """Of the images (rows) and sentences (columns) of a document, in reading order."""

    captions: tuple[tuple[int, ...], ...]  # one a row: columns of the sentences of the image's own caption
    is_caption: Mask  # (columns,): whether a sentence stands in any image's caption
    referred: Mask  # (rows, columns): whether a sentence of the text names the image's number ("see Fig. 7")
    distance: Single  # (rows, columns): nodes from one to the other, 1 for neighbours


def is_own_caption(paragraph: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether a paragraph is the image's caption, or one of those it is made of."""
    text, caption = (" ".join((each or "").split()) for each in (paragraph["text"], image["caption"]))
    if not text or not caption:
        return False
    return text == caption or (paragraph.get("tag") in CAPTION_TAGS and f" {text} " in f" {caption} ")


def evidence(images: Sequence[Standing], sentences: Sequence[Standing]) -> Evidence:
    """What the page says of each image and each sentence; both in reading order."""
    captions = [_own(image, sentences) for image in images]
    is_caption = np.zeros(len(sentences), dtype=bool)
    is_caption[[column for columns in captions for column in columns]] = True
    named = [referred(sentence.text) for sentence in sentences]
    mask = np.zeros((len(images), len(sentences)), dtype=bool)
    for row, image in enumerate(images):
        label = caption_label(image.content["caption"] or "")
        if label is not None:
            mask[row] = [names(each, label) for each in named]
    mask[:, is_caption] = False  # a caption names its own number
    places = (np.array([each.node for each in side], dtype=np.float32) for side in (images, sentences))
    rows, columns = places
    return Evidence(tuple(captions), is_caption, mask, np.abs(rows[:, None] - columns[None, :]))


def _own(image: Standing, sentences: Sequence[Standing]) -> tuple[int, ...]:
    """Columns of the caption's sentences; where it stands more than once, of the closest."""
    if not image.content["caption"]:
        return ()
    middle = bisect_left(sentences, image.node, key=lambda each: each.node)
    said: dict[int, bool] = {}
    low, high = middle, middle
    while low > 0 and (sentences[low - 1].node in said or len(said) < _CLOSE):
        low -= 1
        said.setdefault(sentences[low].node, False)
    while high < len(sentences) and (sentences[high].node in said or len(said) < 2 * _CLOSE):
        said.setdefault(sentences[high].node, False)
        high += 1
    found: dict[str, tuple[int, int]] = {}  # node of each paragraph of the caption, by its words: the closest
    for column in range(low, high):
        sentence = sentences[column]
        if said[sentence.node]:
            continue
        said[sentence.node] = True
        if is_own_caption(sentence.content, image.content):
            words = " ".join((sentence.content["text"] or "").split())
            candidate = (abs(sentence.node - image.node), sentence.node)
            found[words] = min(found.get(words, candidate), candidate)
    nodes = {node for _, node in found.values()}
    return tuple(column for column in range(low, high) if sentences[column].node in nodes)
