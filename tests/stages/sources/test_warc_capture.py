"""WARC records of a build: valid, the same for the same captures, and read again as what was fetched."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st

from stages.sources.sample import Sample
from stages.sources.warc import read_warc
from stages.sources.warc_capture import CAPTURE_TYPE, Capture, WarcWriter
from stages.web.consent.signals import Signal
from stages.web.fetched import Consent, Fetched
from stages.web.settings import CrawlSettings
from stages.web.urls import url_id

DATE = "2026-01-02T03:04:05Z"
HTML = b"<!doctype html><p>The heron stands where the water is still."
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
CONSENT = Consent(
    robots_allowed=True,
    robots_source="http://marsh.test/robots.txt 200",
    x_robots_tag="otherbot: noai",
    agent="interloom/0.1",
    signals=(Signal("content_signal", "Content-Signal: search=yes"), Signal("tdmrep", "tdm-reservation: 0")),
    decided_by="robots",
    decided_rule="Allow: /",
    decided_source="http://marsh.test/robots.txt 200",
    license="https://creativecommons.org/licenses/by/4.0/",
)


def capture(name: str, **more: Any) -> Capture:
    url = f"http://marsh.test/{name}"
    facts: dict[str, Any] = {
        "kind": "page",
        "id": url_id(url),
        "url": url,
        "final_url": url,
        "status": "ok",
        "consent": CONSENT,
        "http_status": 200,
        "content_type": "text/html; charset=utf-8",
        "modified": datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC),
        "body": HTML + name.encode(),
    }
    return Capture(**{**facts, **more})


REFUSED = replace(CONSENT, robots_allowed=False, decided_rule="Disallow: /private/")
CAPTURES = [
    capture("a"),
    capture("caf%C3%A9", content_type=None, modified=None, http_status=203),
    capture("moved", final_url="http://marsh.test/there"),
    capture("copy-1", body=HTML),
    capture("copy-2", body=HTML, consent=replace(CONSENT, x_robots_tag=None, license=None)),
    capture("copy-3", body=HTML, final_url="http://marsh.test/copy-4"),
    capture("private/b", status="refused", reason="robots", detail="Disallow: /", body=None, consent=REFUSED),
    capture("gone", status="error", reason="http_status", detail="HTTP status 410", http_status=410, body=None),
    capture("empty", body=b""),
]
PICTURES = [
    capture("a.png", kind="image", content_type="image/png", body=PICTURE, modified=None),
    capture("b.png", kind="image", content_type="image/png", body=PICTURE, modified=None),
]


def written(captures: list[Capture]) -> bytes:
    writer = WarcWriter("heron-00000.warc.gz", DATE, {"software": "interloom", "isPartOf": "heron"})
    return writer.head() + b"".join(record for each in captures for record in writer.records(each))


def read(data: bytes, settings: CrawlSettings | None = None, **options: Any) -> list[dict[str, Any]]:
    return [row for table in read_warc(io.BytesIO(data), "f", settings, **options) for row in table.to_pylist()]


def expected(each: Capture) -> dict[str, Any]:
    """The row of a capture, as its fetch left it."""
    fetched = Fetched(
        each.url, each.consent, each.final_url, each.http_status, each.content_type, each.modified, each.body
    )
    return {**fetched.row(), "page_id": each.id, "kind": each.kind}


def test_what_is_read_is_what_was_fetched() -> None:
    rows = read(written([*CAPTURES, *PICTURES]), max_image_bytes=1000)
    places = [(row.pop("offset"), row.pop("length"), row.pop("file")) for row in rows]
    assert rows == [expected(each) for each in [*CAPTURES, *PICTURES] if each.status == "ok"]
    assert all(length > 0 for _, length, _ in places)
    # Every offset and length leads to a whole member.
    data = written([*CAPTURES, *PICTURES])
    assert all(gzip.decompress(data[at : at + size]).startswith(b"WARC/1.1\r\n") for at, size, _ in places)


def test_pictures_that_nobody_asks_for_are_no_rows_and_large_ones_are_named() -> None:
    data = written([*CAPTURES, *PICTURES])
    assert {row["kind"] for row in read(data)} == {"page"}
    small = [row for row in read(data, max_image_bytes=10) if row["kind"] == "image"]
    # The revisit is of a response that was not taken.
    assert [row["reason"] for row in small] == ["too_large", "revisit"]


def test_records_are_what_the_standard_asks_for() -> None:
    data = written([*CAPTURES, *PICTURES])
    assert data == written([*CAPTURES, *PICTURES])
    records = list(ArchiveIterator(io.BytesIO(data), parse_http=False, verify_digests=True))
    kinds = [record.record_type for record in ArchiveIterator(io.BytesIO(data), parse_http=False)]
    assert len(records) == len(kinds)  # none was passed over for its digest
    assert kinds.count(WarcRecordType.metadata) == len(CAPTURES) + len(PICTURES)
    assert (kinds.count(WarcRecordType.response), kinds.count(WarcRecordType.revisit)) == (6, 3)
    ids, by_id = set(), {}
    for record in ArchiveIterator(io.BytesIO(data), parse_http=False):
        assert record.verify_block_digest()
        headers = dict(record.headers)
        ids.add(headers["WARC-Record-ID"])
        by_id[headers["WARC-Record-ID"]] = headers
        assert headers["WARC-Date"] == DATE
    assert len(ids) == len(kinds)
    for headers in by_id.values():
        if headers["WARC-Type"] == "warcinfo":
            assert headers["WARC-Filename"] == "heron-00000.warc.gz"
            continue
        assert by_id[headers["WARC-Warcinfo-ID"]]["WARC-Type"] == "warcinfo"
        if "WARC-Concurrent-To" in headers:
            assert by_id[headers["WARC-Concurrent-To"]]["WARC-Target-URI"] == headers["WARC-Target-URI"]
        if headers["WARC-Type"] == "revisit":
            original = by_id[headers["WARC-Refers-To"]]
            assert original["WARC-Type"] == "response"
            assert original["WARC-Payload-Digest"] == headers["WARC-Payload-Digest"]
            assert original["WARC-Target-URI"] == headers["WARC-Refers-To-Target-URI"]


def test_a_sample_keeps_revisits_whose_response_lies_outside() -> None:
    for share in (0.2, 0.5, 0.8):
        sample = Sample(share)
        rows = read(written(CAPTURES), sample=sample)
        taken = Sample(share)
        assert [row["url"] for row in rows] == [
            each.url for each in CAPTURES if each.status == "ok" and taken.takes(each.url)
        ]
        assert all(row["status"] == "ok" for row in rows)


def test_what_headers_refuse_by_now_is_refused() -> None:
    data = written([capture("a", consent=replace(CONSENT, x_robots_tag="noindex"))])
    [row] = read(data)
    assert (row["reason"], row["body"], row["consent"]["decided_by"]) == ("x_robots_tag", None, "x_robots_tag")
    [row] = read(data, CrawlSettings(page_directives=()))
    assert row["body"] == HTML + b"a"


def swapped(data: bytes, old: bytes, new: bytes) -> bytes:
    """Members with some of their bytes others."""
    stream, found = io.BytesIO(data), b""
    records = [(record.stream_pos, record) for record in ArchiveIterator(stream, parse_http=False)]
    ends = [at for at, _ in records[1:]] + [len(data)]
    for (start, _), end in zip(records, ends, strict=True):
        found += gzip.compress(gzip.decompress(data[start:end]).replace(old, new), mtime=0)
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"url": "http://marsh.test/a"', b'"url": "http://MARSH.test/a"'),
        (b'"kind": "page"', b'"kind": "pane"'),
        (b'"robots_allowed": true', b'"robots_allowed": 1234'),
        (b'"agent": "interloom/0.1"', b'"agent": ["nterloom/0.1"]'),
        (b'"final_url": "http://marsh.test/a"', b'"final_url": "http://marsh.test/b"'),
        (b'"signals": [', b'"signals" : [1'),
        (b"\nWARC-Concurrent-To: <urn:uuid:", b"\nWARC-Concurrent-To: <urn:UUID:"),
    ],
)
def test_a_capture_that_does_not_fit_says_nothing(old: bytes, new: bytes) -> None:
    data = written([capture("a")])
    assert swapped(data, old, new) != swapped(data, b"", b"")
    stranger = swapped(data, old, new)
    [row] = [row for row in read(stranger) if row["reason"] != "malformed"]
    assert row["page_id"] != url_id("http://marsh.test/a")
    assert row["consent"]["robots_allowed"] is None
    assert row["modified"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_revisit_of_a_stranger_takes_no_payload() -> None:
    data = written([capture("a", body=HTML), capture("b", body=HTML)])
    foreign = swapped(data, CAPTURE_TYPE.encode(), b"application/vnd.interloom.capture+jsoN")
    assert [row["reason"] for row in read(foreign)] == [None, "revisit"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(sorted(capture("a").said())), values)
def test_any_value_in_any_place_is_a_capture_or_none(name: str, value: Any) -> None:
    found = Capture.of_json(json.dumps({**capture("a").said(), name: value}).encode())
    if found is not None:
        assert Capture.of_json(json.dumps(found.said()).encode()) == found
        assert found.consent.row()


@given(st.binary(max_size=40))
def test_any_bytes_are_a_capture_or_none(block: bytes) -> None:
    assert Capture.of_json(block) is None
