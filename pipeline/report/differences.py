"""Two documents side by side: the paragraphs in which they differ, and in these the words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

# Paragraphs of a document that are compared, words of a paragraph, and rows that are drawn.
MOST_PARAGRAPHS = 400
MOST_WORDS = 120
MOST_ROWS = 6


@dataclass(frozen=True)
class Piece:
    """Words of a paragraph that the other document has too, or has not."""

    text: str
    changed: bool


@dataclass(frozen=True)
class Row:
    """Two paragraphs beside each other, one of them empty where the other document has more; or how many are equal."""

    left: Sequence[Piece] = ()
    right: Sequence[Piece] = ()
    same: int = 0


@dataclass(frozen=True)
class Comparison:
    """Rows in reading order, and how many more there are."""

    rows: Sequence[Row]
    more: int


def compare(left: Sequence[str], right: Sequence[str]) -> Comparison:
    """Paragraphs of two documents, at most MOST_PARAGRAPHS of each; runs of equal ones are one row that counts them."""
    one, other = ([" ".join(text.split()) for text in side[:MOST_PARAGRAPHS]] for side in (left, right))
    rows: list[Row] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            rows.append(Row(same=b - a))
            continue
        for place in range(max(b - a, d - c)):
            rows.append(_row(one[a + place] if a + place < b else "", other[c + place] if c + place < d else ""))
    return Comparison(rows[:MOST_ROWS], max(0, len(rows) - MOST_ROWS))


def _row(left: str, right: str) -> Row:
    one, other = left.split()[: MOST_WORDS + 1], right.split()[: MOST_WORDS + 1]
    found: tuple[list[Piece], list[Piece]] = [], []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for pieces, words in zip(found, (one[a:b], other[c:d]), strict=True):
            if words:
                pieces.append(Piece(" ".join(words), tag != "equal"))
    for pieces, words in zip(found, (one, other), strict=True):
        if len(words) > MOST_WORDS:
            pieces.append(Piece("…", False))
    return Row(*found)
