"""What a fetch leaves: one row a URL, with its body or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import pyarrow as pa
import xxhash

from schemas.consent import CONSENT
from stages.web.consent.signals import Signal

# What a corpus is made of, and what is asked for.
ContentKind = Literal["page", "image"]
Kind = Literal["page", "image", "sitemap"]
Status = Literal["ok", "error", "refused"]

FETCHED = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),  # canonical form of the URL asked for
        pa.field("final_url", pa.string()),  # after redirects, null when no answer came
        pa.field("status", pa.string(), nullable=False),  # "ok" | "error" | "refused"
        pa.field("reason", pa.string()),  # rule name when not ok
        pa.field("detail", pa.string()),  # one line for people
        pa.field("retryable", pa.bool_(), nullable=False),  # a later run may do better
        pa.field("http_status", pa.int32()),
        pa.field("content_type", pa.string()),  # header as sent
        pa.field("content_hash", pa.string()),  # xxh3-128 hex of the body
        pa.field("modified", pa.timestamp("s", tz="UTC")),  # Last-Modified, WARC-Date; never our fetch time
        # By which a later fetch asks whether it still holds (stages.web.validators); no table's business.
        pa.field("etag", pa.string()),  # ETag as sent
        pa.field("last_modified", pa.string()),  # Last-Modified as sent
        pa.field("use_headers", pa.list_(pa.string())),  # "Name: value" of what speaks of the use
        pa.field("consent", CONSENT, nullable=False),
        pa.field("body", pa.large_binary()),  # content codings removed; null unless ok
    ]
)


@dataclass(frozen=True)
class Consent:
    """One consent record; fields as in schemas.consent.CONSENT."""

    robots_allowed: bool | None = None
    robots_source: str | None = None
    x_robots_tag: str | None = None
    agent: str | None = None
    signals: tuple[Signal, ...] = ()
    decided_by: str | None = None
    decided_rule: str | None = None
    decided_source: str | None = None
    license: str | None = None

    def decided(self, by: Signal | None, source: str | None = None) -> Consent:
        """The same record, with what decided."""
        if by is None:
            return self
        return replace(self, decided_by=by.signal, decided_rule=one_line(by.said), decided_source=source)

    def row(self) -> dict[str, Any]:
        """The record as a dict."""
        return {**vars(self), "signals": [each._asdict() for each in self.signals]}


@dataclass(frozen=True)
class Failure:
    """Why an item has no body."""

    reason: str  # rule name
    detail: str  # one line for people
    status: Status = "error"  # "refused" where we chose not to take what could be had
    retryable: bool = False  # a later run may do better
    final: bool = False  # this run has already tried all it would
    retry_after: float | None = None  # seconds, as the server asked


class Failed(Exception):
    """Ends the work on one item; carries plain data, because a kept exception keeps its frames and their bytes."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.reason}: {failure.detail}")
        self.failure = failure


@dataclass(frozen=True)
class Fetched:
    """One row of FETCHED."""

    url: str
    consent: Consent
    final_url: str | None = None
    http_status: int | None = None
    content_type: str | None = None
    modified: datetime | None = None
    body: bytes | None = None
    failure: Failure | None = None
    etag: str | None = None
    last_modified: str | None = None
    use_headers: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The row as a dict, hash and status filled in."""
        failure = self.failure
        body = self.body if failure is None else None
        return {
            "url": self.url,
            "final_url": self.final_url,
            "status": failure.status if failure else "ok",
            "reason": failure.reason if failure else None,
            "detail": one_line(failure.detail) if failure else None,
            "retryable": failure.retryable if failure else False,
            "http_status": self.http_status,
            "content_type": one_line(self.content_type) if self.content_type is not None else None,
            "content_hash": xxhash.xxh3_128_hexdigest(body) if body is not None else None,
            "modified": self.modified,
            "etag": self.etag,
            "last_modified": self.last_modified,
            "use_headers": self.use_headers or None,
            "consent": self.consent.row(),
            "body": body,
        }


def fetched_table(rows: Iterable[Fetched]) -> pa.Table:
    """Rows as a FETCHED table."""
    return pa.Table.from_pylist([row.row() for row in rows], schema=FETCHED)


def one_line(text: str, limit: int = 500) -> str:
    """Text fit for a `detail` or header column: one line, valid UTF-8, at most `limit` characters."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())[:limit]


def http_date(value: str | None) -> datetime | None:
    """A Last-Modified header in UTC to the second, or null where it is absent or no date (RFC 9110, 5.6.7)."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return date.replace(microsecond=0)


HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_STARTS = (
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<!--",
    b"<title",
    b"<meta",
    b"<script",
    b"<h1",
    b"<p",
)


def media_type(content_type: str | None) -> str | None:
    """The media type of a Content-Type header, lower case without parameters, or null where none is given."""
    value = (content_type or "").partition(";")[0].strip().lower()
    return value if "/" in value else None


def looks_like_html(body: bytes) -> bool:
    """Whether untyped bytes start as an HTML page does (WHATWG MIME Sniffing, 7.1, shortened)."""
    start = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip(b"\t\n\x0c\r ").lower()
    return start.startswith(_HTML_STARTS)
