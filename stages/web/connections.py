"""Connections that are kept between requests: one answer to each, and nothing that came after it for the next.

aiohttp's own take bytes that follow an answer for the next one, wait for the rest of a body whose framing has broken,
and call a body whole that a reset cut off. RFC 9112, sections 6.3, 8 and 9.2, forbids the first and the last.
"""

from __future__ import annotations

import asyncio
import functools
import re
import select
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

# Bytes before a body, interim answers and blank lines included; ten header lines of the longest kind.
MAX_HEADER_LINE = 16_384
_MAX_HEAD = 10 * MAX_HEADER_LINE
_BLANK_LINE = re.compile(rb"(?<=\n)\r?\n")
# Bytes on the wire for one of a body; chunks of one byte take six.
_MAX_FRAMING = 8


class BadFraming(aiohttp.ClientError):
    """An answer whose framing broke after its headers had come; the message is the parser's."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's, with connections that are not used again once something has come that nobody asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_wire, loop=asyncio.get_running_loop())

    async def _get(self, *asked: Any) -> Connection | None:
        while (kept := await super()._get(*asked)) is not None:
            if isinstance(kept.protocol, _Wire) and kept.protocol.is_silent():
                return kept
            kept.close()
        return None


class _Wire(ResponseHandler):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._in_head = True  # the answer's own headers, those after interim ones, have not ended
        self._before = b""  # the last bytes so far: what ends head or chunks may lie in two packets
        self._length: int | None = 0  # as announced; null of chunks
        self._head_bytes = 0
        self._body_bytes = 0  # with its framing

    def is_silent(self) -> bool:
        """Whether the next request's answer is the next thing that will come."""
        if self.should_close or self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def set_response_params(self, **options: Any) -> None:
        """A request is about to be sent."""
        self._in_head, self._before, self._head_bytes, self._body_bytes = True, b"", 0, 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer; or, after its end, the end of the connection."""
        if self._parser is None or self._upgraded:
            return super().data_received(data)
        if data and not self._in_head and (self._payload is None or self._payload.is_eof()):
            return self.abort()
        if self._in_head:
            data = self._head(data)
            if self._in_head or self._exception is not None:
                return
        if data and (self._payload is None or self._payload.is_eof()):
            return self.force_close()  # a body where none belongs
        self._body_bytes += len(data)
        self._before = (self._before + data)[-3:]
        super().data_received(data)  # of a body that was held back there may be more without data
        if self._payload is None or self._payload.is_eof():
            if self._has_more():
                self.force_close()
            return
        if self._exception is not None:
            self._payload.set_exception(BadFraming(said(self._exception)))
        elif self._body_bytes > _MAX_FRAMING * self._payload.total_bytes + _MAX_HEAD:
            self._broken("framing without a body")

    def _head(self, data: bytes) -> bytes:
        """What of these bytes follows the head, which the parser has got.

        It gets a head alone: what it raises of later bytes in the same packet would take the headers along.
        """
        seen, data = len(self._before), self._before + data
        while self._in_head and seen < len(data) and self._exception is None:
            blank = _BLANK_LINE.search(data, seen - data.endswith(b"\r", 0, seen))
            end = len(data) if blank is None else blank.end()
            self._head_bytes += end - seen
            if self._head_bytes > _MAX_HEAD:
                self._broken(f"more than {_MAX_HEAD} bytes before the body")
                break
            answers = len(self._buffer)
            super().data_received(data[seen:end])
            seen = end
            if len(self._buffer) > answers:
                (message, _), _ = self._buffer[-1]
                self._length = None if message.chunked else int(message.headers.get("Content-Length", 0))
                self._in_head = 100 <= message.code < 200 and message.code != 101
        self._before = data[max(0, seen - 2) : seen]
        return data[seen:]

    def _has_more(self) -> bool:
        """Whether the bytes in which a body ended go on after it; a parser keeps half an answer to itself."""
        if self._length is not None:
            return self._body_bytes > self._length
        return not self._before.endswith((b"\n\r\n", b"\n\n"))

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body that goes on to the connection's end has none where that ends by an error."""
        if exc is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError("the connection was reset"))
        super().connection_lost(exc)

    def _broken(self, message: str) -> None:
        if self._payload is not None:
            self._payload.set_exception(BadFraming(message))
        self.set_exception(BadFraming(message))
        if self.transport is not None:
            self.transport.abort()


def _wire(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _Wire(loop)


def said(error: BaseException) -> str:
    """What a parser of aiohttp says of an error, without the bytes: how many of them it saw is up to the network."""
    message = getattr(error, "message", "") or str(error)
    return " ".join(re.split(r":\n\n| when reading:", message)[0].split()) or type(error).__name__
