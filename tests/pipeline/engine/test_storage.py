"""Storage: whole objects, ranges, full disks."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

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
