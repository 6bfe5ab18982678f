"""A whole crawl in this process: what the crawl on a cluster must give."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from stages.web.client import fetch
from stages.web.fetched import FETCHED
from stages.web.frontier import Uncrawled, first_frontier, next_frontier
from stages.web.links import in_scope, links
from stages.web.politeness import PROCESS_MEMORY, HostMemory
from stages.web.settings import CrawlSettings

CRAWLED = FETCHED.append(pa.field("depth", pa.int32(), nullable=False))


def crawl_locally(
    seeds: Iterable[str], settings: CrawlSettings, *, memory: HostMemory = PROCESS_MEMORY
) -> tuple[pa.Table, list[Uncrawled]]:
    """Crawl in this process: FETCHED rows with `depth`, by level and URL, and the pages that a cap left out."""
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
