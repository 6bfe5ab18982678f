"""Signatures as rows, and the choice of the kept copy."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from stages.dedup.near import DedupSettings, MinHashSignatures, choose_kept, signature_matrix
from stages.dedup.shingles import signatures
from stages.row_function import RowFunction

SETTINGS = DedupSettings()


def test_row_function() -> None:
    function = MinHashSignatures(SETTINGS)
    assert isinstance(function, RowFunction)
    assert function.settings == MinHashSignatures(DedupSettings(threshold=0.1, max_bucket=5)).settings
    assert function.settings != MinHashSignatures(DedupSettings(seed=2)).settings


def test_a_signature_is_the_bytes_of_its_values() -> None:
    texts = pa.chunked_array([["words here", None], ["...", "and here"]], pa.large_string())
    out = MinHashSignatures(SETTINGS)(pa.table({"text": texts}))
    assert out.schema.equals(MinHashSignatures.output)
    column = out.column("signature")
    assert [None if each is None else len(each) for each in column.to_pylist()] == [448, None, None, 448]
    expected, _ = signatures(texts, SETTINGS.shingle_words, SETTINGS.num_perm, SETTINGS.seed)
    assert np.array_equal(signature_matrix(column, SETTINGS.num_perm), expected[[0, 3]])
    assert np.array_equal(signature_matrix(column.slice(2), SETTINGS.num_perm), expected[[3]])


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
