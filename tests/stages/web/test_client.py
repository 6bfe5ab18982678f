"""Fetching from servers that misbehave in every way we know: each way is a row with a reason."""

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from stages.web.client import FETCHED, fetch
from stages.web.fetched import Kind
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from tests.servers import (
    ORIGIN_FILES,
    Site,
    answer,
    bad_chunks,
    endless_redirect,
    gzip_bomb,
    hang_up,
    huge_page,
    in_turn,
    raw,
    redirect,
    reset,
    routes,
    short_body,
    slow_body,
    slow_header,
)

SETTINGS = CrawlSettings(
    allow_private_networks=True,
    per_host_delay=0,
    per_host_concurrency=8,
    retries=1,
    retry_backoff=0.02,
    connect_timeout=2,
    total_timeout=2,
)
MAX_BYTES = 1_000_000
MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
MANY_HEADERS = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n"

PAGES = {
    "/ok": answer(Last_Modified=MODIFIED),
    "/moved": redirect("ok#part", 301),
    "/xhtml": answer(content_type="application/xhtml+xml; charset=utf-8"),
    "/empty": answer(body=b""),
    "/untyped": answer(content_type=None, body=b"\xef\xbb\xbf  <!DOCTYPE html><p>"),
    "/other-bot": answer(X_Robots_Tag="otherbot: noai, noindex"),
    "/bad-date": answer(Last_Modified="yesterday"),
    "/mislabelled": answer(Content_Encoding="gzip"),
    "/endless": endless_redirect,
    "/circle": redirect("/circle"),
    "/no-location": answer(302),
    "/script": redirect("javascript:alert(1)"),
    "/missing": answer(404),
    "/gone": answer(410),
    "/fault": answer(500),
    "/unsupported": answer(501),
    "/part": answer(206),
    "/noindex": answer(X_Robots_Tag="NoIndex, nofollow"),
    "/noai": answer(X_Robots_Tag="interloom: noai"),
    "/pdf": answer(content_type="application/pdf"),
    "/untyped-pdf": answer(content_type=None, body=b"%PDF-1.7"),
    "/bomb": gzip_bomb(50_000_000),
    "/huge": huge_page(50_000_000, announce=False),
    "/huge-announced": huge_page(50_000_000, announce=True),
    "/bad-gzip": answer(Content_Encoding="gzip", body=b"\x1f\x8bxxxxxxxxxxxxx"),
    "/unknown-coding": answer(Content_Encoding="rot13"),
    "/slow": slow_body(8),
    "/late": slow_header(8),
    "/reset": reset,
    "/hang-up": hang_up,
    "/short": short_body,
    "/chunks": bad_chunks,
    "/ssh": raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "/long-header": answer(X_Long="x" * 100_000),
    "/many-headers": raw(MANY_HEADERS),
    "/odd-headers": raw(b"HTTP/1.1 200 OK\r\nBad Header\x00: \xff\r\nContent-Length: -7\r\n\r\n<p>"),
}

# path: status, reason, retryable
EXPECTED = {
    "/ok": ("ok", None, False),
    "/moved": ("ok", None, False),
    "/xhtml": ("ok", None, False),
    "/empty": ("ok", None, False),
    "/untyped": ("ok", None, False),
    "/other-bot": ("ok", None, False),
    "/bad-date": ("ok", None, False),
    "/mislabelled": ("ok", None, False),
    "/endless": ("error", "too_many_redirects", False),
    "/circle": ("error", "too_many_redirects", False),
    "/no-location": ("error", "bad_redirect", False),
    "/script": ("error", "bad_redirect", False),
    "/missing": ("error", "http_status", False),
    "/gone": ("error", "http_status", False),
    "/fault": ("error", "http_status", True),
    "/unsupported": ("error", "http_status", True),
    "/part": ("error", "http_status", False),
    "/noindex": ("refused", "x_robots_tag", False),
    "/noai": ("refused", "x_robots_tag", False),
    "/pdf": ("refused", "not_html", False),
    "/untyped-pdf": ("refused", "not_html", False),
    "/bomb": ("refused", "too_large", False),
    "/huge": ("refused", "too_large", False),
    "/huge-announced": ("refused", "too_large", False),
    "/bad-gzip": ("error", "content_encoding", False),
    "/unknown-coding": ("error", "content_encoding", False),
    "/slow": ("error", "timeout", True),
    "/late": ("error", "timeout", True),
    "/reset": ("error", "connection", True),
    "/hang-up": ("error", "connection", True),
    "/short": ("error", "connection", True),
    "/ssh": ("error", "protocol", False),
    "/long-header": ("error", "protocol", False),
    "/many-headers": ("error", "protocol", False),
    "/odd-headers": ("error", "protocol", False),
}


