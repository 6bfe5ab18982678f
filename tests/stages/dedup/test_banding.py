"""Bands of signatures, and the pairs that buckets give."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup import banding
from stages.dedup.banding import (
    BAND,
    BAND_KEYS,
    EDGES,
    SMALL_BUCKET,
    TEXT,
    URL,
    band_keys,
    candidate_edges,
    distinct,
    kinds_of,
    shared_keys,
)
from stages.dedup.document_keys import DOCUMENT_KEY, ids_of
from stages.dedup.near import DedupSettings, signature_array

SETTINGS = DedupSettings(bands=3, rows=2)


def document(number: int) -> bytes:
    return number.to_bytes(16, "big")


def rows_of(buckets: dict[int, list[int]]) -> pa.Table:
    # Keys of bands end with two bits that say so.
    keys = [4 * key + BAND for key, numbers in buckets.items() for _ in numbers]
    ids = [document(number) for numbers in buckets.values() for number in numbers]
    return pa.table([pa.array(keys, pa.uint64()), pa.array(ids, DOCUMENT_KEY)], schema=BAND_KEYS)


def numbered(edges: pa.Table) -> list[tuple[int, int]]:
    return [
        (int.from_bytes(a, "big"), int.from_bytes(b, "big"))
        for a, b in zip(edges.column("a").to_pylist(), edges.column("b").to_pylist(), strict=True)
    ]


def test_equal_bands_have_equal_keys_and_texts_without_words_none() -> None:
    values = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 9, 9, 5, 6], [0] * 6, [3, 4, 1, 2, 6, 5]], np.uint32)
    column = signature_array(values, np.array([True, True, False, True]))
    ids = pa.array(map(document, range(4)), DOCUMENT_KEY)
    found = band_keys(pa.table({"id": ids, "signature": column}), SETTINGS)
    assert found.schema.equals(BAND_KEYS)
    keys = np.asarray(found.column("band_key")).reshape(3, 3)
    assert [int(each, 16) for each in ids_of(found.column("id")).to_pylist()] == [0, 0, 0, 1, 1, 1, 3, 3, 3]
    assert (keys[0] == keys[1]).tolist() == [True, False, True]
    # The same values in another band are another key.
    assert not set(keys[0].tolist()) & set(keys[2].tolist())
    with pytest.raises(ValueError, match="signatures of 6 values, expected 8"):
        band_keys(pa.table({"id": ids, "signature": column}), DedupSettings(bands=4, rows=2))


def test_candidate_edges_and_hot_buckets() -> None:
    rows = rows_of({7: [3, 1, 2], 9: [2, 1], 8: [1]})
    edges, hot = candidate_edges(rows, max_bucket=2)
    # A pair that shares two bands is there for each, once.
    assert edges.column("band_key").to_pylist() == [28, 28, 28, 36]
    assert numbered(edges) == [(1, 2), (1, 3), (2, 3), (1, 2)]
    assert hot.to_pylist() == [{"band_key": 28, "documents": 3}]
    assert numbered(distinct(edges.select(EDGES.names))) == [(1, 2), (1, 3), (2, 3)]
    empty, _ = candidate_edges(rows.slice(0, 0), 2)
    assert empty.schema.equals(edges.schema) and empty.num_rows == 0
    twice, _ = candidate_edges(pa.concat_tables([rows, rows]), 10)
    assert twice.equals(edges), "a document is not its own duplicate, and a pair of one band is one pair"


def test_documents_of_a_text_or_a_url_meet_under_keys_that_say_which() -> None:
    ids = pa.array(map(document, range(4)), DOCUMENT_KEY)
    same = pa.array(["f" * 32, None, "f" * 32, "0" * 32])
    texts, urls = (shared_keys(ids, same, kind) for kind in (TEXT, URL))
    assert [int(each, 16) for each in ids_of(texts.column("id")).to_pylist()] == [0, 2, 3]
    edges, hot = candidate_edges(pa.concat_tables([texts, urls]), max_bucket=1)
    assert numbered(edges) == [(0, 2), (0, 2)] and hot.num_rows == 0
    assert kinds_of(np.asarray(edges.column("band_key"))).tolist() == [TEXT, URL]
    signed = signature_array(np.arange(12, dtype=np.uint32).reshape(2, 6), np.array([True, True]))
    keys = np.asarray(band_keys(pa.table({"id": ids[:2], "signature": signed}), SETTINGS).column("band_key"))
    assert set(kinds_of(keys).tolist()) == {BAND}


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 3 * SMALL_BUCKET), min_size=1, max_size=6), st.integers(0, 99))
def test_small_buckets_give_all_pairs_and_large_ones_a_star_and_a_chain(sizes: list[int], seed: int) -> None:
    buckets = {key: [1000 * key + i for i in range(size)] for key, size in enumerate(sizes)}
    rows = rows_of(buckets)
    order = list(range(rows.num_rows))
    random.Random(seed).shuffle(order)
    edges, hot = candidate_edges(rows.take(order), SMALL_BUCKET)
    assert edges.equals(candidate_edges(rows, SMALL_BUCKET)[0]) and len(set(numbered(edges))) == edges.num_rows
    expected = set()
    for mine in buckets.values():
        if len(mine) <= SMALL_BUCKET:
            expected |= set(combinations(mine, 2))
        else:
            expected |= {(mine[0], other) for other in mine[1:]} | set(pairwise(mine))
    assert set(numbered(edges)) == expected
    assert hot.column("documents").to_pylist() == [size for size in sizes if size > SMALL_BUCKET]


def test_no_document_of_a_huge_bucket_has_more_edges_than_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banding, "HUB", 50)
    size = 1000
    pairs = numbered(candidate_edges(rows_of({1: list(range(size))}), 10_000)[0])
    assert len(pairs) == len(set(pairs)) <= 2 * size
    degrees = np.bincount(np.array(pairs).ravel())
    assert degrees.max() <= 50 + size // 50 + 2
    # Every document is on the star and on the chain: without any one of them the rest hangs together.
    assert (degrees >= 2).all() and set(pairwise(range(size))) <= {*pairs}
