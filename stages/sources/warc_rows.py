"""Captures by rows of an index: which bytes of which WARC file hold the capture of a URL.

Read are Parquet files with the columns of Common Crawl's columnar index (url, warc_filename, warc_record_offset,
warc_record_length; others are passed over), and CDXJ lines (sort key, date, JSON with url, filename, offset, length),
packed or not, as its URL index and pywb have them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from stages.sources.byte_ranges import Range, read_ranges
from stages.sources.sample import Sample
from stages.sources.warc import WARC_FETCHED, capture_id, read_warc
from stages.web.fetched import Consent, Failure, Fetched, one_line
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize

COLUMNS = ("url", "warc_filename", "warc_record_offset", "warc_record_length")
_MAX_RECORD = 1 << 30
_LINES = 65_536


@dataclass(frozen=True)
class IndexRow:
    """Where a capture lies; `fault` says why it is nowhere."""

    url: str
    range: Range
    fault: str | None = None

    @property
    def page_id(self) -> str:
        """As of a capture that is read with its file."""
        return capture_id(self.url, self.range.file, self.range.offset, 0)


def is_parquet(path: str) -> bool:
    """Whether a file of rows is Parquet, by its name; else it is CDXJ."""
    return path.endswith(".parquet")


def count_groups(path: str) -> int:
    """Pieces that a file can be read in; ValueError, one line, for a file that has not the columns."""
    if not is_parquet(path):
        return 1
    with fsspec.open(path, "rb") as stream:
        file = _parquet(stream)
        return int(file.metadata.num_row_groups)


def read_rows(path: str, group: int) -> Iterator[list[IndexRow]]:
    """Rows of one of the pieces, some at a time."""
    if is_parquet(path):
        with fsspec.open(path, "rb") as stream:
            for batch in _parquet(stream).iter_batches(_LINES, row_groups=[group], columns=list(COLUMNS)):
                yield [_row(path, number, *each.values()) for number, each in enumerate(batch.to_pylist())]
        return
    with fsspec.open(path, "rb", compression="infer") as stream:
        rows: list[IndexRow] = []
        for number, line in enumerate(stream):
            if line.strip():
                rows.append(_row(path, number, *_cdxj(line)))
            if len(rows) == _LINES:
                yield rows
                rows = []
        yield rows


def fetch_rows(
    base: str, rows: Sequence[IndexRow], settings: CrawlSettings, *, retry_seconds: Sequence[float] | None = None
) -> pa.Table:
    """WARC_FETCHED rows of captures, read by ranges of the files below `base`; BadRange when these cannot be had.

    Beside read_warc's reasons: malformed, for rows that name no place, none in their file, or another URL's capture.
    """
    sound = [row for row in rows if row.fault is None]
    pauses = {} if retry_seconds is None else {"retry_seconds": retry_seconds}
    pieces = dict(zip(sound, read_ranges(base, [row.range for row in sound], **pauses), strict=True))
    return pa.Table.from_pylist([_captured(row, pieces.get(row, b""), settings) for row in rows], schema=WARC_FETCHED)


def taken_rows(rows: Sequence[IndexRow], sample: Sample) -> list[IndexRow]:
    """Those whose pages are in the sample, each once, by file and offset."""
    order = sorted(dict.fromkeys(rows), key=lambda row: (row.range.file, row.range.offset, row.url))
    return [row for row in order if sample.takes(row.url)]


def _captured(row: IndexRow, piece: bytes, settings: CrawlSettings) -> dict[str, Any]:
    place: dict[str, Any] = {"page_id": row.page_id, "file": row.range.file, "kind": "page"}
    place |= {"offset": row.range.offset, "length": row.range.length}
    fault = row.fault
    if fault is None and len(piece) < row.range.length:
        fault = f"the file ends {row.range.length - len(piece)} bytes before the record does"
    if fault is None:
        read = read_warc(io.BytesIO(piece), row.range.file, settings, batch_rows=1)
        captured = next((table.to_pylist()[0] for table in read), None)
        if captured is not None and captured["url"] == row.url:
            return {**captured, **place}
        what = "no capture" if captured is None else f"a capture of {captured['url']}"
        fault = f"{what} lies there ({captured['detail']})" if captured and captured["detail"] else f"{what} lies there"
    detail = f"{row.range.file}, bytes from {row.range.offset} on: {fault}"
    fetched = Fetched(row.url, Consent(agent=settings.user_agent), failure=Failure("malformed", one_line(detail)))
    return {**fetched.row(), **place}


def _row(path: str, number: int, url: object, file: object, offset: object, length: object) -> IndexRow:
    """A row of a file of rows, told by its number where it has no URL."""
    name = one_line(url, 8192) if isinstance(url, str) else f"{path}#{number}"
    nowhere = IndexRow(name, Range(path, number, 0))
    try:
        name = canonicalize(name)
    except ValueError as error:
        return replace(nowhere, fault=str(error))
    if not isinstance(file, str) or not isinstance(offset, int) or not isinstance(length, int):
        return replace(nowhere, url=name, fault="the row has no warc_filename, offset or length")
    if not 0 <= offset < 1 << 60 or not 0 < length <= _MAX_RECORD:
        return replace(nowhere, url=name, fault=f"no record is {length} bytes at {offset}")
    if not file or "://" in file or file.startswith("/") or ".." in file.split("/") or not file.isprintable():
        return replace(nowhere, url=name, fault=f"{one_line(file, 200)!r} names no file below source.base")
    return IndexRow(name, Range(file, offset, length))


def _cdxj(line: bytes) -> tuple[object, object, object, object]:
    try:
        said = json.loads(line[line.index(b"{") :])
        return said.get("url"), said.get("filename"), int(said["offset"]), int(said["length"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, None, None, None


def _parquet(stream: Any) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(stream)
    except pa.ArrowInvalid:
        raise ValueError("not a Parquet file") from None
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise ValueError(f"has no column {', '.join(missing)}: an index of captures has {', '.join(COLUMNS)}")
    return file