def fetch_all(
    urls: Sequence[str], settings: CrawlSettings = SETTINGS, kind: Kind = "page", **options: Any
) -> dict[str, dict[str, Any]]:
    tables = list(fetch(urls, settings, kind=kind, max_bytes=MAX_BYTES, memory=HostMemory(), **options))
    assert all(table.schema.equals(FETCHED) for table in tables)
    rows = pa.concat_tables(tables).to_pylist() if tables else []
    assert len({row["url"] for row in rows}) == len(rows)
    return {row["url"]: row for row in rows}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with routes(PAGES) as running:
        yield running


@pytest.fixture(scope="module")
def rows(site: Site) -> dict[str, dict[str, Any]]:
    """Every page of the site, fetched in one go."""
    return {url.removeprefix(site.url): row for url, row in fetch_all([site.url + path for path in PAGES]).items()}


@pytest.mark.parametrize("path", EXPECTED)
def test_every_fault_is_a_row_with_its_reason(rows: dict[str, dict[str, Any]], path: str) -> None:
    row = rows[path]
    assert (row["status"], row["reason"], row["retryable"]) == EXPECTED[path], row["detail"]
    assert (row["body"] is None) == (row["content_hash"] is None) == (row["status"] != "ok")
    if row["status"] != "ok":
        assert row["detail"] and "\n" not in row["detail"] and len(row["detail"]) <= 500


def test_broken_chunks_are_an_error_of_some_kind(rows: dict[str, dict[str, Any]]) -> None:
    # aiohttp's parser sees them at once or waits for more, by where the packets fall
    assert rows["/chunks"]["status"] == "error"
    assert rows["/chunks"]["reason"] in ("protocol", "connection", "timeout")


def test_what_a_good_row_holds(site: Site, rows: dict[str, dict[str, Any]]) -> None:
    row = rows["/ok"]
    assert row["body"] == b"<p>hello"
    assert row["final_url"] == site.url + "/ok"
    assert (row["http_status"], row["content_type"]) == (200, "text/html")
    assert row["modified"] == datetime(2015, 10, 21, 7, 28, tzinfo=UTC)
    assert row["consent"] == {
        "robots_allowed": True,
        "robots_source": f"{site.url}/robots.txt 404",
        "x_robots_tag": None,
        "agent": "interloom/0.1",
        "signals": [],
        "decided_by": None,
        "decided_rule": None,
        "decided_source": None,
        "license": None,
    }
    assert rows["/moved"]["final_url"] == site.url + "/ok"
    assert rows["/moved"]["content_hash"] == row["content_hash"]
    assert rows["/bad-date"]["modified"] is None
    assert rows["/noindex"]["consent"]["x_robots_tag"] == "NoIndex, nofollow"
    assert rows["/other-bot"]["consent"]["x_robots_tag"] == "otherbot: noai, noindex"


