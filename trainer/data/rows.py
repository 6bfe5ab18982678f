"""Manifest rows: what the plan needs to know of every segment, computed once per tokenizer and corpus.

OUT/cache/rows-<key>/part-00000.json: a digest of the rest, then the rows of PART documents
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.keys import digest
from trainer.data.cache_parts import Peers, build_parts, write_part
from trainer.data.layout import Segment, Vocabulary, cut, sentence_ids, token_counts
from trainer.data.shards import Document, ShardCorpus
from trainer.keys import code_key

PART = 256  # documents in a part: seconds of tokenizing


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
    # one line for each corrupt label vector of this segment's slices, which take part without it
    corrupt: tuple[str, ...] = ()
    # (kind, how many) of this segment's negatives that are not mined: no plan places them
    left_out: tuple[tuple[str, int], ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of the segment, without views."""
        return self.segment.tokens


@dataclass(frozen=True)
class Limits:
    """What shapes rows besides the corpus."""

    document_tokens: int
    image_tokens: int
    tokenizer: str  # digest of the tokenizer (trainer.keys.tokenizer_key)

    def key(self, corpus: ShardCorpus) -> str:
        """Digest of all that shapes the rows."""
        code = code_key("trainer.data.rows", libraries=("tokenizers", "transformers"))
        return digest(code, corpus.hash, json.dumps(asdict(self), sort_keys=True))


def build_rows(
    corpus: ShardCorpus, vocabulary: Vocabulary, limits: Limits, documents: Iterable[int] | None = None
) -> list[Row]:
    """Rows of the documents (by index; all when None), in shard order, segments in reading order."""
    rows: list[Row] = []
    limit = limits.document_tokens - 2
    for index in range(len(corpus)) if documents is None else documents:
        document = corpus.document(index)
        slices, usable = document.slices, document.has_vectors
        corrupt = [
            (i, f"{corpus.shard_of(index).name}, document {document.document_id}, slice {i}: {said}")
            for i, said in document.corrupt_vectors
        ]
        mined, others = _negatives(document)
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
                    split=document.split,
                    segment=segment,
                    images=sum(slices[piece].is_image for piece in inside),
                    pairs=tuple(pairs),
                    negatives=tuple(place for anchor, place in mined if anchor in inside),
                    corrupt=tuple(line for piece, line in corrupt if piece in inside),
                    left_out=tuple(sorted(Counter(kind for anchor, kind in others if anchor in inside).items())),
                )
            )
    return rows


def _negatives(document: Document) -> tuple[list[tuple[int, tuple[str, int]]], list[tuple[int, str]]]:
    """(anchor, place) of the mined negatives, best first, and (anchor, kind) of all others."""
    mined, others = [], []
    for edge in document.negatives:
        if edge.kind == "mined" and edge.document_id is not None and edge.candidate is not None:
            mined.append((-(edge.score or 0.0), (edge.document_id, edge.candidate), edge.anchor))
        else:
            others.append((edge.anchor, edge.kind))
    return [(anchor, place) for _, place, anchor in sorted(mined)], others


def load_rows(corpus: ShardCorpus, vocabulary: Vocabulary, limits: Limits, cache: Path, peers: Peers) -> list[Row]:
    """`build_rows`, kept in `cache` under its key; a part that cannot be read is built anew. Raises as build_parts."""
    folder = cache / f"rows-{limits.key(corpus)}"
    count = -(-len(corpus) // PART)

    def path(number: int) -> Path:
        return folder / f"part-{number:05d}.json"

    def ready(number: int) -> bool:
        try:
            found, _, content = path(number).read_bytes().partition(b"\n")
        except OSError:
            return False
        return found == digest(content).encode()

    def build(number: int) -> None:
        documents = range(number * PART, min((number + 1) * PART, len(corpus)))
        rows = build_rows(corpus, vocabulary, limits, documents)
        content = json.dumps([asdict(row) for row in rows]).encode()
        write_part(path(number), digest(content).encode() + b"\n" + content)

    build_parts(count, ready, build, peers)
    return [_row(data) for number in range(count) for data in json.loads(path(number).read_bytes().partition(b"\n")[2])]


def _row(data: dict[str, object]) -> Row:
    values = dict(data)
    values["segment"] = Segment(**values["segment"])  # type: ignore[arg-type]  # a mapping, as asdict wrote it
    for name in ("pairs", "negatives", "left_out"):
        values[name] = tuple(tuple(item) for item in values[name])  # type: ignore[attr-defined]  # lists of lists
    values["corrupt"] = tuple(values["corrupt"])  # type: ignore[arg-type]  # a list of lines
    return Row(**values)  # type: ignore[arg-type]  # as asdict wrote it, under its digest
