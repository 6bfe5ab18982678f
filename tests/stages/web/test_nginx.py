"""Fetching from nginx: codings, framing, redirects, connections that it closes, and how it refuses."""

from __future__ import annotations

import os
import ssl
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import connector

from stages.web.client import Client
from stages.web.fetched import Kind
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize
from tests.nginx import has_brotli, nginx
from tests.tls import authority

SETTINGS = CrawlSettings(
    allow_private_networks=True,
    per_host_delay=0,
    per_host_concurrency=16,
    retries=1,
    retry_backoff=0.02,
    total_timeout=20,
)
PAGE = b"<!doctype html><title>Reeds</title>" + b"<p>The heron stands where the water is still." * 200
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
MODIFIED = datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)
MAX_BYTES = 100_000

SERVER = """
root {site};
etag on;
gzip_min_length 1;
keepalive_requests 5;
large_client_header_buffers 2 1k;
location = /robots.txt {{ return 200 "User-agent: *\\nDisallow: /kept/\\n"; types {{ }} default_type text/plain; }}
location /gzip/ {{ alias {site}/; gzip on; gzip_types *; }}
location /brotli/ {{ alias {site}/; {brotli} }}
location /deflate/ {{ alias {site}/deflated/; add_header Content-Encoding deflate; }}
location /sized/ {{ alias {site}/; chunked_transfer_encoding off; }}
location /chunked/ {{ alias {site}/; sub_filter heron stork; sub_filter_once off; }}
location /closing/ {{ alias {site}/; keepalive_timeout 0; }}
location /noai/ {{ alias {site}/; add_header X-Robots-Tag "noai, noimageai"; }}
location /slow/ {{ alias {site}/; limit_rate 2000; }}
location /away/ {{ return 301 /page.html; }}
location /away-308/ {{ return 308 /page.html?from=308; }}
location /around/ {{ rewrite ^/around/a$ /around/b redirect; rewrite ^/around/b$ /around/a redirect; }}
location /silent/ {{ return 444; }}
location /gone/ {{ return 410; }}
location /busy/ {{ return 503; add_header Retry-After 0 always; }}
location /empty/ {{ return 204; }}
location /upstream/ {{ proxy_pass http://127.0.0.1:9; proxy_connect_timeout 1s; }}
location /often/ {{ alias {site}/; limit_req zone=often; limit_req_status 429; }}
location /locked/ {{ auth_basic "no"; auth_basic_user_file {site}/nobody; alias {site}/; }}
"""


@dataclass(frozen=True)
class Served:
    """What every test here asks."""

    url: str
    log: Path  # nginx's own

    def rows(self, *paths: str, kind: Kind = "page", settings: CrawlSettings = SETTINGS) -> list[dict[str, Any]]:
        """Rows of these paths, in their order."""
        with closing(Client(settings, memory=HostMemory())) as client:
            urls = [canonicalize(self.url + path) for path in paths]
            tables = client.fetch(urls, kind=kind, max_bytes=MAX_BYTES)
            found = {row["url"]: row for table in tables for row in table.to_pylist()}
        return [found[url] for url in urls]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("nginx")
    site = folder / "site"
    files = {
        "page.html": PAGE,
        "folder/index.html": PAGE,
        "picture.png": PICTURE,
        "paper.pdf": b"%PDF-1.7",
        "large.html": PAGE * 20,
        "empty.html": b"",
        "deflated/page.html": zlib.compress(PAGE),
        "deflated/raw.html": zlib.compress(PAGE, wbits=-zlib.MAX_WBITS),
        "kept/page.html": PAGE,
        "nobody": b"",
        "caf\u00e9.html": PAGE,
    }
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)  # nginx may give up being root
    brotli = "brotli on; brotli_min_length 1;" if has_brotli() else ""
    zone = "limit_req_zone $binary_remote_addr zone=often:64k rate=1r/m;"
    with nginx(folder, SERVER.format(site=site, brotli=brotli), outside=zone) as url:
        yield Served(url, folder / "access.log")


@pytest.mark.parametrize("place", ["", "/gzip", "/brotli", "/deflate", "/sized", "/closing"])
def test_a_page_is_the_same_however_it_is_sent(served: Served, place: str) -> None:
    [row] = served.rows(f"{place}/page.html")
    assert (row["status"], row["reason"], row["body"]) == ("ok", None, PAGE)
    assert row["content_type"] == "text/html"
    assert row["modified"] is None or row["modified"] == MODIFIED