def test_retries_are_counted_and_only_made_where_they_may_help(site: Site, rows: dict[str, dict[str, Any]]) -> None:
    paths = site.paths()
    assert paths.count("/fault") == 2
    assert paths.count("/hang-up") >= 2  # aiohttp itself asks again when a kept connection has closed
    for once in ("/missing", "/noindex", "/pdf", "/unsupported", "/robots.txt", "/bomb"):
        assert paths.count(once) == 1, once
    assert paths.count("/slow") == 1  # the item's time is up
    assert len([path for path in paths if path.startswith("/endless")]) == SETTINGS.max_redirects + 1


def test_rows_do_not_depend_on_order_neighbours_or_batches(site: Site, rows: dict[str, dict[str, Any]]) -> None:
    steady = [path for path in EXPECTED if path not in ("/slow", "/late")]
    one_by_one = SETTINGS.model_copy(update={"concurrency": 1, "per_host_concurrency": 1})
    again = fetch_all([site.url + path for path in reversed(steady)], one_by_one, batch_rows=1)
    assert {url.removeprefix(site.url): row for url, row in again.items()} == {path: rows[path] for path in steady}


def test_one_row_for_each_distinct_url_and_bad_ones_under_their_own_name(site: Site) -> None:
    rows = fetch_all([site.url + "/ok", site.url + "/%6fk#x", "nonsense", "http://[", "nonsense"])
    assert set(rows) == {site.url + "/ok", "nonsense", "http://["}
    assert rows["nonsense"]["reason"] == rows["http://["]["reason"] == "bad_url"
    assert fetch_all([]) == {}


@pytest.mark.parametrize("name", ["/huge", "/huge-announced", "/bomb"])
def test_a_large_body_is_never_held(site: Site, name: str) -> None:
    fetch_all([site.url + "/ok"])
    tracemalloc.start()
    try:
        fetch_all([site.url + name])
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_retry_after_is_waited_for_up_to_the_cap() -> None:
    with routes({"/soon": in_turn(answer(429, Retry_After="1"), answer())}) as site:
        assert fetch_all([site.url + "/soon"])[site.url + "/soon"]["status"] == "ok"
        first, second = [entry.start for entry in site.log if entry.path == "/soon"]
        assert 0.95 <= second - first < 3
    capped = SETTINGS.model_copy(update={"max_retry_wait": 0.1})
    with routes({"/never": answer(503, Retry_After="86400"), "/dated": answer(429, Retry_After=MODIFIED)}) as site:
        start = time.monotonic()
        rows = fetch_all([site.url + "/never", site.url + "/dated"], capped)
        assert time.monotonic() - start < 2
        assert [rows[site.url + path]["http_status"] for path in ("/never", "/dated")] == [503, 429]
        assert all(row["retryable"] for row in rows.values())


def test_a_later_attempt_that_succeeds_is_an_ordinary_row() -> None:
    with routes({"/flaky": in_turn(reset, answer(Last_Modified=MODIFIED))}) as site:
        row = fetch_all([site.url + "/flaky"])[site.url + "/flaky"]
    assert (row["status"], row["reason"], row["detail"], row["retryable"]) == ("ok", None, None, False)


def test_images_have_directives_of_their_own_and_any_type() -> None:
    table = {
        "/a.png": answer(body=b"\x89PNG", content_type="image/png"),
        "/typeless": answer(body=b"\xff\xd8", content_type=None),
        "/noimageai.png": answer(X_Robots_Tag="noimageai", content_type="image/png"),
        "/noimageindex.png": answer(X_Robots_Tag="noimageindex", content_type="image/png"),
    }
    with routes(table) as site:
        rows = fetch_all([site.url + path for path in table], kind="image")
        as_pages = fetch_all([site.url + "/noimageai.png"])
    assert [rows[site.url + path]["reason"] for path in table] == [None, None, "x_robots_tag", "x_robots_tag"]
    assert rows[site.url + "/a.png"]["body"] == b"\x89PNG"
    assert as_pages[site.url + "/noimageai.png"]["reason"] == "not_html"


