"""A document as tokens: what each slice costs, and where a long document is cut.

Order is the document's own. Text between two slices (spaces, a node's separator) goes before the later one, so
that a sentence's last token is the sentence's end: its state. An image is `image_tokens` placeholders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from trainer.data.shards import Document


class Tokenizer(Protocol):
    """What the layout needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; nothing in the text is read as a special token."""


class PlainText:
    """A transformers tokenizer that reads text as text: "<|endoftext|>" in a page is eleven characters, not an end."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        return ids


@dataclass(frozen=True)
class Vocabulary:
    """Tokenizer and the ids that are not text.

    `document`: starts every sequence and ends every document. `image`: placeholder, never predicted.
    `image_tokens`: placeholders an image.
    """

    tokenizer: Tokenizer
    document: int
    image: int
    image_tokens: int


@dataclass(frozen=True)
class Piece:
    """One slice and the text before it. `slice` is None for text after the last slice."""

    slice: int | None
    lead: str
    body: str  # empty for an image


@dataclass(frozen=True)
class Segment:
    """Slices [first, last) of a document; `ends` when the document's end token follows."""

    first: int
    last: int
    tokens: int
    ends: bool


def pieces(document: Document) -> list[Piece]:
    """The document in reading order: one piece a slice, and one more for text after the last slice, if any."""
    found: list[Piece] = []
    lead = ""
    by_node: dict[int, list[int]] = {}
    for index, item in enumerate(document.slices):
        by_node.setdefault(item.node, []).append(index)
    for number, node in enumerate(document.nodes):
        text = node["text"] or ""
        done = 0
        for index in by_node.get(number, []):
            item = document.slices[index]
            if item.is_image:
                found.append(Piece(index, lead, ""))
            else:
                found.append(Piece(index, lead + text[done : item.start], text[item.start : item.end]))
                done = item.end
            lead = ""
        lead += text[done:] + (node["separator"] or "")
    if lead.strip():
        found.append(Piece(None, lead.rstrip(), ""))
    return found


def encode_piece(piece: Piece, is_image: bool, vocabulary: Vocabulary, limit: int) -> tuple[list[int], int]:
    """(ids, image placeholders at the end of ids) of one piece, at most `limit` ids.

    A sentence too long keeps its beginning; text before an image keeps its end.
    """
    if not is_image:
        return vocabulary.tokenizer.encode(piece.lead + piece.body)[:limit], 0
    room = limit - vocabulary.image_tokens
    lead = vocabulary.tokenizer.encode(piece.lead) if piece.lead.strip() else []
    lead = lead[-room:] if room > 0 else []
    return lead + [vocabulary.image] * vocabulary.image_tokens, vocabulary.image_tokens


def token_counts(document: Document, vocabulary: Vocabulary, limit: int) -> list[int]:
    """Tokens of every piece (slices in order, then text after the last slice if there is any)."""
    images = [item.is_image for item in document.slices]
    return [
        len(encode_piece(piece, piece.slice is not None and images[piece.slice], vocabulary, limit)[0])
        for piece in pieces(document)
    ]


def cut(counts: list[int], slices: int, document_tokens: int) -> list[Segment]:
    """Consecutive segments of whole slices, each at most `document_tokens` with its start (and end) token.

    `counts` as from token_counts with limit `document_tokens - 2`; a tail beyond the slices stays with the last
    segment when it fits, else it is left out. A document without slices gives no segment.
    """
    segments: list[Segment] = []
    first, tokens = 0, 1
    for index in range(slices):
        # The last slice must leave room for the end token.
        room = document_tokens - (1 if index == slices - 1 else 0)
        if index > first and tokens + counts[index] > room:
            segments.append(Segment(first, index, tokens, False))
            first, tokens = index, 1
        tokens += counts[index]
    if slices:
        tail = sum(counts[slices:])
        tail = tail if tokens + tail + 1 <= document_tokens else 0
        segments.append(Segment(first, slices, tokens + tail + 1, True))
    return segments


def sentence_ids(document: Document, index: int, vocabulary: Vocabulary, limit: int) -> list[int]:
    """Ids of a bare sentence or image with its start token: a view, or a retrieval query."""
    piece = Piece(index, "", "" if document.slices[index].is_image else document.sentence(index))
    return [vocabulary.document, *encode_piece(piece, document.slices[index].is_image, vocabulary, limit)[0]]


@dataclass(frozen=True)
class Encoded:
    """A sequence of tokens and where its slices' states are."""

    ids: list[int]
    spans: dict[int, tuple[int, int]]  # slice -> [start, end) of the tokens whose mean hidden state is its state


def encode_segment(document: Document, segment: Segment, vocabulary: Vocabulary, limit: int) -> Encoded:
    """Ids of a segment; the state of a sentence is its last token, of an image all its placeholders."""
    ids: list[int] = [vocabulary.document]
    spans: dict[int, tuple[int, int]] = {}
    for piece in pieces(document):
        if piece.slice is None:
            # The tail was counted in or left out as a whole when the document was cut.
            if segment.ends and len(ids) + 1 < segment.tokens:
                ids += encode_piece(piece, False, vocabulary, limit)[0]
        elif segment.first <= piece.slice < segment.last:
            found, placeholders = encode_piece(piece, document.slices[piece.slice].is_image, vocabulary, limit)
            ids += found
            # An empty sentence takes the state of the token before it.
            spans[piece.slice] = (len(ids) - max(placeholders, 1), len(ids))
    if segment.ends:
        ids.append(vocabulary.document)
    return Encoded(ids, spans)
