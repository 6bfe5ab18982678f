"""Row stores: append, read by key range, survive torn files and repeated writes."""

from __future__ import annotations

import json
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine import row_store
from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import WHOLE, KeyRange
from pipeline.engine.packs import read_packed, write_pack
from pipeline.engine.row_store import LINK, RowStore, parquet_bytes, superseded
from pipeline.engine.storage import Storage, StorageError
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
        damage(next(tmp_path.glob(f"rows/{function}/k/*/*.parquet")), how)
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


@pytest.mark.slow
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


def of_an_earlier_release(store: RowStore, stored: pa.Table) -> None:
    """Write rows, as the store returned them, as it did before: in its folder, their locators without a hash."""
    place = stored.schema.get_field_index("body")
    old = stored.set_column(place, "body", stored.column("body").cast(pa.struct(list(LOCATOR)[:3])))
    data = parquet_bytes(old)
    store.storage.write(f"{store.folder}/{WHOLE.label}-{xxhash.xxh3_128_hexdigest(data)}.parquet", data)


def test_files_of_earlier_releases_are_read(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "fetch_page", "k", OUTPUT)
    table = rows([1, 2])
    locators = write_pack(storage, store.folder, table.column("body").to_pylist())
    of_an_earlier_release(store, table.set_column(3, "body", pa.array(locators, LOCATOR)))
    before = storage.walk("rows")
    assert said(store) == [(1, 0, b"body 1"), (2, 0, b"body 2")]
    # They count as compacted: what comes later lies beside them, and they stay.
    store.append(rows([2], generation=1))
    assert [row[:2] for row in said(store)] == [(1, 0), (2, 1)]
    store.compact()
    assert [row[:2] for row in said(store)] == [(1, 0), (2, 1)] and set(before) < set(storage.walk("rows"))


def said(store: RowStore, within: KeyRange = WHOLE) -> list[tuple[int, int, bytes | None]]:
    """(n, generation, body) of the rows of a range."""
    table = store.read(within)
    bodies = read_packed(store.storage, table.column("body"))
    return list(zip(table.column("n").to_pylist(), table.column("generation").to_pylist(), bodies, strict=True))


def loose(storage: Storage) -> list[str]:
    return [name for name in storage.walk("rows") if ".loose." in name]


def test_compaction_leaves_one_file_and_its_packs_which_never_change(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "f", "k", OUTPUT)
    for numbers in ([5, 1], [2, 250], [4]):
        store.append(rows(numbers))
    before = said(store)
    assert len(loose(storage)) == 6
    compacted = store.compact()
    assert compacted.equals(store.read()) and said(store) == before
    assert all(".loose." not in each["pack"] for each in compacted.column("body").to_pylist() if each)
    files = storage.walk("rows")
    assert len(files) == 2 and not loose(storage)
    # More rows, some of them again: what tables may point to is still where it was.
    store.append(rows([1, 7]))
    store.compact()
    assert set(files) < set(storage.walk("rows")) and read_packed(storage, compacted.column("body"))
    assert [n for n, _, _ in said(store)] == [1, 2, 4, 5, 7, 250]
    again = storage.walk("rows")
    store.compact()
    assert storage.walk("rows") == again


def test_rows_that_are_all_there_is_go_straight_to_where_they_stay(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "f", "k", OUTPUT)
    assert store.compact(rows=rows([3, 1])).column("n").to_pylist() == [1, 3]
    assert len(storage.walk("rows")) == 2 and not loose(storage)


def test_many_rows_lie_in_folders_of_their_keys_and_few_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "FOLDER_ROWS", 2)
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "f", "k", OUTPUT)
    twice = rows([1, 1, 2, 2])
    keys = [f"{key[:8]}{place:024x}" for place, key in enumerate(twice.column("row_key").to_pylist())]
    store.append(twice.set_column(0, "row_key", pa.array(keys)))
    store.append(rows([3, 4]))
    assert storage.names(store.folder) == ["01", "02", "all"]
    asked: list[str] = []
    monkeypatch.setattr(Storage, "sizes", lambda self, folder: asked.append(folder) or SIZES(self, folder))
    assert [n for n, _, _ in said(store, KeyRange(2 << 24, (3 << 24) - 1))] == [2, 2]
    assert asked == ["rows/f/k", "rows/f/k/02", "rows/f/k/all"]
    store.compact()
    assert [n for n, _, _ in said(store)] == [1, 1, 2, 2, 3, 4] and storage.names(store.folder) == ["01", "02", "all"]


SIZES = Storage.sizes


