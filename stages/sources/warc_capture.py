"""WARC records (1.1, ISO 28500:2017) of what a build fetched, and what they say of it when they are read again.

A capture is up to two gzip members: a `metadata` record with the consent record and what the archived answer cannot
say (what was asked for, under which id), and the answer: a `response`, or, where the response just before had the same
payload, a `revisit`. What was refused or failed has its metadata alone. Ids are hashes of what the records hold, so
that the same captures are the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http
import json
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stages.web.consent.signals import Signal
from stages.web.fetched import Consent, ContentKind

# Of a metadata record's block, JSON.
CAPTURE_TYPE = "application/vnd.interloom.capture+json"
# Above this a block is no capture of ours.
MAX_CAPTURE_BYTES = 1 << 20
_SAME_PAYLOAD = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
_CONFORMS = "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Capture:
    """What a build knows of a URL that it asked for."""

    kind: ContentKind
    id: str  # page_id or image_id
    url: str  # canonical form of the URL asked for
    final_url: str  # after redirects
    status: str
    consent: Consent
    reason: str | None = None
    detail: str | None = None
    http_status: int | None = None
    content_type: str | None = None
    modified: datetime | None = None
    body: bytes | None = None  # without content codings; null unless ok

    def said(self) -> dict[str, Any]:
        """All but the body, as JSON holds it."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "body"}
        modified = None if self.modified is None else self.modified.astimezone(UTC).isoformat()
        return {**told, "modified": modified, "consent": self.consent.row()}

    @staticmethod
    def of_json(block: bytes) -> Capture | None:
        """The capture of a metadata record's block; null where it is none of ours."""
        try:
            told = json.loads(block)
            consent = told.pop("consent")
            consent["signals"] = tuple(Signal(each["signal"], each["said"]) for each in consent["signals"])
            modified = told.pop("modified")
            date = None if modified is None else datetime.fromisoformat(modified)
            found = Capture(**told, consent=Consent(**consent), modified=date)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return found if _typed(found) and found.kind in ("page", "image") and _ID.fullmatch(found.id) else None


@dataclass
class WarcWriter:
    """Records of one WARC file, as gzip members, end to end.

    `date`: of the records, ISO 8601. `about`: lines of the `warcinfo` record, `name` the file's.
    """

    name: str
    date: str
    about: Mapping[str, str]
    _info: str = ""
    _last: tuple[str, str, str] | None = None  # payload digest, record id and URL of the response before

    def head(self) -> bytes:
        """The file's first member."""
        lines = {"format": "WARC File Format 1.1", "conformsTo": _CONFORMS, **self.about}
        block = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        self._info = _record_id("warcinfo", self.name, self.date, block)
        named = {"WARC-Filename": self.name, "Content-Type": "application/warc-fields"}
        return _member("warcinfo", self._info, self.date, named, block)

    def records(self, capture: Capture) -> Iterator[bytes]:
        """Members of a capture."""
        said = json.dumps(capture.said(), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        answer = None if capture.body is None else self._answer(capture, capture.body, said)
        concurrent = {} if answer is None else {"WARC-Concurrent-To": answer[0]}
        yield self._record(
            "metadata", _record_id("metadata", self._info, said), capture.final_url, concurrent, CAPTURE_TYPE, said
        )
        if answer is not None:
            yield answer[1]

    def _answer(self, capture: Capture, body: bytes, said: bytes) -> tuple[str, bytes]:
        """Id and member of the archived answer."""
        digest = _digest(body)
        record_id = _record_id("response", self._info, said, body)
        headers = _http_head(capture, len(body))
        media_type = "application/http; msgtype=response"
        named = {"WARC-Payload-Digest": digest}
        if self._last is not None and self._last[0] == digest:
            _, refers_to, url = self._last
            named |= {"WARC-Profile": _SAME_PAYLOAD, "WARC-Refers-To": refers_to}
            named |= {"WARC-Refers-To-Target-URI": url, "WARC-Refers-To-Date": self.date}
            return record_id, self._record("revisit", record_id, capture.final_url, named, media_type, headers)
        self._last = digest, record_id, capture.final_url
        return record_id, self._record("response", record_id, capture.final_url, named, media_type, headers + body)

    def _record(
        self, kind: str, record_id: str, url: str, named: Mapping[str, str], media_type: str, block: bytes
    ) -> bytes:
        named = {"WARC-Target-URI": url, "WARC-Warcinfo-ID": self._info, **named, "Content-Type": media_type}
        return _member(kind, record_id, self.date, named, block)


def _http_head(capture: Capture, length: int) -> bytes:
    """Status line and headers, as far as they were kept."""
    status = capture.http_status or 200
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = {
        "Content-Type": capture.content_type,
        "X-Robots-Tag": capture.consent.x_robots_tag,
        "Link": None if capture.consent.license is None else f'<{capture.consent.license}>; rel="license"',
        "Content-Length": str(length),
    }
    said = [f"{name}: {value}" for name, value in lines.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status} {phrase}", *said, "", ""]).encode("utf-8", "replace")


def _member(kind: str, record_id: str, date: str, named: Mapping[str, str], block: bytes) -> bytes:
    lines = {"WARC-Type": kind, "WARC-Record-ID": record_id, "WARC-Date": date, **named}
    lines |= {"WARC-Block-Digest": _digest(block), "Content-Length": str(len(block))}
    head = "\r\n".join(["WARC/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""])
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # no name and no time in its header
    return packer.compress(head.encode() + block + b"\r\n\r\n") + packer.flush()


def _digest(data: bytes) -> str:
    """As Heritrix and Common Crawl write it."""
    return f"sha1:{base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()}"


def _record_id(*of: str | bytes) -> str:
    state = hashlib.sha256()
    for each in of:
        data = each.encode() if isinstance(each, str) else each
        state.update(len(data).to_bytes(8, "big") + data)
    return f"<{uuid.UUID(bytes=state.digest()[:16], version=4).urn}>"


def _typed(capture: Capture) -> bool:
    """Whether fields that came out of JSON are of their types."""
    consent = capture.consent
    signals = [(each.signal, each.said) for each in consent.signals]
    texts = [*(text for pair in signals for text in pair), consent.robots_source, consent.x_robots_tag, consent.agent]
    texts += [consent.decided_by, consent.decided_rule, consent.decided_source, consent.license]
    texts += [capture.reason, capture.detail, capture.content_type]
    must = [capture.kind, capture.id, capture.url, capture.final_url, capture.status]
    return (
        all(isinstance(each, str) for each in must)
        and all(each is None or isinstance(each, str) for each in texts)
        and isinstance(consent.robots_allowed, bool | None)
        and isinstance(capture.http_status, int | None)
        and (capture.modified is None or capture.modified.tzinfo is not None)
    )
