"""Ranges of files that lie elsewhere: neighbours in one request, and an answer that is not what was asked for named.

A server may answer a range with the whole file (200), with an error page, or with fewer bytes. None of that says
anything of a record: it is asked again, and raised as BadRange in the end.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import fsspec

# Gaps between ranges that are read along, and what one request asks for at most, bytes.
MAX_GAP = 65_536
MAX_BYTES = 8_000_000
_AT_ONCE = 4
_RETRY_SECONDS = (1.0, 4.0, 16.0)
_TIMEOUT = 60.0
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})$")


class BadRange(OSError):
    """A file that does not answer ranges as it should; one line that names it."""


@dataclass(frozen=True)
class Range:
    """Bytes of a file: those from `offset` on."""

    file: str
    offset: int
    length: int


def read_ranges(base: str, ranges: Sequence[Range], *, retry_seconds: Sequence[float] = _RETRY_SECONDS) -> list[bytes]:
    """Bytes of the ranges, in their order; less than their length only where the file ends before.

    `base`: what the files' names are below of: a folder, or a URL that fsspec opens; http and https are read here.
    BadRange when a file is not there, or still answers otherwise after the last of the pauses.
    """
    found: list[bytes] = [b""] * len(ranges)
    blocks = coalesced(ranges)

    def ask(block: Range) -> bytes:
        return _asked(f"{base.rstrip('/')}/{block.file}", block, retry_seconds)

    with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(blocks)))) as pool:
        for (block, members), data in zip(blocks, pool.map(ask, [block for block, _ in blocks]), strict=True):
            for index in members:
                start = ranges[index].offset - block.offset
                found[index] = data[start : start + ranges[index].length]
    return found


def coalesced(ranges: Sequence[Range]) -> list[tuple[Range, list[int]]]:
    """Ranges to ask for, by file and offset, and the indices of those that each holds."""
    blocks: list[tuple[Range, list[int]]] = []
    for index in sorted(range(len(ranges)), key=lambda each: (ranges[each].file, ranges[each].offset)):
        each = ranges[index]
        if blocks:
            block, members = blocks[-1]
            end = max(block.offset + block.length, each.offset + each.length)
            near = each.file == block.file and each.offset <= block.offset + block.length + MAX_GAP
            if near and end - block.offset <= MAX_BYTES:
                blocks[-1] = Range(block.file, block.offset, end - block.offset), [*members, index]
                continue
        blocks.append((each, [index]))
    return blocks


def _asked(url: str, block: Range, retry_seconds: Sequence[float]) -> bytes:
    read = _over_http if url.startswith(("http://", "https://")) else _by_fsspec
    for pause in (*retry_seconds, None):
        try:
            return read(url, block.offset, block.length)
        except FileNotFoundError:
            raise BadRange(f"{url}: no such file") from None
        except Exception as error:  # each filesystem has its own errors; all are about this range
            if pause is None:
                said = " ".join(str(error).split()) or type(error).__name__
                raise BadRange(f"{url}: bytes {block.offset} to {block.offset + block.length}: {said}") from None
        time.sleep(pause)
    raise AssertionError


def _over_http(url: str, offset: int, length: int) -> bytes:
    last = offset + length - 1
    headers = {"Range": f"bytes={offset}-{last}", "Accept-Encoding": "identity", "User-Agent": "interloom"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as answer:
            if answer.status != 206:
                raise OSError(f"HTTP status {answer.status} where 206 was due: it does not answer ranges")
            said = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
            if said is None or said[1] is None:
                raise OSError("HTTP status 206 without a Content-Range that says which bytes, of how many")
            data: bytes = answer.read(length + 1)
    except urllib.error.HTTPError as error:
        with error:
            said = _CONTENT_RANGE.match(error.headers.get("Content-Range", ""))
            if error.code == 416 and said is not None and int(said[3]) <= offset:
                return b""  # the file ends before
            if error.code in (404, 410):
                raise FileNotFoundError(url) from None
            raise OSError(f"HTTP status {error.code}") from None
    except (urllib.error.URLError, http.client.HTTPException) as error:
        raise OSError(str(getattr(error, "reason", "") or error or type(error).__name__)) from None
    first, size = int(said[1]), int(said[3])
    due = min(length, size - offset)
    if first != offset or len(data) != due:
        raise OSError(f"{len(data)} bytes from {first} on, where {due} from {offset} on were due")
    return data


def _by_fsspec(url: str, offset: int, length: int) -> bytes:
    filesystem, path = fsspec.core.url_to_fs(url)
    size = int(filesystem.info(path)["size"])
    if offset >= size:
        return b""
    data = bytes(filesystem.cat_file(path, start=offset, end=min(size, offset + length)))
    due = min(length, size - offset)
    if len(data) != due:
        raise OSError(f"{len(data)} bytes, where {due} were due")
    return data
