"""WARC files, whole and damaged: every capture is a row and no damage hides what lies before or after it."""

import gzip
import io
import tracemalloc
from datetime import UTC, datetime
from random import Random
from typing import Any

import brotli
import pyarrow as pa
import pytest

from stages.sources.warc import capture_id, read_warc
from stages.web.settings import CrawlSettings
from tests.stages.sources.archives import members, rows_of

HTML = b"<!doctype html><p>hello " + b"words " * 30


def http(body: bytes = HTML, status: str = "200 OK", content_type: str | None = "text/html", **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    typed = {} if content_type is None else {"Content-Type": content_type}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in {**typed, **named}.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def record(
    url: str | None,
    block: bytes,
    *,
    kind: str = "response",
    date: str = "2020-01-02T03:04:05Z",
    length: int | str | None = None,
    **headers: str,
) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = ["WARC/1.0", f"WARC-Type: {kind}", "WARC-Record-ID: <urn:uuid:1>", f"WARC-Date: {date}"]
    lines += [] if url is None else [f"WARC-Target-URI: {url}"]
    media_type = "application/http; msgtype=response" if kind in ("response", "revisit") else "text/plain"
    lines += [f"Content-Type: {media_type}", *(f"{name}: {value}" for name, value in named.items())]
    lines += [f"Content-Length: {len(block) if length is None else length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


INFO = record(None, b"software: none\r\n", kind="warcinfo")
A, B, C = (record(f"http://h/{name}", http(HTML + name.encode())) for name in "abc")


def read(data: bytes, settings: CrawlSettings | None = None, **options: Any) -> list[dict[str, Any]]:
    return rows_of(data, "f.warc", settings, **options)


def reasons(data: bytes) -> dict[str, str | None]:
    return {row["url"].removeprefix("http://h/"): row["reason"] for row in read(data)}


def one(data: bytes, settings: CrawlSettings | None = None) -> dict[str, Any]:
    (row,) = read(data, settings)
    return row


def test_what_a_good_row_holds() -> None:
    data = members(INFO, record("<HTTP://H:80/a#x>", http(Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")), C)
    row, _ = read(data)
    assert row["url"] == row["final_url"] == "http://h/a"
    assert (row["status"], row["reason"], row["retryable"], row["http_status"]) == ("ok", None, False, 200)
    assert row["body"] == HTML
    assert row["modified"] == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    said = {name: value for name, value in row["consent"].items() if value}
    assert said == {"agent": "interloom/0.1"}
    assert row["file"] == "f.warc"
    assert row["offset"] == len(members(INFO))
    assert row["page_id"] == capture_id("http://h/a", "f.warc", row["offset"], 0)


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
def test_locators_lead_back_to_the_record(compression: str) -> None:
    records = [INFO, A, record("http://h/req", b"GET / HTTP/1.1\r\n\r\n", kind="request"), B, C]
    pack = {"none": bytes, "gzip": gzip.compress, "lz4": pa.Codec("lz4").compress, "zstd": pa.Codec("zstd").compress}
    data = b"".join(bytes(pack[compression](each)) for each in records)
    rows = read(data)
    assert [row["url"] for row in rows] == ["http://h/a", "http://h/b", "http://h/c"]
    for row in rows:
        piece = data[row["offset"] : row["offset"] + row["length"]]
        again = one(piece)
        assert (again["url"], again["body"]) == (row["url"], row["body"])


CASES = {
    "revisit": (record("http://h/x", http(b""), kind="revisit"), "refused"),
    "truncated": (record("http://h/x", http(), WARC_Truncated="length"), "error"),
    "http_status": (record("http://h/x", http(status="404 Not Found")), "error"),
    "not_html": (record("http://h/x", http(content_type="image/png")), "refused"),
    "x_robots_tag": (record("http://h/x", http(X_Robots_Tag="noai")), "refused"),
    "content_encoding": (record("http://h/x", http(b"\x1f\x8bxx", Content_Encoding="gzip")), "error"),
    "bad_url": (record("dns:h", b"20200102 h A 127.0.0.1"), "error"),
    "malformed": (record("http://h/x", b"no http here"), "error"),
}


@pytest.mark.parametrize("reason", CASES)
def test_what_is_no_page_is_a_row_with_its_reason(reason: str) -> None:
    data, status = CASES[reason]
    for whole in (A + data + C, members(A, data, C)):
        before, row, after = read(whole)
        assert (row["status"], row["reason"], row["body"]) == (status, reason, None)
        assert row["detail"]
        assert before["status"] == after["status"] == "ok"


def test_untyped_answers_are_looked_at() -> None:
    assert one(record("http://h/x", http(content_type=None)))["status"] == "ok"
    assert one(record("http://h/x", http(b"%PDF", content_type=None)))["reason"] == "not_html"


def test_framing_and_codings_are_removed_whether_or_not_the_writer_kept_them() -> None:
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HTML), HTML)
    assert one(record("http://h/x", http(chunked, Transfer_Encoding="chunked")))["body"] == HTML
    assert one(record("http://h/x", http(HTML, Transfer_Encoding="chunked")))["body"] == HTML
    assert one(record("http://h/x", http(gzip.compress(HTML), Content_Encoding="gzip")))["body"] == HTML
    assert one(record("http://h/x", http(HTML, Content_Encoding="gzip")))["body"] == HTML
    assert one(record("http://h/x", http(brotli.compress(HTML), Content_Encoding="br")))["body"] == HTML


def test_large_bodies_and_bombs_are_refused_without_being_held() -> None:
    small = CrawlSettings(max_page_bytes=10_000)
    bomb = gzip.compress(bytes(30_000_000))
    data = members(
        record("http://h/x", http(bomb, Content_Encoding="gzip")), record("http://h/y", http(bytes(30_000_000)))
    )
    tracemalloc.start()
    try:
        assert [row["reason"] for row in read(data, small)] == ["too_large", "too_large"]
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert one(record("http://h/x", http(bytes(10_001))), small)["reason"] == "too_large"
    assert one(record("http://h/x", http(bytes(10_000))), small)["status"] == "ok"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (A + B + C[:-60], {"a": None, "b": None, "c": "truncated"}),
        (A + B + C[:60], {"a": None, "b": None, f"f.warc#{len(A + B)}": "malformed"}),
        (A + B + b"garbage\r\n", {"a": None, "b": None, f"f.warc#{len(A + B) - 4}": "malformed"}),
        (A + b"garbage\r\n\r\n" + B, {"a": None, f"f.warc#{len(A) - 4}": "malformed", "b": None}),
        (A + b"\r\n\r\n\n" + B, {"a": None, "b": None}),  # mere padding
        (A + B + bytes(5000), {"a": None, "b": None}),
        (A + record("http://h/b", http(), length=10**30) + C, {"a": None, "b": "malformed", "c": None}),
        (A + record("http://h/b", http(), length=-1) + C, {"a": None, "b": "malformed", "c": None}),
        (A + record(None, http()) + C, {"a": None, f"f.warc#{len(A)}": "malformed", "c": None}),
        (members(A, B, C)[:-60], {"a": None, "b": None, "c": "malformed"}),
        (members(A, B) + b"garbage", {"a": None, "b": None, f"f.warc#{len(members(A, B))}": "malformed"}),
        (members(A, B) + bytes(5000), {"a": None, "b": None}),
        (members(A, b"no record", C), {"a": None, f"f.warc#{len(members(A))}": "malformed", "c": None}),
        (b"<html>", {"f.warc#0": "malformed"}),
        (b"filedesc://f.arc 0.0.0.0 20110101000000 text/plain 10\n1 0 x\n\n", {"f.warc#0": "malformed"}),
        (b"", {}),
        (INFO, {}),
    ],
)
def test_damage_is_reported_and_stepped_over(data: bytes, expected: dict[str, str | None]) -> None:
    assert reasons(data) == expected


def test_a_flipped_byte_loses_one_member_only() -> None:
    first, second = len(members(A)), len(members(A, B))
    data = bytearray(members(A, B, C))
    for position in (first + 20, first + 40, second - 6):
        damaged = bytes(data[:position]) + bytes([data[position] ^ 0xFF]) + bytes(data[position + 1 :])
        found = reasons(damaged)
        assert found["a"] is None
        assert found["c"] is None
        assert "malformed" in found.values() or found.get("b") in ("malformed", "truncated")


def test_a_file_compressed_as_a_whole_has_rows_but_no_locators() -> None:
    rows = read(gzip.compress(A + B + C))
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert [(row["offset"], row["length"]) for row in rows[1:]] == [(None, None)] * 2


def test_batches_hold_the_same_rows() -> None:
    data = members(*[record(f"http://h/{i}", http()) for i in range(10)])
    assert read(data, batch_rows=3) == read(data)
    sizes = [len(table) for table in read_warc(io.BytesIO(data), "f.warc", batch_rows=3)]
    assert sizes == [3, 3, 3, 1]


def test_random_damage_never_raises() -> None:
    random = Random(7)
    lz4, zstd = (b"".join(bytes(pa.Codec(name).compress(each)) for each in (INFO, A, B, C)) for name in ("lz4", "zstd"))
    for data in (INFO + A + B + C, members(INFO, A, B, C), lz4, zstd):
        for _ in range(100):
            damaged = bytearray(data)
            for _ in range(random.randint(1, 6)):
                start = random.randrange(len(damaged))
                match random.randrange(3):
                    case 0:
                        damaged[start] = random.randrange(256)
                    case 1:
                        del damaged[start : start + random.randint(1, 40)]
                    case _:
                        damaged[start:start] = random.randbytes(random.randint(1, 40))
            read(bytes(damaged[: random.randint(1, len(damaged))]))
