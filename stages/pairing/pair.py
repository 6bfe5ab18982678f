"""Pairing: which sentence of a document each image belongs to.

`mmc4` is the published assignment of Multimodal C4 (Zhu et al. 2023, arXiv 2304.06939, section 3.2 and
`scripts/linear_assignment.py`); `dom` keeps the reading order, as OBELICS does (arXiv 2306.16527).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.encoders.cosine import Mask, Single, cosines, stack
from stages.row_function import Settings
from stages.text.sentences import SentenceSettings

RULE = "similarity"
CAPTION_TAGS = ("figcaption", "caption")


class PairSettings(Settings):
    """How images and sentences are matched (spec section `pair`)."""

    strategy: Literal["mmc4", "dom"] = "mmc4"
    """mmc4: the assignment of images to distinct sentences with the highest total cosine. dom: the neighbour in reading
    order, as OBELICS keeps it. Default: MMC4, its published assignment."""

    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    """Cosine; an image whose best sentence lies below is dropped before anything is matched, null drops none. MMC4's
    .15 holds for CLIP ViT-L/14 and nothing else: look at the report's histogram before you set one for another encoder.
    Default: ours, null, as the default encoder is no CLIP."""

    dom_side: Literal["after", "before"] = "after"
    """Strategy dom: an image takes the first sentence after it (its caption, as a rule), or the last before it; the
    other side only where there is none on this one. Default: ours, captions stand below their pictures."""

    sentences: SentenceSettings = SentenceSettings()
    """How text is cut into the sentences that images are matched to."""


@dataclass(frozen=True)
class DroppedImage:
    """An image that resembles no sentence: what a decision row of kind image says."""

    slice: int  # index into the slices given
    value: float  # its best cosine
    low: float  # the bound
    rule: str = RULE


@dataclass(frozen=True)
class Pairing:
    """Matches of one document, in terms of the slices that are left after `dropped`."""

    kept: tuple[int, ...]  # indices into the slices given, in order
    matched: tuple[
        int | None, ...
    ]  # one a kept slice: index into `kept`; images: of the sentence, sentences: of the image
    similarity: tuple[float | None, ...]  # one a kept slice: cosine to the match
    matrix: Single  # (kept images, sentences), reading order; NaN where a vector is missing
    dropped: tuple[DroppedImage, ...]

    def matrix_rows(self) -> list[list[float | None]]:
        """The matrix as schemas.shard.SHARD.similarity_matrix wants it: null for a missing cosine."""
        return [[None if np.isnan(value) else float(value) for value in row] for row in self.matrix]


def pair(kinds: Sequence[str], shared: Sequence[npt.ArrayLike | None], settings: PairSettings) -> Pairing:
    """Match the images of a document to its sentences by their shared vectors.

    kinds: "image" or "sentence" of each slice in reading order; shared: as many unit vectors (float16) or nulls.
    A slice without a vector is neither matched nor dropped (strategy dom matches it all the same, without a
    similarity). Equal totals are settled by the order of the slices.
    """
    images = [index for index, kind in enumerate(kinds) if kind == "image"]
    sentences = [index for index, kind in enumerate(kinds) if kind == "sentence"]
    vectors, usable = stack(shared)
    matrix = cosines(vectors[images], vectors[sentences])
    matrix[~usable[images]] = np.nan
    matrix[:, ~usable[sentences]] = np.nan

    dropped = _dissimilar(images, matrix, settings.min_similarity)
    gone = {image.slice for image in dropped}
    rows = [row for row, image in enumerate(images) if image not in gone]
    images, matrix = [images[row] for row in rows], matrix[rows]
    kept = [index for index in range(len(kinds)) if index not in gone]

    if settings.strategy == "mmc4":
        columns = _assign(matrix, usable[images], usable[sentences])
    else:
        columns = _neighbours(images, sentences, settings.dom_side)
    chosen = _image_of_sentence(images, sentences, columns, matrix, settings.strategy)

    place = {index: position for position, index in enumerate(kept)}
    matched: list[int | None] = [None] * len(kept)
    similarity: list[float | None] = [None] * len(kept)
    for row, column in columns.items():
        matched[place[images[row]]] = place[sentences[column]]
        similarity[place[images[row]]] = _number(matrix[row, column])
    for column, row in chosen.items():
        matched[place[sentences[column]]] = place[images[row]]
        similarity[place[sentences[column]]] = _number(matrix[row, column])
    return Pairing(tuple(kept), tuple(matched), tuple(similarity), matrix, dropped)


def match_kinds(
    matched: Sequence[int | None], nodes: Sequence[Mapping[str, Any]], settings: PairSettings
) -> list[str | None]:
    """How the match of each slice was found (schemas.shard.MATCH_KINDS), None where there is none.

    nodes: the node that each slice stands in (schemas.document.NODE). A match is markup where the page itself says so:
    the sentence stands in the picture's own caption.
    """
    how = "similarity" if settings.strategy == "mmc4" else "order"

    def kind(index: int, other: int) -> str:
        image, sentence = (
            (nodes[index], nodes[other]) if nodes[index]["kind"] == "image" else (nodes[other], nodes[index])
        )
        return "markup" if _is_caption(sentence, image) else how

    return [None if other is None else kind(index, other) for index, other in enumerate(matched)]


def _is_caption(paragraph: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether a paragraph is the image's caption, or one of those it is made of."""
    text, caption = (" ".join((each or "").split()) for each in (paragraph["text"], image["caption"]))
    if not text or not caption:
        return False
    return text == caption or (paragraph.get("tag") in CAPTION_TAGS and f" {text} " in f" {caption} ")


