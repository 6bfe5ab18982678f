"""Web servers for tests, on 127.0.0.1 and a free port: one for a folder, one that misbehaves on request.

    with static_site(folder) as site:      # site.url == "http://127.0.0.1:40123"
        ...
        assert [entry.path for entry in site.log] == ["/robots.txt", "/index.html"]

    with routes({"/slow": slow_body(5.0), "/gone": answer(status=410)}) as server: ...

Every server keeps a log of what it was asked and when, and is stopped when its block ends.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# What a client asks an origin for before all else, each once.
ORIGIN_FILES = ("/robots.txt", "/ai.txt", "/.well-known/tdmrep.json")
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


@dataclass
class Entry:
    """One request: path with query, headers by lower-case name, when it came and its answer was ready (monotonic s)."""

    path: str
    headers: dict[str, str]
    start: float
    end: float = float("inf")
    method: str = "GET"


@dataclass
class Site:
    """A running server."""

    url: str
    log: list[Entry] = field(default_factory=list)
    table: dict[str, Route] = field(default_factory=dict)  # of `routes`: may be changed while it runs

    def paths(self) -> list[str]:
        """Paths asked for, in order of arrival."""
        return [entry.path for entry in self.log]

    def most_at_once(self) -> int:
        """The largest number of requests that were being answered at one time."""
        changes = sorted([(entry.start, 1) for entry in self.log] + [(entry.end, -1) for entry in self.log])
        running = most = 0
        for _, change in changes:
            running += change
            most = max(most, running)
        return most


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, keeps the log, and leaves the answer to the route."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    server: _Server
    entry: Entry

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        entry = self.entry = Entry(self.path, headers, time.monotonic(), method=self.command)
        self.server.site.log.append(entry)
        try:
            self.server.respond(self)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client went away, as some tests want
        finally:
            entry.end = min(entry.end, time.monotonic())

    do_HEAD = do_GET

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole answer; Content-Length is added unless given."""
        # before anything is sent: the client may ask again before this thread runs again
        self.entry.end = time.monotonic()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


Route = Callable[[Handler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, host: str, respond: Route) -> None:
        super().__init__((host, 0), Handler)
        self.respond = respond
        self.site = Site(f"http://{host}:{self.server_port}")
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)

    def server_close(self) -> None:
        """Ends its threads too: those that wait for a client's next request are hung up on."""
        self.closing.set()
        # A thread that has just started adds its connection yet: look until all threads have ended.
        closer = threading.Thread(target=super().server_close)
        closer.start()
        while closer.is_alive():
            for request in list(self._open):
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
            closer.join(0.05)

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are part of the tests."""


@contextmanager
def _running(respond: Route, host: str, context: ssl.SSLContext | None = None) -> Iterator[Site]:
    server = _Server(host, respond)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.site.url = server.site.url.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def static_site(folder: Path, *, delay: float = 0.0, host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve a folder: index.html for folders, 404 for what is not there; `delay` seconds before each answer."""
    root = folder.resolve()

    def respond(handler: Handler) -> None:
        time.sleep(delay)
        path = (root / unquote(urlsplit(handler.path).path).lstrip("/")).resolve()
        if path.is_dir():
            path = path / "index.html"
        if not path.is_file() or not path.is_relative_to(root):
            return handler.reply(404, {"Content-Type": "text/plain"}, b"not found\n")
        handler.reply(200, {"Content-Type": MEDIA_TYPES.get(path.suffix, "text/plain")}, path.read_bytes())

    with _running(respond, host) as site:
        yield site


@contextmanager
def routes(
    table: Mapping[str, Route], *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> Iterator[Site]:
    """Serve each path (without query) by its route, anything else as 404; `context` makes it https."""

    served = dict(table)

    def respond(handler: Handler) -> None:
        served.get(urlsplit(handler.path).path, answer(404, b"not found\n", "text/plain"))(handler)

    with _running(respond, host, context) as site:
        site.table = served
        yield site


def answer(
    status: int = 200, body: bytes = b"<p>hello", content_type: str | None = "text/html", **headers: str
) -> Route:
    """A fixed answer; `headers` by name with underscores for hyphens (`Retry_After="2"`)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    typed = {} if content_type is None else {"Content-Type": content_type}
    return lambda handler: handler.reply(status, {**typed, **named}, body)


def in_turn(*answers: Route) -> Route:
    """The first answer to the first request, the second to the second, the last from then on."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def redirect(location: str, status: int = 302) -> Route:
    """A redirect."""
    return answer(status, b"", None, Location=location)


def endless_redirect(handler: Handler) -> None:
    """Redirects to a new address each time: /x?1, /x?2, ..."""
    parts = urlsplit(handler.path)
    handler.reply(302, {"Location": f"{parts.path}?{int(parts.query or 0) + 1}"}, b"")


def slow_body(seconds: float, chunk: bytes = b"<p>.") -> Route:
    """A body that trickles in, ten pieces a second."""

    def respond(handler: Handler) -> None:
        pieces = max(1, int(seconds * 10))
        _head(handler, {"Content-Type": "text/html", "Content-Length": str(len(chunk) * pieces)})
        for _ in range(pieces):
            handler.wfile.write(chunk)
            handler.server.closing.wait(0.1)

    return respond


def slow_header(seconds: float) -> Route:
    """An answer that starts late."""

    def respond(handler: Handler) -> None:
        handler.server.closing.wait(seconds)
        handler.reply(200, {"Content-Type": "text/html"}, b"<p>late")

    return respond


def reset(handler: Handler) -> None:
    """Half an answer, then a TCP reset."""
    _head(handler, {"Content-Type": "text/html", "Content-Length": "1000"})
    handler.wfile.write(b"<p>half")
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    """No answer at all."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def short_body(handler: Handler) -> None:
    """Fewer bytes than announced."""
    _head(handler, {"Content-Type": "text/html", "Content-Length": "1000"})
    handler.wfile.write(b"<p>short")
    handler.close_connection = True


def bad_chunks(handler: Handler) -> None:
    """Chunked framing that is not."""
    _head(handler, {"Content-Type": "text/html", "Transfer-Encoding": "chunked"})
    handler.wfile.write(b"5\r\n<p>ab\r\nnonsense\r\n")
    handler.close_connection = True


def raw(data: bytes) -> Route:
    """Bytes as they are, and the connection closed."""

    def respond(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return respond


def gzip_bomb(decoded_bytes: int) -> Route:
    """A small body that decodes to a large one."""
    body = gzip.compress(b"\0" * decoded_bytes, compresslevel=9)
    return answer(body=body, Content_Encoding="gzip")


def huge_page(num_bytes: int, *, announce: bool) -> Route:
    """A page of many bytes, with or without a Content-Length; stops when the client does."""

    def respond(handler: Handler) -> None:
        length = {"Content-Length": str(num_bytes)} if announce else {"Connection": "close"}
        _head(handler, {"Content-Type": "text/html", **length})
        for _ in range(num_bytes // 65536 + 1):
            handler.wfile.write(b"<p>" + b"x" * 65533)
        handler.close_connection = True

    return respond


def _head(handler: Handler, headers: Mapping[str, str]) -> None:
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
