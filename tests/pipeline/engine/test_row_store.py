"""Row stores: append, read by key range, survive torn files and repeated writes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.partition import WHOLE, KeyRange, key_range, leading_bits, partition_of
from pipeline.engine.row_store import RowStore
from pipeline.engine.storage import Storage

OUTPUT = pa.schema([pa.field("n", pa.int64()), pa.field("body", pa.large_binary())])


def rows(numbers: list[int], generation: int = 0) -> pa.Table:
    return pa.table(
        {
            "row_key": [f"{n * 0x01000000:08x}{n:024x}" for n in numbers],
            "generation": pa.array([generation] * len(numbers), pa.int32()),
            "n": pa.array(numbers, pa.int64()),
            "body": pa.array([f"body {n}".encode() if n % 3 else None for n in numbers], pa.large_binary()),
        }
    )


def test_rows_come_back_by_key_range_with_their_bodies(tmp_path: Path) -> None:
    store = RowStore(Storage(str(tmp_path)), "f", "k", OUTPUT)
    store.append(rows([1, 2, 3]))
    store.append(rows([200, 100]), KeyRange(90 << 24, (201 << 24) - 1))
    found = store.read()
    assert found.column("n").to_pylist() == [1, 2, 3, 100, 200]
    assert store.read(KeyRange(2 << 24, 100 << 24)).column("n").to_pylist() == [2, 3, 100]
    bodies = {
        row["n"]: store.storage.read_ranges([(b["pack"], b["offset"], b["length"])])[0] if (b := row["body"]) else None
        for row in found.to_pylist()
    }
    assert bodies == {1: b"body 1", 2: b"body 2", 3: None, 100: b"body 100", 200: b"body 200"}


def test_the_newest_generation_wins_and_writing_twice_changes_nothing(tmp_path: Path) -> None:
    store = RowStore(Storage(str(tmp_path)), "f", "k", OUTPUT)
    store.append(rows([1, 2]))
    store.append(rows([1, 2]))
    files = store.storage.walk("rows")
    assert len(files) == 2
    later = rows([2], generation=1).set_column(2, "n", pa.array([22], pa.int64()))
    store.append(later)
    assert store.read().column("n").to_pylist() == [1, 22]


def test_a_torn_file_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "f", "k", OUTPUT)
    store.append(rows([1]))
    name = next(n for n in storage.walk("rows") if n.endswith(".parquet"))
    whole = storage.read(name)
    storage.write(name.replace(".parquet", "0.parquet"), whole[: len(whole) // 2])
    assert store.read().column("n").to_pylist() == [1]
    assert "cannot be read and is passed over" in caplog.text


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 999), st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_partitions_tile_the_key_space(count: int, prefixes: list[int]) -> None:
    keys = pa.array([f"{prefix:08x}{'0' * 24}" for prefix in prefixes], pa.string())
    owners = partition_of(keys, count).to_pylist()
    for bits, owner in zip(leading_bits(keys).tolist(), owners, strict=True):
        inside = key_range(owner, count)
        assert inside.first <= bits <= inside.last
    assert key_range(0, count).first == 0 and key_range(count - 1, count).last == WHOLE.last
    assert all(key_range(i, count).last + 1 == key_range(i + 1, count).first for i in range(count - 1))