def _dissimilar(images: list[int], matrix: Single, low: float | None) -> tuple[DroppedImage, ...]:
    """Images whose best known cosine lies under the bound; one without any known cosine stays."""
    if low is None or matrix.shape[1] == 0:
        return ()
    best = np.max(np.where(np.isnan(matrix), -np.inf, matrix), axis=1)
    return tuple(
        DroppedImage(image, float(value), low)
        for image, value in zip(images, best, strict=True)
        if np.isfinite(value) and float(value) < low
    )


def _assign(matrix: Single, usable_images: Mask, usable_sentences: Mask) -> dict[int, int]:
    """Column of each row: linear assignment with the highest total; left-over images take their best sentence."""
    rows, columns = np.flatnonzero(usable_images), np.flatnonzero(usable_sentences)
    if not len(rows) or not len(columns):
        return {}
    from scipy.optimize import (
        linear_sum_assignment,
    )  # half a second to import: every process loads this module's settings

    known = matrix[np.ix_(rows, columns)].astype(np.float64)
    assigned = {int(r): int(c) for r, c in zip(*linear_sum_assignment(known, maximize=True), strict=True)}
    return {int(rows[r]): int(columns[assigned.get(r, int(known[r].argmax()))]) for r in range(len(rows))}


def _neighbours(images: list[int], sentences: list[int], side: str) -> dict[int, int]:
    """Column of each row: the sentence next to the image on one side, else on the other."""
    found = {}
    for row, image in enumerate(images):
        after = next((column for column, sentence in enumerate(sentences) if sentence > image), None)
        before = next((column for column, sentence in reversed(list(enumerate(sentences))) if sentence < image), None)
        first, second = (after, before) if side == "after" else (before, after)
        column = second if first is None else first
        if column is not None:
            found[row] = column
    return found


def _image_of_sentence(
    images: list[int], sentences: list[int], columns: dict[int, int], matrix: Single, strategy: str
) -> dict[int, int]:
    """Row of each matched column, where several images may share a sentence.

    mmc4: the most similar image; dom: the nearest in reading order; else the first.
    """

    def order(row: int, column: int) -> tuple[float, int]:
        if strategy == "mmc4":
            return -float(matrix[row, column]), row
        return abs(images[row] - sentences[column]), row

    best: dict[int, int] = {}
    for row, column in columns.items():
        if column not in best or order(row, column) < order(best[column], column):
            best[column] = row
    return best


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
