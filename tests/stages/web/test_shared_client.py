"""One client for many threads: what they share, what they must not wait for, and whom politeness is owed to."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from stages.web import client as module
from stages.web.client import Client, fetch
from stages.web.politeness import DOWN_SECONDS, HostMemory
from stages.web.settings import CrawlSettings
from stages.web.sites import site_of
from tests.servers import answer, routes, slow_header

QUICK = {"allow_private_networks": True, "per_host_delay": 0.0, "retry_backoff": 0.0}
PAGE = answer(body=b"<p>x")


def settings(**chosen: object) -> CrawlSettings:
    return CrawlSettings.model_validate({**QUICK, **chosen})


def rows(client: Client, urls: list[str]) -> list[dict[str, Any]]:
    return [row for table in client.fetch(urls, kind="page", max_bytes=1_000_000) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("en.example.co.uk:8080", "example.co.uk"),
        ("example.com", "example.com"),
        ("ann.github.io", "ann.github.io"),
        ("deep.ann.github.io", "ann.github.io"),
        ("co.uk", "co.uk"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("localhost:81", "localhost:81"),
        ("a.b.unheard-of", "b.unheard-of"),
    ],
)
def test_sites(host: str, site: str) -> None:
    assert site_of(host) == site


def test_threads_share_robots_turns_and_connections() -> None:
    table = {f"/{number}": PAGE for number in range(24)}
    chosen = settings(per_host_concurrency=3)
    with routes(table) as site, closing(Client(chosen, memory=HostMemory())) as client:
        shares = [[f"{site.url}/{number}" for number in range(first, 24, 4)] for first in range(4)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda urls: rows(client, urls), shares))
        assert [sorted(row["url"] for row in each) for each in found] == [sorted(share) for share in shares]
        assert site.paths().count("/robots.txt") == 1
        assert site.most_at_once() <= 3


def test_who_is_slow_to_take_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD_BYTES", 50_000)
    big = answer(body=b"<p>" + b"x" * 40_000)
    with routes({f"/{number}": big for number in range(20)}) as site, closing(Client(settings())) as client:
        urls = [f"{site.url}/{number}" for number in range(20)]
        idle = client.fetch(urls, kind="page", max_bytes=1_000_000, batch_rows=1)
        next(idle)
        assert len(rows(client, urls[:5])) == 5
        time.sleep(0.3)  # what was under way
        before = len(site.log)
        time.sleep(0.3)
        assert len(site.log) == before < 20 + 1 + 5, "what nobody takes is not fetched ahead without end"
        assert 1 + sum(table.num_rows for table in idle) == 20


def test_who_stops_early_leaves_the_client_usable() -> None:
    with routes({f"/{number}": PAGE for number in range(9)}) as site, closing(Client(settings())) as client:
        urls = [f"{site.url}/{number}" for number in range(9)]
        first = client.fetch(urls, kind="page", max_bytes=1000, batch_rows=1)
        next(first)
        first.close()
        assert len(rows(client, urls)) == 9


def test_a_host_that_never_answers_is_left_alone_for_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # nobody listens there once it is closed
    now = 0.0
    memory = HostMemory(clock=lambda: now)
    chosen = settings(max_host_failures=3, retries=0, per_host_concurrency=1, obey_robots=False)
    urls = [f"http://127.0.0.1:{port}/{number}" for number in range(5)]

    def reasons(settings: CrawlSettings) -> list[str]:
        tables = fetch(urls, settings, kind="page", max_bytes=1000, memory=memory)
        found = [row for table in tables for row in table.to_pylist()]
        assert all(row["retryable"] for row in found)
        return sorted(row["reason"] for row in found)

    assert reasons(chosen) == ["connection"] * 3 + ["host_down"] * 2
    assert reasons(chosen) == ["host_down"] * 5
    now = DOWN_SECONDS + 1
    assert reasons(chosen) == ["connection"] + ["host_down"] * 4, "one try decides"
    memory = HostMemory()
    assert reasons(settings(max_host_failures=0, retries=0, obey_robots=False)) == ["connection"] * 5


def test_an_answer_of_any_kind_counts_a_host_as_up() -> None:
    memory = HostMemory()
    for _ in range(2):
        memory.failed("h", 3)
    memory.answered("h")
    for _ in range(2):
        memory.failed("h", 3)
    assert not memory.is_down("h")
    memory.failed("h", 3)
    assert memory.is_down("h")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every name ending in .test is this machine."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    yield


@pytest.mark.parametrize(("per_host", "most"), [("domain", 2), ("host", 4), ("address", 1)])
def test_whom_politeness_is_owed_to(names: None, per_host: str, most: int) -> None:
    """Four names of two domains, all of one address, one request at a time each."""
    with routes({"/": slow_header(0.2)}) as site:
        port = site.url.rpartition(":")[2]
        urls = [f"http://{name}.test:{port}/" for name in ("a.one", "b.one", "a.two", "b.two")]
        with closing(Client(settings(per_host=per_host, per_host_concurrency=1), memory=HostMemory())) as client:
            seen = {row["url"]: row["status"] for row in rows(client, urls)}
        assert seen == dict.fromkeys(urls, "ok")
        assert site.most_at_once() == most


@pytest.mark.slow
def test_a_pause_that_one_name_asks_for_holds_for_its_domain(names: None) -> None:
    with routes({"/busy": answer(429, Retry_After="1"), "/other": PAGE}) as site:
        port = site.url.rpartition(":")[2]
        with closing(Client(settings(retries=0), memory=HostMemory())) as client:
            assert rows(client, [f"http://a.one.test:{port}/busy"])[0]["http_status"] == 429
            assert rows(client, [f"http://b.one.test:{port}/other"])[0]["status"] == "ok"
        start = {entry.path: entry.start for entry in site.log}
        assert start["/other"] - start["/busy"] >= 0.9
