"""MinHash against datasketch and against true Jaccard; banding, components and the choice of the kept copy."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.dedup.components import component_roots, components
from stages.dedup.near import (
    BAND_KEYS,
    EDGES,
    SMALL_BUCKET,
    DedupSettings,
    MinHashSignatures,
    band_keys,
    candidate_edges,
    choose_kept,
    nearest,
    shingle_hash,
    shingles,
    verify,
)
from stages.row_function import RowFunction

SETTINGS = DedupSettings()


def signatures(texts: dict[str, str | None], options: DedupSettings = SETTINGS) -> pa.Table:
    out = MinHashSignatures(options)(pa.table({"text": pa.array(texts.values(), pa.large_string())}))
    return pa.table({"id": list(texts), "signature": out.column("signature")})


def test_signature_is_datasketch() -> None:
    text = "One two three four five six seven, eight nine ten. One two three four five!"
    ours = signatures({"d": text}).column("signature").to_pylist()[0]
    theirs = MinHash(num_perm=112, seed=1, scheme="affine32", hashfunc=shingle_hash)
    theirs.update_batch(shingles(text, 5))
    assert ours == theirs.hashvalues.tolist()
    assert len(ours) == SETTINGS.num_perm == 112


def test_row_function() -> None:
    function = MinHashSignatures(SETTINGS)
    assert isinstance(function, RowFunction)
    assert function.settings == MinHashSignatures(DedupSettings(threshold=0.1, max_bucket=5)).settings
    assert function.settings != MinHashSignatures(DedupSettings(seed=2)).settings


def test_shingles() -> None:
    assert shingles("A b c d e f", 5) == [b"a b c d e", b"b c d e f"]
    assert shingles("Too short", 5) == [b"too short"]
    assert shingles("... !", 5) == []
    assert shingles("我们去公园", 5) == ["我 们 去 公 园".encode()]


def planted(similarity: float, seed: int, size: int = 400) -> tuple[str, str]:
    """Two texts whose word 5-gram sets have about the given Jaccard similarity: a shared start, ends of their own."""
    rng = random.Random(seed)
    shared = round(2 * similarity * size / (1 + similarity))
    start = [f"w{rng.randrange(10**9)}" for _ in range(shared)]
    return (
        " ".join(start + [f"a{rng.randrange(10**9)}" for _ in range(size - shared)]),
        " ".join(start + [f"b{rng.randrange(10**9)}" for _ in range(size - shared)]),
    )


def test_planted_pairs_are_found_and_verified() -> None:
    texts: dict[str, str | None] = {}
    truth = {}
    for i in range(60):
        similarity = (0.3, 0.5, 0.95)[i % 3]
        texts[f"{i:03}a"], texts[f"{i:03}b"] = planted(similarity, i)
        truth[f"{i:03}a"] = similarity
    table = signatures(texts)
    edges, hot = candidate_edges(band_keys(table, SETTINGS), SETTINGS.max_bucket)
    assert hot.num_rows == 0
    passed, estimate = verify(edges, table, SETTINGS)
    found = set(edges.filter(pa.array(passed)).column("a").to_pylist())
    assert found == {a for a, similarity in truth.items() if similarity == 0.95}
    exact = DedupSettings(verify="jaccard")
    by_text = pa.table({"id": list(texts), "text": list(texts.values())})
    passed_exactly, similarity = verify(edges, table, exact, by_text)
    assert np.array_equal(passed, passed_exactly)
    assert np.abs(estimate - similarity).max() < 0.15
    with pytest.raises(ValueError, match="needs the texts"):
        verify(edges, table, exact)
    assert verify(edges, table, DedupSettings(verify="none"))[0].all()


def test_candidate_edges_and_hot_buckets() -> None:
    rows = pa.table({"band_key": pa.array([7, 7, 7, 9, 9, 8], pa.uint64()), "id": ["c", "a", "b", "b", "a", "a"]})
    edges, hot = candidate_edges(rows, max_bucket=2)
    # A pair that shares two bands is there for each, once.
    assert [tuple(row.values()) for row in edges.to_pylist()] == [
        (7, "a", "b"),
        (7, "a", "c"),
        (7, "b", "c"),
        (9, "a", "b"),
    ]
    assert hot.to_pylist() == [{"band_key": 7, "documents": 3}]
    empty, _ = candidate_edges(rows.slice(0, 0), 2)
    assert empty.schema.equals(edges.schema) and empty.num_rows == 0
    assert edges.schema.equals(pa.schema([BAND_KEYS.field("band_key"), *EDGES]))
    twice, _ = candidate_edges(pa.concat_tables([rows, rows]), 10)
    assert twice.equals(edges), "a document is not its own duplicate, and a pair of one band is one pair"


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 3 * SMALL_BUCKET), min_size=1, max_size=6))
def test_small_buckets_give_all_pairs_and_large_ones_a_star_and_a_chain(sizes: list[int]) -> None:
    keys = [key for key, size in enumerate(sizes) for _ in range(size)]
    ids = [f"{key}-{i:02d}" for key, size in enumerate(sizes) for i in range(size)]
    rows = pa.table({"band_key": pa.array(keys, pa.uint64()), "id": ids})
    found = {(row["a"], row["b"]) for row in candidate_edges(rows, 10_000)[0].to_pylist()}
    expected = set()
    for key, size in enumerate(sizes):
        mine = [f"{key}-{i:02d}" for i in range(size)]
        if size <= SMALL_BUCKET:
            expected |= set(combinations(mine, 2))
        else:
            expected |= {(mine[0], other) for other in mine[1:]} | set(pairwise(mine))
    assert found == expected


def test_a_bucket_with_a_stranger_still_finds_its_pair() -> None:
    same = "the quick brown fox jumps over the lazy dog and runs far away into the deep dark forest " * 3
    texts = {"a": "wholly other words stand here and nobody else has written them so far", "b": same, "c": same}
    sketches = signatures(texts)
    rows = pa.table({"band_key": pa.array([1, 1, 1], pa.uint64()), "id": ["a", "b", "c"]})
    edges, _ = candidate_edges(rows, 10)
    passed, _ = verify(edges, sketches, SETTINGS)
    assert edges.filter(pa.array(passed)).to_pylist() == [{"band_key": 1, "a": "b", "b": "c"}]


def test_texts_without_words_have_no_bands() -> None:
    table = signatures({"a": "...", "b": None, "c": "words here"})
    assert table.column("signature").to_pylist()[:2] == [None, None]
    assert set(band_keys(table, SETTINGS).column("id").to_pylist()) == {"c"}


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40))
def test_components_are_scipys_with_the_smallest_root(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    roots = component_roots(26, a, b)
    graph = coo_matrix((np.ones(len(pairs)), (a, b)), shape=(26, 26))
    labels = connected_components(graph, directed=False)[1]
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        assert (roots[members] == members.min()).all()


def test_components_of_a_long_chain() -> None:
    n = 200_000
    order = np.random.default_rng(0).permutation(n - 1)
    assert (component_roots(n, order, order + 1) == 0).all()


def test_components_of_ids() -> None:
    edges = pa.table({"a": ["x", "q", "b"], "b": ["y", "y", "a"]})
    expected = [("a", "a"), ("b", "a"), ("q", "q"), ("x", "q"), ("y", "q")]
    assert [tuple(row.values()) for row in components(edges).to_pylist()] == expected
    assert [tuple(row.values()) for row in components(edges.take([2, 1, 0])).to_pylist()] == expected
    assert components(edges.slice(0, 0)).num_rows == 0


def test_choose_kept() -> None:
    new = datetime(2024, 1, 1, tzinfo=UTC)
    members = pa.table(
        {
            "id": ["a", "b", "c", "d", "e", "f"],
            "cluster": ["a", "a", "a", "d", "d", "d"],
            "num_images": [1, 2, 2, 3, 3, 3],
            "modified": pa.array([new, None, new, None, None, None], pa.timestamp("s", tz="UTC")),
        }
    )
    kept, decisions = choose_kept(members)
    assert kept.to_pylist() == ["c", "d"]
    assert [(row["subject_id"], row["detail"]) for row in decisions.to_pylist()] == [
        ("a", "kept c of cluster a"),
        ("b", "kept c of cluster a"),
        ("e", "kept d of cluster d"),
        ("f", "kept d of cluster d"),
    ]
    assert set(decisions.column("value").to_pylist()) == set(decisions.column("high").to_pylist()) == {None}


def test_a_near_duplicate_says_how_similar_it_is_to_its_nearest() -> None:
    pairs = pa.table({"a": ["a", "a", "d"], "b": ["b", "c", "e"]})
    ids = pa.chunked_array([["e", "b"], ["a", "x", "d"]])
    found = nearest(pairs, np.array([0.8, 0.9, np.nan]), ids)
    assert found.to_pylist() == [None, 0.8, 0.9, None, None]
    members = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "cluster": ["a", "a", "a", "d"],
            "num_images": [1, 1, 1, 1],
            "modified": pa.nulls(4, pa.timestamp("s", tz="UTC")),
            "similarity": [0.9, 0.8, None, None],
        }
    )
    _, decisions = choose_kept(members, 0.7)
    assert [(row["subject_id"], row["value"], row["high"]) for row in decisions.to_pylist()] == [
        ("b", 0.8, 0.7),
        ("c", None, None),
    ]
