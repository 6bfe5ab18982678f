"""Fetching from servers that break HTTP byte by byte: what is taken all the same, what is named, and in what time.

Faults that can be seen are answered long before the time of an item is up: it is so long here that whatever waited
for it would be told as "timeout".
"""

from __future__ import annotations

import gzip
import ssl
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import brotli  # type: ignore[import-untyped]  # ships no types
import pytest
from aiohttp import connector

from stages.web.client import Client
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from tests.fault_server import (
    Fault,
    FaultServer,
    answers,
    chunked,
    closes,
    drips,
    fault_server,
    head,
    holds,
    in_turn,
    page,
    resets,
)
from tests.tls import authority, server_context

SETTINGS = CrawlSettings(
    allow_private_networks=True,
    obey_robots=False,
    concurrency=256,
    per_host_delay=0,
    per_host_concurrency=256,
    max_host_failures=0,
    retries=1,
    retry_backoff=0.02,
    max_retry_wait=0.1,
    connect_timeout=20,
    total_timeout=30,
)
SECONDS = 1.0
HASTY = SETTINGS.model_copy(update={"total_timeout": SECONDS})
MAX_BYTES = 200_000
BODY = b"<p>heron"
CHUNK = b"8\r\n<p>heron\r\n"
TWICE = gzip.compress(gzip.compress(BODY, mtime=0), mtime=0)
ONCE = gzip.compress(BODY, mtime=0)


class Case(NamedTuple):
    """A fault, and the row it must end in."""

    fault: Fault
    outcome: bytes | str  # the body, or the reason why there is none
    retryable: bool = False
    asked: int = 1  # requests


def ok(*pieces: bytes, body: bytes = BODY, pause: float = 0.0) -> Case:
    return Case(answers(*pieces, pause=pause), body)


def protocol(fault: Fault) -> Case:
    return Case(fault, "protocol")


def again(fault: Fault) -> Case:
    """A connection that broke: asked for twice, and once more in a later run."""
    return Case(fault, "connection", True, 2)


def coding(fault: Fault) -> Case:
    return Case(fault, "content_encoding")


