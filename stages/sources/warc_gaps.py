"""Damage in WARC files: where the last good record ends and where the next one begins."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal

_STEP = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b\x08"
_OTHER_MAGICS = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x5d\x2a\x4d\x18")  # lz4, zstd
_VERSION = b"WARC/"
_MAX_HEADER = 1 << 16  # bytes; fastwarc's own limit is half of it
_PADDING = b"\0\r\n\t "


class Damaged(Exception):
    """Bytes that fastwarc cannot read; the message is its own."""


@contextmanager
def reading() -> Iterator[None]:
    """Turns what fastwarc raises on damaged input into Damaged: OSError, and panics of its Rust code."""
    try:
        yield
    except BaseException as error:
        # the panic's class is made at run time, derives from BaseException and cannot be imported
        if isinstance(error, OSError) or type(error).__name__ == "PanicException":
            raise Damaged(str(error)) from None
        raise


def next_record(stream: BinaryIO, position: int) -> int | None:
    """Offset of the first record at or after `position`, or null: a version line at a line's start, or a gzip
    member that decodes to one. Other compressions have no mark to look for.
    """
    form = _form(stream)
    if form == "other":
        return None
    mark = _GZIP_MAGIC if form == "gzip" else _VERSION
    overlap = b""
    while True:
        stream.seek(position)
        block = stream.read(_STEP)
        if not block:
            return None
        found = (overlap + block).find(mark)
        if found < 0:
            overlap = (overlap + block)[1 - len(mark) :]
            position += len(block)
            continue
        candidate = position - len(overlap) + found
        if _begins_record(stream, candidate):
            return candidate
        position, overlap = candidate + 1, b""


def record_end(stream: BinaryIO, offset: int) -> int | None:
    """Offset after the record at `offset` by its own account, or null where it gives none."""
    form = _form(stream)
    if form == "other":
        return None
    return _member_end(stream, offset) if form == "gzip" else _plain_end(stream, offset)


def is_padding(stream: BinaryIO, start: int, end: int) -> bool:
    """Whether nothing but line ends, blanks and zeros lies between two offsets."""
    stream.seek(start)
    while start < end:
        block = stream.read(min(_STEP, end - start))
        if not block:
            return True
        if block.strip(_PADDING):
            return False
        start += len(block)
    return True


def _form(stream: BinaryIO) -> Literal["plain", "gzip", "other"]:
    stream.seek(0)
    start = stream.read(4)
    if start.startswith(_GZIP_MAGIC):
        return "gzip"
    return "other" if start in _OTHER_MAGICS else "plain"


def _begins_record(stream: BinaryIO, offset: int) -> bool:
    stream.seek(max(0, offset - 1))
    before = stream.read(1) if offset else b"\n"
    start = stream.read(512)
    if start.startswith(_VERSION):
        return before == b"\n"
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, 64).startswith(_VERSION)
    except zlib.error:
        return False


def _member_end(stream: BinaryIO, offset: int) -> int | None:
    stream.seek(offset)
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    piece = b""
    try:
        while not decoder.eof:
            piece = decoder.unconsumed_tail or stream.read(_STEP)
            if not piece:
                return None
            decoder.decompress(piece, _STEP)
    except zlib.error:
        return None
    return stream.tell() - len(decoder.unused_data)


def _plain_end(stream: BinaryIO, offset: int) -> int | None:
    stream.seek(offset)
    header = stream.read(_MAX_HEADER)
    blank = re.search(rb"\r?\n\r?\n", header)
    if blank is None:
        return None
    length = re.search(rb"^content-length:[ \t]*([0-9]{1,15})[ \t]*\r?$", header[: blank.start()], re.I | re.M)
    end = None if length is None else offset + blank.end() + int(length[1])
    if end is None:
        return None
    stream.seek(end)
    return end if stream.read(1) else None
