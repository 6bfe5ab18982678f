"""The order of a crawl: the same pages every time, whatever the cap."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.frontier import Frontier, Order, Uncrawled
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from tests.local_crawl import CRAWLED, crawl_locally
from tests.servers import ORIGIN_FILES, Site, answer, redirect, routes, static_site


def order(*seeds: str, **chosen: object) -> tuple[Order, Frontier]:
    made = Order(seeds, CrawlSettings.model_validate(chosen))
    return made, made.first()


def rules(frontier: Frontier) -> list[tuple[str, str]]:
    return [(each.url, each.rule) for each in frontier.left_out]


def test_the_first_level_is_the_seeds() -> None:
    _, frontier = order("http://h/c", "http://h/a#x", "http://h/b.pdf?utm_id=1", "http://h/a", max_pages=2)
    assert (frontier.depth, frontier.urls) == (0, ["http://h/a", "http://h/b.pdf"])
    assert frontier.left_out == [Uncrawled("http://h/c", "max_pages", "max_pages is 2, this would be 3")]
    with pytest.raises(ValueError, match="not an absolute"):
        order("example.org")


def test_a_level_is_new_in_scope_sorted_and_capped() -> None:
    crawl, _ = order("http://h/a", max_pages=3)
    frontier = crawl.next(["http://h/d", "http://other/", "http://h/b", "http://h/a", "http://h/b", "http://h/c"])
    assert frontier.urls == ["http://h/b", "http://h/c"]
    assert rules(frontier) == [("http://h/d", "max_pages")]
    assert crawl.next(["http://h/d", "http://h/c"]) == Frontier(2, [], [])


def test_where_a_redirect_led_is_not_asked_again() -> None:
    crawl, _ = order("http://h/a")
    assert crawl.next(["http://h/b", "http://h/c"], ["http://h/c"]).urls == ["http://h/b"]


def test_a_level_below_the_depth_cap_is_left_out() -> None:
    crawl, _ = order("http://h/", max_depth=1)
    assert crawl.next(["http://h/x"]).urls == ["http://h/x"]
    frontier = crawl.next(["http://h/y"])
    assert frontier.left_out == [Uncrawled("http://h/y", "max_depth", "max_depth is 1, this would be 2")]
    assert frontier.urls == []


def test_downloads_are_not_asked_for_and_a_trap_is_named_once() -> None:
    crawl, _ = order("http://h/cal?m=1", max_levels_alike=3)
    found = ["http://h/a.tar.gz", "http://h/a.html", "http://h/File:a.png", "http://h/get.php?f=a.zip"]
    assert crawl.next([*found, "http://h/cal?m=2"]).urls == [
        "http://h/File:a.png",
        "http://h/a.html",
        "http://h/cal?m=2",
        "http://h/get.php?f=a.zip",
    ]
    assert crawl.next(["http://h/cal?m=3", "http://h/cal?m=4"]).urls == ["http://h/cal?m=3", "http://h/cal?m=4"]
    frontier = crawl.next(["http://h/cal?m=5", "http://h/a.tar.gz"])
    said = "max_levels_alike is 3, this would be 4 of pages like http://h/cal?m="
    assert frontier == Frontier(3, [], [Uncrawled("http://h/cal?m=5", "max_levels_alike", said)])
    assert crawl.next(["http://h/cal?m=5"]) == Frontier(4, [], [])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=5)), st.integers(1, 31), st.randoms())
def test_a_cap_takes_a_prefix_of_the_uncapped_order(graph: dict[int, list[int]], cap: int, random: object) -> None:
    def taken(max_pages: int) -> tuple[list[str], list[str]]:
        crawl = Order(["http://h/0"], CrawlSettings(max_pages=max_pages))
        frontier = crawl.first()
        asked: list[str] = []
        left_out: list[str] = []
        while frontier.urls:
            asked += frontier.urls
            pages = list(frontier.urls)
            random.shuffle(pages)  # type: ignore[attr-defined]  # answers come in any order
            frontier = crawl.next(
                f"http://h/{link}" for page in pages for link in graph.get(int(page.rpartition("/")[2]), [])
            )
            left_out += [page.url for page in frontier.left_out]
        return asked, left_out

    whole, none = taken(1000)
    capped, left_out = taken(cap)
    assert capped == whole[:cap]
    assert none == []
    assert bool(left_out) == (len(whole) > cap)
    assert len(set(whole)) == len(whole)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """0 links to 1 and 2, those to 3 and 4, those to 5."""
    for number, targets in {0: [2, 1], 1: [4, 0], 2: [3], 3: [5], 4: [5], 5: []}.items():
        anchors = "".join(f'<a href="{target}.html">x</a>' for target in targets)
        (tmp_path / f"{number}.html").write_text(f"<p>page {number} {anchors}<a href='gone.html'>x</a>")
    with static_site(tmp_path) as running:
        yield running


QUICK = CrawlSettings(allow_private_networks=True, per_host_delay=0)


def crawled(site: Site, **chosen: object) -> tuple[list[tuple[str, int, str]], list[Uncrawled]]:
    table, left_out = crawl_locally([site.url + "/0.html"], QUICK.model_copy(update=chosen), memory=HostMemory())
    assert table.schema.equals(CRAWLED)
    rows = table.select(["url", "depth", "status"]).to_pylist()
    return [(row["url"].removeprefix(site.url), row["depth"], row["status"]) for row in rows], left_out


def test_levels(site: Site) -> None:
    rows, left_out = crawled(site)
    assert rows == [
        ("/0.html", 0, "ok"),
        ("/1.html", 1, "ok"),
        ("/2.html", 1, "ok"),
        ("/gone.html", 1, "error"),
        ("/3.html", 2, "ok"),
        ("/4.html", 2, "ok"),
        ("/5.html", 3, "ok"),
    ]
    assert left_out == []


def test_caps_cut_the_same_order(site: Site) -> None:
    whole, _ = crawled(site)
    for cap in range(1, 8):
        rows, left_out = crawled(site, max_pages=cap)
        assert rows == whole[:cap]
        assert bool(left_out) == (cap < 7)
    rows, left_out = crawled(site, max_depth=1)
    assert rows == whole[:4]
    assert [page.url.removeprefix(site.url) for page in left_out] == ["/3.html", "/4.html"]


def test_two_crawls_give_the_same_table(site: Site) -> None:
    one, _ = crawl_locally([site.url + "/0.html"], QUICK, memory=HostMemory())
    two, _ = crawl_locally([site.url + "/0.html"], QUICK, memory=HostMemory())
    assert one.equals(two)


def test_redirect_targets_are_not_fetched_again_and_links_off_the_host_are_not_followed() -> None:
    with routes({"/": answer(body=b"<p><a href=/deep>x</a>")}) as other:
        table = {
            "/": answer(body=b"<p><a href=/old>x</a><a href=/away>x</a>"),
            "/old": redirect("/new"),
            "/new": answer(body=b"<p><a href=/new>x</a><a href=/>x</a>"),
            "/away": redirect(other.url + "/"),
        }
        with routes(table) as site:
            rows, _ = crawl_locally([site.url + "/"], QUICK, memory=HostMemory())
            assert rows["status"].to_pylist() == ["ok", "ok", "ok"]
            assert rows["final_url"].to_pylist() == [site.url + "/", other.url + "/", site.url + "/new"]
            assert site.paths().count("/new") == 1
            assert other.paths() == [*ORIGIN_FILES, "/"]


def test_no_seeds_no_rows() -> None:
    table, left_out = crawl_locally([], QUICK)
    assert table.equals(pa.table(CRAWLED.empty_table()))
    assert left_out == []