def test_values_are_cut_into_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "PACK_BYTES", 13)
    store = RowStore(Storage(str(tmp_path)), "f", "k", OUTPUT)
    store.append(rows([1, 2, 3, 4, 5]))  # bodies of 6 bytes, and none for 3
    store.compact()
    packs = {path.stat().st_size for path in tmp_path.rglob("*.pack")}
    assert packs == {12} and len(list(tmp_path.rglob("*.pack"))) == 2
    assert [body for _, _, body in said(store)] == [b"body 1", b"body 2", None, b"body 4", b"body 5"]


def test_of_equal_generations_the_same_row_holds_whatever_came_first(tmp_path: Path) -> None:
    found = []
    for turn, order in enumerate(([10, 20], [20, 10])):
        store = RowStore(Storage(str(tmp_path / str(turn))), "f", "k", OUTPUT)
        for number in order:
            store.append(rows([1]).set_column(2, "n", pa.array([number], pa.int64())))
            if turn:
                store.compact()
        found.append(said(store))
        store.compact()
        assert said(store) == found[-1]
    assert found[0] == found[1] and len(found[0]) == 1


def test_a_large_file_is_read_in_part_and_checked_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(row_store, "WHOLE_FILE_BYTES", 0)
    monkeypatch.setattr(row_store, "GROUP_ROWS", 4)
    storage = Storage(str(tmp_path))
    output = pa.schema([*OUTPUT, pa.field("error", pa.string())])

    def store() -> RowStore:
        return RowStore(storage, "f", "k", output)

    numbers = list(range(1, 200))
    noise = [format(random.Random(n).getrandbits(30_000), "x") for n in numbers]
    store().compact(rows=rows(numbers).append_column("error", pa.array(noise)))
    (path,) = tmp_path.rglob("*.parquet")
    read: list[int] = []
    monkeypatch.setattr(
        Storage, "read_ranges", lambda self, ranges: read.extend(each[2] for each in ranges) or RANGES(self, ranges)
    )
    wanted = [rows([n]).column("row_key")[0].as_py() for n in (5, 50)]
    found = store().read(wanted=wanted)
    assert found.column("n").to_pylist() == [5, 50] and found.column("error").to_pylist() == [noise[4], noise[49]]
    assert 0 < sum(read) < path.stat().st_size / 3
    assert store().keys(KeyRange(0, (9 << 24) - 1)).column("row_key").to_pylist() == [
        rows([n]).column("row_key")[0].as_py() for n in range(1, 9)
    ]
    # A bit of a page, then one of the footer.
    data = bytearray(path.read_bytes())
    for place in (len(data) // 2, len(data) - 20):
        bad = data.copy()
        bad[place] ^= 1
        path.write_bytes(bad)
        assert store().read().num_rows == 0
        assert caplog.text.count("holds other bytes than were written: what it held is made again") == 1
        caplog.clear()
    path.unlink()
    assert store().read().num_rows == 0


RANGES = Storage.read_ranges


class Killed(BaseException):
    """The end of a process, as far as a store can tell."""


class Dying(Storage):
    """A storage whose process is killed before its n-th put or delete, or after it."""

    def __init__(self, url: str, steps: int, after: bool = False) -> None:
        super().__init__(url)
        self.steps = steps
        self.after = after

    def _step(self, change: Callable[[], None]) -> None:
        if self.steps == 0 and not self.after:
            raise Killed
        change()
        if self.steps == 0:
            raise Killed
        self.steps -= 1

    def write(self, name: str, data: bytes) -> None:
        self._step(lambda: Storage.write(self, name, data))

    def delete(self, name: str) -> None:
        self._step(lambda: Storage.delete(self, name))


@pytest.mark.slow
@pytest.mark.parametrize("function", ["f", "fetch_page"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_of_a_compaction_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, function: str, after: bool
) -> None:
    steps = 0
    while True:
        url = str(tmp_path / str(steps))
        whole = Storage(url)
        store = RowStore(whole, function, "k", OUTPUT)
        for numbers in ([1, 2, 3], [4, 5], [2, 200]):
            store.append(rows(numbers))
        store.append(rows([5], generation=1))
        before = said(store)
        dying = Dying(url, steps, after)
        try:
            RowStore(dying, function, "k", OUTPUT).compact(rows=rows([8]))
        except Killed:
            pass
        else:
            break
        found = said(RowStore(whole, function, "k", OUTPUT))
        assert [row for row in found if row[0] != 8] == before
        # What is left over goes with the next compaction, and nothing else does.
        after_all = RowStore(whole, function, "k", OUTPUT).compact(rows=rows([8]))
        assert said(RowStore(whole, function, "k", OUTPUT)) == sorted([*before, (8, 0, b"body 8")])
        assert all(".loose." not in each["pack"] for each in after_all.column("body").to_pylist() if each)
        assert not [name for name in loose(whole) if name.endswith(".parquet")]
        steps += 1
    assert steps >= 10 and not caplog.text


def test_what_was_fetched_is_read_back_before_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "fetch_page", "k", OUTPUT)
    store.append(rows([1, 2]))
    store.append(rows([4]))
    before = said(store)
    write = Storage.write

    def torn(self: Storage, name: str, data: bytes) -> None:
        write(self, name, data[:-1] if name.endswith(".pack") else data)

    monkeypatch.setattr(Storage, "write", torn)
    with pytest.raises(StorageError, match="returned other bytes of rows/fetch_page"):
        RowStore(storage, "fetch_page", "k", OUTPUT).compact()
    monkeypatch.setattr(Storage, "write", write)
    assert len(loose(storage)) == 4
    RowStore(storage, "fetch_page", "k", OUTPUT).compact()
    assert said(RowStore(storage, "fetch_page", "k", OUTPUT)) == before and not loose(storage)


def test_a_damaged_value_is_found_out_when_it_is_compacted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for function in ("f", "fetch_page"):
        store = RowStore(Storage(str(tmp_path)), function, "k", OUTPUT)
        store.append(rows([1]))
        store.append(rows([2]))
        damage(tmp_path / store.read(KeyRange(1 << 24, 1 << 24)).column("body")[0]["pack"].as_py(), "bit")
    assert RowStore(store.storage, "f", "k", OUTPUT).compact().column("n").to_pylist() == [2]
    assert caplog.text.count("is missing: what it held is made again") == 1
    with pytest.raises(Damaged, match=r"\.pack is damaged: it holds other bytes than were written: it holds what was"):
        RowStore(store.storage, "fetch_page", "k", OUTPUT).compact()


def test_a_file_that_reaches_beyond_the_range_stays_for_the_others(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "fetch_page", "k", OUTPUT)
    store.append(rows([1, 100, 200]))
    before = said(store)
    halves = [KeyRange(0, (1 << 31) - 1), KeyRange(1 << 31, WHOLE.last)]
    store.compact(halves[0])
    assert said(store) == before and len(loose(storage)) == 2 and superseded(storage, store.folder) == []
    found = store.compact(halves[1])
    assert found.column("n").to_pylist() == [200] and said(store) == before
    for name in superseded(storage, store.folder):
        storage.delete(name)
    assert said(store) == before and not loose(storage)


def test_rows_of_a_linked_store_are_taken_over_and_stay_there(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    old = RowStore(storage, "f", "old", OUTPUT)
    old.append(rows([1, 2]))
    before = storage.walk("rows")
    new = RowStore(storage, "f", "new", OUTPUT)
    storage.write(f"{new.folder}/{LINK}", json.dumps({"of": "old"}).encode())
    found = new.compact(rows=rows([4]))
    assert found.column("n").to_pylist() == [1, 2, 4] and set(before) < set(storage.walk("rows"))
    assert all(each["pack"].startswith("rows/f/new/") for each in found.column("body").to_pylist() if each)
    assert said(old) == said(RowStore(storage, "f", "old", OUTPUT)) == said(new)[:2]


@pytest.mark.slow
def test_two_read_while_others_compact(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ended = threading.Event()
    failures: list[BaseException] = []
    wanted = [(n, 0, None if n % 3 == 0 else f"body {n}".encode()) for n in range(8)]

    def reader() -> None:
        store = RowStore(storage, "fetch_page", "k", OUTPUT)
        try:
            while not ended.is_set():
                assert store.read().column("n").to_pylist() == list(range(8))
                assert store.keys().num_rows == 8
        except BaseException as error:
            failures.append(error)

    for n in range(8):
        RowStore(storage, "fetch_page", "k", OUTPUT).append(rows([n]))
    readers = [threading.Thread(target=reader) for _ in range(2)]
    for each in readers:
        each.start()
    try:
        for _ in range(3):
            ranges = [WHOLE, KeyRange(0, (4 << 24) - 1)]
            others = [
                threading.Thread(target=RowStore(storage, "fetch_page", "k", OUTPUT).compact, args=[r]) for r in ranges
            ]
            for thread in others:
                thread.start()
            for thread in others:
                thread.join()
            for n in range(8):
                RowStore(storage, "fetch_page", "k", OUTPUT).append(rows([n]))
    finally:
        ended.set()
        for each in readers:
            each.join()
    assert not failures, failures
    RowStore(storage, "fetch_page", "k", OUTPUT).compact()
    assert said(RowStore(storage, "fetch_page", "k", OUTPUT)) == wanted and not loose(storage)
