"""The order of a crawl: breadth-first levels, each sorted, so that a cap gives the same pages every time.

A level is fetched by whoever the runner chooses, in any order; the next level depends on the set of links
found alone. The crawl is then a pure function of what the servers answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

import pyarrow as pa

from stages.crawl_settings import CrawlSettings
from stages.fetched import FETCHED
from stages.http import fetch
from stages.links import in_scope, links
from stages.politeness import PROCESS_MEMORY, HostMemory
from stages.urls import canonicalize


@dataclass(frozen=True)
class Uncrawled:
    """A page left out by a cap, for a decision row: rule, measured value, upper bound."""

    url: str
    rule: str  # "max_pages" | "max_depth"
    value: float
    high: float


@dataclass(frozen=True)
class Frontier:
    """One level of a crawl."""

    depth: int
    """Links from the nearest seed."""
    urls: list[str]
    """Canonical, distinct, sorted, none of them seen before."""
    left_out: list[Uncrawled] = field(default_factory=list)
    """In scope but over a cap, sorted by URL."""
    num_out_of_scope: int = 0
    """Distinct new URLs that the scope leaves out."""


def first_frontier(seeds: Iterable[str], settings: CrawlSettings) -> Frontier:
    """Level 0: the seeds, cut at the page cap. ValueError for a seed that is no http(s) URL."""
    urls = sorted({canonicalize(seed, drop_parameters=settings.drop_parameters) for seed in seeds})
    return _capped(urls, 0, settings, num_taken=0)


def next_frontier(
    found: Iterable[str],
    seen: Set[str],
    *,
    seeds: Iterable[str],
    depth: int,
    num_taken: int,
    settings: CrawlSettings,
) -> Frontier:
    """The level at `depth`, from the canonical links `found` on the level before.

    `seen`: URLs of all levels so far, and the final URLs that their redirects led to. `num_taken`: URLs of all
    levels so far, which the page cap counts whether or not they could be fetched.
    """
    new = sorted(set(found).difference(seen))
    seeds = tuple(seeds)
    urls = [url for url in new if in_scope(url, seeds, settings)]
    num_out_of_scope = len(new) - len(urls)
    if settings.max_depth is not None and depth > settings.max_depth:
        left_out = [Uncrawled(url, "max_depth", depth, settings.max_depth) for url in urls]
        return Frontier(depth, [], left_out, num_out_of_scope)
    return _capped(urls, depth, settings, num_taken, num_out_of_scope)


def _capped(
    urls: list[str], depth: int, settings: CrawlSettings, num_taken: int, num_out_of_scope: int = 0
) -> Frontier:
    room = max(0, settings.max_pages - num_taken)
    position = num_taken + room
    left_out = [
        Uncrawled(url, "max_pages", number, settings.max_pages)
        for number, url in enumerate(urls[room:], start=position + 1)
    ]
    return Frontier(depth, urls[:room], left_out, num_out_of_scope)


CRAWLED = FETCHED.append(pa.field("depth", pa.int32(), nullable=False))


def crawl_locally(
    seeds: Iterable[str], settings: CrawlSettings, *, memory: HostMemory = PROCESS_MEMORY
) -> tuple[pa.Table, list[Uncrawled]]:
    """Crawl in this process: FETCHED rows with `depth`, by level and URL, and the pages that a cap left out.

    The reference for what a distributed crawl must give; it keeps every body in memory.
    """
    frontier = first_frontier(seeds, settings)
    canonical_seeds = tuple(sorted([*frontier.urls, *(page.url for page in frontier.left_out)]))
    seen: set[str] = set()
    levels: list[pa.Table] = []
    left_out = list(frontier.left_out)
    num_taken = 0
    while frontier.urls:
        batches = list(fetch(frontier.urls, settings, kind="page", max_bytes=settings.max_page_bytes, memory=memory))
        level = pa.concat_tables(batches).sort_by("url")
        levels.append(level.append_column(CRAWLED.field("depth"), pa.array([frontier.depth] * len(level), pa.int32())))
        num_taken += len(frontier.urls)
        seen.update(frontier.urls)
        found: set[str] = set()
        for row in level.select(["status", "final_url", "body", "content_type"]).to_pylist():
            if row["final_url"] is not None:
                seen.add(row["final_url"])
            if row["status"] == "ok" and in_scope(row["final_url"], canonical_seeds, settings):
                found.update(links(row["body"], row["content_type"], row["final_url"], settings))
        frontier = next_frontier(
            found, seen, seeds=canonical_seeds, depth=frontier.depth + 1, num_taken=num_taken, settings=settings
        )
        left_out += frontier.left_out
    return (pa.concat_tables(levels) if levels else CRAWLED.empty_table()), left_out
