"""Storage: whole objects by path under one root, on a local disk or any fsspec URL with read-after-write.

Objects are written in one piece and never changed afterwards. A local write goes through a temporary name and is
forced to the disk before it gets its own, so neither a killed process nor a power cut leaves a half file under a final
name; object stores put whole objects anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from pipeline.engine.damage import damaged

# How the name of a local object ends while it is being written, and after its writer was killed.
HALF_WRITTEN = ".tmp"
# Seconds to wait before each further try at ranges that an object store did not give.
RANGE_RETRY_SECONDS = (0.5, 2.0)
# Bytes between two ranges of one object that are rather read too than asked for apart, and most of one request.
RANGE_GAP_BYTES = 65_536
RANGE_BYTES = 16_000_000


class StorageFull(OSError):
    """No space left under the root; what was committed before is intact."""


class StorageError(OSError):
    """The root cannot be used: wrong URL, missing protocol package, no permission, another build at work in it."""


def is_local(url: str) -> bool:
    """True for plain paths and file:// URLs."""
    return "://" not in url or url.startswith("file://")


class Storage:
    """Objects by relative path ("tables/pages/…") under `url`; cheap to pickle, one filesystem per process."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if url != "/" else url
        self.local = is_local(url)
        if self.local:
            self._base = str(Path(url.removeprefix("file://")).absolute())
            self._fs: Any = None
        else:
            self._connect()

    def _connect(self) -> None:
        try:
            # No listing cache: another process writes while this one lists.
            self._fs, self._base = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            self._s3 = self.url.startswith(("s3://", "s3a://"))
        except Exception as error:  # each filesystem has its own errors for a URL that it does not take
            raise StorageError(f"cannot open {self.url}: {said(error)}") from None

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]  # rebuilt in the worker: filesystems hold sockets

    def __str__(self) -> str:
        return self.url

    def path(self, name: str) -> str:
        """Absolute path of an object, for messages and for readers that take paths."""
        return f"{self._base}/{name}"

    def read(self, name: str) -> bytes:
        """The object's bytes; FileNotFoundError when it is not there, StorageError when an object store fails."""
        if self.local:
            return Path(self.path(name)).read_bytes()
        try:
            # s3fs would ask for the size first, to read a large object in parts at once.
            return bytes(self._fs.cat_file(self.path(name), **({"max_concurrency": 1} if self._s3 else {})))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception as error:  # as in `_connect`
            raise StorageError(f"cannot read {self.url}: {said(error)} (asked for {name})") from None

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes of (name, offset, length) ranges, in order; one open per local object, parallel requests elsewhere, and
        one request for ranges of an object that lie close to each other.

        Damaged when an object is missing or ends before its range does; StorageError when an object store gives no
        answer after some tries.
        """
        found = self._local_ranges(ranges) if self.local else self._remote_ranges(ranges)
        for (name, offset, length), data in zip(ranges, found, strict=True):
            if len(data) != length:
                raise damaged(name, f"is cut short: bytes {offset} to {offset + length} are not all there")
        return found

    def _local_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        found: list[bytes] = [b""] * len(ranges)
        by_name: dict[str, list[int]] = {}
        for index, (name, _, _) in enumerate(ranges):
            by_name.setdefault(name, []).append(index)
        for name, indices in by_name.items():
            try:
                with open(self.path(name), "rb") as file:
                    for index in indices:
                        _, offset, length = ranges[index]
                        file.seek(offset)
                        found[index] = file.read(length)
            except FileNotFoundError:
                raise damaged(name, "is missing") from None
        return found

    def _remote_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        found: list[bytes] = [b""] * len(ranges)
        blocks = _blocks(ranges)
        for block, data in zip(blocks, self._requested([block.range for block in blocks]), strict=True):
            _, first, _ = block.range
            for index in block.members:
                _, offset, length = ranges[index]
                found[index] = data[offset - first : offset - first + length]
        return found

    def _requested(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """As many requests at once as the filesystem makes; those that fail are asked again, alone."""
        found: list[bytes] = [b""] * len(ranges)
        waiting = list(range(len(ranges)))
        failure: Exception | None = None
        for pause in (*RANGE_RETRY_SECONDS, None):
            paths = [self.path(ranges[index][0]) for index in waiting]
            starts = [ranges[index][1] for index in waiting]
            ends = [ranges[index][1] + ranges[index][2] for index in waiting]
            failed: list[int] = []
            answers = self._fs.cat_ranges(paths, starts, ends, on_error="return") if waiting else []
            for index, answer in zip(waiting, answers, strict=True):
                if isinstance(answer, FileNotFoundError):
                    raise damaged(ranges[index][0], "is missing")
                if isinstance(answer, Exception):
                    failure = answer
                    failed.append(index)
                else:
                    found[index] = bytes(answer)
            waiting = failed
            if not waiting:
                return found
            if pause is not None:
                time.sleep(pause)
        raise StorageError(f"cannot read {self.url}/{ranges[waiting[0]][0]}: {said(failure or OSError())}")

    def write(self, name: str, data: bytes) -> None:
        """Put the whole object; StorageFull when there is no space, StorageError when an object store fails."""
        path = self.path(name)
        if not self.local:
            try:
                self._fs.pipe_file(path, data)
            except Exception as error:  # as in `_connect`
                raise StorageError(f"cannot write to {self.url}: {said(error)} (it was {name})") from None
            return
        temporary = f"{path}.{uuid.uuid4().hex[:8]}{HALF_WRITTEN}"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(
                    error.errno,
                    f"no space left for {path}; all that was committed before is intact: free space and run again",
                ) from None
            raise

    def exists(self, name: str) -> bool:
        return os.path.exists(self.path(name)) if self.local else bool(self._fs.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of the object."""
        return os.path.getsize(self.path(name)) if self.local else int(self._fs.size(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """Names (last path component) of objects and folders directly under `folder`, sorted; [] when absent."""
        if self.local:
            try:
                return sorted(name for name in os.listdir(self.path(folder)) if not name.endswith(HALF_WRITTEN))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the objects directly under `folder`, by name, and 0 for a folder there; {} when absent."""
        path = self.path(folder)
        if self.local:
            try:
                with os.scandir(path) as found:
                    return {
                        each.name: each.stat().st_size if each.is_file() else 0
                        for each in found
                        if not each.name.endswith(HALF_WRITTEN)
                    }
            except (FileNotFoundError, NotADirectoryError):
                return {}
        try:
            listed = self._listed(path)
        except FileNotFoundError:
            return {}
        names = ((str(each["name"]).rstrip("/"), each) for each in listed)
        return {name.rpartition("/")[2]: int(each.get("size") or 0) for name, each in names if name != path}

    def _listed(self, path: str) -> list[dict[str, Any]]:
        parent, _, name = path.rpartition("/")
        if self._s3 and parent:
            # Its `ls` of a folder that is not there lists the folder around it too.
            found = self._fs.find(parent, prefix=f"{name}/", maxdepth=1, withdirs=True, detail=True)
            return list(found.values())
        return list(self._fs.ls(path, detail=True))

    def walk(self, folder: str) -> list[str]:
        """Every object under `folder`, as paths relative to the root, sorted."""
        base = self.path(folder)
        if self.local:
            root = Path(self._base)
            return sorted(str(each.relative_to(root)) for each in Path(base).rglob("*") if each.is_file())
        try:
            found = self._fs.find(base)
        except FileNotFoundError:
            return []
        return sorted(str(each)[len(self._base) + 1 :] for each in found)

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens when it is absent."""
        if self.local:
            Path(self.path(name)).unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self.path(name))

    def ask(self, name: str) -> None:
        """Check that the root answers whether an object is there; StorageError with the reason when it does not."""
        try:
            self.read(name)
        except (FileNotFoundError, IsADirectoryError):
            return
        except StorageError:
            raise
        except Exception as error:  # as in `_connect`
            raise StorageError(f"cannot read {self.url}: {said(error)}") from None

    def prune(self, folder: str) -> None:
        """Remove the empty folders below one; object stores have none."""
        if self.local:
            for parent, _, _ in os.walk(self.path(folder), topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(parent)

    def probe(self) -> None:
        """Check that the root can be written and read; StorageError with the reason when not."""
        name = f".probe-{uuid.uuid4().hex[:12]}"
        try:
            self.write(name, b"ok")
            if self.read(name) != b"ok":
                raise StorageError(f"{self.url} returned other bytes than were written")
            self.delete(name)
        except (StorageError, StorageFull):
            raise
        except Exception as error:
            raise StorageError(f"cannot write to {self.url}: {said(error)}") from None


@dataclass
class _Block:
    """One request: its range, and which of the ranges asked for lie in it."""

    range: tuple[str, int, int]
    members: list[int]


def _blocks(ranges: Sequence[tuple[str, int, int]]) -> list[_Block]:
    """Ranges of an object that lie close to each other in one block; none for empty ranges."""
    blocks: list[_Block] = []
    for index in sorted(range(len(ranges)), key=lambda each: ranges[each]):
        name, offset, length = ranges[index]
        if not length:
            continue
        if blocks and blocks[-1].range[0] == name:
            _, first, covered = blocks[-1].range
            whole = max(first + covered, offset + length) - first
            if offset <= first + covered + RANGE_GAP_BYTES and whole <= RANGE_BYTES:
                blocks[-1].range = name, first, whole
                blocks[-1].members.append(index)
                continue
        blocks.append(_Block((name, offset, length), [index]))
    return blocks


def _sync_folder(path: str) -> None:
    """Force a folder's names to the disk, where the system lets a folder be opened."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no such thing, and need none
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def said(error: Exception) -> str:
    """An error's message, or its name where it has none, as one line."""
    return " ".join(str(error).split()) or type(error).__name__
