"""The card of the LiT heads: what they are, what they were trained on, and how well they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.lit.pairs import SOURCES


@dataclass(frozen=True)
class Measured:
    """Retrieval of captions by pictures, one of `count` each."""

    name: str
    count: int
    recall_1: float
    recall_5: float
    recall_10: float
    median_rank: float


@dataclass(frozen=True)
class Report:
    """All that the card says."""

    pairs: Mapping[str, int]
    """Pairs by package."""
    versions: Mapping[str, str]
    """Version of each package."""
    clusters: int
    training: int
    """Pairs trained on."""
    results: Sequence[Measured]
    sha256: str
    size: int
    """Bytes of the weights."""
    recipe: str


def row(result: Measured) -> str:
    """One line of the table."""
    numbers = f"{result.recall_1:.3f} | {result.recall_5:.3f} | {result.recall_10:.3f} | {result.median_rank:.0f}"
    return f"| {result.name} | {result.count} | {numbers} | {1 / result.count:.4f} |"


def card(report: Report) -> str:
    """Markdown."""
    sources = "\n".join(
        f"| {source.package} | {report.versions[source.package]} | {source.licence} | {report.pairs[source.package]} |"
        for source in SOURCES
    )
    results = "\n".join(row(result) for result in report.results)
    return f"""# LiT heads

Two small heads, trained by interloom, that bring pictures and sentences into one space on top of two frozen towers:
EfficientNet-Lite0 (pooled features, 1,280) and all-MiniLM-L6-v2 (mean-pooled, 384). Both towers are locked (Zhai et
al. 2022, "LiT"). They serve as the `lit` encoder where no CLIP-like model can be had; they are much weaker than one.

- File: `lit_head.safetensors`, float16, {report.size:,} bytes, sha256 `{report.sha256}`
- Command: `python -m pipeline.lit.train`
- Recipe: `{report.recipe}`
- Licence of the heads: Apache-2.0. The towers are Apache-2.0.

## Data

{sum(report.pairs.values()):,} pictures with titles, captions, headings and the sentence before them, in
{report.clusters:,} clusters (same page, same words, perceptual hash within 5 bits, or feature cosine above .92).
{report.training:,} pairs were trained on; the clusters of the hold-out were left out whole. No photographs but those
in the documentation: on photographs the heads rest on ConSE (the tower's ImageNet classes, by their sentence vectors),
which they are before training and which the training corrects.

| Debian package | version | licence | pairs |
|---|---|---|---|
{sources}

## Results

A picture asks for its own caption among n, one picture a cluster. Ties count against it. Chance is R@1 of a guess.

| pictures | n | R@1 | R@5 | R@10 | median rank | chance |
|---|---|---|---|---|---|---|
{results}

## Limits

English only. Fine differences (which of two plots, left or right, how many) are out of its reach, text within pictures
is not read, and people, places and brands were hardly in the data. Clip art titles carry the prejudices of their
authors. Similarities are for ranking: their size is not that of CLIP's, so thresholds of published corpora do not carry
over.
"""
