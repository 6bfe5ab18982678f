"""ARC files, the format before WARC: version 1 and 2 of the Internet Archive's, plain or one gzip member a record.

A record is a line (URL, IP address, date, media type, in version 2 five fields more, length) and as many bytes, of
which an HTTP answer is all; the first one describes the file (archive.org/web/researcher/ArcFileFormat.php).
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

_MAGIC = b"\x1f\x8b\x08"
_FIRST = b"filedesc://"
_STEP = 1 << 16
_MAX_LINE = 1 << 14
# URLs and media types may hold blanks in what careless writers left.
_LINE = re.compile(
    rb"([a-z][a-z0-9+.-]*:[^\r\n]{1,8192}?) ([0-9a-f.:]{2,45}|-) ([0-9]{8,17}) ([^\r\n]{0,512}?) ?([0-9]{1,12})\r?\n",
    re.IGNORECASE,
)
_AFTER_LINE = re.compile(rb"\n(?=(" + _LINE.pattern + rb"))", re.IGNORECASE)


@dataclass(frozen=True)
class ArcRecord:
    """One archived answer."""

    offset: int  # in the file as stored, bytes
    end: int  # there too; the offset where the record cannot be read singly
    url: bytes
    date: str  # ISO 8601, UTC
    length: int  # of the answer, as announced
    block: bytes  # the answer, up to the cap

    def as_warc(self) -> bytes:
        """The answer as a WARC record, of its announced length."""
        lines = (
            b"WARC/1.0",
            b"WARC-Type: response",
            b"WARC-Target-URI: " + self.url,
            b"WARC-Date: " + self.date.encode(),
            b"Content-Type: application/http; msgtype=response",
            b"Content-Length: " + str(self.length).encode(),
        )
        return b"\r\n".join((*lines, b"", self.block))


@dataclass(frozen=True)
class ArcGap:
    """A stretch that is no record, or the end of one that was cut off."""

    offset: int
    end: int
    detail: str


def is_arc(stream: BinaryIO) -> bool:
    """Whether a seekable stream begins as an ARC file does."""
    stream.seek(0)
    start = stream.read(512)
    if start.startswith(_MAGIC):
        try:
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, 64)
        except zlib.error:
            return False
    return start.startswith(_FIRST)


def arc_records(stream: BinaryIO, max_bytes: int) -> Iterator[ArcRecord | ArcGap]:
    """Records of an ARC file in its order, without the ones that describe files, and the gaps between them.

    `max_bytes`: of an answer that is held; of longer ones as much comes, to be read no further.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    packed = stream.read(3) == _MAGIC
    position: int | None = 0
    while position is not None and position < size:
        source: _Plain | _Member = _Member(stream, position) if packed else _Plain(stream, position, size)
        try:
            yield from _records(source, max_bytes)
            if packed:
                position = source.end()
                continue
            return
        except _Broken as broken:
            following = _next_record(stream, max(broken.offset, position + 1), packed)
            if not broken.told:
                yield ArcGap(broken.offset, following or size, str(broken))
            position = following


