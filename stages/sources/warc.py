"""WARC and ARC files: archived responses as rows, one for every capture of a page and every record that is none.

Reads what fastwarc reads: plain, gzip, lz4 and zstd, WARC 1.0 and 1.1 (ISO 28500); and ARC files, plain and gzip. A
damaged stretch is a row, and reading goes on at the next record after it (plain and gzip).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow as pa
import xxhash
from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord, WarcRecordType

from stages.sources.arc import ArcGap, arc_records, is_arc
from stages.sources.sample import Sample
from stages.sources.warc_capture import CAPTURE_TYPE, MAX_CAPTURE_BYTES, Capture
from stages.sources.warc_gaps import Damaged, is_padding, next_record, reading, record_end
from stages.web.consent.headers import HeaderConsent, header_consent
from stages.web.content_coding import BadCoding, TooLarge, dechunk, decode
from stages.web.fetched import (
    FETCHED,
    HTML_TYPES,
    Consent,
    ContentKind,
    Failed,
    Failure,
    Fetched,
    looks_like_html,
    media_type,
    one_line,
)
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize

WARC_FETCHED = (
    FETCHED.append(pa.field("page_id", pa.string(), nullable=False))
    .append(pa.field("file", pa.string(), nullable=False))
    .append(pa.field("offset", pa.int64()))  # of the record in the file as stored (compressed), bytes
    .append(pa.field("length", pa.int64()))  # of the record in the file as stored, bytes
    .append(pa.field("kind", pa.string(), nullable=False))  # page | image
)

_BATCH_BYTES = 64_000_000
# Chunked framing and bodies that grow when compressed may exceed the cap of the decoded body.
_RAW_FACTOR = 2
_MAX_HTTP_HEAD = 1 << 16  # bytes; fastwarc's own limit is half of it
_DAMAGE = ("malformed", "truncated")


def capture_id(url: str, file: str, offset: int | None, ordinal: int) -> str:
    """page_id of a capture: xxh3-128 hex of URL, file and offset; the record's number where it has no offset."""
    place = f"#{ordinal}" if offset is None else str(offset)
    return xxhash.xxh3_128_hexdigest("\n".join((url, file, place)).encode("utf-8", "surrogatepass"))


def read_warc(
    stream: BinaryIO,
    file: str,
    settings: CrawlSettings | None = None,
    *,
    batch_rows: int = 64,
    sample: Sample | None = None,
    max_image_bytes: int | None = None,
) -> Iterator[pa.Table]:
    """Captures of a seekable WARC or ARC stream in file order, as WARC_FETCHED tables of up to `batch_rows` rows.

    `file`: the name kept as provenance; it is part of page ids, so use one that is the same everywhere.
    `settings`: byte cap, product token and refused X-Robots-Tag directives. Rows are response and revisit
    records; other types are passed over. `offset` and `length` are null where records cannot be read singly (a
    file compressed as a whole). Padding between records is no row; a file that is neither WARC nor ARC is one.
    Damage ends the reading of lz4 and zstd files. Captures of pages outside the `sample` are no rows, and their bodies
    are not read.

    Where a capture of a build goes before an answer (stages.sources.warc_capture), the row has its id, its URL as asked
    for, its date and its consent; a revisit of the response just before is that response again, and pictures of up to
    `max_image_bytes` are rows of kind image, or none where that is null.

    Reasons: revisit, truncated, malformed, http_status, x_robots_tag, tdmrep, content_signal, not_html, too_large,
    content_encoding, bad_url.
    """
    settings = settings or CrawlSettings()
    sample = sample or Sample()
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    archive = _Archive(stream, file, settings, sample, max_image_bytes)
    for ordinal, (found, length) in enumerate(_with_lengths(archive.records())):
        fetched, offset, capture = found.fetched, found.offset, found.capture
        assert fetched is not None
        located = length is not None and length > 0
        page_id = capture.id if capture else capture_id(fetched.url, file, offset if located else None, ordinal)
        place = {"offset": offset, "length": length} if located else {"offset": None, "length": None}
        told = {"page_id": page_id, "file": file, "kind": capture.kind if capture else "page"}
        rows.append(fetched.row() | told | place)
        num_bytes += len(fetched.body or b"")
        if len(rows) >= batch_rows or num_bytes >= _BATCH_BYTES:
            yield pa.Table.from_pylist(rows, schema=WARC_FETCHED)
            rows, num_bytes = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema=WARC_FETCHED)


@dataclass(frozen=True)
class _Found:
    """A record or damaged stretch at an offset; without a row when it is of a type that is passed over."""

    offset: int
    fetched: Fetched | None
    end: int | None = None  # where it is known already
    capture: Capture | None = None  # what a build said of it