def flood(start: bytes, piece: bytes) -> Fault:
    return drips(start, piece * (20_000 // len(piece) + 1), pause=0.002)


def said(*lines: str | bytes, body: bytes = BODY, status: str = "200 OK") -> Fault:
    return answers(page(body, *lines, status=status))


def moved(location: bytes) -> Fault:
    return said(b"Location: " + location, status="302 Found", body=b"")


OK = b"HTTP/1.1 200 OK\r\n"
TYPED = b"Content-Type: text/html\r\n"

FAULTS: dict[str, Case] = {
    # What only looks like a fault.
    "as_it_should_be": ok(page(BODY)),
    "byte_by_byte": ok(*(bytes([byte]) for byte in page(BODY))),
    "head_in_two": ok(head("Content-Length: 8")[:-1], b"\n" + BODY, pause=0.03),
    "head_in_two_before_its_last_line": ok(head("Content-Length: 8")[:-2], b"\r\n" + BODY, pause=0.03),
    "blank_lines_first": ok(b"\r\n\r\n" + page(BODY)),
    "no_reason_phrase": ok(b"HTTP/1.1 200\r\n" + TYPED + b"Content-Length: 8\r\n\r\n" + BODY),
    "lines_end_in_lf": ok(page(BODY).replace(b"\r\n", b"\n")),
    "http_1_0": Case(closes(page(BODY).replace(b"1.1", b"1.0", 1)), BODY),
    "no_length": Case(closes(head() + BODY), BODY),
    "latin_1_header": Case(said(b"X-A: caf\xe9"), BODY),
    "folded_header": Case(said("X-A: a\r\n b"), BODY),
    "long_header": Case(said("X-A: " + "x" * 10_000), BODY),
    "upgrade_offered": Case(said("Upgrade: h2c", "Connection: upgrade"), BODY),
    "nul_in_body": Case(said(body=b"\0<p>he\0ron\0"), b"\0<p>he\0ron\0"),
    "chunk_extension": ok(chunked(b"8;a=b\r\n<p>heron\r\n")),
    "trailer": ok(chunked(CHUNK, end=b"0\r\nX-Sum: 1\r\n\r\n")),
    "chunks_of_one_byte": ok(chunked(*(b"1\r\n%c\r\n" % byte for byte in BODY * 1000)), body=BODY * 1000),
    "chunks_of_one_byte_in_packets": ok(
        head("Transfer-Encoding: chunked"), *[b"1\r\nx\r\n"] * 20, b"0\r\n\r\n", body=b"x" * 20
    ),
    # Interim answers (RFC 9110, 15.2).
    "100": ok(b"HTTP/1.1 100 Continue\r\n\r\n" + page(BODY)),
    "102_and_103": ok(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", page(BODY), pause=0.03
    ),
    "101_unasked": Case(
        answers(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx"), "http_status"
    ),
    "endless_100": protocol(flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "endless_103": protocol(flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")),
    # Ends.
    "reset_at_once": again(resets()),
    "reset_in_head": again(resets(OK + b"Content-")),
    "reset_in_body": again(resets(head("Content-Length: 1000") + BODY)),
    "reset_in_chunks": again(resets(chunked(CHUNK, end=b""))),
    "reset_of_a_body_without_length": again(resets(head() + BODY)),
    "closed_at_once": again(closes()),
    "closed_in_head": again(closes(OK + b"Content-")),
    "closed_before_the_length": again(closes(head("Content-Length: 1000") + BODY)),
    "closed_before_the_last_chunk": again(closes(chunked(CHUNK, end=b""))),
    "closed_in_the_last_chunk": again(closes(chunked(CHUNK, end=b"0\r\n"))),
    "reset_once": Case(in_turn(resets(head("Content-Length: 1000") + BODY), answers(page(BODY))), BODY, asked=2),
    # Lengths.
    "more_than_its_length": ok(head("Content-Length: 3") + BODY, body=b"<p>"),
    "more_than_its_length_later": ok(head("Content-Length: 3") + BODY[:3], BODY[3:], body=b"<p>", pause=0.03),
    "negative_length": protocol(answers(head("Content-Length: -8") + BODY)),
    "signed_length": protocol(answers(head("Content-Length: +8") + BODY)),
    "hexadecimal_length": protocol(answers(head("Content-Length: 0x8") + BODY)),
    "length_in_words": protocol(answers(head("Content-Length: eight") + BODY)),
    "length_too_long_a_number": protocol(answers(head("Content-Length: " + "9" * 30) + BODY)),
    "two_lengths": protocol(answers(head("Content-Length: 8", "Content-Length: 3") + BODY)),
    "length_and_chunks": protocol(answers(head("Content-Length: 3", "Transfer-Encoding: chunked") + CHUNK)),
    # Chunks.
    "chunk_size_no_number": protocol(answers(chunked(CHUNK, b"zz\r\n<p>\r\n"))),
    "chunk_size_no_number_later": protocol(answers(chunked(CHUNK, end=b""), b"zz\r\n<p>\r\n", pause=0.03)),
    "chunk_size_negative": protocol(answers(chunked(b"-8\r\n<p>heron\r\n"))),
    "chunk_size_too_long_a_number": protocol(answers(chunked(b"f" * 17 + b"\r\n<p>heron\r\n"))),
    "chunk_without_its_end": protocol(answers(chunked(b"8\r\n<p>heronXX"))),
    "chunk_longer_than_its_size": protocol(answers(chunked(b"3\r\n<p>heron\r\n"))),
    "endless_chunk_extension": protocol(flood(chunked(b"8;", end=b""), b"x")),
    "endless_trailer": protocol(flood(chunked(CHUNK, end=b"0\r\n"), b"X-A: b\r\n")),
    "unknown_transfer_coding": coding(closes(head("Transfer-Encoding: rot13") + BODY)),
    "gzip_as_transfer_coding": coding(closes(head("Transfer-Encoding: gzip, chunked") + CHUNK + b"0\r\n\r\n")),
    "almost_chunked": coding(closes(head("Transfer-Encoding: xchunked") + CHUNK + b"0\r\n\r\n")),
    "chunked_not_last": coding(closes(head("Transfer-Encoding: chunked, identity") + CHUNK + b"0\r\n\r\n")),
    # Heads.
    "huge_header": protocol(said("X-A: " + "x" * 1_000_000)),
    "endless_header": protocol(flood(OK + b"X-A: ", b"x")),
    "endless_header_name": protocol(flood(OK, b"x")),
    "endless_headers": protocol(flood(OK, b"X-A: b\r\n")),
    "endless_reason": protocol(flood(b"HTTP/1.1 200 ", b"x")),
    "endless_status": protocol(flood(b"HTTP/1.1 2", b"0")),
    "endless_blank_lines": protocol(flood(b"", b"\r\n")),
    "endless_spaces": protocol(flood(b"", b"  ")),
    "nul_in_header_name": protocol(said(b"X-\0A: b")),
    "nul_in_header": protocol(said(b"X-A: b\0c")),
    "nul_in_content_type": protocol(answers(OK + b"Content-Type: text/html\0\r\nContent-Length: 8\r\n\r\n" + BODY)),
    "nul_first": protocol(answers(b"\0" + page(BODY))),
    "header_without_colon": protocol(said("nonsense")),
    "header_without_name": protocol(said(": nonsense")),
    "space_before_colon": protocol(said("X-A : b")),
    "bare_cr_in_header": protocol(said("X-A: a\rX-Robots-Tag: noai")),
    "bare_lf_in_header": Case(said("X-A: a\nX-Robots-Tag: noai"), "x_robots_tag"),
    "injected_header": Case(said("X-A: a\r\nX-Robots-Tag: noai"), "x_robots_tag"),
    # What is no HTTP/1.
    "http_0_9": protocol(closes(b"<html>" + BODY)),
    "icy": protocol(closes(b"ICY 200 OK\r\n" + TYPED + b"\r\n" + BODY)),
    "lower_case": protocol(closes(page(BODY).replace(b"HTTP", b"http"))),
    "http_2_frames": protocol(closes(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64")),
    "http_2_status_line": protocol(closes(page(BODY).replace(b"1.1", b"2", 1))),
    "http_1_2": protocol(closes(page(BODY).replace(b"1.1", b"1.2", 1))),
    "status_of_two_digits": protocol(said(status="99 Odd")),
    "status_of_four_digits": protocol(said(status="1000 Odd")),
    "negative_status": protocol(said(status="-200 Odd")),
    "status_in_words": protocol(said(status="OK")),
    "status_999": Case(said(status="999 Denied"), "http_status", True),
    "status_305": Case(said("Location: /as_it_should_be", status="305 Use Proxy"), "http_status"),
    "status_304_unasked": Case(answers(head(status="304 Not Modified")), "http_status"),
    "status_206_unasked": Case(said("Content-Range: bytes 0-7/100", status="206 Partial Content"), "http_status"),
    "endless_404": Case(flood(head(status="404 Not Found"), b"x"), "http_status"),
    "endless_200": Case(flood(head(), b"x"), "too_large"),
    # Content codings.
    "gzip_twice": Case(said("Content-Encoding: gzip, gzip", body=TWICE), BODY),
    "gzip_twice_in_two_headers": Case(said("Content-Encoding: gzip", "Content-Encoding: gzip", body=TWICE), BODY),
    "gzip_twice_said_once": Case(said("Content-Encoding: gzip", body=TWICE), ONCE),
    "gzip_said_twice": Case(said("Content-Encoding: gzip, gzip", body=ONCE), BODY),
    "gzip_not_said": Case(said(body=ONCE), ONCE),
    "gzip_said_of_plain_text": Case(said("Content-Encoding: gzip"), BODY),
    "gzip_cut_short": coding(said("Content-Encoding: gzip", body=ONCE[:-9])),
    "gzip_with_a_wrong_sum": coding(said("Content-Encoding: gzip", body=ONCE[:-8] + b"12345678")),
    "gzip_with_more_behind": Case(said("Content-Encoding: gzip", body=ONCE + b"junk"), BODY),
    "brotli_said_of_gzip": coding(said("Content-Encoding: br", body=ONCE)),
    "brotli_said_of_plain_text": coding(said("Content-Encoding: br")),
    "deflate_said_of_gzip": coding(said("Content-Encoding: deflate", body=ONCE)),
    "deflate_without_its_header": Case(
        said("Content-Encoding: deflate", body=zlib.compress(BODY, wbits=-zlib.MAX_WBITS)), BODY
    ),
    "unknown_coding": coding(said("Content-Encoding: pack200")),
    "a_thousand_codings": coding(said("Content-Encoding: " + "gzip, " * 1000)),
    "brotli_bomb": Case(said("Content-Encoding: br", body=brotli.compress(b"\0" * 5_000_000, quality=5)), "too_large"),
    "nothing_in_gzip": Case(said("Content-Encoding: gzip", body=b""), b""),
    "nothing_in_brotli": Case(said("Content-Encoding: br", body=b""), b""),
    "nothing_in_zstd": Case(said("Content-Encoding: zstd", body=b""), b""),
    # Redirects.
    "to_and": Case(moved(b"/fro"), "too_many_redirects", asked=2),
    "fro": Case(moved(b"/to_and"), "too_many_redirects", asked=2),
    "to_itself": Case(moved(b"#here"), "too_many_redirects"),
    "nowhere": Case(moved(b""), "too_many_redirects"),
    "to_utf_8": Case(moved("/caf\u00e9".encode()), b"<p>UTF-8"),
    "caf%C3%A9": Case(said(body=b"<p>UTF-8"), b"<p>UTF-8", asked=2),
    "to_latin_1": Case(moved(b"/caf\xe9"), b"<p>Latin-1"),
    "caf%E9": Case(said(body=b"<p>Latin-1"), b"<p>Latin-1", asked=2),
    "to_a_blank": Case(moved(b"/a b"), b"<p>blank"),
    "a%20b": Case(said(body=b"<p>blank"), b"<p>blank", asked=2),
    "to_a_tab": Case(moved(b"/here\tand there"), b"<p>tab"),
    "hereand%20there": Case(said(body=b"<p>tab"), b"<p>tab", asked=2),
    "to_a_nul": protocol(moved(b"/a\0b")),
    "to_a_line_break": Case(moved(b"/line%0D%0AX-A:%20b"), b"<p>line"),
    "line%0D%0AX-A:%20b": Case(said(body=b"<p>line"), b"<p>line", asked=2),
    "to_two_places": Case(moved(b"/a\r\nLocation: /b"), "bad_redirect"),
    "to_one_place_twice": Case(moved(b"/a%20b\r\nLocation: /a%20b"), b"<p>blank"),
    "to_a_script": Case(moved(b"javascript:alert(1)"), "bad_redirect"),
    "to_a_file": Case(moved(b"file:///etc/passwd"), "bad_redirect"),
    "to_a_port_too_high": Case(moved(b"http://127.0.0.1:99999/"), "bad_redirect"),
    "to_half_an_address": Case(moved(b"http://[::1/"), "bad_redirect"),
    "too_far": Case(moved(b"/" + b"a" * 9000), "bad_redirect"),
    "with_an_endless_body": Case(flood(head("Location: /nul_in_body", status="302 Found"), b"x"), b"\0<p>he\0ron\0"),
    # Retry-After: every one asks for the shortest wait there is, or for more than is waited.
    **{
        f"busy_for_{name}": Case(said(f"Retry-After: {wait}", status="429 Too Many Requests"), "http_status", True, 2)
        for name, wait in {
            "an_hour": "3600",
            "ever": "9" * 400,
            "minus_five": "-5",
            "half_a_second": "0.5",
            "a_while": "soon",
            "the_past": "Wed, 21 Oct 2015 07:28:00 GMT",
            "ages": "Fri, 31 Dec 9999 23:59:59 GMT",
            "no_day": "Fri, 99 Foo 2027 99:99:99 GMT",
        }.items()
    },
}
# Redirects lead here too.
REACHED = {"nul_in_body": 2, "a%20b": 3}

# What cannot be told from a server that is slow.
WAITING: dict[str, Fault] = {
    "no_answer": holds(),
    "half_a_head": holds(OK + b"Content-"),
    "head_that_trickles": drips(OK, b"X", pause=0.01),
    "body_that_trickles": drips(head("Content-Length: 100000"), b"x", pause=0.01),
    "chunks_that_trickle": drips(chunked(end=b""), b"1\r\nx\r\n", pause=0.01),
    "less_than_its_length": holds(head("Content-Length: 1000") + BODY),
    "no_last_chunk": holds(chunked(CHUNK, end=b"")),
    "no_length_and_no_end": holds(head() + BODY),
    "huge_chunk": holds(chunked(b"7fffffff\r\n<p>heron", end=b"")),
    "continue_and_nothing": holds(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


def fetched(client: Client, server: FaultServer, *paths: str) -> dict[str, dict[str, Any]]:
    """Rows by path without its slash."""
    urls = [f"{server.url}/{path}" for path in paths]
    tables = client.fetch(urls, kind="page", max_bytes=MAX_BYTES)
    return {row["url"].removeprefix(f"{server.url}/"): row for table in tables for row in table.to_pylist()}


@pytest.fixture(scope="module")
def broken() -> Iterator[tuple[dict[str, dict[str, Any]], list[str]]]:
    """All faults at once: rows, and the paths that were asked for."""
    with (
        fault_server({f"/{name}": case.fault for name, case in FAULTS.items()}) as server,
        closing(Client(SETTINGS, memory=HostMemory())) as client,
    ):
        yield fetched(client, server, *FAULTS), server.paths()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_in_its_row(broken: tuple[dict[str, dict[str, Any]], list[str]], name: str) -> None:
    rows, asked = broken
    case, row = FAULTS[name], rows[name]
    assert (row["reason"] or row["body"], row["retryable"]) == (case.outcome, case.retryable), row["detail"]
    assert row["detail"] is None or ("\n" not in row["detail"] and len(row["detail"]) <= 500)
    # aiohttp itself asks once more where a kept connection ends before an answer has come.
    assert case.asked <= asked.count(f"/{name}") <= REACHED.get(name, case.asked) + 2 * (case.outcome == "connection")


def test_what_may_be_slow_has_its_time_and_no_more() -> None:
    start = time.monotonic()
    with (
        fault_server({f"/{name}": fault for name, fault in WAITING.items()}) as server,
        closing(Client(HASTY, memory=HostMemory())) as client,
    ):
        rows = fetched(client, server, *WAITING)
        assert SECONDS <= time.monotonic() - start < 8 * SECONDS
    assert {name: (row["reason"], row["retryable"]) for name, row in rows.items()} == dict.fromkeys(
        WAITING, ("timeout", True)
    )


POISON = page(b"<p>POISON")


@pytest.mark.parametrize(
    ("first", "wait"),
    [
        pytest.param(answers(page(BODY) + POISON), 0.0, id="a_second_answer_at_once"),
        pytest.param(answers(page(BODY), POISON, pause=0.05), 0.2, id="a_second_answer_later"),
        pytest.param(
            answers(page(BODY), b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05), 0.2, id="an_interim_answer_later"
        ),
        pytest.param(answers(page(BODY) + POISON[:30], POISON[30:], pause=0.05), 0.0, id="half_of_it_later"),
        pytest.param(answers(chunked(CHUNK) + POISON), 0.0, id="after_chunks"),
        pytest.param(answers(chunked(CHUNK) + POISON[:30], POISON[30:], pause=0.05), 0.0, id="half_of_it_after_chunks"),
        pytest.param(answers(chunked(CHUNK)[:-1], b"\n" + POISON[:30]), 0.0, id="half_of_it_after_a_split_chunk"),
        pytest.param(answers(chunked(CHUNK), POISON, pause=0.05), 0.2, id="after_chunks_later"),
        pytest.param(answers(page(BODY) + b"junk"), 0.0, id="junk_at_once"),
        pytest.param(answers(page(BODY), b"junk", pause=0.05), 0.2, id="junk_later"),
        pytest.param(answers(page(BODY), b"\r\n", pause=0.05), 0.2, id="a_blank_line_later"),
        pytest.param(answers(head(status="204 No Content") + POISON), 0.0, id="after_no_content"),
        pytest.param(answers(head("Content-Length: 0") + POISON), 0.0, id="after_nothing"),
        pytest.param(
            answers(head("Content-Length: 8", status="302 Found") + BODY + POISON), 0.0, id="after_a_redirect"
        ),
        pytest.param(answers(page(BODY, status="404 Not Found") + POISON), 0.0, id="after_an_error"),
    ],
)
def test_what_follows_an_answer_is_never_the_next_one(first: Fault, wait: float) -> None:
    faults = {"/first": first, "/next": answers(page(b"<p>next"))}
    with fault_server(faults) as server, closing(Client(SETTINGS, memory=HostMemory())) as client:
        assert fetched(client, server, "first")["first"]["body"] in (BODY, b"", None)
        time.sleep(wait)
        assert fetched(client, server, "next")["next"]["body"] == b"<p>next"
        assert [number for number, _ in server.asked] == [0, 1]


def test_bodies_where_headers_alone_were_asked_for_are_no_answers() -> None:
    faults = {"/first": answers(page(BODY) + POISON), "/next": answers(page(b"<p>next"))}
    with fault_server(faults) as server, closing(Client(SETTINGS, memory=HostMemory())) as client:
        [table] = client.fetch([f"{server.url}/first"], kind="page", max_bytes=99, method="HEAD")
        assert table.column("status").to_pylist() == ["ok"]
        assert fetched(client, server, "next")["next"]["body"] == b"<p>next"


def test_a_connection_that_told_nothing_but_its_answers_is_kept() -> None:
    faults = {"/first": answers(page(BODY)), "/next": answers(chunked(CHUNK)), "/last": answers(page(b""))}
    faults["/split"] = answers(chunked(CHUNK)[:-1], b"\n", pause=0.03)
    with fault_server(faults) as server, closing(Client(SETTINGS, memory=HostMemory())) as client:
        for path in ("first", "next", "split", "last"):
            assert fetched(client, server, path)[path]["status"] == "ok"
        assert [number for number, _ in server.asked] == [0, 0, 0, 0]


def test_a_host_in_a_storm_of_429_is_left_alone_and_every_page_asked_for_at_most_twice() -> None:
    storm = said("Retry-After: 60", status="429 Too Many Requests")
    polite = SETTINGS.model_copy(update={"per_host_concurrency": 2, "max_retry_wait": 0.05})
    paths = [str(number) for number in range(12)]
    with (
        fault_server({f"/{path}": storm for path in paths}) as server,
        closing(Client(polite, memory=HostMemory())) as client,
    ):
        start = time.monotonic()
        rows = fetched(client, server, *paths)
        took = time.monotonic() - start
    assert all((row["http_status"], row["retryable"]) == (429, True) for row in rows.values())
    assert sorted(server.paths()) == sorted(f"/{path}" for path in paths * 2)
    # Two at a time, each pair waits for what the one before it was told.
    assert 12 * 0.05 * 0.9 <= took < 15


def test_a_date_to_come_again_at_is_kept_to() -> None:
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    busy = said(f"Retry-After: {format_datetime(when, usegmt=True)}", status="503 Service Unavailable")
    patient = SETTINGS.model_copy(update={"max_retry_wait": 5.0})
    with (
        fault_server({"/first": in_turn(busy, answers(page(BODY)))}) as server,
        closing(Client(patient, memory=HostMemory())) as client,
    ):
        assert fetched(client, server, "first")["first"]["body"] == BODY
        assert datetime.now(UTC) >= when
        assert server.paths() == ["/first"] * 2


TOO_OLD = b"\x15\x03\x01\0\x02\x02\x46"  # a fatal alert, protocol_version (RFC 8446, 6.2)


@pytest.mark.parametrize("name", ["trusted", "unknown", "wrong_name", "expired", "old", "no_tls", "hangs_up", "silent"])
def test_certificates_and_handshakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    known = authority(tmp_path)
    trusting = ssl.create_default_context(cafile=None if name == "unknown" else str(known.file))
    monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", trusting)
    files = known.signed("heron.test" if name == "wrong_name" else "127.0.0.1", days=-1 if name == "expired" else 1)
    context = server_context(files)
    outcomes: dict[str, tuple[str | bytes, bool]] = {
        "trusted": (BODY, False),
        "hangs_up": ("connection", True),
        "silent": ("timeout", True),
    }
    raw = {"no_tls": answers(page(BODY)), "old": closes(TOO_OLD), "hangs_up": closes(), "silent": holds()}.get(name)
    hasty = SETTINGS.model_copy(update={"connect_timeout": 0.5, "retries": 0})
    faults = {"/first": answers(page(BODY))} if raw is None else {}
    with (
        fault_server(faults, context=None if raw else context, greeting=raw) as server,
        closing(Client(hasty if name == "silent" else SETTINGS, memory=HostMemory())) as client,
    ):
        url = server.url.replace("http:", "https:") + "/first"
        [table] = client.fetch([url], kind="page", max_bytes=MAX_BYTES)
        [row] = table.to_pylist()
    assert (row["reason"] or row["body"], row["retryable"]) == outcomes.get(name, ("tls", False)), row["detail"]
    if name in ("unknown", "wrong_name", "expired"):
        assert {"unknown": "issuer", "wrong_name": "mismatch", "expired": "expired"}[name] in row["detail"]
