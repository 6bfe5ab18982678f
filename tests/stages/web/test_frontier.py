"""The order of a crawl: the same pages every time, whatever the cap."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.web.frontier import Uncrawled, first_frontier, next_frontier
from stages.web.politeness import HostMemory
from stages.web.settings import CrawlSettings
from tests.local_crawl import CRAWLED, crawl_locally
from tests.servers import Site, answer, redirect, routes, static_site


def test_the_first_level_is_the_seeds() -> None:
    chosen = CrawlSettings(max_pages=2)
    frontier = first_frontier(["http://h/c", "http://h/a#x", "http://h/b?utm_id=1", "http://h/a"], chosen)
    assert (frontier.depth, frontier.urls) == (0, ["http://h/a", "http://h/b"])
    assert frontier.left_out == [Uncrawled("http://h/c", "max_pages", 3, 2)]
    with pytest.raises(ValueError, match="not an absolute"):
        first_frontier(["example.org"], chosen)


def test_a_level_is_new_in_scope_sorted_and_capped() -> None:
    found = ["http://h/d", "http://other/", "http://h/b", "http://h/a", "http://h/b", "http://h/c"]
    frontier = next_frontier(
        found, {"http://h/a"}, seeds=["http://h/a"], depth=1, num_taken=1, settings=CrawlSettings(max_pages=3)
    )
    assert frontier.urls == ["http://h/b", "http://h/c"]
    assert frontier.left_out == [Uncrawled("http://h/d", "max_pages", 4, 3)]
    assert frontier.num_out_of_scope == 1


def test_a_level_below_the_depth_cap_is_left_out() -> None:
    chosen = CrawlSettings(max_depth=1)
    frontier = next_frontier(["http://h/x"], set(), seeds=["http://h/"], depth=2, num_taken=9, settings=chosen)
    assert frontier.urls == []
    assert frontier.left_out == [Uncrawled("http://h/x", "max_depth", 2, 1)]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=5)), st.integers(1, 31), st.randoms())
def test_a_cap_takes_a_prefix_of_the_uncapped_order(graph: dict[int, list[int]], cap: int, random: object) -> None:
    def order(max_pages: int) -> tuple[list[str], list[str]]:
        chosen = CrawlSettings(max_pages=max_pages)
        frontier = first_frontier(["http://h/0"], chosen)
        taken: list[str] = []
        left_out: list[str] = []
        while frontier.urls:
            taken += frontier.urls
            pages = list(frontier.urls)
            random.shuffle(pages)  # type: ignore[attr-defined]  # answers come in any order
            found = [f"http://h/{link}" for page in pages for link in graph.get(int(page.rpartition("/")[2]), [])]
            frontier = next_frontier(
                found, set(taken), seeds=["http://h/0"], depth=frontier.depth + 1, num_taken=len(taken), settings=chosen
            )
            left_out += [page.url for page in frontier.left_out]
        return taken, left_out

    whole, none = order(1000)
    capped, left_out = order(cap)
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
            assert other.paths() == ["/robots.txt", "/"]


def test_no_seeds_no_rows() -> None:
    table, left_out = crawl_locally([], QUICK)
    assert table.equals(pa.table(CRAWLED.empty_table()))
    assert left_out == []
