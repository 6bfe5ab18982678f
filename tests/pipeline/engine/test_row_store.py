"""Row stores: append, read by key range, survive torn files and repeated writes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import WHOLE, KeyRange
from pipeline.engine.packs import read_packed, write_pack
from pipeline.engine.row_store import RowStore, parquet_bytes
from pipeline.engine.storage import Storage
from schemas.page import LOCATOR

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


def damage(path: Path, how: str) -> None:
    """Cut a file short, change one bit of it, or remove it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if how == "short" else data)


@pytest.mark.parametrize("how", ["short", "bit"])
def test_a_damaged_file_is_as_good_as_absent_unless_it_was_fetched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    for function in ("f", "fetch_page"):
        store = RowStore(Storage(str(tmp_path)), function, "k", OUTPUT)
        store.append(rows([1]))
        store.append(rows([2]))
        damage(next(tmp_path.glob(f"rows/{function}/k/*.parquet")), how)
    assert RowStore(store.storage, "f", "k", OUTPUT).read().num_rows == 1
    assert caplog.text.count("holds other bytes than were written: what it held is made again") == 1
    with pytest.raises(Damaged, match=r"^rows/fetch_page/k/\S+ is damaged: .* put it back from a copy"):
        store.read()


def test_rows_whose_pack_is_gone_are_absent_unless_they_were_fetched(tmp_path: Path) -> None:
    for function in ("f", "fetch_page"):
        store = RowStore(Storage(str(tmp_path)), function, "k", OUTPUT)
        store.append(rows([1, 3]))  # 3 has no body
        store.append(rows([2]))
        damage(tmp_path / store.read(KeyRange(1 << 24, 1 << 24)).column("body")[0]["pack"].as_py(), "gone")
    assert RowStore(store.storage, "f", "k", OUTPUT).read().column("n").to_pylist() == [2, 3]
    with pytest.raises(Damaged, match=r"\.pack is damaged: it is missing: it holds what was fetched"):
        store.read()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=30)), max_size=8), st.data())
def test_packed_values_come_back_or_are_damaged(values: list[bytes | None], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        locators = pa.array(write_pack(storage, "rows/f/k", values), LOCATOR)
        assert read_packed(storage, locators) == values
        whole = b"".join(value or b"" for value in values)
        if whole:
            (name,) = storage.walk("rows")
            place = data.draw(st.integers(0, len(whole) - 1))
            changed = whole[:place] + bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[place + 1 :]
            for bad in (changed, whole[:place]):
                storage.write(name, bad)
                with pytest.raises(Damaged, match=f"{name} is damaged: .* delete it and the folders records"):
                    read_packed(storage, locators)


def test_files_of_earlier_releases_are_read(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "fetch_page", "k", OUTPUT)
    stored = store.append(rows([1, 2]))
    (name,) = (each for each in storage.walk("rows") if each.endswith(".parquet"))
    storage.delete(name)
    place = stored.schema.get_field_index("body")
    old = stored.set_column(place, "body", stored.column("body").cast(pa.struct(list(LOCATOR)[:3])))
    data = parquet_bytes(old)
    storage.write(f"{store.folder}/{WHOLE.label}-{xxhash.xxh3_128_hexdigest(data)}.parquet", data)
    assert read_packed(storage, store.read().column("body")) == [b"body 1", b"body 2"]
