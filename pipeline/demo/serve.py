"""A small local web server for the demo's sites.

    python -m pipeline.demo.serve --port 8000 site/                      # one folder at /
    python -m pipeline.demo.serve --port 8000 /manual=docs/ /blog=posts/  # folders at paths

It keeps connections open (HTTP/1.1), sends Last-Modified, Content-Type and Content-Length, answers
If-Modified-Since, and serves no file outside its folders. It is no server for the open internet.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote, urlsplit

import typer

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".htm": "text/html",
    ".html": "text/html",  # without a charset: the page knows its own
    ".ico": "image/vnd.microsoft.icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".xhtml": "application/xhtml+xml",
    ".xml": "application/xml",
}


def parse_mounts(arguments: Sequence[str]) -> dict[str, Path]:
    """Folders by the path they are served at: "DIR" at "/", "/name=DIR" at "/name/".

    ValueError naming the argument when a folder does not exist or a path is taken.
    """
    mounts: dict[str, Path] = {}
    for argument in arguments:
        path, equals, folder = argument.partition("=")
        if not equals or not path.startswith("/"):
            path, folder = "/", argument
        path = "/" + path.strip("/") + "/" if path.strip("/") else "/"
        root = Path(folder).expanduser().resolve()
        if not root.is_dir():
            raise ValueError(f"{argument}: no folder {folder}")
        if path in mounts:
            raise ValueError(f"{argument}: {path} already serves {mounts[path]}")
        mounts[path] = root
    return mounts


class SiteServer(ThreadingHTTPServer):
    """Serves folders by path; `url` says where."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, mounts: Mapping[str, Path], *, host: str = "127.0.0.1", port: int = 0, log: bool = False):
        super().__init__((host, port), _Handler)
        # longest path first, so that /a/b/ is found before /a/
        self.mounts = dict(sorted(mounts.items(), key=lambda mount: (-len(mount[0]), mount[0])))
        self.log = log

    @property
    def url(self) -> str:
        """Address of the server, "http://127.0.0.1:8000", without a slash at the end."""
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news unless every request is."""
        if self.log:
            print(f"{client_address}: {sys.exc_info()[1]}", file=sys.stderr)

    def find(self, path: str) -> Path | None:
        """The file or folder that a decoded URL path stands for, or null."""
        for prefix, root in self.mounts.items():
            if path.startswith(prefix) or path + "/" == prefix:
                if "\0" in path:
                    return None
                found = (root / path[len(prefix) :].lstrip("/")).resolve()
                return found if found.is_relative_to(root) and found.exists() else None
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True
    server: SiteServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        url_path = urlsplit(self.path).path
        found = self.server.find(unquote(url_path, errors="surrogateescape"))
        if found is not None and found.is_dir():
            if not url_path.endswith("/"):
                return self._empty(HTTPStatus.MOVED_PERMANENTLY, Location=quote(unquote(url_path)) + "/")
            found = found / "index.html"
        if found is None or not found.is_file():
            return self._empty(HTTPStatus.NOT_FOUND)
        with found.open("rb") as stream:
            status = found.stat()
            if self._unchanged(int(status.st_mtime)):
                return self._empty(HTTPStatus.NOT_MODIFIED)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPES.get(found.suffix.lower(), "application/octet-stream"))
            self.send_header("Content-Length", str(status.st_size))
            self.send_header("Last-Modified", formatdate(int(status.st_mtime), usegmt=True))
            self.end_headers()
            if with_body:
                try:
                    shutil.copyfileobj(stream, self.wfile)
                except ConnectionError:
                    self.close_connection = True  # the client has seen enough

    def _unchanged(self, modified: int) -> bool:
        value = self.headers.get("If-Modified-Since")
        try:
            return value is not None and modified <= parsedate_to_datetime(value).timestamp()
        except (ValueError, OverflowError):
            return False

    def _empty(self, status: HTTPStatus, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        if self.server.log:
            super().log_message(format, *args)


@contextmanager
def serving(mounts: Mapping[str, Path], *, host: str = "127.0.0.1", port: int = 0) -> Iterator[SiteServer]:
    """Serve in a thread while the block runs; port 0 takes a free one."""
    server = SiteServer(mounts, host=host, port=port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main(
    folders: Annotated[list[str], typer.Argument(metavar="DIR_OR_MOUNT...", help="DIR, or /path=DIR")],
    port: Annotated[int, typer.Option(help="port; 0 takes a free one")] = 8000,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    verbose: Annotated[bool, typer.Option("--verbose", help="log every request to standard error")] = False,
) -> None:
    """Serve folders as a web site until interrupted."""
    try:
        server = SiteServer(parse_mounts(folders), host=host, port=port, log=verbose)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    with server:
        print(f"serving {server.url}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
