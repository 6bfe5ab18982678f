"""Ranges of files on servers and disks: few requests, the right bytes, and a bad answer is named, never taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.sources.byte_ranges import MAX_BYTES, MAX_GAP, BadRange, Range, coalesced, read_ranges
from tests.nginx import nginx
from tests.s3_server import filesystem, s3_server
from tests.servers import Handler, Route, Site, in_turn, routes

DATA = bytes(range(256)) * 1200  # 307,200 bytes
NOW = (0.0, 0.0)
WANTED = [Range("a.gz", 5000, 100), Range("b/c.gz", 0, 10), Range("a.gz", 0, 100), Range("a.gz", 250_000, 7)]
EXPECTED = [DATA[each.offset : each.offset + each.length] for each in WANTED]
PAST_THE_END = [Range("a.gz", len(DATA) - 5, 10), Range("a.gz", len(DATA), 10), Range("a.gz", len(DATA) + 99, 10)]


def ranged(handler: Handler) -> None:
    """The range that was asked for, as RFC 9110, 14, has it."""
    first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
    piece = DATA[int(first) : int(last) + 1]
    if not piece:
        return handler.reply(416, {"Content-Range": f"bytes */{len(DATA)}"}, b"")
    end = int(first) + len(piece) - 1
    handler.reply(206, {"Content-Range": f"bytes {first}-{end}/{len(DATA)}"}, piece)


def wrong(status: int = 206, said: str | None = None, cut: int = 0, **headers: str) -> Route:
    """An answer that is not what was asked for."""

    def respond(handler: Handler) -> None:
        first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
        told = f"bytes {first}-{last}/{len(DATA)}" if said is None else said
        body = DATA[int(first) + cut : int(last) + 1] if status == 206 else DATA
        handler.reply(status, {**({"Content-Range": told} if told else {}), **headers}, body)

    return respond


@pytest.fixture
def site() -> Iterator[Site]:
    with routes({"/a.gz": ranged, "/b/c.gz": ranged}) as running:
        yield running


def test_neighbours_come_in_one_request(site: Site) -> None:
    assert read_ranges(site.url, WANTED, retry_seconds=()) == EXPECTED
    asked = sorted((entry.path, entry.headers["range"]) for entry in site.log)
    assert asked == [("/a.gz", "bytes=0-5099"), ("/a.gz", "bytes=250000-250006"), ("/b/c.gz", "bytes=0-9")]
    assert read_ranges(site.url, [], retry_seconds=()) == []


BAD = {
    "the whole file": (wrong(200, ""), "HTTP status 200 where 206 was due"),
    "no Content-Range": (wrong(said=""), "without a Content-Range"),
    "an unknown length": (wrong(said="bytes 0-99/*"), "without a Content-Range"),
    "other bytes": (wrong(said=f"bytes 1-100/{len(DATA)}"), "100 bytes from 1 on, where 100 from 0 on were due"),
    "too few bytes": (wrong(cut=1), "99 bytes from 0 on, where 100 from 0 on were due"),
    "busy": (wrong(503, ""), "HTTP status 503"),
    "slow down": (wrong(429, ""), "HTTP status 429"),
    "forbidden": (wrong(403, ""), "HTTP status 403"),
    "past an end that is not there": (wrong(416, f"bytes */{len(DATA)}"), "HTTP status 416"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_asked_again_and_named_in_the_end(name: str) -> None:
    bad, said = BAD[name]
    with routes({"/a.gz": in_turn(bad, bad, ranged)}) as site:
        assert read_ranges(site.url, [Range("a.gz", 0, 100)], retry_seconds=NOW) == [DATA[:100]]
        assert site.paths() == ["/a.gz"] * 3
    with routes({"/a.gz": bad}) as site:
        with pytest.raises(BadRange) as raised:
            read_ranges(site.url, [Range("a.gz", 0, 100)], retry_seconds=NOW)
        assert str(raised.value).startswith(f"{site.url}/a.gz: bytes 0 to 100: ") and said in str(raised.value)
        assert site.paths() == ["/a.gz"] * 3


def test_what_is_not_there_is_asked_for_once() -> None:
    with routes({}) as site:
        with pytest.raises(BadRange, match=r"/a\.gz: no such file$"):
            read_ranges(site.url, [Range("a.gz", 0, 100)], retry_seconds=NOW)
        assert site.paths() == ["/a.gz"]
        closed = site.url
    with pytest.raises(BadRange, match="refused"):
        read_ranges(closed, [Range("a.gz", 0, 100)], retry_seconds=NOW)


def test_a_range_that_goes_past_the_end_has_what_there_is(site: Site) -> None:
    for each, expected in zip(PAST_THE_END, (DATA[-5:], b"", b""), strict=True):
        assert read_ranges(site.url, [each], retry_seconds=()) == [expected]
    assert read_ranges(site.url, PAST_THE_END, retry_seconds=()) == [DATA[-5:], b"", b""]


def test_nginx_gives_the_same(tmp_path: Path) -> None:
    _write(tmp_path / "site")
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)
    with nginx(tmp_path, f"root {tmp_path}/site; gzip on; gzip_types *;") as url:
        assert read_ranges(url, [*WANTED, *PAST_THE_END], retry_seconds=()) == [*EXPECTED, DATA[-5:], b"", b""]
        with pytest.raises(BadRange, match="no such file"):
            read_ranges(url, [Range("c.gz", 0, 10)], retry_seconds=())


def test_folders_and_buckets_give_the_same(tmp_path: Path) -> None:
    _write(tmp_path)
    with s3_server("crawl") as server, mock.patch.dict(os.environ, server.env):
        bucket = filesystem(server.env)
        bucket.pipe_file("crawl/data/a.gz", DATA)
        bucket.pipe_file("crawl/data/b/c.gz", DATA)
        for base in (str(tmp_path), f"file://{tmp_path}/", "s3://crawl/data"):
            found = read_ranges(base, [*WANTED, *PAST_THE_END], retry_seconds=())
            assert found == [*EXPECTED, DATA[-5:], b"", b""]
            with pytest.raises(BadRange, match=r"c\.gz: no such file"):
                read_ranges(base, [Range("c.gz", 0, 10)], retry_seconds=NOW)


def _write(folder: Path) -> None:
    (folder / "b").mkdir(parents=True)
    for name in ("a.gz", "b/c.gz"):
        (folder / name).write_bytes(DATA)


ranges = st.builds(Range, st.sampled_from("ab"), st.integers(0, 40_000_000), st.integers(1, 9_000_000))


@given(st.lists(ranges, max_size=20))
def test_every_range_lies_in_one_block_and_no_block_is_too_large(wanted: list[Range]) -> None:
    blocks = coalesced(wanted)
    assert sorted(index for _, members in blocks for index in members) == list(range(len(wanted)))
    for block, members in blocks:
        inside = [wanted[index] for index in members]
        assert all(
            each.file == block.file
            and block.offset <= each.offset
            and each.offset + each.length <= block.offset + block.length
            for each in inside
        )
        assert block.length <= MAX_BYTES or len(inside) == 1
        covered = 0
        for each in sorted(inside, key=lambda each: each.offset):
            assert each.offset - block.offset <= covered + MAX_GAP
            covered = max(covered, each.offset + each.length - block.offset)
        assert covered == block.length