def test_files_have_their_dates_and_raw_deflate_is_read(served: Served) -> None:
    plain, raw, picture = served.rows("/page.html", "/deflate/raw.html", "/empty.html")
    assert plain["modified"] == raw["modified"] == MODIFIED
    assert raw["body"] == PAGE
    assert (picture["status"], picture["body"]) == ("ok", b"")


def test_chunks_of_a_filtered_page_are_put_together(served: Served) -> None:
    [row] = served.rows("/chunked/page.html")
    assert row["body"] == PAGE.replace(b"heron", b"stork")


def test_pictures_come_as_they_are_even_where_all_is_compressed(served: Served) -> None:
    rows = served.rows("/picture.png", "/gzip/picture.png", kind="image")
    assert [(row["status"], row["content_type"], row["body"]) for row in rows] == [("ok", "image/png", PICTURE)] * 2


@pytest.mark.parametrize(
    ("path", "final", "status"),
    [
        ("/away/", "/page.html", "ok"),
        ("/away-308/", "/page.html?from=308", "ok"),
        ("/folder", "/folder/", "ok"),
        ("/caf\u00e9.html", "/caf%C3%A9.html", "ok"),
        ("/around/a", "/around/b", "too_many_redirects"),
    ],
)
def test_redirects_end_where_they_lead(served: Served, path: str, final: str, status: str) -> None:
    [row] = served.rows(path)
    assert (row["reason"] or row["status"], row["final_url"]) == (status, served.url + final)
    assert row["body"] == (PAGE if status == "ok" else None)


@pytest.mark.parametrize(
    ("path", "reason", "http_status", "retryable"),
    [
        ("/nothing.html", "http_status", 404, False),
        ("/gone/", "http_status", 410, False),
        ("/busy/", "http_status", 503, True),
        ("/upstream/", "http_status", 502, True),
        ("/locked/page.html", "http_status", 401, False),
        ("/page.html?" + "x" * 2_000, "http_status", 414, False),
        ("/silent/", "connection", None, True),
        ("/empty/", "not_html", 204, False),
        ("/paper.pdf", "not_html", 200, False),
        ("/large.html", "too_large", 200, False),
        ("/gzip/large.html", "too_large", 200, False),
        ("/noai/page.html", "x_robots_tag", 200, False),
        ("/kept/page.html", "robots", None, False),
    ],
)
def test_what_is_not_given_is_named(
    served: Served, path: str, reason: str, http_status: int | None, retryable: bool
) -> None:
    [row] = served.rows(path)
    assert (row["reason"], row["http_status"], row["retryable"]) == (reason, http_status, retryable), row["detail"]
    assert row["body"] is None


def test_a_limit_of_requests_is_told_as_one(served: Served) -> None:
    rows = served.rows(*(f"/often/page.html?{number}" for number in range(4)))
    assert sorted(row["http_status"] for row in rows) == [200, 429, 429, 429]
    assert [row["retryable"] for row in rows if row["http_status"] == 429] == [True] * 3


def test_a_page_that_trickles_costs_its_time_and_no_more(served: Served) -> None:
    [row] = served.rows("/slow/page.html", settings=SETTINGS.model_copy(update={"total_timeout": 0.5}))
    assert (row["reason"], row["http_status"], row["retryable"]) == ("timeout", 200, True)


def test_connections_that_the_server_closes_cost_no_page(served: Served) -> None:
    # Each serves five requests and is closed then.
    one_at_a_time = SETTINGS.model_copy(update={"per_host_concurrency": 1, "retries": 0})
    rows = served.rows(*(f"/page.html?{number}" for number in range(30)), settings=one_at_a_time)
    assert [row["reason"] for row in rows] == [None] * 30
    asked = [line for line in served.log.read_text().splitlines() if "GET /page.html?" in line and " 200 " in line]
    assert len([line for line in asked if len(line.split("GET /page.html?")[1].split(" ")[0]) < 3]) == 30


def test_https_with_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    trusted = authority(tmp_path)
    certificate, key = trusted.signed("127.0.0.1")
    for path in (tmp_path, certificate, key):
        path.chmod(0o755)
    secure = f"ssl_certificate {certificate}; ssl_certificate_key {key}; location / {{ return 200 '<p>reeds'; }}"
    monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=str(trusted.file)))
    quiet = SETTINGS.model_copy(update={"obey_robots": False})
    with nginx(tmp_path, secure, secure=True) as url, closing(Client(quiet)) as client:
        rows = [row for t in client.fetch([f"{url}/a", f"{url}/b"], kind="page", max_bytes=99) for row in t.to_pylist()]
    assert [(row["status"], row["body"]) for row in rows] == [("ok", b"<p>reeds")] * 2
