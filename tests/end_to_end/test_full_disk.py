"""A disk that is full: one clear line, and the same command goes on when there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.builds import build, shards

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_build_and_room_lets_it_go_on(built: Path, spec: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    said = build(spec, out).failed(1)
    assert f"no space left for {out}/" in said and "free space and run again" in said
    assert not (out / "latest").exists() and not list(out.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    build(spec, out).check()
    assert shards(out) == shards(built)
