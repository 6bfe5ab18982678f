"""WARC files: archived responses as rows, one for every capture of a page and every record that is none.

Reads what fastwarc reads: plain, gzip, lz4 and zstd, WARC 1.0 and 1.1 (ISO 28500). A damaged stretch is a row,
and reading goes on at the next record after it (plain and gzip).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow as pa
import xxhash
from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord, WarcRecordType

from stages.sources.sample import Sample
from stages.sources.warc_gaps import Damaged, is_padding, next_record, reading, record_end
from stages.web.consent.headers import HeaderConsent, header_consent
from stages.web.content_coding import BadCoding, TooLarge, dechunk, decode
from stages.web.fetched import (
    FETCHED,
    HTML_TYPES,
    Consent,
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
)

_BATCH_BYTES = 64_000_000
# Chunked framing and bodies that grow when compressed may exceed the cap of the decoded body.
_RAW_FACTOR = 2
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
) -> Iterator[pa.Table]:
    """Captures of a seekable WARC stream in file order, as WARC_FETCHED tables of up to `batch_rows` rows.

    `file`: the name kept as provenance; it is part of page ids, so use one that is the same everywhere.
    `settings`: byte cap, product token and refused X-Robots-Tag directives. Rows are response and revisit
    records; other types are passed over. `offset` and `length` are null where records cannot be read singly (a
    file compressed as a whole). Padding between records is no row; a file that is no WARC, an ARC say, is one.
    Damage ends the reading of lz4 and zstd files. Captures of pages outside the `sample` are no rows, and their bodies
    are not read.

    Reasons: revisit, truncated, malformed, http_status, x_robots_tag, tdmrep, content_signal, not_html, too_large,
    content_encoding, bad_url.
    """
    settings = settings or CrawlSettings()
    sample = sample or Sample()
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for ordinal, (fetched, offset, length) in enumerate(_with_lengths(_scan(stream, file, settings, sample))):
        located = length is not None and length > 0
        page_id = capture_id(fetched.url, file, offset if located else None, ordinal)
        place = {"offset": offset, "length": length} if located else {"offset": None, "length": None}
        rows.append(fetched.row() | {"page_id": page_id, "file": file} | place)
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


def _with_lengths(records: Iterator[_Found]) -> Iterator[tuple[Fetched, int, int | None]]:
    """Rows with offset and length, which the next record's offset tells."""
    waiting: _Found | None = None
    for record in records:
        if waiting is not None and waiting.fetched is not None:
            end = record.offset if waiting.end is None else waiting.end
            yield waiting.fetched, waiting.offset, end - waiting.offset
        waiting = record
    if waiting is not None and waiting.fetched is not None:
        yield waiting.fetched, waiting.offset, None if waiting.end is None else waiting.end - waiting.offset


def _scan(stream: BinaryIO, file: str, settings: CrawlSettings, sample: Sample) -> Iterator[_Found]:
    """Records in file order; after damage, on from the next one."""
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
                fetched = _row_of(record, file, settings, sample)
                told = fetched is not None and fetched.failure is not None and fetched.failure.reason in _DAMAGE
                yield _Found(last, fetched)
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


def _malformed(file: str, offset: int, detail: str) -> Fetched:
    return Fetched(f"{file}#{offset}", Consent(), failure=Failure("malformed", f"offset {offset}: {detail}"))


def _row_of(record: WarcRecord, file: str, settings: CrawlSettings, sample: Sample) -> Fetched | None:
    """The row of a response or revisit record; null for other types, and outside the sample."""
    if record.record_type not in (WarcRecordType.response, WarcRecordType.revisit):
        if record.record_type == WarcRecordType.unknown and not record.headers.get("WARC-Type"):
            return _malformed(file, record.stream_pos, "a record without a type")
        return None
    target = (record.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
    fetched = Fetched(
        url=one_line(target, 8192) or f"{file}#{record.stream_pos}",
        consent=Consent(agent=settings.user_agent),
        modified=_date(record.record_date),
    )
    if not target:
        return replace(fetched, failure=Failure("malformed", "a record without WARC-Target-URI"))
    try:
        fetched = replace(fetched, url=canonicalize(target))
        fetched = replace(fetched, final_url=fetched.url)
    except ValueError as error:
        return replace(fetched, failure=Failure("bad_url", str(error)))
    if not sample.takes(fetched.url):
        return None
    try:
        if record.record_type == WarcRecordType.revisit:
            raise Failed(Failure("revisit", "refers to an earlier capture of the same content", status="refused"))
        headers = _http_headers(record)
        said = header_consent(headers.get_multiple, fetched.url, "page", settings)
        fetched = replace(
            fetched,
            http_status=headers.status_code,
            content_type=headers.get("Content-Type"),
            consent=said.added_to(fetched.consent),
        )
        _examine(record, fetched, said)
        return replace(fetched, body=_body(record, settings))
    except Failed as error:
        return replace(fetched, failure=error.failure)


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


def _examine(record: WarcRecord, fetched: Fetched, said: HeaderConsent) -> None:
    """Raise Failed when the headers say that the body is not to be read."""
    if (cause := record.headers.get("WARC-Truncated")) is not None:
        raise Failed(Failure("truncated", f"WARC-Truncated: {cause}"))
    if fetched.http_status is None or not 200 <= fetched.http_status < 300 or fetched.http_status == 206:
        raise Failed(Failure("http_status", f"HTTP status {fetched.http_status}"))
    if said.refused_by is not None:
        raise Failed(said.failure())
    content_type = media_type(fetched.content_type)
    if content_type not in (None, *HTML_TYPES):
        raise Failed(Failure("not_html", f"content type {content_type}", status="refused"))


def _body(record: WarcRecord, settings: CrawlSettings) -> bytes:
    """The HTML body without framing and content codings."""
    max_bytes = settings.max_page_bytes
    too_large = Failure("too_large", f"more than {max_bytes} bytes", status="refused")
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
    if media_type(headers.get("Content-Type")) is None and not looks_like_html(body):
        raise Failed(Failure("not_html", "no content type, and it does not look like HTML", status="refused"))
    return body


def _date(date: datetime | None) -> datetime | None:
    """WARC-Date in UTC to the second."""
    return None if date is None else date.astimezone(UTC).replace(microsecond=0)
