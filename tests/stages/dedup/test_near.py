"""Signatures as rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stages.dedup.near import DedupSettings, MinHashSignatures, signature_matrix
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