class _Broken(Exception):
    """Nothing can be read at an offset; `told`: the record before says so by itself."""

    def __init__(self, offset: int, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.offset = offset
        self.told = told


def _records(source: _Plain | _Member, max_bytes: int) -> Iterator[ArcRecord]:
    """Records of a plain file's rest, or of a gzip member."""
    waiting: ArcRecord | None = None
    count = 0
    while True:
        offset, line = source.line()
        if waiting is not None:
            yield source.placed(waiting, alone=count == 1 and not line)
            waiting = None
        if not line:
            return
        said = _LINE.fullmatch(line)
        date = None if said is None else _date(said[3].decode())
        if said is None or date is None:
            raise _Broken(offset, "no ARC record begins here")
        count += 1
        length = int(said[5])
        block = source.take(min(length, max_bytes))
        missing = length - len(block) - source.skip(length - len(block))
        record = ArcRecord(offset, source.at, said[1], date, length, block)
        about_file = said[1].startswith(_FIRST)
        if missing and about_file:
            raise _Broken(offset, "the record about the file ends before its length")
        if missing:
            yield replace(record, end=offset)
            raise _Broken(offset + 1, "the record ends before its length", told=True)
        if not about_file:
            waiting = record


def _date(digits: str) -> str | None:
    """A date of 8 to 17 digits, as ISO 8601 to the second."""
    digits = (digits + "000000")[:14]
    year, month, day, hour, minute, second = (digits[:4], *(digits[at : at + 2] for at in range(4, 14, 2)))
    if not ("01" <= month <= "12" and "01" <= day <= "31" and hour < "24" and minute < "60" and second < "60"):
        return None
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"


class _Plain:
    """A file that is read on from an offset."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        stream.seek(offset)
        self._stream = stream
        self._size = size
        self.at = offset

    def line(self) -> tuple[int, bytes]:
        """The next line that is not empty, and its offset; nothing at the end."""
        while True:
            offset = self.at
            line = self._stream.readline(_MAX_LINE)
            self.at += len(line)
            if not line or line.strip(b"\r\n"):
                return offset, line

    def take(self, num_bytes: int) -> bytes:
        """As many bytes as there are, up to a number."""
        found = self._stream.read(num_bytes)
        self.at += len(found)
        return found

    def skip(self, num_bytes: int) -> int:
        """Pass over bytes; how many there were."""
        there = min(num_bytes, self._size - self.at)
        self.at += there
        self._stream.seek(self.at)
        return there

    def placed(self, record: ArcRecord, *, alone: bool) -> ArcRecord:
        """The record with its place: every one of a plain file can be read singly."""
        return record

    def end(self) -> int:
        """Where it has been read to."""
        return self.at


class _Member:
    """A gzip member that is read from its start."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        stream.seek(offset)
        self._stream = stream
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._held = b""
        self._offset = offset
        self._next = offset  # of what the stream gives next
        self.at = offset

    def _more(self) -> bool:
        """Decode a step; whether there was one."""
        if self._decoder.eof:
            return False
        piece = self._decoder.unconsumed_tail
        if not piece:
            piece = self._stream.read(_STEP)
            self._next += len(piece)
        try:
            step = self._decoder.decompress(piece, _STEP)
        except zlib.error as error:
            raise _Broken(self._offset, f"damaged gzip member: {error}") from None
        if not step and not piece:
            raise _Broken(self._offset, "the gzip member is cut short")
        self._held += step
        return True

    def line(self) -> tuple[int, bytes]:
        """As of a plain file; the offset is the member's."""
        while True:
            while b"\n" not in self._held and len(self._held) < _MAX_LINE and self._more():
                pass
            line, mark, _ = self._held.partition(b"\n")
            line = (line + mark)[:_MAX_LINE]
            self._held = self._held[len(line) :]
            if not line or line.strip(b"\r\n"):
                return self._offset, line

    def take(self, num_bytes: int) -> bytes:
        """As of a plain file."""
        found = bytearray()
        while len(found) < num_bytes:
            if not self._held and not self._more():
                break
            piece = self._held[: num_bytes - len(found)]
            self._held = self._held[len(piece) :]
            found += piece
        return bytes(found)

    def skip(self, num_bytes: int) -> int:
        """As of a plain file."""
        there = 0
        while there < num_bytes and (found := len(self.take(min(_STEP, num_bytes - there)))):
            there += found
        return there

    def placed(self, record: ArcRecord, *, alone: bool) -> ArcRecord:
        """The record with its place, if it has one of its own: the member is all it is."""
        return replace(record, offset=self._offset, end=self.end() if alone else self._offset)

    def end(self) -> int:
        """Offset after the member, which has been read to its end."""
        return self._next - len(self._decoder.unused_data)


def _next_record(stream: BinaryIO, position: int, packed: bool) -> int | None:
    """Offset of the first record at or after a position: a line as they begin with, or a member that decodes to one."""
    overlap = b""
    while True:
        stream.seek(position)
        block = stream.read(_STEP)
        if not block:
            return None
        joined = overlap + block
        first = position - len(overlap)
        at = 0
        while True:
            if packed:
                at = joined.find(_MAGIC, at)
            else:
                found = _AFTER_LINE.search(joined, at)
                at = -1 if found is None else found.start(1)
            if at < 0:
                break
            if not packed or _begins_record(stream, first + at):
                return first + at
            at += 1
        keep = len(_MAGIC) - 1 if packed else _MAX_LINE
        overlap = joined[-keep:]
        position += len(block)


def _begins_record(stream: BinaryIO, offset: int) -> bool:
    stream.seek(offset)
    try:
        start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(stream.read(_MAX_LINE), _MAX_LINE)
    except zlib.error:
        return False
    return _LINE.match(start.lstrip(b"\r\n")) is not None
