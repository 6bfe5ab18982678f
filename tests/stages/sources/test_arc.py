"""ARC files, whole and damaged: every answer is a row as of a WARC file, and no damage hides what lies around it."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from stages.sources.sample import Sample
from stages.sources.warc import capture_id
from stages.web.settings import CrawlSettings
from tests.stages.sources.archives import members, rows_of

HTML = b"<!doctype html><p>hello " + b"words " * 30
FIRST = b"1 0 a test\nURL IP-address Archive-date Content-type Archive-length\n\n"
FIRST_2 = (
    b"2 0 a test\nURL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename Length\n\n"
)


def http(body: bytes = HTML, *headers: str, status: str = "200 OK", content_type: str = "text/html") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *headers, "", ""]).encode() + body


def record(
    url: str, block: bytes, media_type: str = "text/html", length: int | None = None, date: str = "20080102030405"
) -> bytes:
    size = len(block) if length is None else length
    return f"{url} 192.0.2.7 {date} {media_type} {size}\n".encode() + block + b"\n"


INFO = record("filedesc://test.arc", FIRST, "text/plain", date="20080101000000")
A, B, C = (record(f"http://h/{name}", http(HTML + name.encode())) for name in "abc")


def plain(*records: bytes) -> bytes:
    return b"".join(records)


FORMS = pytest.mark.parametrize("form", [plain, members])


def read(data: bytes, settings: CrawlSettings | None = None, **options: Any) -> list[dict[str, Any]]:
    return rows_of(data, "f.arc", settings, **options)


def reasons(data: bytes) -> dict[str, str | None]:
    return {row["url"].removeprefix("http://h/"): row["reason"] for row in read(data)}


@FORMS
def test_what_a_good_row_holds(form: Any) -> None:
    data = form(INFO, record("HTTP://H:80/a#x", http(HTML, "X-Robots-Tag: otherbot: noai")), C)
    row, other = read(data)
    assert row["url"] == row["final_url"] == "http://h/a"
    assert (row["status"], row["reason"], row["http_status"], row["kind"]) == ("ok", None, 200, "page")
    assert (row["body"], row["content_type"]) == (HTML, "text/html")
    assert row["modified"] == datetime(2008, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert row["consent"]["x_robots_tag"] == "otherbot: noai"
    assert (row["file"], row["offset"]) == ("f.arc", len(form(INFO)))
    assert row["page_id"] == capture_id("http://h/a", "f.arc", row["offset"], 0)
    assert other["offset"] + other["length"] in (len(data), len(data) - 1)  # of a plain one without its line end
    for each in (row, other):
        piece = data[each["offset"] : each["offset"] + each["length"]]
        assert HTML in (gzip.decompress(piece) if form is members else piece)


@FORMS
def test_version_2_dates_of_other_lengths_and_blanks_in_lines(form: Any) -> None:
    block = http()
    lines = [
        record("filedesc://test.arc", FIRST_2, "text/plain 200 - - 0 test.arc"),
        record("http://h/two", block, "text/html 200 abcdef - 123 test.arc"),
        record("http://h/a b", block, "text/html; charset=utf-8"),
        record("http://h/day", block, date="20080102"),
        f"http://h/crlf 192.0.2.7 20080102030405 text/html {len(block)}\r\n".encode() + block + b"\r\n\r\n",
        record("http://h/6", block).replace(b"192.0.2.7", b"2001:db8::7"),
    ]
    rows = read(form(*lines))
    assert [row["url"] for row in rows] == [f"http://h/{name}" for name in ("two", "a%20b", "day", "crlf", "6")]
    assert [row["body"] for row in rows] == [HTML] * 5
    assert rows[2]["modified"] == datetime(2008, 1, 2, tzinfo=UTC)


CASES = {
    "http_status": (record("http://h/x", http(status="404 Not Found")), "error"),
    "not_html": (record("http://h/x", http(content_type="image/png")), "refused"),
    "x_robots_tag": (record("http://h/x", http(HTML, "X-Robots-Tag: noai")), "refused"),
    "content_encoding": (record("http://h/x", http(b"\x1f\x8bxx", "Content-Encoding: gzip")), "error"),
    "bad_url": (record("dns:h", b"20080102 h A 192.0.2.7", "text/dns"), "error"),
    "malformed": (record("http://h/x", b"no http here"), "error"),
    "too_large": (record("http://h/x", http(bytes(70_000))), "refused"),
}


@FORMS
@pytest.mark.parametrize("reason", CASES)
def test_what_is_no_page_is_a_row_with_its_reason(form: Any, reason: str) -> None:
    data, status = CASES[reason]
    before, row, after = read(form(INFO, A, data, C), CrawlSettings(max_page_bytes=1000))
    assert (row["status"], row["reason"], row["body"]) == (status, reason, None)
    assert before["status"] == after["status"] == "ok"


FLIPPED = bytearray(gzip.compress(B, mtime=0))
FLIPPED[60] ^= 0xFF
DAMAGED = {
    "junk between": (plain(INFO, A, b"junk\nmore junk\n", C), {"a": None, "f.arc#": "malformed", "c": None}),
    "length too short": (
        plain(INFO, A, record("http://h/x", http(), length=50), C),
        {"a": None, "x": None, "f.arc#": "malformed", "c": None},
    ),
    "length beyond the end": (
        plain(INFO, A, record("http://h/x", http(), length=10**9), C),
        {"a": None, "x": "too_large", "c": None},
    ),
    "cut off": (plain(INFO, A, B)[:-60], {"a": None, "b": "truncated"}),
    "no date": (
        plain(INFO, A, record("http://h/x", http(), date="20089999"), C),
        {"a": None, "f.arc#": "malformed", "c": None},
    ),
    "junk members": (
        members(INFO, A) + b"\x1f\x8b\x08junk" + members(C),
        {"a": None, "f.arc#": "malformed", "c": None},
    ),
    "a flipped byte": (members(INFO, A) + bytes(FLIPPED) + members(C), {"a": None, "f.arc#": "malformed", "c": None}),
    "a member cut off": (members(INFO, A, B)[:-30], {"a": None, "f.arc#": "malformed"}),
    "a member of something else": (members(INFO, A, b"no record\n", C), {"a": None, "f.arc#": "malformed", "c": None}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_reported_and_stepped_over(name: str) -> None:
    data, expected = DAMAGED[name]
    found = {key.partition("#")[0] + "#" * ("#" in key): reason for key, reason in reasons(data).items()}
    assert found == expected


def test_a_file_compressed_as_a_whole_has_rows_but_no_locators() -> None:
    rows = read(gzip.compress(plain(INFO, A, B, C)))
    assert [(row["url"], row["body"]) for row in rows] == [(f"http://h/{n}", HTML + n.encode()) for n in "abc"]
    assert all(row["offset"] is None and row["length"] is None for row in rows)


def test_a_sample_reads_the_same_captures_as_of_a_warc() -> None:
    urls = [f"http://h/{number}" for number in range(40)]
    data = plain(INFO, *(record(url, http()) for url in urls))
    taken = Sample(0.5)
    assert [row["url"] for row in read(data, sample=Sample(0.5))] == [url for url in urls if taken.takes(url)]


def test_random_damage_never_raises_and_costs_no_untouched_member() -> None:
    random = Random(7)
    whole = members(INFO, A, B, C)
    for data in (plain(INFO, A, B, C), whole, gzip.compress(plain(INFO, A, B, C))):
        for _ in range(150):
            spoilt = bytearray(data)
            for _ in range(random.randint(1, 4)):
                spoilt[random.randrange(40, len(spoilt))] ^= random.randint(1, 255)
            read(bytes(spoilt[: random.randint(60, len(spoilt))]))
    third = len(members(INFO, A, B))
    for at in range(len(members(INFO, A)), third, 7):
        spoilt = bytearray(whole)
        spoilt[at] ^= 0xFF
        rows = read(bytes(spoilt))
        assert {"http://h/a", "http://h/c"} <= {row["url"] for row in rows if row["status"] == "ok"}
