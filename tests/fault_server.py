"""A server of raw bytes on loopback: whatever a fault writes is what its client gets, to the byte and the packet.

    faults = {"/short": answers(b"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n<p>"), "/never": silence}
    with fault_server(faults) as server:
        ...
        assert server.paths() == ["/short"]

A fault gets the wire of its connection after a request's head has come. What it leaves open takes the next request,
so that what was written too much lies in the way of the next answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

# What a client asks an origin for before all else; none of it is there.
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Wire:
    """One connection."""

    number: int  # of the connection, from 0
    writer: asyncio.StreamWriter
    open: bool = True
    head: bytes = b""  # of the request that is being answered

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Each piece in a packet of its own, with seconds before all but the first."""
        for index, piece in enumerate(pieces):
            if index:
                await asyncio.sleep(pause)
            self.writer.write(piece)
            await self.writer.drain()

    def close(self) -> None:
        """An ordinary end."""
        self.open = False

    def reset(self) -> None:
        """An end by a TCP reset."""
        self.open = False
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault = Callable[[Wire], Awaitable[None]]


@dataclass
class FaultServer:
    """A running server."""

    url: str
    asked: list[tuple[int, str]] = field(default_factory=list)  # number of the connection and path, as they came
    connections: int = 0

    def paths(self) -> list[str]:
        """Paths asked for, in order of arrival."""
        return [path for _, path in self.asked]


@contextmanager
def fault_server(
    faults: Mapping[str, Fault], *, context: ssl.SSLContext | None = None, greeting: Fault | None = None
) -> Iterator[FaultServer]:
    """Answer each path by its fault and anything else by 404, on an event loop in a thread; `context` makes it https.
    `greeting`: for every connection once it has said anything at all, whatever that is."""
    server = FaultServer("")
    working: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(server.connections, writer)
        server.connections += 1
        try:
            if greeting is not None:
                await reader.read(1)
                return await greeting(wire)
            while wire.open:
                wire.head = await reader.readuntil(b"\r\n\r\n")
                path = wire.head.split(b" ", 2)[1].decode()
                server.asked.append((wire.number, path))
                await faults.get(path, answers(_NOT_FOUND))(wire)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away, as it should of some
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        working.add(task)
        task.add_done_callback(working.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    loop = asyncio.new_event_loop()
    # What a broken handshake or connection is worth saying, the tests say.
    loop.set_exception_handler(lambda _, about: None)

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, limit=1 << 20, backlog=256)

    async def end(listening: asyncio.Server) -> None:
        listening.close()
        for task in list(working):
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await asyncio.sleep(0)

    listening = loop.run_until_complete(begin())
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    thread = threading.Thread(target=loop.run_forever, name="faults", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(end(listening), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def answers(*pieces: bytes, pause: float = 0.0) -> Fault:
    """These bytes, and the connection left open for the next request."""
    return lambda wire: wire.send(*pieces, pause=pause)


def closes(*pieces: bytes, pause: float = 0.0) -> Fault:
    """These bytes, and an ordinary end of the connection."""

    async def fault(wire: Wire) -> None:
        await wire.send(*pieces, pause=pause)
        wire.close()

    return fault


def resets(*pieces: bytes, pause: float = 0.0) -> Fault:
    """These bytes, and a TCP reset once they have had time to arrive."""

    async def fault(wire: Wire) -> None:
        await wire.send(*pieces, pause=pause)
        await asyncio.sleep(0.05)
        wire.reset()

    return fault


def holds(*pieces: bytes, pause: float = 0.0) -> Fault:
    """These bytes, and then nothing, on a connection that stays."""

    async def fault(wire: Wire) -> None:
        await wire.send(*pieces, pause=pause)
        await asyncio.sleep(3600)

    return fault


def drips(start: bytes, piece: bytes, *, pause: float) -> Fault:
    """A start, and then the piece again and again, with seconds between: it never ends by itself."""

    async def fault(wire: Wire) -> None:
        await wire.send(start)
        while True:
            await wire.send(piece)
            await asyncio.sleep(pause)

    return fault


def in_turn(*faults: Fault) -> Fault:
    """The first fault to the first request, the second to the second, the last from then on."""
    left = list(faults)
    return lambda wire: (left.pop(0) if len(left) > 1 else left[0])(wire)


def head(*lines: str | bytes, status: str = "200 OK") -> bytes:
    """The head of an answer of a page, without saying how long the body is."""
    said = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return b"\r\n".join([f"HTTP/1.1 {status}".encode(), b"Content-Type: text/html", *said, b"", b""])


def page(body: bytes, *lines: str | bytes, status: str = "200 OK") -> bytes:
    """A whole answer."""
    return head(*lines, f"Content-Length: {len(body)}", status=status) + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """An answer in chunked framing, each given as it goes over the wire."""
    return head("Transfer-Encoding: chunked") + b"".join(chunks) + end
