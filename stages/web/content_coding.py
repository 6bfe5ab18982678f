"""Content codings (RFC 9110, 8.4): gzip, deflate, br and zstd, decoded up to a cap.

A few kilobytes can decode to gigabytes, so every decoder works in steps and stops at the cap.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import brotli  # type: ignore[import-untyped]  # ships no types
import pyarrow as pa

ACCEPT_ENCODING = "gzip, deflate, br, zstd"

_STEP = 1 << 16  # bytes a decoder may hand out at a time
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class TooLarge(Exception):
    """More decoded bytes than the cap."""


class BadCoding(ValueError):
    """Bytes that are not what the Content-Encoding header says, or a coding that nobody here reads."""


def decode(body: bytes, content_encoding: str | None, max_bytes: int, *, cut: bool = False) -> bytes:
    """Body without its content codings, the last applied first.

    `content_encoding`: the header as sent, e.g. "gzip" or "br, gzip"; null for none. A body that is declared
    gzip or zstd without being so is returned as it is, as browsers do for servers that label plain files.
    Above `max_bytes` after any coding: TooLarge, or, with `cut`, the bytes up to there. BadCoding for damaged
    bytes and unknown codings.
    """
    codings = [coding.strip().lower() for coding in (content_encoding or "").split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if len(codings) > 3:
        raise BadCoding(f"{len(codings)} content codings")
    for coding in reversed(codings):
        if coding not in _DECODERS:
            raise BadCoding(f"unknown content coding {coding[:40]!r}")
        decoded = bytearray()
        try:
            for step in _DECODERS[coding](body):
                decoded += step
                if len(decoded) > max_bytes:
                    if not cut:
                        raise TooLarge
                    del decoded[max_bytes:]
                    break
        except (zlib.error, brotli.error, OSError) as error:
            raise BadCoding(f"damaged {coding} body: {error}") from None
        body = bytes(decoded)
    if len(body) > max_bytes:
        raise TooLarge
    return body


def dechunk(body: bytes) -> bytes:
    """Body without chunked transfer coding (RFC 9112, 7.1); unchanged when it is not validly chunked.

    Archives keep the header whether or not the writer kept the framing.
    """
    out = bytearray()
    position = 0
    while True:
        end = body.find(b"\r\n", position, position + 256)
        size_text = body[position:end].partition(b";")[0].strip()
        try:
            size = int(size_text, 16) if end > 0 and size_text.isalnum() else -1
        except ValueError:
            size = -1
        if size < 0:
            return body
        if size == 0:
            return bytes(out)
        start = end + 2
        if body[start + size : start + size + 2] != b"\r\n":
            return body
        out += body[start : start + size]
        position = start + size + 2


def _inflate(body: bytes, window_bits: int) -> Iterator[bytes]:
    """All members of a zlib or gzip stream; bytes after the last member are ignored, as browsers do."""
    position = 0
    while True:
        decoder = zlib.decompressobj(window_bits)
        while not decoder.eof:
            piece = decoder.unconsumed_tail
            if not piece:
                piece = body[position : position + _STEP]
                position += len(piece)
            step = decoder.decompress(piece, _STEP)
            if not step and not piece:
                raise BadCoding("body ends inside its compressed stream")
            yield step
        position -= len(decoder.unused_data)
        if window_bits < 16 or not body.startswith(_GZIP_MAGIC, position):
            return


def _gzip(body: bytes) -> Iterator[bytes]:
    return _inflate(body, 16 + zlib.MAX_WBITS) if body.startswith(_GZIP_MAGIC) else iter((body,))


def _deflate(body: bytes) -> Iterator[bytes]:
    # "deflate" means zlib (RFC 9110), but raw deflate is what some servers send: zlib has a checked header
    has_header = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _inflate(body, zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS) if body else iter((b"",))


def _brotli(body: bytes) -> Iterator[bytes]:
    if not body:  # as of the other codings
        return
    decoder = brotli.Decompressor()
    step = decoder.process(body, output_buffer_limit=_STEP)
    while step or not decoder.is_finished():
        yield step
        if decoder.is_finished():
            return
        step = decoder.process(b"", output_buffer_limit=_STEP)
        if not step and not decoder.is_finished():
            raise BadCoding("body ends inside its compressed stream")


def _zstd(body: bytes) -> Iterator[bytes]:
    if not body.startswith(_ZSTD_MAGIC):
        yield body
        return
    with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
        while step := stream.read(_STEP):
            yield step


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
