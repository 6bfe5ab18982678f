"""Content codings: decoded up to the cap, whatever they blow up to, and never wrongly."""

import contextlib
import gzip
import time
import zlib

import brotli
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.content_coding import BadCoding, TooLarge, dechunk, decode

TEXT = b"<p>hello, world " * 5000


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


ENCODED = [
    ("gzip", gzip.compress(TEXT, mtime=0)),
    ("x-gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
    ("deflate", zlib.compress(TEXT)),
    ("deflate", raw_deflate(TEXT)),
    ("br", brotli.compress(TEXT)),
    ("zstd", zstd(TEXT)),
    ("br, GZIP", gzip.compress(brotli.compress(TEXT), mtime=0)),
]


@pytest.mark.parametrize(("coding", "body"), ENCODED)
def test_round_trip_and_cap(coding: str, body: bytes) -> None:
    assert decode(body, coding, len(TEXT)) == TEXT
    for cap in (0, 1000, len(TEXT) - 1):
        with pytest.raises(TooLarge):
            decode(body, coding, cap)
    if "," not in coding:
        assert decode(body, coding, 1000, cut=True) == TEXT[:1000]


@pytest.mark.parametrize(("coding", "body"), ENCODED)
def test_a_truncated_body_is_an_error(coding: str, body: bytes) -> None:
    with pytest.raises(BadCoding):
        decode(body[:-10], coding, len(TEXT))


@pytest.mark.parametrize("coding", [None, "", "identity", "gzip", "zstd", " , "])
def test_a_body_that_is_not_coded_is_kept(coding: str | None) -> None:
    assert decode(TEXT, coding, len(TEXT)) == TEXT
    assert decode(b"", coding, 10) == b""
    with pytest.raises(TooLarge):
        decode(TEXT, coding, 10)


@pytest.mark.parametrize("coding", ["rot13", "gzip, gzip, gzip, gzip", "br"])
def test_bad_codings(coding: str) -> None:
    with pytest.raises(BadCoding):
        decode(b"\xff\xfe not this", coding, 1000)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_bombs_cost_no_more_than_the_cap(coding: str) -> None:
    zeros = bytes(100_000_000)
    pack = {"gzip": lambda: gzip.compress(zeros, 1, mtime=0), "deflate": lambda: zlib.compress(zeros, 1),
            "br": lambda: brotli.compress(zeros, quality=1), "zstd": lambda: zstd(zeros)}  # fmt: skip
    body = pack[coding]()
    start = time.process_time()
    with pytest.raises(TooLarge):
        decode(body, coding, 1_000_000)
    assert time.process_time() - start < 0.1


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.binary(max_size=200),
    st.sampled_from(["gzip", "deflate", "br", "zstd"]),
    st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"]),
)
def test_any_bytes_decode_or_fail_as_declared(body: bytes, coding: str, magic: bytes) -> None:
    with contextlib.suppress(BadCoding, TooLarge):
        assert len(decode(magic + body, coding, 1000)) <= 1000


def test_chunks() -> None:
    assert dechunk(b"5\r\n<p>ab\r\n3;ext=1\r\ncde\r\n0\r\n\r\n") == b"<p>abcde"
    assert dechunk(b"0\r\n\r\n") == b""


@pytest.mark.parametrize(
    "body", [b"", b"<p>plain", b"5\r\n<p>", b"5\r\n<p>abXX0\r\n\r\n", b"-5\r\nxx", b"zz\r\n", b"FFFFFFFFFF\r\nx"]
)
def test_what_is_not_chunked_is_kept(body: bytes) -> None:
    assert dechunk(body) == body