def test_hosts_that_are_not_there() -> None:
    with routes({}) as site:
        closed = site.url
    rows = fetch_all([closed + "/", "http://no-such-host.invalid/"])
    # nobody could say what robots.txt holds
    assert (rows[closed + "/"]["reason"], rows[closed + "/"]["retryable"]) == ("robots", True)
    assert rows["http://no-such-host.invalid/"]["reason"] == "dns"
    disobedient = SETTINGS.model_copy(update={"obey_robots": False})
    row = fetch_all([closed + "/"], disobedient)[closed + "/"]
    assert (row["reason"], row["retryable"], row["final_url"]) == ("connection", True, None)
    assert row["consent"]["robots_allowed"] is None


def test_tls_that_fails_is_named(site: Site) -> None:
    url = site.url.replace("http:", "https:") + "/ok"
    row = fetch_all([url])[url]
    assert (row["status"], row["reason"], row["retryable"]) == ("error", "tls", False)


def test_no_cookie_travels_and_the_agent_is_named() -> None:
    with routes({"/a": answer(Set_Cookie="id=1"), "/b": answer()}) as site:
        fetch_all([site.url + "/a", site.url + "/b"], SETTINGS.model_copy(update={"per_host_concurrency": 1}))
        assert all("cookie" not in entry.headers for entry in site.log)
        assert {entry.headers["user-agent"] for entry in site.log} == {"interloom/0.1"}
        assert site.log[-1].headers["accept"].startswith("text/html")


def test_batches_come_while_work_goes_on_and_closing_early_is_clean() -> None:
    with routes({"/a": answer(), "/b": slow_body(0.8)}) as site:
        tables = fetch([site.url + "/a", site.url + "/b"], SETTINGS, kind="page", max_bytes=MAX_BYTES, batch_rows=1)
        start = time.monotonic()
        assert next(tables).column("url").to_pylist() == [site.url + "/a"]
        tables.close()
        assert time.monotonic() - start < 0.6


def test_fetches_may_run_in_several_threads(site: Site) -> None:
    memory = HostMemory()

    def count(_: int) -> int:
        tables = fetch([site.url + "/ok", site.url + "/xhtml"], SETTINGS, kind="page", max_bytes=99, memory=memory)
        return sum(table.column("status").to_pylist().count("ok") for table in tables)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(8))) == [2] * 8


def test_what_headers_say_can_be_asked_for_alone() -> None:
    refused = {"/refused.png": answer(content_type="image/png", X_Robots_Tag="noai")}
    table = {"/a.png": answer(body=b"x" * 2_000_000, content_type="image/png"), "/moved": redirect("/a.png"), **refused}
    with routes({**table, "/coded": answer(body=b"", content_type="image/png", Content_Encoding="gzip")}) as site:
        paths = ["/a.png", "/moved", "/refused.png", "/coded", "/missing"]
        rows = fetch_all([site.url + path for path in paths], kind="image", method="HEAD")
        methods = {entry.path: entry.method for entry in site.log}
    told = [(rows[site.url + path]["status"], rows[site.url + path]["reason"]) for path in paths]
    assert told == [("ok", None), ("ok", None), ("refused", "x_robots_tag"), ("ok", None), ("error", "http_status")]
    assert rows[site.url + "/a.png"]["body"] == b""
    # Files that speak for the site are read whole.
    assert methods == {**dict.fromkeys(paths, "HEAD"), **dict.fromkeys(ORIGIN_FILES, "GET")}


def test_what_is_excluded_is_not_asked_for_even_where_robots_txt_is_not() -> None:
    settings = SETTINGS.model_copy(update={"excluded": ("127.0.0.1",), "obey_robots": False})
    with routes({"/a": answer()}) as site:
        row = fetch_all([site.url + "/a"], settings)[site.url + "/a"]
        assert (row["status"], row["reason"], row["retryable"]) == ("refused", "excluded", False)
        assert site.log == []