def _with_lengths(records: Iterator[_Found]) -> Iterator[tuple[_Found, int | None]]:
    """Those with rows, and their lengths, which the next record's offset tells."""
    waiting: _Found | None = None
    for record in records:
        if waiting is not None and waiting.fetched is not None:
            end = record.offset if waiting.end is None else waiting.end
            yield waiting, end - waiting.offset
        waiting = record
    if waiting is not None and waiting.fetched is not None:
        yield waiting, None if waiting.end is None else waiting.end - waiting.offset


class _Archive:
    """A stream, and what one record says of the next."""

    def __init__(
        self, stream: BinaryIO, file: str, settings: CrawlSettings, sample: Sample, max_image_bytes: int | None
    ) -> None:
        self._stream = stream
        self._file = file
        self._settings = settings
        self._sample = sample
        self._max_image_bytes = max_image_bytes
        self._said: tuple[str, Capture] | None = None  # of the answer with this record id
        self._payload: tuple[str, bytes] | None = None  # of the response with this record id

    def records(self) -> Iterator[_Found]:
        """Records in file order; after damage, on from the next one."""
        if is_arc(self._stream):
            yield from self._arc_records()
            return
        stream, file = self._stream, self._file
        size = stream.seek(0, os.SEEK_END)
        start: int | None = 0
        while start is not None and start < size:
            last: int | None = None
            told = False  # the last record's row says already that it is damaged
            stream.seek(start)
            try:
                with reading():
                    records = iter(ArchiveIterator(stream, parse_http=False))
                while True:
                    with reading():
                        record = next(records, None)
                    if record is None:
                        yield _Found(size, None)
                        return
                    last = record.stream_pos
                    fetched, capture = self._row_of(record)
                    told = fetched is not None and fetched.failure is not None and fetched.failure.reason in _DAMAGE
                    yield _Found(last, fetched, capture=capture)
            except Damaged as error:
                damage = str(error)
            if last is None:  # nothing could be read at `start`
                following = next_record(stream, start + 1)
                yield _Found(start, _malformed(file, start, damage), end=following or size)
            else:
                end = record_end(stream, last)
                following = next_record(stream, last + 1 if end is None else end)
                if end is None and not told:  # the damage is inside the last record, or there is no telling
                    end = following or size
                    yield _Found(end, _malformed(file, last, f"in or after this record: {damage}"))
                elif end is not None and not is_padding(stream, end, following or size):
                    yield _Found(end, _malformed(file, end, damage), end=following or size)
            start = following
        yield _Found(size, None)

    def _arc_records(self) -> Iterator[_Found]:
        """Records of an ARC file, read as WARC's are."""
        held = _RAW_FACTOR * self._settings.max_page_bytes + _MAX_HTTP_HEAD
        for each in arc_records(self._stream, held):
            if isinstance(each, ArcGap):
                yield _Found(each.offset, _malformed(self._file, each.offset, each.detail), end=each.end)
                continue
            try:
                with reading():
                    record = next(iter(ArchiveIterator(io.BytesIO(each.as_warc()), parse_http=False)))
                fetched, _ = self._row_of(record)
            except (Damaged, StopIteration) as error:
                fetched = _malformed(self._file, each.offset, str(error) or "no record")
            yield _Found(each.offset, fetched, end=each.end)

    def _row_of(self, record: WarcRecord) -> tuple[Fetched | None, Capture | None]:
        """The row of a response or revisit record, and what a build said of it; null for other types, outside the
        sample, and for pictures that are not asked for."""
        settings = self._settings
        if record.record_type == WarcRecordType.metadata:
            self._said = _capture_of(record)
        if record.record_type not in (WarcRecordType.response, WarcRecordType.revisit):
            if record.record_type == WarcRecordType.unknown and not record.headers.get("WARC-Type"):
                return _malformed(self._file, record.stream_pos, "a record without a type"), None
            return None, None
        target = (record.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
        fetched = Fetched(
            url=one_line(target, 8192) or f"{self._file}#{record.stream_pos}",
            consent=Consent(agent=settings.user_agent),
            modified=_date(record.record_date),
        )
        if not target:
            return replace(fetched, failure=Failure("malformed", "a record without WARC-Target-URI")), None
        try:
            fetched = replace(fetched, url=canonicalize(target))
            fetched = replace(fetched, final_url=fetched.url)
        except ValueError as error:
            return replace(fetched, failure=Failure("bad_url", str(error))), None
        record_id = record.headers.get("WARC-Record-ID") or ""
        told, self._said = self._said, None
        capture = told[1] if told is not None and told[0] == record_id and told[1].final_url == fetched.url else None
        if capture is not None:
            fetched = replace(fetched, url=capture.url, modified=capture.modified, consent=capture.consent)
        kind = capture.kind if capture is not None else "page"
        taken = kind == "image" or self._sample.takes(fetched.url)
        # A build's answer is read all the same: the one after it may be a revisit of it.
        if capture is None and not taken:
            return None, None
        row = self._answer(record, fetched, kind, record_id if capture is not None else None)
        wanted = taken if kind == "page" else self._max_image_bytes is not None
        return (row, capture) if wanted else (None, None)

    def _answer(self, record: WarcRecord, fetched: Fetched, kind: ContentKind, keep_as: str | None) -> Fetched:
        """The row with its body or the reason why there is none; `keep_as`: a revisit may ask for it by this id."""
        settings = self._settings
        largest = settings.max_page_bytes if kind == "page" else self._max_image_bytes or 0
        revisited = None
        try:
            if record.record_type == WarcRecordType.revisit:
                revisited = self._payload
                if keep_as is None or revisited is None or record.headers.get("WARC-Refers-To") != revisited[0]:
                    what = "refers to an earlier capture of the same content"
                    raise Failed(Failure("revisit", what, status="refused"))
            headers = _http_headers(record)
            said = header_consent(headers.get_multiple, fetched.final_url or fetched.url, kind, settings)
            fetched = replace(
                fetched,
                http_status=headers.status_code,
                content_type=headers.get("Content-Type"),
                consent=said.added_to(fetched.consent) if keep_as is None else fetched.consent.decided(said.refused_by),
            )
            _examine(record, fetched, said, kind)
            body = revisited[1] if revisited is not None else _body(record, kind, largest)
            if len(body) > largest:
                raise Failed(_too_large(largest))
            if keep_as is not None and revisited is None:
                self._payload = keep_as, body
            return replace(fetched, body=body)
        except Failed as error:
            return replace(fetched, failure=error.failure)


def _capture_of(record: WarcRecord) -> tuple[str, Capture] | None:
    """What a metadata record of a build says, and of which record."""
    if record.headers.get("Content-Type") != CAPTURE_TYPE or record.content_length > MAX_CAPTURE_BYTES:
        return None
    with reading():
        capture = Capture.of_json(record.reader.read(record.content_length))
    try:
        if capture is None or canonicalize(capture.url) != capture.url:
            return None
    except ValueError:
        return None
    return record.headers.get("WARC-Concurrent-To") or "", capture


def _malformed(file: str, offset: int, detail: str) -> Fetched:
    return Fetched(f"{file}#{offset}", Consent(), failure=Failure("malformed", f"offset {offset}: {detail}"))


def _http_headers(record: WarcRecord) -> HeaderMap:
    """Status line and headers of the archived answer; Failed when the record holds none."""
    try:
        if record.is_http:
            with reading():
                record.parse_http(quirks_mode=True)  # a status line may lack its reason phrase
    except Damaged as error:
        raise Failed(Failure("malformed", str(error))) from None
    if not record.is_http_parsed or record.http_headers.status_code is None:
        raise Failed(Failure("malformed", "no HTTP answer in the record"))
    return record.http_headers


def _examine(record: WarcRecord, fetched: Fetched, said: HeaderConsent, kind: ContentKind) -> None:
    """Raise Failed when the headers say that the body is not to be read."""
    if (cause := record.headers.get("WARC-Truncated")) is not None:
        raise Failed(Failure("truncated", f"WARC-Truncated: {cause}"))
    if fetched.http_status is None or not 200 <= fetched.http_status < 300 or fetched.http_status == 206:
        raise Failed(Failure("http_status", f"HTTP status {fetched.http_status}"))
    if said.refused_by is not None:
        raise Failed(said.failure())
    content_type = media_type(fetched.content_type)
    if kind == "page" and content_type not in (None, *HTML_TYPES):
        raise Failed(Failure("not_html", f"content type {content_type}", status="refused"))


def _too_large(max_bytes: int) -> Failure:
    return Failure("too_large", f"more than {max_bytes} bytes", status="refused")


def _body(record: WarcRecord, kind: ContentKind, max_bytes: int) -> bytes:
    """The body without framing and content codings."""
    too_large = _too_large(max_bytes)
    if record.content_length > _RAW_FACTOR * max_bytes:
        raise Failed(too_large)
    try:
        with reading():
            raw = record.reader.read(record.content_length)
    except Damaged as error:
        raise Failed(Failure("malformed", str(error))) from None
    if len(raw) < record.content_length:
        raise Failed(Failure("truncated", f"{len(raw)} of {record.content_length} bytes"))
    headers = record.http_headers
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        raw = dechunk(raw)
    try:
        body = decode(raw, headers.get("Content-Encoding"), max_bytes)
    except TooLarge:
        raise Failed(too_large) from None
    except BadCoding as error:
        raise Failed(Failure("content_encoding", str(error))) from None
    if kind == "page" and media_type(headers.get("Content-Type")) is None and not looks_like_html(body):
        raise Failed(Failure("not_html", "no content type, and it does not look like HTML", status="refused"))
    return body


def _date(date: datetime | None) -> datetime | None:
    """WARC-Date in UTC to the second."""
    return None if date is None else date.astimezone(UTC).replace(microsecond=0)
