"""Storage: whole objects, ranges, full disks."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.engine.damage import Damaged
from pipeline.engine.storage import Storage, StorageError, StorageFull


def test_objects_ranges_and_listings(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "corpus"))
    assert storage.names("a") == [] and storage.walk("a") == []
    storage.write("a/one.bin", b"0123456789")
    storage.write("a/two/three.bin", b"abc")
    assert storage.names("a") == ["one.bin", "two"]
    assert storage.walk("a") == ["a/one.bin", "a/two/three.bin"]
    ranges = [("a/one.bin", 2, 3), ("a/two/three.bin", 0, 3), ("a/one.bin", 0, 1)]
    assert storage.read_ranges(ranges) == [b"234", b"abc", b"0"]
    assert pickle.loads(pickle.dumps(storage)).read("a/one.bin") == b"0123456789"
    storage.delete("a/one.bin")
    storage.delete("a/one.bin")
    assert not storage.exists("a/one.bin")
    with pytest.raises(FileNotFoundError):
        storage.read("a/one.bin")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))
    storage.write("kept", b"before")

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageFull, match=r"no space left for .*/lost; all that was committed before is intact"):
        storage.write("lost", b"x" * 100)
    assert storage.names("") == ["kept"] and storage.read("kept") == b"before"
    assert not list(tmp_path.glob("*.tmp"))


def test_unknown_protocols_and_unwritable_roots_are_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open nosuch://x"):
        Storage("nosuch://x")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="cannot write to"):
        Storage(str(blocked / "corpus")).probe()


class Flaky(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """An object store in memory whose answers fail as often as `failures` says, or end early."""

    protocol = "flaky"
    failures = 0
    short = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        if Flaky.failures > 0:
            Flaky.failures -= 1
            raise ConnectionError("the peer hung up")
        data = super().cat_file(path, start, end, **more)
        return bytes(data[:-1] if Flaky.short else data)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr("pipeline.engine.storage.RANGE_RETRY_SECONDS", (0.0, 0.0))
    storage = Storage("flaky://corpus")
    storage.write("a.pack", b"0123456789")
    yield storage
    Flaky.failures, Flaky.short = 0, False
    Flaky.store.clear()


def test_a_failed_range_of_an_object_store_is_asked_again(flaky: Storage) -> None:
    ranges = [("a.pack", 2, 3), ("a.pack", 0, 1), ("a.pack", 5, 0)]
    Flaky.failures = 2  # of the one request that both make
    assert flaky.read_ranges(ranges) == [b"234", b"0", b""]
    Flaky.failures = 99
    with pytest.raises(StorageError, match=r"^cannot read flaky://corpus/a.pack: the peer hung up$"):
        flaky.read_ranges(ranges)
    with pytest.raises(StorageError, match=r"^cannot read flaky://corpus: the peer hung up \(asked for a.pack\)$"):
        flaky.read("a.pack")


def test_ranges_that_are_not_all_there_are_damage(flaky: Storage, tmp_path: Path) -> None:
    local = Storage(str(tmp_path))
    local.write("a.pack", b"0123456789")
    for storage in (local, flaky):
        for name, start, length, words in (("a.pack", 8, 3, "cut short"), ("b.pack", 0, 1, "it is missing")):
            with pytest.raises(Damaged, match=f"^{name} is damaged: .*{words}"):
                storage.read_ranges([("a.pack", 0, 2), (name, start, length)])
    Flaky.short = True
    with pytest.raises(Damaged, match="cut short"):
        flaky.read_ranges([("a.pack", 0, 2)])


def test_what_is_written_is_forced_to_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        assert (tmp_path / "a/b").exists() == (len(synced) > 1)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    Storage(str(tmp_path)).write("a/b", b"x")
    assert [Path(each).parent if each.endswith(".tmp") else Path(each) for each in synced] == [tmp_path / "a"] * 2
