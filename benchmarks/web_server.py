"""A synthetic web on this machine: any host, pages that link on and show pictures, robots.txt, all after a set latency.

python -m benchmarks.web_server --port 18991 --latency 0.05
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import typer
from PIL import Image

_REQUEST = re.compile(rb"GET ([^ ]+) HTTP/1\.[01]\r\n")
_HOST = re.compile(rb"\r\nhost: *([^\r]+)", re.IGNORECASE)
_KNOWN = re.compile(rb"\r\nif-none-match: *([^\r]+)", re.IGNORECASE)
_ROBOTS = b"User-agent: *\nDisallow: /private/\n"
# What a client asks an origin for once, beside its pages.
_OF_ORIGINS = ("/robots.txt", "/ai.txt", "/.well-known/tdmrep.json")
_PICTURES = 64
# Links of a page to others of its site, and pictures that it shows.
_LINKS = 10
_SHOWN = 3
_TEXTS = 500


def pictures() -> list[bytes]:
    """JPEGs of 400 x 300 pixels, about 20 kB each, no two alike."""
    found = []
    for seed in range(_PICTURES):
        coarse = np.random.default_rng(seed).integers(0, 256, (15, 20, 3), np.uint8)
        sink = io.BytesIO()
        Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=92)
        found.append(sink.getvalue())
    return found


def texts() -> list[str]:
    """Paragraphs of 30 to 60 words, of a few that every English text has and many that are made up."""
    chance = random.Random(0)
    common = ["the", "of", "and", "to", "in", "a", "is", "that", "it", "was", "for", "on", "are", "with", "as", "at"]
    rare = ["".join(chance.choices("etaoinshrdlucmfw", k=chance.randint(4, 9))) for _ in range(4000)]
    made = []
    for _ in range(_TEXTS):
        words = [chance.choice(common if chance.random() < 0.45 else rare) for _ in range(chance.randint(30, 60))]
        made.append(" ".join(words).capitalize() + ".")
    return made


def host(number: int, port: int) -> str:
    """One of 65,536 hosts that a server on this machine is: every loopback address reaches it."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}:{port}"


def page(number: int, pages: int, site: str = "", paragraphs: list[str] | None = None) -> bytes:
    """A page of a site of so many; pictures are its own, `site` goes before their paths."""
    paragraphs = paragraphs or texts()
    chance = random.Random(number)
    body = [f"<!doctype html><html lang=en><title>Page {number}</title><body><article><h1>Page {number}</h1>"]
    for shown in range(_SHOWN):
        body.append(f"<p>{chance.choice(paragraphs)}</p><p>{chance.choice(paragraphs)}</p>")
        body.append(f'<img src="{site}/i/{number}-{shown}.jpg" width=400 height=300 alt="a picture of {number}">')
    body.append("</article><nav>")
    following = range(_LINKS * number + 1, min(_LINKS * number + 1 + _LINKS, pages))
    body += [f'<a href="/p/{each}.html">page {each}</a>' for each in following]
    return ("\n".join(body) + "</nav></body></html>").encode()


@dataclass
class Web:
    """What the servers of all hosts have and have seen."""

    latency: float
    pages: int
    images: list[bytes] = field(default_factory=pictures)
    paragraphs: list[str] = field(default_factory=texts)
    asked: Counter[str] = field(default_factory=Counter)
    now: int = 0
    most: int = 0
    per_host: Counter[str] = field(default_factory=Counter)
    most_per_host: int = 0
    unchanged: int = 0
    sent: int = 0  # bytes of answers

    def begin(self, host: str, path: str) -> None:
        self.now += 1
        self.per_host[host] += 1
        self.most = max(self.most, self.now)
        self.most_per_host = max(self.most_per_host, self.per_host[host])
        self.asked[host + path] += 1

    def answer(self, host: str, path: str, known: bytes | None) -> bytes:
        self.now -= 1
        self.per_host[host] -= 1
        if path == "/robots.txt":
            return _response(b"200 OK", b"text/plain", _ROBOTS)
        number = re.fullmatch(r"/(?:(i)|p)/(\d+)[-\d]*\.(?:jpg|html)", path)
        if path != "/" and number is None:
            return _response(b"404 Not Found", b"text/plain", b"no such page")
        if number is not None and number[1]:
            return _response(b"200 OK", b"image/jpeg", self.images[zlib.crc32((host + path).encode()) % _PICTURES])
        tag = b'"%d"' % zlib.crc32((host + path).encode())
        if known == tag:
            self.unchanged += 1
            return b"HTTP/1.1 304 Not Modified\r\nETag: " + tag + b"\r\n\r\n"
        body = page(int(number[2]) if number else 0, self.pages, "", self.paragraphs)
        return _response(b"200 OK", b"text/html; charset=utf-8", body, b"ETag: " + tag + b"\r\n")

    def told(self) -> bytes:
        robots = [count for name, count in self.asked.items() if name.endswith("/robots.txt")]
        rest = [count for name, count in self.asked.items() if not name.endswith(_OF_ORIGINS)]
        said = {
            "most_in_flight": self.most,
            "most_per_host": self.most_per_host,
            "urls": len(rest),
            "requests": sum(rest),
            "requests_in_all": self.asked.total(),
            "robots": sum(robots),
            "robots_hosts": len(robots),
            "unchanged": self.unchanged,
            "megabytes": round(self.sent / 1e6, 3),
        }
        return _response(b"200 OK", b"application/json", json.dumps(said).encode())

    def forget(self) -> bytes:
        self.asked.clear()
        self.most = self.most_per_host = self.unchanged = self.sent = 0
        return _response(b"200 OK", b"text/plain", b"")


def _response(status: bytes, kind: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (status, kind, len(body), more)
    return head + body


class _Connection(asyncio.Protocol):
    """One connection: requests without bodies, answered in order."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._waiting = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head, self._waiting = self._waiting[: end + 2], self._waiting[end + 4 :]
            self._take(head)

    def _take(self, head: bytes) -> None:
        assert self._transport is not None
        line, host, known = _REQUEST.match(head), _HOST.search(head), _KNOWN.search(head)
        if line is None or host is None:
            self._transport.close()
            return
        path, name = line[1].decode("latin-1"), host[1].decode("latin-1")
        if path in ("/told", "/forget"):
            self._transport.write(self._web.told() if path == "/told" else self._web.forget())
            return
        self._web.begin(name, path)
        asyncio.get_running_loop().call_later(self._web.latency, self._answer, name, path, known and known[1])

    def _answer(self, host: str, path: str, known: bytes | None) -> None:
        assert self._transport is not None
        data = self._web.answer(host, path, known)
        self._web.sent += len(data)
        self._transport.write(data)


async def serve(web: Web, port: int) -> None:
    """Answer at every address of this machine, 127.x.y.z among them, until the process ends."""
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(web), "0.0.0.0", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(
    port: Annotated[int, typer.Option(min=0)] = 0,
    latency: Annotated[float, typer.Option(min=0)] = 0.05,
    pages: Annotated[int, typer.Option(min=1, help="Pages of a site.")] = 10_000,
) -> None:
    """Serve; prints where."""
    asyncio.run(serve(Web(latency, pages), port))


if __name__ == "__main__":
    typer.run(main)
