"""Manifest rows: what the plan needs to know of every segment, computed once per tokenizer and shard hash."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from trainer.data.layout import Segment, Vocabulary, cut, sentence_ids, token_counts
from trainer.data.shards import Corpus


@dataclass(frozen=True)
class Row:
    """One trainable segment of one document."""

    document: int  # index in the corpus
    document_id: str
    split: str  # "train" | "held_out"
    segment: Segment
    images: int
    # (image slice, sentence slice, tokens of both as bare sequences): the pairs that views are drawn from
    pairs: tuple[tuple[int, int, int], ...]
    # (document id, slice) of mined negatives of this segment's slices, best first
    negatives: tuple[tuple[str, int], ...]

    @property
    def tokens(self) -> int:
        """Tokens of the segment, without views."""
        return self.segment.tokens


@dataclass(frozen=True)
class Limits:
    """What shapes rows besides the corpus and the tokenizer."""

    document_tokens: int
    image_tokens: int
    tokenizer: str  # identity of the tokenizer

    def key(self, corpus: Corpus) -> str:
        """Hash of all that shapes the rows."""
        text = json.dumps([2, corpus.hash, asdict(self)], sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())


def build_rows(corpus: Corpus, vocabulary: Vocabulary, limits: Limits) -> list[Row]:
    """Rows of every document of the corpus, in shard order, segments in reading order."""
    rows: list[Row] = []
    splits = corpus.column("split")
    limit = limits.document_tokens - 2
    for index in range(len(corpus)):
        document = corpus.document(index)
        slices, usable = document.slices, document.has_vectors
        edges = sorted(document.negatives, key=lambda edge: (-edge.score, edge.document_id, edge.candidate))
        for segment in cut(token_counts(document, vocabulary, limit), len(slices), limits.document_tokens):
            inside = range(segment.first, segment.last)
            pairs = []
            for image in inside:
                sentence = slices[image].matched
                # The sentence may stand in another segment: as a bare sequence it needs no neighbour.
                if slices[image].is_image and sentence is not None and usable[image] and usable[sentence]:
                    cost = sum(len(sentence_ids(document, piece, vocabulary, limit)) for piece in (image, sentence))
                    pairs.append((image, sentence, cost))
            rows.append(
                Row(
                    document=index,
                    document_id=document.document_id,
                    split=splits[index],
                    segment=segment,
                    images=sum(slices[piece].is_image for piece in inside),
                    pairs=tuple(pairs),
                    negatives=tuple((edge.document_id, edge.candidate) for edge in edges if edge.anchor in inside),
                )
            )
    return rows


def load_rows(corpus: Corpus, vocabulary: Vocabulary, limits: Limits, cache: Path | None) -> list[Row]:
    """`build_rows`, kept in `cache` under its key; a cache that cannot be read is built anew."""
    if cache is None:
        return build_rows(corpus, vocabulary, limits)
    path = cache / f"rows-{limits.key(corpus)}.json"
    try:
        return [_row(data) for data in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        rows = build_rows(corpus, vocabulary, limits)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    temporary.replace(path)
    return rows


def _row(data: dict[str, object]) -> Row:
    values = dict(data)
    values["segment"] = Segment(**values["segment"])  # type: ignore[arg-type]  # a mapping, as asdict wrote it
    for name in ("pairs", "negatives"):
        values[name] = tuple(tuple(item) for item in values[name])  # type: ignore[attr-defined]  # lists of lists
    return Row(**values)  # type: ignore[arg-type]  # checked by the except around the caller
