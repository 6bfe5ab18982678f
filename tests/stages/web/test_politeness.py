"""Politeness, read from the server's own log: rate, concurrency, robots.txt, and nothing asked for twice."""

from pathlib import Path

import pytest

from stages.web.client import fetch
from stages.web.politeness import MAX_REMEMBERED, HostMemory
from stages.web.settings import CrawlSettings
from tests.local_crawl import crawl_locally
from tests.servers import ORIGIN_FILES, Site, answer, redirect, routes, static_site

NUM_PAGES = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index that links to every page, pages that link to each other and to a closed part."""
    links = "".join(f'<a href="page{i}.html">{i}</a>' for i in range(NUM_PAGES))
    (tmp_path / "index.html").write_text(f"<p>{links}<a href='/closed/secret.html'>no</a>")
    for i in range(NUM_PAGES):
        page = f'<a href="page{(i + 1) % NUM_PAGES}.html#top">on</a><a href="./index.html?utm_source=x">up</a>'
        (tmp_path / f"page{i}.html").write_text(page)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "secret.html").write_text("<p>secret")
    return tmp_path


def crawl(site: Site, **settings: object) -> list[str]:
    memory = HostMemory()
    chosen = CrawlSettings(allow_private_networks=True, **settings)  # type: ignore[arg-type]  # checked by pydantic
    table, _ = crawl_locally([site.url + "/index.html"], chosen, memory=memory)
    return [url.removeprefix(site.url) for url in table.filter(table["status"].to_numpy() == "ok")["url"].to_pylist()]


def test_rate(folder: Path) -> None:
    with static_site(folder) as site:
        pages = crawl(site, per_host_delay=0.05, per_host_concurrency=4)
        assert len(pages) == NUM_PAGES + 2
        starts = [entry.start for entry in site.log]
        # arrivals jitter on a busy machine, their sum cannot shrink by much
        assert starts[-1] - starts[0] >= 0.05 * (len(starts) - 1) * 0.85


def test_crawl_delay_of_robots_txt_wins_up_to_its_cap(folder: Path) -> None:
    (folder / "robots.txt").write_text("User-agent: *\nCrawl-delay: 0.1\n")
    with static_site(folder) as site:
        assert len(crawl(site, per_host_delay=0, max_pages=4)) == 4
        starts = [entry.start for entry in site.log if entry.path != "/robots.txt"]
        assert len(starts) == 4 + len(ORIGIN_FILES) - 1
        assert starts[-1] - starts[0] >= 0.1 * (len(starts) - 1) * 0.85
    (folder / "robots.txt").write_text("User-agent: *\nCrawl-delay: 86400\n")
    with static_site(folder) as site:
        assert len(crawl(site, per_host_delay=0, max_crawl_delay=0.01)) == NUM_PAGES + 2


@pytest.mark.parametrize("per_host", [1, 3])
def test_concurrency_per_host(folder: Path, per_host: int) -> None:
    with static_site(folder, delay=0.03) as site:
        crawl(site, per_host_delay=0, per_host_concurrency=per_host)
        assert (per_host + 1) // 2 <= site.most_at_once() <= per_host


def test_concurrency_over_all_hosts() -> None:
    with routes({}) as one, routes({}) as two, routes({}) as three:
        sites = [one, two, three]
        urls = [f"{site.url}/{i}" for site in sites for i in range(5)]
        settings = CrawlSettings(allow_private_networks=True, per_host_delay=0, per_host_concurrency=4, concurrency=2)
        assert (
            sum(len(table) for table in fetch(urls, settings, kind="page", max_bytes=1000, memory=HostMemory())) == 15
        )
        together = Site("", [entry for site in sites for entry in site.log])
        assert together.most_at_once() <= 2


def test_robots_txt_is_obeyed_and_nothing_is_asked_for_twice(folder: Path) -> None:
    (folder / "robots.txt").write_text("User-agent: *\nDisallow: /closed/\n")
    with static_site(folder) as site:
        pages = crawl(site, per_host_delay=0)
        assert sorted(pages) == sorted(["/index.html", *(f"/page{i}.html" for i in range(NUM_PAGES))])
        paths = site.paths()
        assert paths[0] == "/robots.txt"
        assert sorted(paths) == sorted({*pages, *ORIGIN_FILES})


@pytest.mark.slow
def test_a_host_that_waits_holds_up_no_other() -> None:
    table = {f"/{i}": answer() for i in range(3)}
    slow_robots = answer(200, b"User-agent: *\nCrawl-delay: 0.3", "text/plain")
    with routes({**table, "/robots.txt": slow_robots}) as slow, routes(table) as quick:
        settings = CrawlSettings(allow_private_networks=True, per_host_delay=0, concurrency=1)
        urls = [f"{site.url}/{i}" for i in range(3) for site in (slow, quick)]
        assert sum(len(table) for table in fetch(urls, settings, kind="page", max_bytes=1000, memory=HostMemory())) == 6
        assert quick.log[-1].end < slow.log[-1].start


def test_pauses_are_remembered_between_fetches() -> None:
    memory = HostMemory()
    settings = CrawlSettings(allow_private_networks=True, per_host_delay=0.2, obey_robots=False)
    with routes({"/a": answer(), "/b": redirect("/a")}) as site:
        for _ in range(2):
            list(fetch([site.url + "/a"], settings, kind="page", max_bytes=1000, memory=memory))
        list(fetch([site.url + "/b"], settings, kind="page", max_bytes=1000, memory=memory))
        starts = [entry.start for entry in site.log]
        assert len(starts) == 4
        assert starts[-1] - starts[0] >= 0.2 * 3 * 0.85


def test_memory_is_bounded_and_longer_pauses_stay() -> None:
    now = 100.0
    memory = HostMemory(clock=lambda: now)
    memory.ask_again_in("h", 10)
    memory.ask_again_in("h", 1)
    assert memory.wait("h") == 10
    now = 111.0
    assert memory.wait("h") == 0
    for i in range(MAX_REMEMBERED + 10):
        memory.ask_again_in(f"h{i}", 10)
    assert memory.wait("h0") == 0
    assert memory.wait(f"h{MAX_REMEMBERED}") == 10
