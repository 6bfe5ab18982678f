"""Traps of a crawl: what is followed without end is bounded and named, what is merely large is not."""

from __future__ import annotations

import time

import pytest

from stages.web.settings import CrawlSettings
from stages.web.traps import Traps, is_download, shape_of


@pytest.mark.parametrize(
    ("url", "shape"),
    [
        ("http://h/cal/2031/03?day=4", "http://h/cal/N/N?day="),
        ("https://h:8080/a?b=1&a=2&b=3", "https://h:8080/a?a=&b="),
        ("http://h/s/0a1b2c3d4e5f6a7b8c9d/x", "http://h/s/*/x"),
        ("http://h/internationalization/x", "http://h/internationalization/x"),
        ("http://h/page12.html", "http://h/pageN.html"),
        ("http://h/?p7=1", "http://h/?pN="),
        ("http://h/", "http://h/"),
    ],
)
def test_shapes(url: str, shape: str) -> None:
    assert shape_of(url) == shape


@pytest.mark.parametrize(
    ("url", "download"),
    [
        ("http://h/a.PDF", True),
        ("http://h/a.tar.gz", True),
        ("http://h/a.pdf?page=2", True),
        ("http://h/wiki/File:A.png", False),
        ("http://h/a.pdf/", False),
        ("http://h/v1.2", False),
        ("http://h.zip/", False),
        ("http://h/zip", False),
        ("http://h/a.html", False),
    ],
)
def test_downloads(url: str, download: bool) -> None:
    assert is_download(url, CrawlSettings().skip_extensions) is download


def taken(urls: list[str], **chosen: int) -> list[bool]:
    """Of one URL a level, which are taken."""
    traps = Traps(CrawlSettings.model_validate(chosen))
    return [traps.take(url, depth) is None for depth, url in enumerate(urls)]


def test_a_calendar_ends() -> None:
    months = [f"http://h/cal/{1970 + number // 12}/{1 + number % 12:02}/" for number in range(300)]
    assert taken(months) == [True] * 200 + [False] * 100
    sessions = [f"http://h/s{number:020x}/home" for number in range(10**16, 10**16 + 300)]
    assert taken(sessions) == [True] * 200 + [False] * 100


def test_what_is_merely_large_is_taken_whole() -> None:
    traps = Traps(CrawlSettings())
    articles = [f"http://h/article/{number}" for number in range(9000)]
    assert not any(traps.take(url, number // 100) for number, url in enumerate(articles))
    wiki = [f"http://h/index.php?title=A{number}" for number in range(5000)]
    assert not any(traps.take(url, 1) for url in wiki)
    named = [f"http://h/{''.join(chr(97 + int(digit)) for digit in str(number))}" for number in range(300)]
    assert all(taken(named))


def test_queries_without_end_are_bounded_by_path() -> None:
    traps = Traps(CrawlSettings(max_queries_of_path=3))
    made = [traps.take(f"http://h/list?{'&'.join(f'f{each}=1' for each in range(n))}", 1) for n in range(1, 6)]
    assert made[:3] == [None] * 3
    assert made[3] == ("max_queries_of_path", "max_queries_of_path is 3, this would be 4 of http://h/list")
    assert traps.take("http://h/other?f=1", 1) is None
    assert traps.take("http://h/list", 1) is None


def test_paths_that_grow_end() -> None:
    paths = ["http://h/" + "a/b/" * number for number in range(6)]
    assert taken(paths) == [True] * 4 + [False] * 2
    long = "http://h/" + "/".join(chr(97 + number) for number in range(21))
    assert taken([long]) == [False]
    assert taken([long.rpartition("/")[0]]) == [True]


def test_hostile_urls_take_no_time() -> None:
    start = time.process_time()
    for text in ("a" * 8000, "1" * 8000, "a1" * 4000, "/" * 8000, "?" + "&" * 8000, "a." * 4000):
        url = "http://h/" + text
        shape_of(url)
        is_download(url, ("zip",))
        taken([url])
    assert time.process_time() - start < 1.0
