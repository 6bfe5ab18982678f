"""Pairs compared by signature and by exact Jaccard, and the clusters that similar ones make."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from stages.dedup.banding import BAND, EDGES, TEXT, URL, band_keys, candidate_edges, distinct
from stages.dedup.components import TooManyEdges
from stages.dedup.document_keys import DOCUMENT_KEY
from stages.dedup.near import DedupSettings, MinHashSignatures
from stages.dedup.shingles import shingles
from stages.dedup.similarity import COMPARED, Components, members, similarities, sketches

SETTINGS = DedupSettings()
EXACT = DedupSettings(verify="jaccard")


def sketched(texts: list[str], settings: DedupSettings) -> pa.ChunkedArray:
    column = pa.chunked_array([pa.array(texts, pa.large_string())])
    if settings.verify == "signature":
        column = MinHashSignatures(settings)(pa.table({"text": column})).column("signature")
    return pa.chunked_array([sketches(column, settings)])


def planted(similarity: float, seed: int, size: int = 400) -> tuple[str, str]:
    """Two texts whose word 5-gram sets have about the given Jaccard similarity: a shared start, ends of their own."""
    rng = random.Random(seed)
    shared = round(2 * similarity * size / (1 + similarity))
    start = [f"w{rng.randrange(10**9)}" for _ in range(shared)]
    return (
        " ".join(start + [f"a{rng.randrange(10**9)}" for _ in range(size - shared)]),
        " ".join(start + [f"b{rng.randrange(10**9)}" for _ in range(size - shared)]),
    )


def jaccard(one: str, other: str) -> float:
    a, b = set(shingles(one, 5)), set(shingles(other, 5))
    return len(a & b) / len(a | b)


def test_planted_pairs_are_found_and_compared() -> None:
    wanted = [(0.3, 0.5, 0.95)[i % 3] for i in range(60)]
    texts = [text for i, similarity in enumerate(wanted) for text in planted(similarity, i)]
    signed = MinHashSignatures(SETTINGS)(pa.table({"text": pa.array(texts, pa.large_string())}))
    ids = pa.array([i.to_bytes(16, "big") for i in range(len(texts))], DOCUMENT_KEY)
    bands = band_keys(pa.table({"id": ids, "signature": signed.column("signature")}), SETTINGS)
    pairs = distinct(candidate_edges(bands, SETTINGS.max_bucket)[0].select(EDGES.names))
    left, right = ([int.from_bytes(each, "big") for each in pairs.column(name).to_pylist()] for name in "ab")
    shares = {}
    for settings in (SETTINGS, EXACT):
        known = sketched(texts, settings)
        shares[settings.verify] = similarities(known.take(left), known.take(right), settings)
    assert {a // 2 for a, share in zip(left, shares["signature"], strict=True) if share >= 0.7} == set(range(2, 60, 3))
    exact = [jaccard(texts[a], texts[b]) for a, b in zip(left, right, strict=True)]
    assert shares["jaccard"] == pytest.approx(exact, abs=1e-12)
    assert np.abs(shares["signature"] - exact).max() < 0.15


def test_nothing_is_compared_where_nothing_is_to_be_verified() -> None:
    settings = DedupSettings(verify="none")
    known = sketched(["one", "two"], settings)
    assert known.null_count == 2 and np.isnan(similarities(known, known, settings)).all()


def test_a_pair_without_a_signature_is_refused() -> None:
    known = sketched(["...", "words here"], SETTINGS)
    with pytest.raises(ValueError, match="a pair names a document without a signature"):
        similarities(known, known, SETTINGS)
    short = sketched(["words here"], DedupSettings(bands=2))
    with pytest.raises(ValueError, match="signatures of 16 values, expected 112"):
        similarities(short, short, SETTINGS)


def test_jaccard_of_texts_without_words_is_none_at_all() -> None:
    known = sketched(["...", "words here"], EXACT)
    assert similarities(known, known, EXACT).tolist() == [0.0, 1.0]
    assert similarities(known.slice(1), known.slice(0, 1), EXACT).tolist() == [0.0]


def compared(pairs: list[tuple[int, int, int, float | None]]) -> pa.Table:
    columns = [[pair[k] for pair in pairs] for k in range(4)]
    columns[:2] = ([n.to_bytes(16, "big") for n in side] for side in columns[:2])
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, COMPARED, strict=True)], schema=COMPARED
    )


def test_members_are_the_documents_that_share_something() -> None:
    pairs = [
        *((1, 2, BAND, 0.9), (2, 9, BAND, 0.8), (9, 11, BAND, 0.2), (12, 13, BAND, None), (14, 15, BAND, 0.699)),
        *((7, 8, BAND, 0.7), (8, 20, TEXT, None), (20, 21, URL, None), (30, 31, URL, None), (7, 8, TEXT, None)),
    ]
    found, tied = members([compared(pairs)], 0.7)
    rows = [
        (
            *(int(row[name], 16) for name in ("document_id", "cluster_id", "text_id", "url_id", "copies_id")),
            row["similarity"],
        )
        for row in found.to_pylist()
    ]
    assert tied == 4 and rows == [
        (1, 1, 1, 1, 1, 0.9),
        (2, 1, 2, 2, 1, 0.9),
        (7, 7, 7, 7, 7, 0.7),
        (8, 7, 7, 8, 7, 0.7),
        (9, 1, 9, 9, 1, 0.8),
        (12, 12, 12, 12, 12, None),
        (13, 12, 13, 13, 12, None),
        (20, 7, 7, 20, 7, None),
        (21, 21, 21, 20, 7, None),
        (30, 30, 30, 30, 30, None),
        (31, 31, 31, 30, 30, None),
    ]
    for seed in range(3):
        mixed = random.Random(seed).sample(pairs, len(pairs))
        assert members([compared(mixed[:4]), compared([]), compared(mixed[4:])], 0.7)[0].equals(found)
    nobody, none = members([], 0.7)
    assert nobody.num_rows == none == 0 and nobody.schema.equals(found.schema)


def test_more_pairs_than_one_process_joins_are_refused() -> None:
    graph = Components(most_edges=2)
    ends = np.array([[0, 1], [0, 2]], np.uint64)
    graph.add(ends, ends)
    with pytest.raises(
        TooManyEdges, match="more than 2 pairs of documents that may be copies, which one process cannot join: raise"
    ):
        graph.add(ends[:1], ends[:1])
