"""Pairing: which sentence of a document each image belongs to.

`page` takes what the page says, and else similarity with a prior for place and for figures that a sentence names.
`mmc4` is the published assignment of Multimodal C4 (Zhu et al. 2023, arXiv 2304.06939, section 3.2 and
`scripts/linear_assignment.py`); `dom` keeps the reading order, as OBELICS does (arXiv 2306.16527).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.encoders.cosine import Mask, Single, cosines, stack
from stages.pairing.page import Evidence, Standing, evidence, is_own_caption
from stages.row_function import Settings
from stages.text.sentences import SentenceSettings

RULE = "similarity"
DISTANCES = ("1", "2", "3 to 4", "5 to 8", "9 and more")  # nodes from an image to its sentence, as they are counted
_BOUNDS = (1, 2, 4, 8)
_HALF = 2.0  # nodes; a sentence so much further away than a neighbour has half of a neighbour's nearness


class PairSettings(Settings):
    """How images and sentences are matched (spec section `pair`)."""

    strategy: Literal["page", "mmc4", "dom"] = "page"
    """page: an image takes a sentence of its own caption; those without one take part in MMC4's assignment among the
    sentences that are no captions, with a prior for those close to them and those that name their figure. mmc4: the
    assignment of all images to distinct sentences with the highest total cosine. dom: the neighbour in reading order,
    as OBELICS keeps it. Default: ours, page, as a caption is what an author says of the picture."""

    nearness: float = Field(default=1.0, ge=0)
    """Strategy page: what the cosine of a neighbouring sentence is raised by, in standard deviations of the document's
    cosines; it halves with every two nodes of distance. 0 leaves place out. Default: ours, as much as cosines differ by
    themselves, so that a sentence further away can win; `python -m benchmarks.pairing` shows what other weights do."""

    reference: float = Field(default=3.0, ge=0)
    """Strategy page: the same for a sentence that names the image's number ("see Fig. 7", of an image whose caption
    begins with it). 0 leaves references out. Default: ours, more than nearness and chance together."""

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


def pair(
    kinds: Sequence[str],
    shared: Sequence[npt.ArrayLike | None],
    settings: PairSettings,
    standing: Sequence[Standing] = (),
) -> Pairing:
    """Match the images of a document to its sentences by what the page says and by their shared vectors.

    kinds: "image" or "sentence" of each slice in reading order; shared: as many unit vectors (float16) or nulls;
    standing: as many places, which strategy page asks for (ValueError without) and the others do not look at.
    A slice without a vector is neither matched nor dropped, but for an image with its caption (strategy page) and
    neighbours (dom), which are matched without a similarity. Equal totals are settled by the order of the slices.
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

    if settings.strategy == "page":
        if len(standing) != len(kinds):
            raise ValueError(f"{len(standing)} places for {len(kinds)} slices; strategy page needs one each")
        said = evidence([standing[index] for index in images], [standing[index] for index in sentences])
        columns = _as_said(matrix, usable[images], usable[sentences], said, settings)
    elif settings.strategy == "mmc4":
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
    matched: Sequence[int | None], standing: Sequence[Standing], settings: PairSettings
) -> list[str | None]:
    """How the match of each slice was found (schemas.shard.MATCH_KINDS), None where there is none.

    standing: where each slice stands. A match is markup where the page itself says so: the sentence stands in the
    picture's own caption. It is a reference where strategy page chose a sentence that names the picture's number.
    """
    how = "order" if settings.strategy == "dom" else "similarity"

    def kind(index: int, other: int) -> str:
        image, sentence = (
            (standing[index], standing[other])
            if standing[index].content["kind"] == "image"
            else (standing[other], standing[index])
        )
        if is_own_caption(sentence.content, image.content):
            return "markup"
        if settings.strategy == "page" and settings.reference and evidence([image], [sentence]).referred[0, 0]:
            return "reference"
        return how

    return [None if other is None else kind(index, other) for index, other in enumerate(matched)]


@dataclass(frozen=True)
class Measured:
    """What the matches of one document's images are like."""

    num_captioned: int  # images whose own caption is among the sentences
    num_own_caption: int  # of them, those that are matched to it
    kinds: dict[str, int]  # matched images by how the match was found
    distances: tuple[str, ...]  # one a matched image: nodes to its sentence, one of DISTANCES


def measure(matched: Sequence[int | None], how: Sequence[str | None], standing: Sequence[Standing]) -> Measured:
    """Count how far matches agree with the page: `matched` and `how` as of `pair` and `match_kinds`."""
    images = [index for index, each in enumerate(standing) if each.content["kind"] == "image"]
    sentences = [each for each in standing if each.content["kind"] != "image"]
    captions = evidence([standing[index] for index in images], sentences).captions
    kinds: dict[str, int] = {}
    distances = []
    num_own_caption = 0
    for index, caption in zip(images, captions, strict=True):
        other, found = matched[index], how[index]
        if other is None or found is None:
            continue
        kinds[found] = kinds.get(found, 0) + 1
        num_own_caption += bool(caption) and found == "markup"
        nodes = abs(standing[other].node - standing[index].node)
        distances.append(DISTANCES[bisect_left(_BOUNDS, nodes)])
    return Measured(sum(map(bool, captions)), num_own_caption, kinds, tuple(distances))


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


def _as_said(
    matrix: Single, usable_images: Mask, usable_sentences: Mask, said: Evidence, settings: PairSettings
) -> dict[int, int]:
    """Column of each row: its own caption's most similar sentence, else by assignment among those of no caption."""
    columns: dict[int, int] = {}
    for row, caption in enumerate(said.captions):
        if caption:
            best = np.nan_to_num(matrix[row, list(caption)], nan=-np.inf)
            columns[row] = caption[int(best.argmax())]
    free = usable_images.copy()
    free[list(columns)] = False
    return columns | _assign(prior(matrix, said, settings), free, usable_sentences & ~said.is_caption)


def prior(matrix: Single, said: Evidence, settings: PairSettings) -> Single:
    """The cosines with what place and references add to them; NaN where the cosine is."""
    known = matrix[np.isfinite(matrix)]
    spread = float(known.std()) if known.size else 0.0
    near = 0.5 ** (np.maximum(said.distance - 1, 0) / _HALF)
    return (matrix + spread * (settings.nearness * near + settings.reference * said.referred)).astype(np.float32)


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

    page and mmc4: the most similar image; dom: the nearest in reading order; else the first.
    """

    def order(row: int, column: int) -> tuple[float, int]:
        if strategy != "dom":
            return -float(np.nan_to_num(matrix[row, column], nan=-2.0)), row
        return abs(images[row] - sentences[column]), row

    best: dict[int, int] = {}
    for row, column in columns.items():
        if column not in best or order(row, column) < order(best[column], column):
            best[column] = row
    return best


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
