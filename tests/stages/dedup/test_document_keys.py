"""Document ids as 16 bytes, there and back, in the same order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.document_keys import DOCUMENT_KEY, from_halves, halves, hex_digits, ids_of, keys_of

IDS = st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), max_size=8)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(IDS, st.integers(0, 8))
def test_keys_stand_for_ids_in_their_order(ids: list[str], cut: int) -> None:
    column = pa.chunked_array([pa.array(ids[:cut], pa.string()), pa.array(ids[cut:], pa.string())])
    keys = keys_of(column)
    assert keys.type == DOCUMENT_KEY and keys.to_pylist() == [bytes.fromhex(each) for each in ids]
    assert ids_of(keys).to_pylist() == ids
    assert from_halves(halves(keys)).equals(keys)
    numbers = [tuple(row) for row in halves(keys).tolist()]
    assert sorted(range(len(ids)), key=lambda i: (numbers[i], i)) == sorted(range(len(ids)), key=lambda i: (ids[i], i))
    tail = keys_of(pa.array(ids, pa.string()).slice(cut))
    assert tail.to_pylist() == keys.to_pylist()[cut:] and ids_of(keys.slice(cut)).to_pylist() == ids[cut:]


@pytest.mark.parametrize("wrong", ["0" * 31, "0" * 33, "", "0" * 31 + "g", "A" * 32, "\u00e9" * 16])
def test_another_id_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ValueError, match="not 32 hex digits") as refused:
        keys_of(pa.array(["0" * 32, wrong]))
    assert repr(wrong) in str(refused.value)


def test_hex_digits() -> None:
    numbers = np.array([0, 255, 2**64 - 1], np.uint64)
    assert hex_digits(numbers).to_pylist() == ["0" * 16, "0" * 14 + "ff", "f" * 16]
